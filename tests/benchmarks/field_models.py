"""The models of the section ``field``, in this library and in others, with equal networks and numbers of steps.

A model is a triple of functions: the log-density of data under conditions, samples, and a module that holds the
parameters. Peers are imported when they are built: one that is not installed leaves its column empty.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import invgraph as ig

BOUND = 5.0
"""Half-width of the interval of the splines."""


@dataclass(frozen=True)
class Model:
    """One contestant.

    Attributes:
        module: What holds the parameters.
        log_prob: Log-density of data under conditions.
        sample: Samples, from their number and the condition of one row.
    """

    module: nn.Module
    log_prob: Callable[[Tensor, Tensor | None], Tensor]
    sample: Callable[[int, Tensor | None], object]


class Joint(nn.Module):
    """Fully connected network that reads data and context, concatenated."""

    def __init__(self, inputs: int, outputs: int, context: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        sizes = (inputs + context, *hidden, outputs)
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        result: Tensor = self.layers(x if context is None else torch.cat((x, context), 1))
        return result


def own(graph: ig.Graph) -> Model:
    """A flow of this library."""
    flow = ig.Flow(graph)
    return Model(
        flow,
        lambda x, c: flow.log_prob(x, () if c is None else c),
        lambda n, c: flow.sample(n, () if c is None else c),
    )


def nodes(dims: int, context: int) -> tuple[ig.InputNode, Any]:
    return ig.InputNode(dims, name="x"), ig.ConditionNode(context, name="c") if context else ()


def spline_own(dims: int, context: int, steps: int, hidden: tuple[int, ...]) -> Model:
    x, c = nodes(dims, context)
    args = {
        "transform": ig.RationalQuadraticSpline(bins=8, bound=BOUND),
        "subnet": ig.nets.MLP(hidden[0], len(hidden)),
        "sides": 1,
    }
    layers = [layer for k in range(steps) for layer in ((ig.Coupling, args), (ig.Permute, {"seed": k}))]
    return own(ig.Graph(x, ig.chain(x, *layers, conditions=c), c))


def spline_nflows(dims: int, context: int, steps: int, hidden: tuple[int, ...]) -> Model:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.coupling import PiecewiseRationalQuadraticCouplingTransform
    from nflows.transforms.permutations import RandomPermutation

    mask = torch.cat((torch.zeros(dims - dims // 2), torch.ones(dims // 2)))
    layers: list[Any] = []
    for _ in range(steps):
        layers.append(PiecewiseRationalQuadraticCouplingTransform(
            mask, lambda a, b: Joint(a, b, context, hidden), num_bins=8, tails="linear", tail_bound=BOUND))  # fmt: skip
        layers.append(RandomPermutation(dims))
    return _nflows(Flow(CompositeTransform(layers), StandardNormal([dims])))


def _nflows(flow: Any) -> Model:
    return Model(flow, lambda x, c: flow.log_prob(x, c), lambda n, c: flow.sample(n, c))


def spline_zuko(dims: int, context: int, steps: int, hidden: tuple[int, ...]) -> Model:
    import zuko
    from zuko.flows.coupling import GeneralCouplingTransform

    layers = []
    for step in range(steps):
        mask = torch.arange(dims) < dims // 2 if step % 2 else torch.arange(dims) >= dims // 2
        layers.append(GeneralCouplingTransform(
            dims, context, mask=mask, univariate=zuko.transforms.MonotonicRQSTransform,
            shapes=[(8,), (8,), (7,)], hidden_features=hidden))  # fmt: skip
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(dims), torch.ones(dims), buffer=True
    )
    return _zuko(zuko.lazy.Flow(layers, base))


def _zuko(flow: Any) -> Model:
    return Model(flow, lambda x, c: flow(c).log_prob(x), lambda n, c: flow(c).sample((n,)))


def maf_own(dims: int, context: int, steps: int, hidden: tuple[int, ...]) -> Model:
    x, c = nodes(dims, context)
    args = {"transform": ig.Affine(), "hidden": hidden[0], "layers": len(hidden)}
    layers = [layer for k in range(steps) for layer in ((ig.Autoregressive, args), (ig.Permute, {"seed": k}))]
    return own(ig.Graph(x, ig.chain(x, *layers, conditions=c), c))


def maf_nflows(dims: int, context: int, steps: int, hidden: tuple[int, ...]) -> Model:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.permutations import ReversePermutation

    layers: list[Any] = []
    for _ in range(steps):
        layers.append(MaskedAffineAutoregressiveTransform(
            dims, hidden[0], context_features=context or None, num_blocks=len(hidden) - 1,
            use_residual_blocks=False))  # fmt: skip
        layers.append(ReversePermutation(dims))
    return _nflows(Flow(CompositeTransform(layers), StandardNormal([dims])))


def maf_zuko(dims: int, context: int, steps: int, hidden: tuple[int, ...]) -> Model:
    import zuko

    return _zuko(zuko.flows.MAF(dims, context, transforms=steps, hidden_features=hidden))


def subnet(channels_in: int, channels_out: int, hidden: int = 64) -> nn.Module:
    """Glow's network, as all contestants use it."""
    return nn.Sequential(
        nn.Conv2d(channels_in, hidden, 3, padding=1), nn.ReLU(),
        nn.Conv2d(hidden, hidden, 1), nn.ReLU(),
        nn.Conv2d(hidden, channels_out, 3, padding=1),
    )  # fmt: skip


LEVELS, STEPS = 3, 4


