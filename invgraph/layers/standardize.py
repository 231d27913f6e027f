"""Standardization of the data by known moments, such as those of a training set."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from invgraph.arguments import as_filled, require_flag
from invgraph.core.invertible import Invertible, Result
from invgraph.core.ranges import Ends, Knowns, filled
from invgraph.errors import GraphError
from invgraph.numerics.seeding import to_defaults
from invgraph.shapes import Shape, Tensors, numel
from invgraph.torch_internals import has_data


class Standardize(Invertible):
    r"""Subtract a known mean and divide by a known standard deviation, element by element.

    .. math:: y = (x - \mu) / \sigma

    With the mean and deviation of the training set, the other layers work on values of order one, while densities and
    samples stay in the units of the data. With ``learned=True``, they are initial values of learned parameters. For
    moments of a batch, see :class:`~invgraph.ActNorm`; for a whole covariance, ``FixedLinear(matrix=..., shift=...)``.
    ``ig.Inverse(ig.Standardize(...))`` is :math:`\sigma x + \mu`.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``

    Log-det:
        :math:`-\sum \log \sigma` over all elements, nats per sample.

    Arguments:
        in_shapes: Shape of the input.
        mean: Mean, of the shape of the input or of one that broadcasts to it: ``(C, 1, 1)`` for the channels of images.
            Part of the ``state_dict``. Default: 0.
        std: Standard deviation, positive, likewise. Default: 1.
        learned: True to train the mean and the log of the deviation. Default: False.

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

    range_kind = "any"
    fixed_size_reason = None
    mean: Tensor
    std: Tensor
    log_std: Tensor

    def __init__(
        self, in_shapes: object, cond_shapes: object = (), *, mean: Any = 0.0, std: Any = 1.0, learned: bool = False
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        self.learned = require_flag("Standardize", "learned", learned)
        start, deviation = self._as_given("mean", mean), self._as_given("std", std)
        if not bool((deviation.to(torch.get_default_dtype()) > 0).all()):
            advice = "std must be positive: leave out elements that are constant in the training set"
            raise GraphError("Standardize", f"std with minimum {deviation.min().item():g}", advice)
        if self.learned:
            self.mean, self.log_std = nn.Parameter(to_defaults(start)), nn.Parameter(to_defaults(deviation.log()))
        else:
            self.register_buffer("mean", to_defaults(start))
            self.register_buffer("std", to_defaults(deviation))

    def _as_given(self, name: str, values: Any) -> Tensor:
        """Return numbers in the shape they were given, which broadcasts to that of the input."""
        shape = self.in_shapes[0]
        full = as_filled("Standardize", name, values, shape)
        given = torch.as_tensor(values).shape
        sizes = (1,) * (len(shape) - len(given)) + tuple(given)
        return full[tuple(slice(0, size) for size in sizes)].clone()

    def _resize(self, before: tuple[Shape, ...]) -> None:
        super()._resize(before)
        for values in (self.mean, self._std()):
            if values[0].numel() > 1:
                given = f"input of shape {self.in_shapes[0]} instead of {before[0]}"
                advice = "it has a mean or deviation for each position: give one for each channel"
                raise GraphError(self.label, given, f"its size can't change: {advice}")

    def _follow(self, intervals: Knowns, *, inverse: bool) -> Knowns:
        (interval,) = intervals
        if interval is None or self.learned or not has_data(self.mean):
            return super()._follow(intervals, inverse=inverse)
        (ends,) = self._follow_ends((filled(interval, self.in_shapes[0]),), inverse=inverse)
        return (None if ends is None else type(interval)(ends[0].min().item(), ends[1].max().item()),)

    def _follow_ends(self, ends: Ends, *, inverse: bool) -> Ends:
        if ends[0] is None or self.learned:  # which training moves
            return super()._follow_ends(ends, inverse=inverse)
        return (self._inverse if inverse else self._forward)((ends[0].to(self.mean),), ())[0]

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        return ((xs[0] - self.mean) / self._std(),), -self._log_scale(xs[0])

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        return (ys[0] * self._std() + self.mean,), self._log_scale(ys[0])

    def _std(self) -> Tensor:
        return self.log_std.exp() if self.learned else self.std

    def _log_scale(self, x: Tensor) -> Tensor:
        """Return the sum of the logs of all deviations, for each row."""
        log_std = self.log_std if self.learned else self.std.log()
        return (log_std.sum() * (numel(self.in_shapes) // log_std.numel())).expand(x.shape[0])

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, learned=True" if self.learned else super().extra_repr()
