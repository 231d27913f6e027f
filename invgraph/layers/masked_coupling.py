"""Coupling whose two parts are selected by a mask: a checkerboard, every other channel, or any other pattern."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

from invgraph.arguments import require_choice
from invgraph.core.constants import WithConstants
from invgraph.core.given import Precomputed, pick
from invgraph.core.invertible import Invertible, Result
from invgraph.core.ranges import Knowns
from invgraph.core.subnet import Subnet, check_subnet, make_subnet
from invgraph.errors import ArgumentError, GraphError
from invgraph.shapes import Shape, Tensors
from invgraph.transforms.transform import Direction, Transform, follow_part, require_transform

_PATTERNS = ("checkerboard", "channel")


class MaskedCoupling(WithConstants, Invertible):
    r"""Transform the elements outside a mask given those inside it, then those inside given those outside.

    .. math:: y = m \odot x + (1 - m) \odot T(x;\ \theta(m \odot x, c))

    The subnet reads the whole input, with zeros outside the mask, so spatial structure is preserved. For parts that are
    blocks of channels, :class:`~invgraph.Coupling` does the same at half the cost.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``; conditions ``(B, C_c)`` or ``(B, C_c, ...)`` of the same spatial size.

    Log-det:
        Sum of the transform's log-determinants over the transformed elements, nats per sample.

    Arguments:
        in_shapes: Shape of the input.
        cond_shapes: Shapes of the conditions.
        transform: Elementwise transform, e.g. ``Affine()``.
        subnet: Factory ``f(channels_in, channels_out) -> nn.Module``, called once per side.
        mask: Elements m that stay unchanged on the first side: ``"checkerboard"`` (default) over the positions (over
            the elements of a vector), ``"channel"`` for every other channel, or a boolean tensor of the shape of the
            input.
        sides: Number of parts to transform: 2 for both, 1 for the elements outside the mask only. Default: 2.

    Raises:
        GraphError: If a part is empty, the mask has another shape, or a subnet does not fit.
        ArgumentError: If an argument has the wrong type.

    References:
        L. Dinh, J. Sohl-Dickstein, S. Bengio, "Density estimation using Real NVP", 2016,
        https://arxiv.org/abs/1605.08803

    Example:
        >>> import torch, invgraph as ig
        >>> args = {"transform": ig.Affine(), "subnet": ig.nets.ConvNet(hidden=8)}
        >>> (y,), log_det = ig.MaskedCoupling((1, 4, 4), **args)((torch.zeros(2, 1, 4, 4),))
        >>> y.shape, log_det.shape
        (torch.Size([2, 1, 4, 4]), torch.Size([2]))
    """

    conditional = True
    fixed_size_reason = None
    mask: Tensor
    order: Tensor
    restore: Tensor

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        transform: Transform,
        subnet: object,
        mask: str | Tensor = "checkerboard",
        sides: int = 2,
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        require_transform("MaskedCoupling", transform)
        sides = require_choice("MaskedCoupling", "sides", sides, (1, 2))
        self.transform = transform
        flat = _make_mask(self.in_shapes[0], mask).flatten()
        # The mask is not saved: its name or digest, as part of extra_repr, is what a checkpoint is compared by.
        self.pattern = mask if isinstance(mask, str) else f"given {_digest(flat)}"
        self.count = int(flat.sum())
        self.kept = bytes(flat.tolist())
        self._register_constants()
        self.subnets = nn.ModuleList(
            make_subnet("MaskedCoupling", subnet, *self._subnet_shapes()) for _ in range(sides)
        )

    def _subnet_shapes(self) -> tuple[Shape, tuple[Shape, ...], Shape]:
        """Return the shapes of what each subnet reads, as data and conditions, and of what it returns."""
        channels, *sizes = shape = self.in_shapes[0]
        return shape, self.cond_shapes, (channels * self.transform.params_per_element, *sizes)

    def _resize(self, before: tuple[Shape, ...]) -> None:
        super()._resize(before)
        if self.pattern not in _PATTERNS:
            given = f"input of shape {self.in_shapes[0]} instead of {before[0]}"
            advice = f"its mask was given for one size; {' and '.join(map(repr, _PATTERNS))} work at any size"
            raise GraphError(self.label, given, f"its size can't change: {advice}")
        flat = _make_mask(self.in_shapes[0], self.pattern).flatten()
        self.count, self.kept = int(flat.sum()), bytes(flat.tolist())
        self._renew_constants()
        for net in self.subnets:
            check_subnet(self.label, cast(Subnet, net), *self._subnet_shapes())

    def _constants(self) -> dict[str, Tensor]:
        mask = torch.tensor(list(self.kept), dtype=torch.bool, device="cpu")
        # With the kept elements first, each part is a slice.
        order = torch.cat((mask.nonzero()[:, 0], mask.logical_not().nonzero()[:, 0]))
        # Not boolean: AveragedModel(use_buffers=True) subtracts buffers.
        return {"mask": mask.view(self.in_shapes[0]).to(torch.uint8), "order": order, "restore": order.argsort()}

    def precompute(self, cs: Tensors) -> Precomputed:
        return Precomputed([cast(Subnet, net).prepare(cs) for net in self.subnets])

    def _forward(self, xs: Tensors, given: Any) -> Result:
        return self._transform(xs[0], given, self.transform.forward, range(len(self.subnets)))

    def _inverse(self, ys: Tensors, given: Any) -> Result:
        return self._transform(ys[0], given, self.transform.inverse, reversed(range(len(self.subnets))))

    def _transform(self, x: Tensor, given: Any, transform: Direction, sides: Iterable[int]) -> Result:
        log_det = x.new_zeros(x.shape[0])
        for side in sides:
            x, more = self._transform_side(side, x, given, transform)
            log_det = log_det + more
        return (x,), log_det

    def _transform_side(self, side: int, x: Tensor, given: Any, transform: Direction) -> tuple[Tensor, Tensor]:
        """Transform one part given the other: side 0 the elements outside the mask, side 1 those inside it."""
        kept = torch.where(self.mask == (0 if side else 1), x, 0.0)
        output = self.subnets[side](kept, pick(given, side)).to(x.dtype)
        params = torch.unflatten(output, 1, (self.transform.params_per_element, x.shape[1])).flatten(2)
        params = params[:, :, self.order]
        values = x.flatten(1)[:, self.order]
        part = slice(None, self.count) if side else slice(self.count, None)
        changed, log_det = transform(values[:, part], params[:, :, part])
        pair = (changed, values[:, self.count :]) if side else (values[:, : self.count], changed)
        return torch.cat(pair, dim=1)[:, self.restore].view_as(x), log_det

    def _follow(self, intervals: Knowns, *, inverse: bool) -> Knowns:
        return (follow_part((self.transform,), intervals[0], inverse=inverse),)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.transform}, mask={self.pattern}"


def _digest(mask: Tensor) -> str:
    """Return a short digest of the elements of a mask, the same in every process."""
    return hashlib.sha256(bytes(mask.tolist())).hexdigest()[:12]


def _make_mask(shape: Shape, mask: object) -> Tensor:
    """Return a boolean tensor of this shape, neither all True nor all False."""
    if isinstance(mask, Tensor):
        kept, given = mask.detach().to("cpu", copy=True), f"a mask of shape {tuple(mask.shape)}"
        if kept.dtype != torch.bool:
            raise ArgumentError("MaskedCoupling", f"a mask of {kept.dtype}", "a mask is a boolean tensor")
        if tuple(kept.shape) != shape:
            raise GraphError("MaskedCoupling", given, f"expected the shape of the input, {shape}")
    elif isinstance(mask, str) and mask in _PATTERNS:
        # A vector has no positions: both patterns select every other element.
        axes = range(1, len(shape)) if mask == "checkerboard" and len(shape) > 1 else range(1)
        places = torch.zeros(shape, dtype=torch.int64, device="cpu")
        for axis in axes:
            places = places + torch.arange(shape[axis], device="cpu").view(-1, *(1 for _ in shape[axis + 1 :]))
        kept, given = places % 2 == 0, f"mask={mask!r} for an input of shape {shape}"
    else:
        names = " or ".join(map(repr, _PATTERNS))
        raise ArgumentError("MaskedCoupling", f"mask={mask!r}", f"mask must be {names}, or a boolean tensor")
    if bool(kept.all()) or not bool(kept.any()):
        advice = "both parts need at least one element"
        raise GraphError(
            "MaskedCoupling", given, f"{advice}: use Elementwise for a single element" if kept.numel() == 1 else advice
        )
    return kept
