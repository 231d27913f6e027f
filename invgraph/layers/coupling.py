"""Coupling block: each part of the channels is transformed given the other part and the conditions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from invgraph.arguments import require_choice, require_flag
from invgraph.core.given import Precomputed, pick
from invgraph.core.invertible import Invertible, Result
from invgraph.core.ranges import Knowns
from invgraph.core.subnet import Subnet, check_subnet, make_subnet
from invgraph.core.vjp import CouplingSide, Grads, LayerGrads, ParameterGrads, vjp_of_coupling
from invgraph.errors import GraphError
from invgraph.fused.affine_coupling import AffineCoupling, as_affine_coupling
from invgraph.fused.dispatch import is_usable_for
from invgraph.numerics.channels import split_sizes
from invgraph.numerics.interval import REALS, hull
from invgraph.shapes import Shape, Tensors
from invgraph.transforms.affine import has_kernel
from invgraph.transforms.transform import Transform, require_transform


class Coupling(Invertible):
    r"""Transform each part of the channels given the other part and the conditions (the paper's CC block).

    The channels are split into :math:`u = (u_1, u_2)`. With an affine transform (paper, Eqs. 1 and 2):

    .. math:: v_1 = u_1 \exp(s_1(u_2, c)) + t_1(u_2, c), \qquad v_2 = u_2 \exp(s_2(v_1, c)) + t_2(v_1, c)

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``, C at least 2; conditions ``(B, C_c)`` or ``(B, C_c, ...)`` of the same
        spatial size.

    Log-det:
        Sum of the transform's log-determinants over both parts, nats per sample.

    Arguments:
        in_shapes: Shape of the input.
        cond_shapes: Shapes of the conditions.
        transform: Elementwise transform, e.g. ``Affine(clamp=1.9)``; or a pair, of :math:`u_1` and of :math:`u_2`.
        subnet: Factory ``f(channels_in, channels_out) -> nn.Module``, e.g. ``nets.MLP(512)``, called once per side. If
            it returns an ordinary module, data and conditions are concatenated for it.
        sides: Number of parts to transform: 2 for both, 1 for one of them. Default: 2.
        split: Number of channels of :math:`u_1`, or their fraction (rounded down). Default: 0.5.
        part: Part that is transformed first, or alone: 1 for :math:`u_1`, 2 for :math:`u_2`. Default: 1.
        separate: True for one subnet per parameter of the transform (RealNVP) instead of one for all (GLOW).

    Raises:
        GraphError: The channels can't be split in this way, or a subnet does not fit.
        ArgumentError: An argument has the wrong type.

    References:
        L. Dinh, J. Sohl-Dickstein, S. Bengio, "Density estimation using Real NVP", 2016,
        https://arxiv.org/abs/1605.08803; D. P. Kingma, P. Dhariwal, "Glow", 2018, https://arxiv.org/abs/1807.03039;
        L. Ardizzone et al., "Guided Image Generation with Conditional Invertible Neural Networks", 2019,
        https://arxiv.org/abs/1907.02392

    Example:
        >>> import torch, invgraph as ig
        >>> block = ig.Coupling((4,), ((10,),), transform=ig.Affine(clamp=1.0), subnet=ig.nets.MLP(hidden=16))
        >>> (y,), log_det = block((torch.zeros(2, 4),), (torch.zeros(2, 10),))
        >>> y.shape, log_det.shape
        (torch.Size([2, 4]), torch.Size([2]))
    """

    conditional = True
    compile_as_region = True
    fixed_size_reason = None
    transform: Any  # a Transform, or one for each part; only an Affine has a kernel
    _fused: AffineCoupling | None = None

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        transform: Transform | tuple[Transform, Transform],
        subnet: object,
        sides: int = 2,
        split: float = 0.5,
        part: int = 1,
        separate: bool = False,
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        require_flag("Coupling", "separate", separate)
        sides = require_choice("Coupling", "sides", sides, (1, 2))
        part = require_choice("Coupling", "part", part, (1, 2))
        self.transform = _require_transforms(transform, sides)
        self.parts = (part - 1, 2 - part)[:sides]  # indices of the parts, in the order in which they are transformed
        self.sizes = split_sizes("Coupling", self.in_shapes[0], split)
        self.subnets = nn.ModuleList()
        for side in range(sides):
            copies = self._transform_of(side).params_per_element if separate else 1
            shapes = self._subnet_shapes(side, copies)
            self.subnets.append(nn.ModuleList(make_subnet("Coupling", subnet, *shapes) for _ in range(copies)))

    def _transform_of(self, side: int) -> Transform:
        given = self.transform
        chosen: Transform = given[self.parts[side]] if isinstance(given, tuple) else given
        return chosen

    def _subnet_shapes(self, side: int, copies: int) -> tuple[Shape, tuple[Shape, ...], Shape]:
        """Return the shapes of what each subnet of a side reads, as data and conditions, and of what it returns."""
        part, sizes = self.parts[side], self.in_shapes[0][1:]
        written = self.sizes[part] * self._transform_of(side).params_per_element // copies
        return (self.sizes[1 - part], *sizes), self.cond_shapes, (written, *sizes)

    def _resize(self, before: tuple[Shape, ...]) -> None:
        super()._resize(before)
        for side in range(len(self.subnets)):
            nets = self._nets(side)
            for net in nets:
                check_subnet(self.label, net, *self._subnet_shapes(side, len(nets)))

    def precompute(self, cs: Tensors) -> Precomputed:
        return Precomputed([Precomputed([net.prepare(cs) for net in self._nets(k)]) for k in range(len(self.subnets))])

    def _forward(self, xs: Tensors, given: Any) -> Result:
        kernel = self._kernel(xs[0], given)
        if kernel is not None:
            return kernel.run(self.transform.kernel(inverse=False), xs[0], given, bound=isinstance(given, Precomputed))
        return self._transform(xs[0], given, range(len(self.subnets)), inverse=False)

    def _inverse(self, ys: Tensors, given: Any) -> Result:
        kernel = self._kernel(ys[0], given)
        if kernel is not None:
            return kernel.run(self.transform.kernel(inverse=True), ys[0], given, bound=isinstance(given, Precomputed))
        return self._transform(ys[0], given, range(len(self.subnets))[::-1], inverse=True)

    def _transform(self, x: Tensor, given: Any, sides: Sequence[int], *, inverse: bool) -> Result:
        """Transform one part after the other; the inverse starts with the last."""
        values = list(torch.split_with_sizes(x, self.sizes, dim=1))
        log_det = x.new_zeros(x.shape[0])
        for side in sides:
            part, transform = self.parts[side], self._transform_of(side)
            direction = transform.inverse if inverse else transform.forward
            values[part], more = direction(values[part], self._params(side, values[1 - part], given))
            log_det = log_det + more
        return (torch.cat(values, dim=1),), log_det

    def _params(self, side: int, x: Tensor, given: Any) -> Tensor:
        """Return the parameters of one part, ``(B, params_per_element, C, ...)``, given the other part."""
        given = pick(given, side)
        outputs = [net(x, pick(given, k)) for k, net in enumerate(self._nets(side))]
        params = [torch.unflatten(output, 1, (-1, self.sizes[self.parts[side]])) for output in outputs]
        return (params[0] if len(params) == 1 else torch.cat(params, dim=1)).to(x.dtype)

    def _nets(self, side: int) -> list[Subnet]:
        return list(cast("list[Subnet]", self.subnets[side]))

    def _kernel(self, x: Tensor, given: Any = ()) -> AffineCoupling | None:
        """Return the fused kernel; None where its results could differ, as for a subclass of Affine."""
        if not has_kernel(self.transform) or self.parts[0] != 0 or not is_usable_for(x):
            return None
        if isinstance(given, Precomputed) and (torch.is_grad_enabled() or not self.cond_shapes):
            return None
        if self._fused is None or not self._fused.is_current(self.subnets):
            self._fused = as_affine_coupling(self.subnets, self.sizes)
        return self._fused

    def _vjp_from_outputs(
        self, ys: Tensors, cs: Tensors, grad_outputs: Grads, grads: ParameterGrads, *, inverse: bool
    ) -> LayerGrads:
        """Rebuild and differentiate in one pass: each subnet runs once, as both need it at the same values."""
        kernel = self._kernel(ys[0])
        if kernel is not None:
            transform = self.transform.kernel(inverse)
            return grads.of_kernel(kernel.backward_from_outputs, kernel.parameters, transform, ys[0], cs, grad_outputs)
        sides = []
        for side, part in enumerate(self.parts):
            directions = (self._transform_of(side).forward, self._transform_of(side).inverse)
            networks, params = self.subnets[side], partial(self._params, side)
            sides.append(CouplingSide(networks, part, params, directions[inverse], directions[not inverse]))
        return vjp_of_coupling(sides if inverse else sides[::-1], self.sizes, ys[0], cs, grad_outputs, grads)

    def _follow(self, intervals: Knowns, *, inverse: bool) -> Knowns:
        transforms = self.transform if isinstance(self.transform, tuple) else (self.transform,)
        found = hull([transform.follow(intervals[0], inverse=inverse) for transform in transforms])
        return (found if found == REALS else hull((intervals[0], found)),)

    def extra_repr(self) -> str:
        part = "" if self.parts[0] == 0 else ", part=2"
        return f"{super().extra_repr()}, {self.transform}{part}"


def _require_transforms(transform: object, sides: int) -> Transform | tuple[Transform, ...]:
    """Return a transform, or one for each part."""
    if not isinstance(transform, (tuple, list)):
        return require_transform("Coupling", transform)
    if len(transform) != 2 or sides != 2:
        given = f"{len(transform)} transforms, sides={sides}"
        raise GraphError("Coupling", given, "give one transform, or with sides=2 a pair: of the first and second part")
    return tuple(require_transform("Coupling", entry) for entry in transform)
