"""The coupling block: one part of the channels is transformed given the other part and the conditions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from invgraph.arguments import is_one_of, require_flag
from invgraph.core.invertible import Invertible, Result
from invgraph.core.subnet import Subnet, make_subnet
from invgraph.core.vjp import Gradients, Slopes, Undone, added, leaf, pull
from invgraph.errors import ArgumentError, GraphError
from invgraph.fused.affine import ScaleAndShift
from invgraph.fused.affine_coupling import Plan, all_tensors, dense_coupling
from invgraph.fused.dispatch import eager, plain
from invgraph.fused.mlp import Dense
from invgraph.numerics.channels import split_sizes
from invgraph.shapes import Shape, Tensors
from invgraph.transforms.affine import Affine
from invgraph.transforms.transform import Transform


class Coupling(Invertible):
    r"""Transform each part of the channels given the other part and the conditions (the paper's CC block).

    The channels are split into :math:`u = (u_1, u_2)`. With an affine transform (paper, Eqs. 1 and 2):

    .. math:: v_1 = u_1 \exp(s_1(u_2, c)) + t_1(u_2, c), \qquad v_2 = u_2 \exp(s_2(v_1, c)) + t_2(v_1, c)

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``, C at least 2; conditions ``(B, C_c)`` or ``(B, C_c, ...)`` of the same
        spatial size.

    Log-det:
        The sum of the transform's over both parts, nats per sample.

    Arguments:
        in_shapes: shape of the input.
        cond_shapes: shapes of the conditions.
        transform: what is done to each number, e.g. ``Affine(clamp=1.9)``.
        subnet: factory ``f(channels_in, channels_out) -> nn.Module``, e.g. ``nets.MLP(512)``, called once a side. A
            plain module gets data and conditions concatenated.
        sides: 2 transforms both parts, 1 only :math:`u_1`.
        split: channels of :math:`u_1`: a fraction (rounded down) or a count.
        separate: one subnet for each number that the transform takes (RealNVP) instead of one for all (GLOW).

    Raises:
        GraphError: the channels can't be split so, or a subnet does not fit.
        ArgumentError: an argument has the wrong type.

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
    compiled_once = True

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
        if not isinstance(transform, Transform):
            raise ArgumentError(
                "Coupling", f"transform={transform!r}", "expected a transform such as Affine(clamp=1.9)"
            )
        if not is_one_of(sides, (1, 2)):
            raise GraphError("Coupling", f"sides={sides!r}", "sides must be 1 or 2")
        self.transform = transform
        self.sizes = split_sizes("Coupling", self.in_shapes[0], split)
        first, second = ((size, *self.in_shapes[0][1:]) for size in self.sizes)
        readers = [(second, first), (first, second)][:sides]
        self.subnets = nn.ModuleList(self._subnets(subnet, read, written, separate) for read, written in readers)

    def _subnets(self, factory: object, read: Shape, written: Shape, separate: bool) -> nn.ModuleList:
        copies = self.transform.params_per_element if separate else 1
        out_shape = (written[0] * self.transform.params_per_element // copies, *written[1:])
        return nn.ModuleList(make_subnet("Coupling", factory, read, self.cond_shapes, out_shape) for _ in range(copies))

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        return self.in_shapes

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        return self._direct(xs[0], cs, inverse=False)

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        return self._direct(ys[0], cs, inverse=True)

    def share(self, cs: Tensors) -> Any:
        return tuple(tuple(net.share(cs) for net in nets) for nets in self._nets())

    def _forward_shared(self, xs: Tensors, shared: Any) -> Result:
        return self._walk(xs[0], (), shared, inverse=False)

    def _inverse_shared(self, ys: Tensors, shared: Any) -> Result:
        return self._walk(ys[0], (), shared, inverse=True)

    def _direct(self, x: Tensor, cs: Tensors, inverse: bool) -> Result:
        """The result by the quickest way there is for this transform and these subnets."""
        nets = self._dense(x)
        if nets is None:
            return self._walk(x, cs, None, inverse)
        y, log_det = dense_coupling(self._plan(nets, cs, inverse), x, cs, nets)
        return (y,), log_det

    def _dense(self, x: Tensor) -> list[Dense] | None:
        """The subnets as functions of their parameters, where all that is to be done is known so well."""
        if not eager() or type(self.transform) is not Affine or not plain(x):  # a subclass may do something else
            return None
        found = []
        for subnets in cast(nn.ModuleList, self._modules["subnets"])._modules.values():
            nets = tuple(cast(nn.ModuleList, subnets)._modules.values())
            net = cast(Subnet, nets[0]).dense() if len(nets) == 1 else None
            if net is None:
                return None
            found.append(net)
        return found

    def _plan(self, nets: list[Dense], cs: Tensors, inverse: bool) -> Plan:
        transform = cast(Affine, self.transform)
        work = ScaleAndShift(transform.clamp, transform.activation, inverse)
        return Plan(self.sizes, self._order(inverse), work, tuple(len(net.weights) for net in nets), len(cs))

    def _walk(self, x: Tensor, cs: Tensors, shared: Any, inverse: bool) -> Result:
        """Transform one part after the other; the inverse begins with the last."""
        parts = list(torch.split_with_sizes(x, self.sizes, dim=1))
        transform = self.transform.inverse if inverse else self.transform.forward
        nets = self._nets()
        log_det: Tensor | None = None
        for side in self._order(inverse):
            params = self._params(nets[side], side, parts[1 - side], cs, None if shared is None else shared[side])
            parts[side], more = transform(parts[side], params)
            log_det = more if log_det is None else log_det + more
        assert log_det is not None
        return (torch.cat(parts, dim=1),), log_det

    def _undo(self, ys: Tensors, cs: Tensors, slopes: Slopes, gradients: Gradients, *, inverse: bool) -> Undone:
        """Each subnet runs once: a part's inverse needs it for the very numbers that the gradient needs it for."""
        dense = self._dense(ys[0])
        if dense is not None:
            return self._undo_dense(dense, ys[0], cs, slopes, gradients, inverse)
        directions = (self.transform.forward, self.transform.inverse)
        onward, back = directions[inverse], directions[not inverse]
        parts = list(torch.split_with_sizes(ys[0], self.sizes, dim=1))
        whole = torch.zeros_like(ys[0]) if slopes[0] is None else slopes[0]
        grads = list(torch.split_with_sizes(whole, self.sizes, dim=1))
        given: list[Tensor | None] = [None] * len(cs)
        nets = self._nets()
        for side in self._order(not inverse):
            read = leaf(parts[1 - side])
            with torch.enable_grad():
                params = self._params(nets[side], side, read, cs)
            parts[side], _ = back(parts[side], params.detach())
            written = leaf(parts[side])
            with torch.enable_grad():
                outputs = onward(written, params)
            parameters = gradients.wanted(self.subnets[side])
            found = pull(outputs, (grads[side], slopes[1]), (written, read, *cs, *parameters))
            written_grad, read_grad, *others = found
            assert written_grad is not None
            grads[side] = written_grad
            grads[1 - side] = grads[1 - side] if read_grad is None else grads[1 - side] + read_grad
            given = [added(before, more) for before, more in zip(given, others[: len(cs)], strict=True)]
            gradients.add(parameters, others[len(cs) :])
        return Undone((torch.cat(parts, dim=1),), (torch.cat(grads, dim=1),), given)

    def _undo_dense(
        self, nets: list[Dense], y: Tensor, cs: Tensors, slopes: Slopes, gradients: Gradients, inverse: bool
    ) -> Undone:
        tensors = all_tensors(cs, nets)
        parameters = tensors[len(cs) :]
        wanted = [*(c.requires_grad for c in cs), *map(gradients.wants, parameters)]
        whole = torch.zeros_like(y) if slopes[0] is None else slopes[0]
        log_det = y.new_zeros(y.shape[0]) if slopes[1] is None else slopes[1]
        x, x_slope, found = self._plan(nets, cs, inverse).undo(y, tensors, (whole, log_det), wanted)
        for parameter, slope in zip(parameters, found[len(cs) :], strict=True):
            if slope is not None:
                gradients.add((parameter,), (slope,))
        return Undone((x,), (x_slope,), found[: len(cs)])

    def _order(self, inverse: bool) -> Sequence[int]:
        sides = range(len(self.subnets))
        return sides[::-1] if inverse else sides

    def _nets(self) -> list[list[Subnet]]:
        """The subnets of each side."""
        return [list(cast(Iterable[Subnet], nets)) for nets in self.subnets]

    def _params(self, nets: list[Subnet], side: int, x: Tensor, cs: Tensors, shared: Any = None) -> Tensor:
        """Numbers for the elements of the other part: ``(B, numbers, C, ...)`` in the data's dtype."""
        if shared is None:
            outputs = [net(x, cs) for net in nets]
        else:
            outputs = [net.reuse(x, share) for net, share in zip(nets, shared, strict=True)]
        outputs = [torch.unflatten(output, 1, (-1, self.sizes[side])) for output in outputs]
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.transform}"
