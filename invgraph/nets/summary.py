"""Networks for a :class:`~invgraph.FeatureNode`: summaries of series and of sets, and fixed standardization."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from invgraph.arguments import as_numbers
from invgraph.errors import GraphError, ShapeError
from invgraph.numerics.seeding import to_defaults
from invgraph.shapes import as_shape


class Standardizer(nn.Module):
    r"""Subtract a fixed mean from a condition and divide by a fixed standard deviation.

    .. math:: y = (x - \mu) / \sigma

    Arguments:
        mean: Mean, of the shape of the condition or of one that broadcasts to it. Part of the ``state_dict``.
        std: Standard deviation, likewise, positive.

    Raises:
        GraphError: If ``std`` is not positive, or either is not finite.

    Example:
        >>> import torch, invgraph as ig
        >>> observations = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
        >>> net = ig.nets.Standardizer(observations.mean(0), observations.std(0))
        >>> net(observations)
        tensor([[-0.7071, -0.7071],
                [ 0.7071,  0.7071]])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Any, std: Any) -> None:
        super().__init__()
        self.register_buffer("mean", to_defaults(as_numbers("Standardizer", "mean", mean)).clone())
        self.register_buffer("std", to_defaults(as_numbers("Standardizer", "std", std)).clone())
        if not bool(self.mean.isfinite().all() & self.std.isfinite().all()):
            raise GraphError("Standardizer", "mean or std with NaN or infinity", "both must be finite")
        if not bool((self.std > 0).all()):
            advice = "std must be positive: leave out elements that are constant in the training set"
            raise GraphError("Standardizer", f"std with minimum {self.std.min().item():g}", advice)

    def forward(self, x: Tensor) -> Tensor:
        """Return standardized conditions, of the same shape ``(B, ...)``.

        Raises:
            ShapeError: If the mean and the standard deviation do not broadcast to one condition.
        """
        shape = torch.broadcast_shapes(self.mean.shape, self.std.shape)
        fits = all(size in (1, own) for size, own in zip(reversed(shape), reversed(x.shape), strict=False))
        if len(shape) >= x.ndim or not fits:
            given = f"conditions of shape {tuple(x.shape)}, mean and std of shape {tuple(shape)}"
            raise ShapeError("Standardizer", given, "expected conditions (B, ...), to one of which these broadcast")
        return (x - self.mean) / self.std


class SeriesSummary(nn.Module):
    """Summary of a series by strided convolutions: ``(B, channels, length) -> (B, features)``.

    Each stage halves the length and doubles the width, down to a handful of steps, which one linear layer reads. The
    summary therefore depends on where in the series something happens, and works only for the given length.

    Arguments:
        channels: Number of channels of the series.
        length: Number of steps, at least 8.
        features: Number of features that are returned.
        hidden: Width of the first stage. Default: 16.

    Raises:
        GraphError: If a size is out of range.

    References:
        S. T. Radev et al., "BayesFlow: Learning complex stochastic models with invertible neural networks", 2020,
        https://arxiv.org/abs/2003.06281

    Example:
        >>> import torch, invgraph as ig
        >>> series = ig.ConditionNode(2, 100, name="series")
        >>> args = {"channels": 2, "length": 100, "features": 8}
        >>> ig.FeatureNode(series, ig.nets.SeriesSummary, args, name="summary")
        <feature 'summary': (8,)>
    """

    def __init__(self, channels: int, length: int, features: int, hidden: int = 16) -> None:
        super().__init__()
        channels, length, features, hidden = as_shape((channels, length, features, hidden), "SeriesSummary")
        if length < 8:
            raise GraphError("SeriesSummary", f"length={length}", "length must be at least 8: use a Flatten and an MLP")
        stages: list[nn.Module] = []
        while length > 6:
            stages += [nn.Conv1d(channels, hidden, 5, stride=2, padding=2), nn.SiLU()]
            channels, hidden, length = hidden, min(2 * hidden, 128), (length + 1) // 2
        self.stages = nn.Sequential(*stages)
        self.last = nn.Sequential(nn.Flatten(), nn.Linear(channels * length, 64), nn.SiLU(), nn.Linear(64, features))

    def forward(self, series: Tensor) -> Tensor:
        """Return the features, shape ``(B, features)``."""
        features: Tensor = self.last(self.stages(series))
        return features


class SetSummary(nn.Module):
    """Summary of a set that does not depend on its order: ``(B, observations, size) -> (B, features)``.

    One network reads each observation, the results are averaged, and another network reads the average and the
    logarithm of the number of observations. It works for sets of any size; in a graph, the condition node fixes the
    size, and ``graph.at`` returns the graph for another one.

    Arguments:
        size: Number of values of one observation.
        features: Number of features that are returned.
        hidden: Width of both networks. Default: 64.

    Raises:
        GraphError: If a size is out of range.

    References:
        M. Zaheer et al., "Deep Sets", 2017, https://arxiv.org/abs/1703.06114; S. T. Radev et al., "BayesFlow", 2020,
        https://arxiv.org/abs/2003.06281

    Example:
        >>> import torch, invgraph as ig
        >>> net = ig.nets.SetSummary(size=2, features=8)
        >>> observations = torch.randn(5, 30, 2)
        >>> torch.allclose(net(observations), net(observations.flip(1)), atol=1e-5)
        True
    """

    def __init__(self, size: int, features: int, hidden: int = 64) -> None:
        super().__init__()
        size, features, hidden = as_shape((size, features, hidden), "SetSummary")
        self.each = nn.Sequential(
            nn.Linear(size, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, hidden)
        )
        self.together = nn.Sequential(nn.Linear(hidden + 1, hidden), nn.SiLU(), nn.Linear(hidden, features))

    def forward(self, observations: Tensor) -> Tensor:
        """Return the features, shape ``(B, features)``."""
        mean = self.each(observations).mean(1)
        count = mean.new_full((mean.shape[0], 1), observations.shape[1]).log()
        features: Tensor = self.together(torch.cat((mean, count), 1))
        return features
