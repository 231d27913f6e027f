"""An affine coupling of fully connected networks as one step of the backward pass.

Here are the values, each number of which is written once, in its place; ``affine_coupling_gradient.py`` has the
gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from invgraph.fused.affine_coupling_gradient import coupling_backward, coupling_formula
from invgraph.fused.dispatch import differentiate, is_first_order
from invgraph.fused.mlp import as_mlp
from invgraph.fused.plan import AffineKernel, Kept, MLPKernel, Plan
from invgraph.numerics.soft_clamp import clamp_watchers
from invgraph.shapes import Tensors
from invgraph.torch_internals import Snapshot


class AffineCoupling:
    """A coupling with its networks: what a layer calls in place of its own arithmetic.

    Arguments:
        subnets: For each side, a list of its networks.
        nets: The kernel of each side's network.
        sizes: Channels of the two parts.
        directions: The kernel of the transform, and that of its inverse.
    """

    def __init__(
        self,
        subnets: nn.Module,
        nets: list[MLPKernel],
        sizes: list[int],
        directions: tuple[AffineKernel, AffineKernel],
    ) -> None:
        self.snapshot = Snapshot(subnets)
        self.nets = nets
        self.parameters: Tensors = sum((tensors for net in nets for tensors in net), ())
        layers, order = tuple([len(net.weights) for net in nets]), (0, 1)[: len(nets)]
        conditions = len(nets[0].condition_weights)
        self.plans = [
            Plan(sizes, order[::-1] if kernel.inverse else order, kernel, layers, conditions) for kernel in directions
        ]

    def is_current(self, subnets: nn.Module) -> bool:
        """True if the networks are still those that the kernel was made for, and nothing was put on them."""
        return subnets is self.snapshot.root and self.snapshot.holds()

    def run(self, x: Tensor, given: Any, *, inverse: bool, bound: bool) -> tuple[Tensors, Tensor]:
        """Return outputs and log-determinant per sample.

        Arguments:
            x: The data.
            given: The conditions; or, if ``bound``, what each network computed from them.
            inverse: True for the inverse.
            bound: True for a bound graph, which records no gradients here.
        """
        plan = self.plans[inverse]
        if not bound:
            tensors = (x, *given, *self.parameters)
            if torch.is_grad_enabled() and True in [tensor.requires_grad for tensor in tensors]:
                y, log_det = _AffineCoupling.apply(plan, self.nets, *tensors)  # type: ignore[no-untyped-call]
                return (y,), log_det
        y, log_det, _ = evaluate(plan, x, given, self.nets, keep=False, bound=bound)
        return (y,), log_det

    def backward_from_outputs(
        self, y: Tensor, cs: Tensors, grad_outputs: Sequence[Tensor], wanted: Sequence[bool], *, inverse: bool
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Return the ``x`` that ``y`` was made of, its gradient, and those of conditions and parameters, where wanted.

        Each network runs once for both.
        """
        plan, x = self.plans[inverse], torch.empty_like(y)
        back = plan.transform._replace(inverse=not plan.transform.inverse)
        before, after = (torch.split_with_sizes(value, plan.sizes, 1) for value in (x, y))
        if len(plan.order) == 1:
            before[1].copy_(after[1])

        def rebuild(place: int, net: MLPKernel, read: Tensor) -> Kept:
            side = plan.order[place]
            output, hidden = _evaluate_mlp(net, read, cs)
            params = torch.unflatten(output, 1, (2, -1))
            _, _, scales = evaluate_affine(back, after[side], params, out=before[side])
            return Kept(hidden, params.select(1, 0), scales)

        x_grad, grads = coupling_backward(plan, x, y, (*cs, *self.parameters), rebuild, grad_outputs, wanted)
        assert x_grad is not None
        return x, x_grad, grads


