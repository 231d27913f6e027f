"""An affine coupling of fully connected networks as one step of the backward pass, with gradients derived by hand.

Autograd would split, join and add up the parts of the channels, and keep more of them: here each number of a result or
gradient is written once, in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from invgraph.fused.affine import AffineKernel
from invgraph.fused.dispatch import differentiate, is_first_order, needs_grad
from invgraph.fused.mlp import MLPKernel, as_mlp
from invgraph.shapes import Tensors
from invgraph.torch_internals import Snapshot


class Kept(NamedTuple):
    """Values that the gradient of one side needs: the network's hidden layers, the scales before and after the clamp.

    Shifts are not kept, so the scales are taken out of the network's output.
    """

    hidden: Sequence[Tensor]
    raw: Tensor
    scales: Sequence[Tensor]


class Plan(NamedTuple):
    """A coupling without its tensors, which come in one tuple: the conditions, then each side's parameters."""

    sizes: list[int]
    order: Sequence[int]
    """The sides, in the order in which they are transformed."""
    transform: AffineKernel
    layers: tuple[int, ...]
    """Number of layers of each side's network."""
    conditions: int

    def unflatten(self, tensors: Tensors) -> tuple[Tensors, list[MLPKernel]]:
        """Return the conditions, and the network of each side."""
        nets, start = [], self.conditions
        for layers in self.layers:
            end = start + 2 * layers + self.conditions
            nets.append(MLPKernel.from_tensors(tensors[start:end], layers))
            start = end
        return tensors[: self.conditions], nets

    def differentiable(self, x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Return result and log-determinant, in operations that autograd differentiates to any order."""
        cs, nets = self.unflatten(tensors)
        parts, log_det = list(self.split(x)), x.new_zeros(x.shape[0])
        for side in self.order:
            params = torch.unflatten(nets[side].differentiable(parts[1 - side], cs), 1, (2, -1))
            parts[side], more = self.transform.formula(parts[side], params)
            log_det = log_det + more
        return torch.cat(parts, 1), log_det

    def evaluate(
        self, x: Tensor, cs: Tensors, nets: Sequence[MLPKernel], *, keep: bool = True
    ) -> tuple[Tensor, Tensor, list[Kept]]:
        """Return result, log-determinant, and what :meth:`backward` needs, side by side."""
        y = torch.empty_like(x)
        before, after = self.split(x), self.split(y)
        current = list(before)
        log_det: Tensor | None = None
        kept: list[Kept] = []
        for side in self.order:
            output, hidden = nets[side].evaluate(current[1 - side], cs)
            params = torch.unflatten(output, 1, (2, -1))
            current[side], more, scales = self.transform.evaluate(before[side], params, out=after[side])
            log_det = more if log_det is None else log_det.add_(more)
            if keep:
                kept.append(Kept(hidden, params.select(1, 0).contiguous(), scales))
        assert log_det is not None
        if len(self.order) == 1:
            after[1].copy_(before[1])
        return y, log_det, kept

    def evaluate_bound(self, x: Tensor, given: Any, nets: Sequence[MLPKernel]) -> tuple[Tensor, Tensor]:
        """Return result and log-determinant, given what each network computed from the conditions; no gradients."""
        y = torch.empty_like(x)
        before, after = self.split(x), self.split(y)
        current = list(before)
        log_det: Tensor | None = None
        for side in self.order:
            ((addend,),) = given[side]
            params = torch.unflatten(nets[side].evaluate_bound(current[1 - side], addend), 1, (2, -1))
            current[side], more, _ = self.transform.evaluate(before[side], params, out=after[side])
            log_det = more if log_det is None else log_det.add_(more)
        assert log_det is not None
        if len(self.order) == 1:
            after[1].copy_(before[1])
        return y, log_det

    def reads_result(self) -> bool:
        """True if :meth:`backward` needs the result: for the second side's network, or for the inverse's scale."""
        return len(self.order) > 1 or self.transform.inverse

    def backward(
        self, x: Tensor, y: Tensor, tensors: Tensors, kept: Sequence[Kept], grad_outputs: Sequence[Tensor],
        wanted: Sequence[bool], x_wanted: bool = True,
    ) -> tuple[Tensor | None, list[Tensor | None]]:  # fmt: skip
        """Return the gradients of ``x`` and of the tensors, where wanted.

        Without anything kept, ``x`` is written as well: computed back from ``y``.
        """
        cs, nets = self.unflatten(tensors)
        x_grad, log_det_grad = torch.empty_like(x) if x_wanted or len(self.order) > 1 else None, grad_outputs[1]
        before, after = self.split(x), self.split(y)
        out = (None, None) if x_grad is None else self.split(x_grad)
        current = list(self.split(grad_outputs[0]))
        grads: list[Tensor | None] = [None] * len(tensors)
        if not kept and len(self.order) == 1:
            before[1].copy_(after[1])
        for place in reversed(range(len(self.order))):
            side = self.order[place]
            other, net = 1 - side, nets[side]
            read = after[other] if place else before[other]
            own = kept[place] if kept else self._rebuild(net, read, cs, after[side], before[side])
            transformed = self.transform.backward(
                before[side], own.raw, after[side], own.scales, (current[side], log_det_grad), out=out[side]
            )
            current[side], grad = transformed[0] if x_grad is not None else current[side], transformed[1].flatten(1)
            del transformed  # the gradients of the weights, which come next, need most room
            start = self.conditions + (2 * self.layers[0] + self.conditions if side else 0)
            end = start + 2 * self.layers[side] + self.conditions
            passed = [grad]
            del grad
            grad, grads[start:end] = net.backward(read, cs, own.hidden, passed.pop(), wanted[start:end])
            if place or x_wanted:
                current[other] = torch.addmm(current[other], grad, net.weights[0], out=out[other])
            for k in range(self.conditions):
                if wanted[k]:
                    so_far, more = grads[k], grad @ net.condition_weights[k]
                    grads[k] = more if so_far is None else so_far.add_(more)
        return x_grad, grads

    def _rebuild(self, net: MLPKernel, read: Tensor, cs: Tensors, y: Tensor, out: Tensor) -> Kept:
        output, hidden = net.evaluate(read, cs)
        params = torch.unflatten(output, 1, (2, -1))
        return Kept(hidden, params.select(1, 0), self.transform.invert(y, params, out))

    def split(self, x: Tensor) -> Tensors:
        return torch.split_with_sizes(x, self.sizes, 1)


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
        self.parameters: Tensors = sum((net.tensors() for net in nets), ())
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
        if bound:
            y, log_det = plan.evaluate_bound(x, given, self.nets)
        elif needs_grad(x, *given, *self.parameters):
            y, log_det = _AffineCoupling.apply(plan, self.nets, x, *given, *self.parameters)  # type: ignore[no-untyped-call]
        else:
            y, log_det, _ = plan.evaluate(x, given, self.nets, keep=False)
        return (y,), log_det

    def backward_from_outputs(
        self, y: Tensor, cs: Tensors, grad_outputs: Sequence[Tensor], wanted: Sequence[bool], *, inverse: bool
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Return the ``x`` that ``y`` was made of, its gradient, and those of conditions and parameters, where wanted.

        Each network runs once for both.
        """
        x = torch.empty_like(y)
        x_grad, grads = self.plans[inverse].backward(x, y, (*cs, *self.parameters), (), grad_outputs, wanted)
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
        y, log_det, kept = plan.evaluate(x, tensors[: plan.conditions], nets)
        ctx.plan = plan
        saved = [x, y if plan.reads_result() else x, *tensors]
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
            return None, None, *differentiate(plan.differentiable, (x, *tensors), grad_outputs)
        kept = []
        for side in plan.order:
            hidden = [next(saved) for _ in range(plan.layers[side] - 1)]
            kept.append(Kept(hidden, next(saved), [next(saved) for _ in range(plan.transform.scales())]))
        x_grad, grads = plan.backward(x, y, tensors, kept, grad_outputs, wanted, ctx.needs_input_grad[2])
        return None, None, x_grad if ctx.needs_input_grad[2] else None, *grads
