"""Couplings of affine maps with fully connected networks, each as one autograd function.

Here are the values, which are written directly into their final tensors, without copies; ``affine_gradient.py`` has the
gradients, ``affine_map.py`` the map alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from invgraph.fused.affine_gradient import coupling_backward, coupling_formula
from invgraph.fused.autograd import differentiate, is_first_order
from invgraph.fused.descriptions import AffineMap, CouplingLayout, Kept, MLPParameters, Scales
from invgraph.fused.replaceable import as_mlp
from invgraph.numerics.soft_clamp import clamp_watchers
from invgraph.shapes import Tensors
from invgraph.torch_internals import Snapshot


class AffineCoupling:
    """A coupling with its networks: what a layer calls in place of its own arithmetic.

    Arguments:
        subnets: For each side, a list of its networks.
        nets: The parameters of each side's network.
        sizes: Channels of the two parts.
        directions: The transform, and its inverse.
    """

    def __init__(
        self,
        subnets: nn.Module,
        nets: list[MLPParameters],
        sizes: list[int],
        directions: tuple[AffineMap, AffineMap],
    ) -> None:
        self.snapshot = Snapshot(subnets)
        self.nets = nets
        self.parameters: Tensors = tuple(tensor for net in nets for tensors in net for tensor in tensors)
        layers, order = tuple([len(net.weights) for net in nets]), (0, 1)[: len(nets)]
        conditions = len(nets[0].condition_weights)
        self.layouts = [
            CouplingLayout(sizes, order[::-1] if transform.inverse else order, transform, layers, conditions)
            for transform in directions
        ]

    def is_current(self, subnets: nn.Module) -> bool:
        """True if the networks are still those that the kernel was made for, without hooks or patches."""
        return subnets is self.snapshot.root and self.snapshot.holds()

    def run(self, x: Tensor, given: Any, *, inverse: bool, bound: bool) -> tuple[Tensors, Tensor]:
        """Return outputs and log-determinant per sample.

        Arguments:
            x: The data.
            given: The conditions; or, if ``bound``, what each network computed from them.
            inverse: True for the inverse.
            bound: True for a bound graph, which records no gradients here.
        """
        layout = self.layouts[inverse]
        if not bound:
            tensors = (x, *given, *self.parameters)
            # As needs_grad, but quicker for so many tensors.
            if torch.is_grad_enabled() and True in [tensor.requires_grad for tensor in tensors]:
                y, log_det = _AffineCoupling.apply(layout, self.nets, *tensors)  # type: ignore[no-untyped-call]
                return (y,), log_det
        y, log_det, _ = _evaluate_coupling(layout, x, given, self.nets, keep=False, bound=bound)
        return (y,), log_det

    def backward_from_outputs(
        self, y: Tensor, cs: Tensors, grad_outputs: Sequence[Tensor], wanted: Sequence[bool], *, inverse: bool
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Return the ``x`` that ``y`` was made of, its gradient, and those of conditions and parameters, where wanted.

        Each network runs once for both.
        """
        layout, x = self.layouts[inverse], torch.empty_like(y)
        back = layout.transform._replace(inverse=not layout.transform.inverse)
        before, after = (torch.split_with_sizes(value, layout.sizes, 1) for value in (x, y))
        if len(layout.order) == 1:
            before[1].copy_(after[1])

        def rebuild(place: int, net: MLPParameters, read: Tensor) -> Kept:
            side = layout.order[place]
            output, hidden = _evaluate_mlp(net, read, cs)
            raw, t = output.chunk(2, 1)
            _, _, scales = evaluate_affine(back, after[side], raw, t, out=before[side])
            return Kept(hidden, raw, scales)

        x_grad, grads = coupling_backward(layout, x, y, (*cs, *self.parameters), rebuild, grad_outputs, wanted)
        assert x_grad is not None
        return x, x_grad, grads


def as_affine_coupling(
    subnets: nn.ModuleList, sizes: list[int], directions: tuple[AffineMap, AffineMap]
) -> AffineCoupling | None:
    """Return the kernel of a coupling, or None if its results would differ from the modules'."""
    nets = []
    for side in subnets:
        networks = list(side.children())
        net = as_mlp(networks[0]) if len(networks) == 1 else None
        if net is None:
            return None
        nets.append(net)
    kernel = AffineCoupling(subnets, nets, sizes, directions)
    return kernel if kernel.snapshot.holds() else None


