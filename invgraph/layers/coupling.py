"""Coupling block: each part of the channels is transformed given the other part and the conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from invgraph.arguments import require_choice, require_flag
from invgraph.core.given import Precomputed, pick
from invgraph.core.invertible import Invertible, Result
from invgraph.core.subnet import Subnet, check_subnet, make_subnet
from invgraph.core.vjp import Grads, LayerGrads, ParameterGrads, vjp_of_coupling
from invgraph.fused.affine_coupling import AffineCoupling, as_affine_coupling
from invgraph.fused.dispatch import is_usable_for
from invgraph.numerics.channels import split_sizes
from invgraph.shapes import Shape, Tensors
from invgraph.transforms.affine import Affine
from invgraph.transforms.transform import Direction, Transform, require_transform


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
        transform: Elementwise transform, e.g. ``Affine(clamp=1.9)``.
        subnet: Factory ``f(channels_in, channels_out) -> nn.Module``, e.g. ``nets.MLP(512)``, called once per side. If
            it returns an ordinary module, data and conditions are concatenated for it.
        sides: Number of parts to transform: 2 for both, 1 for :math:`u_1` only. Default: 2.
        split: Number of channels of :math:`u_1`, or their fraction (rounded down). Default: 0.5.
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
    transform: Any  # a Transform; only an Affine has a kernel
    _fused: AffineCoupling | None = None

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        transform: Transform,
        subnet: object,
        sides: int = 2,
        split: float = 0.5,
        separate: bool = False,
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        require_flag("Coupling", "separate", separate)
        require_transform("Coupling", transform)
        sides = require_choice("Coupling", "sides", sides, (1, 2))
        self.transform = transform
        self.sizes = split_sizes("Coupling", self.in_shapes[0], split)
        copies = transform.params_per_element if separate else 1
        self.subnets = nn.ModuleList(
            nn.ModuleList(make_subnet("Coupling", subnet, *self._subnet_shapes(side, copies)) for _ in range(copies))
            for side in range(sides)
        )

    def _subnet_shapes(self, side: int, copies: int) -> tuple[Shape, tuple[Shape, ...], Shape]:
        """Return the shapes of what each subnet of a side reads, as data and conditions, and of what it returns."""
        read, written = self.sizes[1 - side], self.sizes[side] * self.transform.params_per_element // copies
        sizes = self.in_shapes[0][1:]
        return (read, *sizes), self.cond_shapes, (written, *sizes)

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
        return self._transform(xs[0], given, self.transform.forward, range(len(self.subnets)))

    def _inverse(self, ys: Tensors, given: Any) -> Result:
        kernel = self._kernel(ys[0], given)
        if kernel is not None:
            return kernel.run(self.transform.kernel(inverse=True), ys[0], given, bound=isinstance(given, Precomputed))
        return self._transform(ys[0], given, self.transform.inverse, range(len(self.subnets))[::-1])

    def _transform(self, x: Tensor, given: Any, transform: Direction, sides: Sequence[int]) -> Result:
        """Transform the parts in the order of ``sides``; the inverse starts with the last."""
        parts = list(torch.split_with_sizes(x, self.sizes, dim=1))
        log_det = x.new_zeros(x.shape[0])
        for side in sides:
            parts[side], more = transform(parts[side], self._params(side, parts[1 - side], given))
            log_det = log_det + more
        return (torch.cat(parts, dim=1),), log_det

    def _params(self, side: int, x: Tensor, given: Any) -> Tensor:
        """Return the parameters of one part, ``(B, params_per_element, C, ...)``, given the other part."""
        given = pick(given, side)
        outputs = [net(x, pick(given, k)) for k, net in enumerate(self._nets(side))]
        params = [output.unflatten(1, (-1, self.sizes[side])) for output in outputs]
        return (params[0] if len(params) == 1 else torch.cat(params, dim=1)).to(x.dtype)

    def _nets(self, side: int) -> list[Subnet]:
        return list(cast("list[Subnet]", self.subnets[side]))

    def _kernel(self, x: Tensor, given: Any = ()) -> AffineCoupling | None:
        """Return the fused kernel; None where its results could differ, as for a subclass of Affine."""
        if type(self.transform) is not Affine or not is_usable_for(x):
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
        directions = (self.transform.forward, self.transform.inverse)
        onward, back = directions[inverse], directions[not inverse]
        sides = range(len(self.subnets))
        parts = [(self.subnets[side], side) for side in (sides if inverse else sides[::-1])]
        return vjp_of_coupling(self._params, onward, back, parts, self.sizes, ys[0], cs, grad_outputs, grads)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.transform}"
