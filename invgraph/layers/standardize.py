"""Fixed standardization of the data: shift and scale from a training set."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from invgraph.arguments import as_filled
from invgraph.core.invertible import Invertible, Result
from invgraph.errors import GraphError
from invgraph.numerics.seeding import to_defaults
from invgraph.shapes import Tensors


class Standardize(Invertible):
    r"""Subtract a fixed mean and divide by a fixed standard deviation, element by element.

    .. math:: y = (x - \mu) / \sigma

    With mean and deviation of the training set, the other layers work on numbers of order one, while densities and
    samples stay in the units of the data. Nothing is learned; :class:`~invgraph.ActNorm` starts in the same way and is
    trained.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``

    Log-det:
        :math:`-\sum \log \sigma` over all elements, nats per sample.

    Arguments:
        in_shapes: Shape of the input.
        mean: Mean, of the shape of the input or of one that broadcasts to it. Part of the ``state_dict``.
        std: Standard deviation, positive, likewise.

    Raises:
        ArgumentError: If an argument is not a tensor or nested lists of numbers.
        GraphError: If an argument has another shape, is not finite, or ``std`` is not positive.

    References:
        Y. LeCun, L. Bottou, G. B. Orr, K.-R. Müller, "Efficient BackProp", 1998, section 4.3,
        https://doi.org/10.1007/3-540-49430-8_2

    Example:
        >>> import torch, invgraph as ig
        >>> layer = ig.Standardize((2,), mean=[1.0, 2.0], std=[0.5, 4.0])
        >>> (y,), log_det = layer((torch.tensor([[2.0, 2.0]]),))
        >>> y, log_det  # -log(0.5 * 4)
        (tensor([[2., 0.]]), tensor([-0.6931]))
    """

    mean: Tensor
    std: Tensor

    def __init__(self, in_shapes: object, cond_shapes: object = (), *, mean: Any, std: Any) -> None:
        super().__init__(in_shapes, cond_shapes)
        shape = self.in_shapes[0]
        self.register_buffer("mean", to_defaults(as_filled("Standardize", "mean", mean, shape)))
        deviation = as_filled("Standardize", "std", std, shape)
        if not bool((deviation > 0).all()):
            advice = "std must be positive: leave out elements that are constant in the training set"
            raise GraphError("Standardize", f"std with minimum {deviation.min().item():g}", advice)
        self.register_buffer("std", to_defaults(deviation))

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        return ((xs[0] - self.mean) / self.std,), -self._log_scale(xs[0])

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        return (ys[0] * self.std + self.mean,), self._log_scale(ys[0])

    def _log_scale(self, x: Tensor) -> Tensor:
        return self.std.log().sum().expand(x.shape[0])
