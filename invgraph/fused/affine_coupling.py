"""A coupling of affine transforms and fully connected networks, with its gradient written by hand.

Autograd would split, join and add up the parts of the channels, and keep more of them: here each number of a result
or gradient is written once, where it belongs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from invgraph.fused.affine import ScaleAndShift
from invgraph.fused.dispatch import alone, derived, recorded
from invgraph.fused.mlp import Dense
from invgraph.shapes import Tensors


class Kept(NamedTuple):
    """What the gradient of a side asks for: values of its network's hidden layers, its output, and the scales."""

    hidden: Sequence[Tensor]
    params: Tensor
    scales: Sequence[Tensor]


class Plan(NamedTuple):
    """What is done, apart from the numbers: those are the conditions and the networks' parameters, in one tuple."""

    sizes: list[int]
    order: Sequence[int]
    """The sides, as they are transformed one after the other."""
    work: ScaleAndShift
    layers: tuple[int, ...]
    """How many layers the network of each side has."""
    conditions: int

    def sorted(self, tensors: Tensors) -> tuple[Tensors, list[Dense]]:
        """Conditions, and the network of each side."""
        nets, start = [], self.conditions
        for layers in self.layers:
            end = start + 2 * layers + self.conditions
            nets.append(Dense.from_tensors(tensors[start:end], layers))
            start = end
        return tensors[: self.conditions], nets

    def plain(self, x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Result and log-determinant, in operations that autograd differentiates to any order."""
        cs, nets = self.sorted(tensors)
        parts, log_det = list(self._parts(x)), x.new_zeros(x.shape[0])
        for side in self.order:
            params = nets[side].plain(parts[1 - side], cs).unflatten(1, (2, -1))
            parts[side], more = self.work.plain(parts[side], params)
            log_det = log_det + more
        return torch.cat(parts, 1), log_det

    def evaluate(self, x: Tensor, cs: Tensors, nets: Sequence[Dense]) -> tuple[Tensor, Tensor, list[Kept]]:
        """Result, log-determinant, and what :meth:`pull` asks for, side after side."""
        y = torch.empty_like(x)
        before, after = self._parts(x), self._parts(y)
        current = list(before)
        log_det: Tensor | None = None
        kept: list[Kept] = []
        for side in self.order:
            output, hidden = nets[side].evaluate(current[1 - side], cs)
            params = output.unflatten(1, (2, -1))
            current[side], more, scales = self.work.evaluate(before[side], params, out=after[side])
            log_det = more if log_det is None else log_det.add_(more)
            kept.append(Kept(hidden, params, scales))
        assert log_det is not None
        if len(self.order) == 1:
            after[1].copy_(before[1])
        return y, log_det, kept

    def pull(
        self, x: Tensor, y: Tensor, tensors: Tensors, kept: Sequence[Kept], slopes: Sequence[Tensor],
        wanted: Sequence[bool],
    ) -> tuple[Tensor, list[Tensor | None]]:  # fmt: skip
        """Gradients of ``x`` and, where wanted, of the tensors.

        Without anything kept, ``x`` is written as well: computed back from ``y``.
        """
        cs, nets = self.sorted(tensors)
        x_slope, log_det_slope = torch.empty_like(x), slopes[1]
        before, after, out = self._parts(x), self._parts(y), self._parts(x_slope)
        current = list(self._parts(slopes[0]))
        found: list[Tensor | None] = [None] * len(tensors)
        if not kept and len(self.order) == 1:
            before[1].copy_(after[1])
        for place in reversed(range(len(self.order))):
            side = self.order[place]
            other, net = 1 - side, nets[side]
            read = after[other] if place else before[other]
            own = kept[place] if kept else self._rebuilt(net, read, cs, after[side], before[side])
            current[side], slope = self.work.pull(
                before[side], own.params, after[side], own.scales, (current[side], log_det_slope), out=out[side]
            )
            start = self.conditions + sum(len(nets[k].tensors) for k in range(side))
            end = start + len(net.tensors)
            slope, found[start:end] = net.pull(read, cs, own.hidden, slope.flatten(1), wanted[start:end])
            current[other] = torch.addmm(current[other], slope, net.weights[0], out=out[other])
            for k in range(self.conditions):
                if wanted[k]:
                    so_far, more = found[k], slope @ net.given[k]
                    found[k] = more if so_far is None else so_far.add_(more)
        return x_slope, found

    def undo(
        self, y: Tensor, tensors: Tensors, slopes: Sequence[Tensor], wanted: Sequence[bool]
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """The ``x`` of which ``y`` was made, and as :meth:`pull`; each network runs once for both."""
        x = torch.empty_like(y)
        return x, *self.pull(x, y, tensors, (), slopes, wanted)

    def _rebuilt(self, net: Dense, read: Tensor, cs: Tensors, y: Tensor, out: Tensor) -> Kept:
        output, hidden = net.evaluate(read, cs)
        params = output.unflatten(1, (2, -1))
        _, _, scales = self.work.opposite().evaluate(y, params, out=out)
        return Kept(hidden, params, scales)

    def _parts(self, x: Tensor) -> Tensors:
        return torch.split_with_sizes(x, self.sizes, 1)


def dense_coupling(plan: Plan, x: Tensor, cs: Tensors, nets: Sequence[Dense]) -> tuple[Tensor, Tensor]:
    """Result and log-determinant per sample, given the network of each side."""
    tensors = all_tensors(cs, nets)
    if recorded(x, *tensors):
        return _DenseCoupling.apply(plan, nets, x, *tensors)  # type: ignore[no-untyped-call, no-any-return]
    return plan.evaluate(x, cs, nets)[:2]


def all_tensors(cs: Tensors, nets: Sequence[Dense]) -> Tensors:
    """The conditions, then the parameters of each side: as a plan sorts them."""
    tensors = cs
    for net in nets:
        tensors += net.tensors
    return tensors


class _DenseCoupling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: Plan, nets: Sequence[Dense], x: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        y, log_det, kept = plan.evaluate(x, tensors[: plan.conditions], nets)
        ctx.plan = plan
        ctx.save_for_backward(x, y, *tensors, *(t for k in kept for t in (*k.hidden, k.params, *k.scales)))
        return y, log_det

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        plan: Plan = ctx.plan
        wanted = ctx.needs_input_grad[3:]
        x, y, *others = ctx.saved_tensors
        tensors, saved = tuple(others[: len(wanted)]), iter(others[len(wanted) :])
        if not alone(*slopes):
            return None, None, *derived(plan.plain, (x, *tensors), slopes)
        kept = []
        for side in plan.order:
            hidden = [next(saved) for _ in range(plan.layers[side] - 1)]
            kept.append(Kept(hidden, next(saved), [next(saved) for _ in range(plan.work.scales)]))
        x_slope, found = plan.pull(x, y, tensors, kept, slopes, wanted)
        return None, None, x_slope, *found