class _AffineCoupling(torch.autograd.Function):
    """The parameters come twice: as arguments, for their gradients, and by network, so that none is looked for."""

    @staticmethod
    def forward(
        ctx: Any, layout: CouplingLayout, nets: Sequence[MLPParameters], x: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, log_det, kept = _evaluate_coupling(layout, x, tensors[: layout.conditions], nets)
        ctx.layout = layout
        # The gradient needs the output for the second side's network, or for the inverse's scale.
        saved = [x, y if len(layout.order) > 1 or layout.transform.inverse else x, *tensors]
        for side in kept:
            saved += (*side.hidden, side.raw, side.scales.scale)
            if side.scales.s is not None:
                saved.append(side.scales.s)
        ctx.save_for_backward(*saved)
        return y, log_det

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        layout: CouplingLayout = ctx.layout
        wanted = ctx.needs_input_grad[3:]
        x, y, *others = ctx.saved_tensors
        tensors, saved = tuple(others[: len(wanted)]), iter(others[len(wanted) :])
        if not is_first_order(*grad_outputs):
            return None, None, *differentiate(partial(coupling_formula, layout), (x, *tensors), grad_outputs)
        atan = layout.transform.activation == "atan"
        kept = []
        for side in layout.order:
            hidden = [next(saved) for _ in range(layout.layers[side] - 1)]
            kept.append(Kept(hidden, next(saved), Scales(next(saved), None if atan else next(saved))))
        x_grad, grads = coupling_backward(
            layout, x, y, tensors, lambda place, *_: kept[place], grad_outputs, wanted, x_wanted=ctx.needs_input_grad[2]
        )
        return None, None, x_grad, *grads


def _evaluate_coupling(
    layout: CouplingLayout,
    x: Tensor,
    given: Any,
    nets: Sequence[MLPParameters],
    *,
    keep: bool = True,
    bound: bool = False,
) -> tuple[Tensor, Tensor, list[Kept]]:
    """Return output, log-determinant, and what the gradient needs: one entry per side, in their order.

    Arguments:
        layout: The coupling.
        x: The data.
        given: The conditions; or, if ``bound``, what each network computed from them.
        nets: The parameters of each side's network.
        keep: False to return nothing for the gradient.
        bound: True for a bound graph.
    """
    y = torch.empty_like(x)
    before, after = (torch.split_with_sizes(value, layout.sizes, 1) for value in (x, y))
    current = list(before)
    log_det: Tensor | None = None
    kept: list[Kept] = []
    for side in layout.order:
        net, read = nets[side], current[1 - side]
        output, hidden = _evaluate_bound_mlp(net, read, given[side]) if bound else _evaluate_mlp(net, read, given)
        raw, t = output.chunk(2, 1)
        current[side], more, scales = evaluate_affine(layout.transform, before[side], raw, t, out=after[side])
        log_det = more if log_det is None else log_det.add_(more)
        if keep:
            kept.append(Kept(hidden, raw.contiguous(), scales))
    assert log_det is not None
    if len(layout.order) == 1:
        after[1].copy_(before[1])
    return y, log_det, kept


def _evaluate_mlp(net: MLPParameters, x: Tensor, cs: Tensors) -> tuple[Tensor, list[Tensor]]:
    """Return a network's output and the values of its hidden layers."""
    h = linear(x, net.weights[0], net.biases[0])
    for c, weight in zip(cs, net.condition_weights, strict=True):
        h.addmm_(c, weight.t())
    hidden: list[Tensor] = []
    for weight, bias in zip(net.weights[1:], net.biases[1:], strict=True):
        hidden.append(h.relu_())
        h = linear(h, weight, bias)
    return h, hidden


def _evaluate_bound_mlp(net: MLPParameters, x: Tensor, given: Any) -> tuple[Tensor, list[Tensor]]:
    """Return the output, given the sum of the conditions' part of the first layer, which may have fewer rows."""
    ((addend,),) = given
    h = linear(x, net.weights[0], net.biases[0])
    samples = h if addend.shape[0] in (1, h.shape[0]) else torch.unflatten(h, 0, (-1, addend.shape[0]))
    samples.add_(addend)
    for weight, bias in zip(net.weights[1:], net.biases[1:], strict=True):
        h = linear(h.relu_(), weight, bias)
    return h, []


def evaluate_affine(
    transform: AffineMap, x: Tensor, raw: Tensor, t: Tensor, out: Tensor | None = None, ratio: Tensor | None = None
) -> tuple[Tensor, Tensor, Scales]:
    """Return output, log-determinant per sample, and the scales that the gradient needs, in few passes over memory.

    Arguments:
        transform: The map.
        x: ``(B, ...)``.
        raw: Log scales before the clamp, ``(B, ...)``.
        t: Shifts, likewise.
        out: Where to write the output. Default: a new tensor.
        ratio: Where to write the log scales before the clamp, times its inner factor. Default: nowhere.
    """
    function, inner, outer = transform.squash
    if ratio is not None:
        s = function(torch.mul(raw, inner, out=ratio))
    else:
        s = function(raw) if inner == 1 else function(scaled := raw * inner, out=scaled)
    if outer != 1:
        s.mul_(outer)
    for watch in clamp_watchers:
        watch(s, transform.clamp)
    log_det = (s if s.ndim == 2 else s.flatten(1)).sum(1)
    scales = Scales(s.exp_(), None) if transform.activation == "atan" else Scales(s.exp(), s)
    if transform.inverse:
        y, log_det = torch.sub(x, t, out=out).div_(scales.scale), log_det.neg_()
    else:
        y = torch.addcmul(t, x, scales.scale, out=out)
    return y, log_det, scales
