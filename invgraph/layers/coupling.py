"""Coupling block: each part of the channels is transformed given the other part and the conditions."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from invgraph.arguments import require_flag
from invgraph.core.given import Precomputed, pick
from invgraph.core.invertible import Invertible, Result
from invgraph.core.ranges import Knowns
from invgraph.core.sides import Sided, choose_sides
from invgraph.core.subnet import Subnet, check_subnet, make_subnet
from invgraph.core.vjp import Grads, LayerGrads, ParameterGrads, vjp_of_coupling
from invgraph.fused.affine import AffineCoupling, as_affine_coupling
from invgraph.fused.switch import fused
from invgraph.numerics.channels import split_sizes
from invgraph.shapes import Shape, Tensors
from invgraph.torch_internals import is_plain
from invgraph.transforms.affine import affine_maps
from invgraph.transforms.transform import Transform, follow_part


class Coupling(Sided, Invertible):
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
        separate: True for one subnet per parameter of the transform (RealNVP), not one for all (GLOW). Default: False.

    Raises:
        GraphError: If the channels can't be split in this way, or a subnet does not fit.
        ArgumentError: If an argument has the wrong type.

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
        self.sizes = split_sizes("Coupling", self.in_shapes[0], split)
        self.sides = choose_sides("Coupling", transform, self.sizes, sides, part)
        self._transform = tuple(transform) if isinstance(transform, list) else transform
        self.subnets = nn.ModuleList()
        for side in self.sides:
            copies = side.transform.params_per_element if separate else 1
            shapes = side.subnet_shapes(self.in_shapes[0], self.cond_shapes, copies)
            self.subnets.append(nn.ModuleList(make_subnet("Coupling", subnet, *shapes) for _ in range(copies)))

    def _resize(self, before: tuple[Shape, ...]) -> None:
        super()._resize(before)
        for place, side in enumerate(self.sides):
            nets = self._nets(place)
            for net in nets:
                check_subnet(self.label, net, *side.subnet_shapes(self.in_shapes[0], self.cond_shapes, len(nets)))

    def precompute(self, cs: Tensors) -> Precomputed:
        return Precomputed([Precomputed([net.prepare(cs) for net in self._nets(k)]) for k in range(len(self.subnets))])

    def _forward(self, xs: Tensors, given: Any) -> Result:
        return self._run(xs[0], given, inverse=False)

    def _inverse(self, ys: Tensors, given: Any) -> Result:
        return self._run(ys[0], given, inverse=True)

    def _run(self, x: Tensor, given: Any, *, inverse: bool) -> Result:
        """Transform one part after the other; the inverse starts with the last."""
        if (kernel := self._kernel(x, given)) is not None:
            return kernel.run(x, given, inverse=inverse, bound=isinstance(given, Precomputed))
        values = list(torch.split_with_sizes(x, self.sizes, dim=1))
        log_det: Tensor | None = None
        for place in range(len(self.sides))[:: -1 if inverse else 1]:
            part, _, transform = self.sides[place]
            direction = transform.inverse if inverse else transform.forward
            values[part], more = direction(values[part], self._params(place, values[1 - part], given))
            log_det = more if log_det is None else log_det + more
        return (torch.cat(values, dim=1),), cast(Tensor, log_det)

    def _params(self, place: int, x: Tensor, given: Any) -> Tensor:
        """Return the parameters of one side, ``(B, params_per_element, C, ...)``, given the other part."""
        outputs = [net(x, pick(pick(given, place), k)) for k, net in enumerate(self._nets(place))]
        params = [torch.unflatten(output, 1, (-1, self.sizes[self.sides[place].part])) for output in outputs]
        return (params[0] if len(params) == 1 else torch.cat(params, dim=1)).to(x.dtype)

    def _nets(self, place: int) -> list[Subnet]:
        return list(cast("list[Subnet]", self.subnets[place]))

    def _kernel(self, x: Tensor, given: Any = ()) -> AffineCoupling | None:
        """Return the fused kernel; None if its results could differ, as for a subclass of Affine."""
        if not (is_plain(x) and fused.enabled):
            return None
        if isinstance(given, Precomputed) and (torch.is_grad_enabled() or not self.cond_shapes):
            return None
        if self._fused is None or not self._fused.is_current(self.subnets):
            maps = affine_maps([side.transform for side in self.sides]) if self.sides[0].part == 0 else None
            self._fused = as_affine_coupling(self.subnets, self.sizes, maps) if maps else None
        return self._fused

    def _vjp_from_outputs(
        self, ys: Tensors, cs: Tensors, grad_outputs: Grads, grads: ParameterGrads, *, inverse: bool
    ) -> LayerGrads:
        """Rebuild and differentiate in one pass: each subnet runs once, as both need it at the same values."""
        if (kernel := self._kernel(ys[0])) is not None:
            return grads.of_kernel(kernel, ys[0], cs, grad_outputs, inverse=inverse)
        own = self.sides, self.subnets, self._params, self.sizes
        return vjp_of_coupling(*own, ys[0], cs, grad_outputs, grads, inverse=inverse)

    def _follow(self, intervals: Knowns, *, inverse: bool) -> Knowns:
        return (follow_part([side.transform for side in self.sides], intervals[0], inverse=inverse),)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.transform}{', part=2' if self.sides[0].part else ''}"