def as_affine_coupling(
    subnets: nn.ModuleList, sizes: list[int], directions: tuple[AffineKernel, AffineKernel]
) -> AffineCoupling | None:
    """Return the kernel of a coupling, or None where it would not give what the modules give."""
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
    @staticmethod
    def forward(ctx: Any, plan: Plan, nets: Sequence[MLPKernel], x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det, kept = evaluate(plan, x, tensors[: plan.conditions], nets)
        ctx.plan = plan
        # The gradient needs the result for the second side's network, or for the inverse's scale.
        saved = [x, y if len(plan.order) > 1 or plan.transform.inverse else x, *tensors]
        for side in kept:
            saved += (*side.hidden, side.raw, *side.scales)
        ctx.save_for_backward(*saved)
        return y, log_det

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        wanted = ctx.needs_input_grad[3:]
        x, y, *others = ctx.saved_tensors
        tensors, saved = tuple(others[: len(wanted)]), iter(others[len(wanted) :])
        if not is_first_order(*grad_outputs):
            return None, None, *differentiate(partial(coupling_formula, plan), (x, *tensors), grad_outputs)
        scales = 1 if plan.transform.activation == "atan" else 2
        kept = []
        for side in plan.order:
            hidden = [next(saved) for _ in range(plan.layers[side] - 1)]
            kept.append(Kept(hidden, next(saved), [next(saved) for _ in range(scales)]))
        x_grad, grads = coupling_backward(
            plan, x, y, tensors, lambda place, *_: kept[place], grad_outputs, wanted, x_wanted=ctx.needs_input_grad[2]
        )
        return None, None, x_grad if ctx.needs_input_grad[2] else None, *grads


def evaluate(
    plan: Plan, x: Tensor, given: Any, nets: Sequence[MLPKernel], *, keep: bool = True, bound: bool = False
) -> tuple[Tensor, Tensor, list[Kept]]:
    """Return result, log-determinant, and what the gradient needs, side by side.

    Arguments:
        plan: The coupling.
        x: The data.
        given: The conditions; or, if ``bound``, what each network computed from them.
        nets: The network of each side.
        keep: False to return nothing for the gradient.
        bound: True for a bound graph.
    """
    y = torch.empty_like(x)
    before, after = (torch.split_with_sizes(value, plan.sizes, 1) for value in (x, y))
    current = list(before)
    log_det: Tensor | None = None
    kept: list[Kept] = []
    for side in plan.order:
        net, read = nets[side], current[1 - side]
        output, hidden = _evaluate_bound_mlp(net, read, given[side]) if bound else _evaluate_mlp(net, read, given)
        params = torch.unflatten(output, 1, (2, -1))
        current[side], more, scales = evaluate_affine(plan.transform, before[side], params, out=after[side])
        log_det = more if log_det is None else log_det.add_(more)
        if keep:
            kept.append(Kept(hidden, params.select(1, 0).contiguous(), scales))
    assert log_det is not None
    if len(plan.order) == 1:
        after[1].copy_(before[1])
    return y, log_det, kept


def _evaluate_mlp(net: MLPKernel, x: Tensor, cs: Tensors) -> tuple[Tensor, list[Tensor]]:
    """Return a network's output and its hidden layers' values; each number is written once, and added to in place."""
    h = net.biases[0]
    for c, weight in zip(cs, net.condition_weights, strict=True):
        h = torch.addmm(h, c, weight.t()) if h is net.biases[0] else h.addmm_(c, weight.t())
    h = h.addmm_(x, net.weights[0].t()) if cs else torch.addmm(h, x, net.weights[0].t())
    hidden: list[Tensor] = []
    for weight, bias in zip(net.weights[1:], net.biases[1:], strict=True):
        hidden.append(h.relu_())
        h = torch.addmm(bias, h, weight.t())
    return h, hidden


def _evaluate_bound_mlp(net: MLPKernel, x: Tensor, given: Any) -> tuple[Tensor, list[Tensor]]:
    """Return the output, given the sum of the conditions' part of the first layer, which may have fewer rows."""
    ((addend,),) = given
    h = torch.addmm(net.biases[0], x, net.weights[0].t())
    samples = h if addend.shape[0] in (1, h.shape[0]) else torch.unflatten(h, 0, (-1, addend.shape[0]))
    samples.add_(addend)
    for weight, bias in zip(net.weights[1:], net.biases[1:], strict=True):
        h = torch.addmm(bias, h.relu_(), weight.t())
    return h, []


def evaluate_affine(
    kernel: AffineKernel, x: Tensor, params: Tensor, out: Tensor | None = None
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Return result, log-determinant per sample, and the scales that the gradient needs, in few passes over memory."""
    raw, t = params.unbind(1)
    function, inner, outer = kernel.squash
    s = function(raw) if inner == 1 else function(scaled := raw * inner, out=scaled)
    if outer != 1:
        s.mul_(outer)
    for watch in clamp_watchers:
        watch(s, kernel.clamp)
    log_det = s.flatten(1).sum(1)
    scales = [s.exp_()] if kernel.activation == "atan" else [s.exp(), s]
    if kernel.inverse:
        y, log_det = torch.sub(x, t, out=out).div_(scales[0]), log_det.neg_()
    else:
        y = torch.addcmul(t, x, scales[0], out=out)
    return y, log_det, scales