def glow_own() -> Model:
    """Glow's steps: a scaling, a learned 1 x 1 convolution, and a coupling."""
    return _glow(ig.ActNorm, ig.Conv1x1, (ig.Coupling, {"transform": ig.Affine(), "subnet": subnet, "sides": 1}))


def glow_blocks_own() -> Model:
    """All-in-one blocks, as in :func:`glow_freia`."""
    return _glow((ig.AllInOne, {"subnet": subnet}))


def _glow(*step: Any) -> Model:
    x = ig.InputNode(3, 32, 32, name="x")
    h: Any = x
    outputs = []
    for level in range(LEVELS):
        h = ig.Node(h, ig.Squeeze, name=f"squeeze_{level}")
        for k in range(STEPS):
            h = ig.chain(h, *step, name=f"step_{level}_{k}")
        if level < LEVELS - 1:
            half = h.shape[0] // 2
            split = ig.Node(h, ig.Split, {"sizes": (half, half)}, name=f"split_{level}")
            h, off = split[0], split[1]
            outputs.append(off)
    graph = ig.Graph(x, (*outputs, h))
    graph.initialize(torch.randn(16, 3, 32, 32))
    return own(graph)


def glow_normflows() -> Model:
    import normflows as nf

    bases, merges, flows = [], [], []
    for level in range(LEVELS):
        steps = [nf.flows.GlowBlock(3 * 2 ** (LEVELS + 1 - level), 64, split_mode="channel") for _ in range(STEPS)]
        flows.append([*steps, nf.flows.Squeeze()])
        if level:
            merges.append(nf.flows.Merge())
        size = 32 // 2 ** (LEVELS - level)
        shape = (3 * 2 ** (LEVELS + (not level) - level), size, size)
        bases.append(nf.distributions.DiagGaussian(shape, trainable=False))
    flow = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)
    flow.log_prob(torch.randn(16, 3, 32, 32), None)  # initializes ActNorm
    return Model(flow, lambda x, c: flow.log_prob(x, None), lambda n, c: flow.sample(n))


def glow_freia() -> Model:
    """All-in-one blocks, which join a coupling, a scaling and a permutation."""
    import FrEIA.framework as ff
    import FrEIA.modules as fm

    h: Any = ff.InputNode(3, 32, 32, name="x")
    nodes, outputs = [h], []
    for level in range(LEVELS):
        h = ff.Node(h, fm.IRevNetDownsampling, {})
        nodes.append(h)
        for _ in range(STEPS):
            h = ff.Node(h, fm.AllInOneBlock, {"subnet_constructor": subnet})
            nodes.append(h)
        if level < LEVELS - 1:
            split = ff.Node(h, fm.Split, {})
            outputs.append(ff.OutputNode(split.out1))
            nodes.append(split)
            h = split.out0
    outputs.append(ff.OutputNode(h))
    flow = ff.GraphINN([*nodes, *outputs], verbose=False)
    shapes = flow.global_out_shapes

    def log_prob(x: Tensor, c: Tensor | None) -> Tensor:
        zs, log_det = flow([x])
        density: Tensor = log_det - sum(z.square().flatten(1).sum(1) for z in zs) / 2
        return density

    return Model(flow, log_prob, lambda n, c: flow([torch.randn(n, *shape) for shape in shapes], rev=True))


def deep_own(dims: int, steps: int, hidden: int) -> ig.Graph:
    x = ig.InputNode(dims, name="x")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden), "sides": 1}
    layers = [layer for k in range(steps) for layer in ((ig.Coupling, args), (ig.Permute, {"seed": k}))]
    return ig.Graph(x, ig.chain(x, *layers))


def coupling_own(dims: int, steps: int, hidden: int) -> Model:
    return own(deep_own(dims, steps, hidden))


def coupling_reversible(dims: int, steps: int, hidden: int) -> Model:
    flow = ig.Flow(ig.reversible(deep_own(dims, steps, hidden)))
    return Model(flow, lambda x, c: flow.log_prob(x), lambda n, c: flow.sample(n))


def coupling_nflows(dims: int, steps: int, hidden: int) -> Model:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.base import CompositeTransform
    from nflows.transforms.coupling import AffineCouplingTransform
    from nflows.transforms.permutations import RandomPermutation

    mask = torch.cat((torch.zeros(dims - dims // 2), torch.ones(dims // 2)))
    layers: list[Any] = []
    for _ in range(steps):
        layers.append(AffineCouplingTransform(mask, lambda a, b: Joint(a, b, 0, (hidden,))))
        layers.append(RandomPermutation(dims))
    return _nflows(Flow(CompositeTransform(layers), StandardNormal([dims])))


def coupling_zuko(dims: int, steps: int, hidden: int) -> Model:
    import zuko

    return _zuko(zuko.flows.NICE(dims, 0, transforms=steps, hidden_features=(hidden,)))


def coupling_freia(dims: int, steps: int, hidden: int) -> Model:
    import FrEIA.framework as ff
    import FrEIA.modules as fm

    flow = ff.SequenceINN(dims)
    for _ in range(steps):
        flow.append(fm.AllInOneBlock, subnet_constructor=lambda a, b: Joint(a, b, 0, (hidden,)))

    def log_prob(x: Tensor, c: Tensor | None) -> Tensor:
        z, log_det = flow(x)
        density: Tensor = log_det - z.square().sum(1) / 2
        return density

    return Model(flow, log_prob, lambda n, c: flow(torch.randn(n, dims), rev=True))
