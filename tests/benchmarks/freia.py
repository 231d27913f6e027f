"""FrEIA's programs on FrEIA and on ``invgraph.freia``: same weights, same data, in turns."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import invgraph as ig
from tests.benchmarks.field import is_chosen
from tests.benchmarks.timing import interleave, rows

Package = Any
"""A pair of ``framework`` and ``modules``, of FrEIA or ours."""


def dense(width: int) -> Callable[[int, int], nn.Module]:
    return lambda c_in, c_out: nn.Sequential(nn.Linear(c_in, width), nn.ReLU(), nn.Linear(width, c_out))


def convolutions(width: int, kernel: int) -> Callable[[int, int], nn.Module]:
    def make(c_in: int, c_out: int) -> nn.Module:
        first = nn.Conv2d(c_in, width, kernel, padding=kernel // 2)
        return nn.Sequential(first, nn.ReLU(), nn.Conv2d(width, c_out, kernel, padding=kernel // 2))

    return make


def mnist(ff: Any, fm: Any) -> tuple[Any, Tensor, list[Tensor]]:
    """The conditional INN of MNIST digits, a third as deep."""
    c = ff.ConditionNode(10)
    nodes = [ff.InputNode(1, 28, 28)]
    nodes.append(ff.Node(nodes[-1], fm.Flatten, {}))
    for k in range(8):
        nodes.append(ff.Node(nodes[-1], fm.PermuteRandom, {"seed": k}))
        args = {"subnet_constructor": dense(512), "clamp": 1.0}
        nodes.append(ff.Node(nodes[-1], fm.GLOWCouplingBlock, args, conditions=c))
    net = ff.GraphINN([*nodes, c, ff.OutputNode(nodes[-1])], verbose=False)
    return net, torch.randn(256, 1, 28, 28), [torch.eye(10)[torch.arange(256) % 10]]


def feature_maps(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """All-in-one blocks on feature maps, as fast anomaly detectors use them."""
    net = ff.SequenceINN(256, 64, 64)
    for _ in range(2):
        net.append(fm.AllInOneBlock, subnet_constructor=convolutions(64, 1), permute_soft=False)
    return net, torch.randn(2, 256, 64, 64), None


def patches(ff: Any, fm: Any) -> tuple[Any, Tensor, list[Tensor]]:
    """A conditional chain on vectors, as detectors of anomalies in patches use it."""
    net = ff.SequenceINN(512)
    for _ in range(4):
        net.append(
            fm.AllInOneBlock, cond=0, cond_shape=(128,), subnet_constructor=dense(512), affine_clamping=1.9,
            global_affine_type="SOFTPLUS", permute_soft=False,
        )  # fmt: skip
    return net, torch.randn(256, 512), [torch.randn(256, 128)]


def tiny_chain(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """The two moons of the README."""
    net = ff.SequenceINN(2)
    for _ in range(8):
        net.append(fm.AllInOneBlock, subnet_constructor=dense(64), permute_soft=True)
    return net, torch.randn(100, 2), None


def tiny_graph(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """A toy inverse problem."""
    nodes = [ff.InputNode(6)]
    for k in range(8):
        nodes.append(ff.Node(nodes[-1], fm.GLOWCouplingBlock, {"subnet_constructor": dense(64), "clamp": 2.0}))
        nodes.append(ff.Node(nodes[-1], fm.PermuteRandom, {"seed": k}))
    return ff.GraphINN([*nodes, ff.OutputNode(nodes[-1])], verbose=False), torch.randn(64, 6), None


def stages(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """Down by wavelets and by patches, and up again."""
    layers = (fm.HaarDownsampling, fm.IRevNetDownsampling, fm.HaarDownsampling)
    return _chain(ff, (3, 64, 64), 16, *layers, fm.HaarUpsampling, fm.IRevNetUpsampling, fm.HaarUpsampling)


def haar(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """Wavelets of color images."""
    return _chain(ff, (3, 64, 64), 16, fm.HaarDownsampling, fm.HaarDownsampling)


def wide_haar(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """Wavelets of feature maps, ordered by wavelet."""
    return _chain(ff, (64, 32, 32), 8, (fm.HaarDownsampling, {"order_by_wavelet": True}))


def irevnet(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """Patches to channels."""
    return _chain(ff, (3, 64, 64), 16, fm.IRevNetDownsampling, fm.IRevNetDownsampling)


def gin(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """Volume-preserving couplings of vectors."""
    return _chain(ff, (64,), 256, *[(fm.GINCouplingBlock, {"subnet_constructor": dense(128)})] * 4)


def rnvp(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """Couplings of four subnets."""
    return _chain(ff, (64,), 256, *[(fm.RNVPCouplingBlock, {"subnet_constructor": dense(128)})] * 4)


def nice(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """Additive couplings of images."""
    return _chain(ff, (8, 16, 16), 16, *[(fm.NICECouplingBlock, {"subnet_constructor": convolutions(32, 3)})] * 4)


def one_sided(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """Couplings of one part, between permutations."""
    block = (fm.AffineCouplingOneSided, {"subnet_constructor": dense(128)})
    return _chain(ff, (64,), 256, *[block, (fm.PermuteRandom, {"seed": 1})] * 4)


def conditional_affine(ff: Any, fm: Any) -> tuple[Any, Tensor, list[Tensor]]:
    """Scale and shift by conditions."""
    net = ff.SequenceINN(64)
    for _ in range(4):
        net.append(fm.ConditionalAffineTransform, cond=0, cond_shape=(32,), subnet_constructor=dense(64))
    return net, torch.randn(256, 64), [torch.randn(256, 32)]


def actnorm(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """Normalized feature maps."""
    return _chain(ff, (32, 32, 32), 8, *[fm.ActNorm] * 4)


def small_actnorm(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """Normalized vectors, where a call is mostly Python."""
    return _chain(ff, (8,), 64, *[fm.ActNorm] * 4)


def permute(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """Permuted feature maps."""
    return _chain(ff, (64, 16, 16), 16, *[(fm.PermuteRandom, {"seed": k}) for k in range(4)])


def small_permute(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """Permuted vectors."""
    return _chain(ff, (8,), 64, *[(fm.PermuteRandom, {"seed": k}) for k in range(4)])


def linear(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """Fixed and learned matrices."""
    matrix = torch.linalg.qr(torch.randn(64, 64)).Q
    layers = ((fm.FixedLinearTransform, {"M": matrix}), (fm.HouseholderPerm, {"n_reflections": 4}))
    return _chain(ff, (64,), 256, *layers, fm.OrthogonalTransform, fm.LearnedElementwiseScaling)


def convolved(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """GLOW in images: couplings between fixed convolutions."""
    block = (fm.GLOWCouplingBlock, {"subnet_constructor": convolutions(32, 3), "clamp": 1.2})
    matrix = torch.linalg.qr(torch.randn(12, 12)).Q
    return _chain(ff, (12, 16, 16), 16, *[block, (fm.Fixed1x1Conv, {"M": matrix})] * 4)


def topology(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """Parts split off and joined, flattened and reshaped."""
    nodes = [ff.InputNode(8, 8, 8)]
    for _ in range(4):
        split = ff.Node(nodes[-1], fm.Split, {"section_sizes": (4, 4)})
        flat = ff.Node(split.out0, fm.Flatten, {})
        back = ff.Node(flat, fm.Reshape, {"output_dims": (4, 8, 8)})
        nodes += [split, flat, back, ff.Node([back.out0, split.out1], fm.Concat, {})]
    return ff.GraphINN([*nodes, ff.OutputNode(nodes[-1])], verbose=False), torch.randn(16, 8, 8, 8), None


def soft_blocks(ff: Any, fm: Any) -> tuple[Any, Tensor, None]:
    """All-in-one blocks on small images with rotations, reflections, and volume preserved."""
    options = {"permute_soft": True}, {"learned_householder_permutation": 3}, {"gin_block": True}
    args = [{"subnet_constructor": convolutions(32, 3), **option} for option in options]
    return _chain(ff, (12, 16, 16), 16, *[(fm.AllInOneBlock, arg) for arg in args])


def _chain(ff: Any, shape: tuple[int, ...], batch: int, *layers: Any) -> tuple[Any, Tensor, None]:
    """Return a SequenceINN of classes, or of pairs of class and arguments, and its data."""
    net = ff.SequenceINN(*shape)
    for layer in layers:
        kind, args = layer if isinstance(layer, tuple) else (layer, {})
        net.append(kind, **args)
    return net, torch.randn(batch, *shape), None


PROGRAMS = (mnist, feature_maps, patches, tiny_chain, tiny_graph, stages)
"""Whole programs."""

LAYERS = (
    haar, wide_haar, irevnet, gin, rnvp, nice, one_sided, conditional_affine, actnorm, small_actnorm, permute,
    small_permute, linear, convolved, topology, soft_blocks,
)  # fmt: skip
"""Chains of one kind of layer each."""


def pair(program: Callable[[Any, Any], Any]) -> tuple[Any, Any, Tensor, Any]:
    """The program's network of FrEIA and ours with equal weights, and its data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import FrEIA.framework
        import FrEIA.modules
    built = []
    for ff, fm in ((FrEIA.framework, FrEIA.modules), (ig.freia.framework, ig.freia.modules)):
        torch.default_generator.manual_seed(0)
        np.random.seed(0)
        built.append(program(ff, fm))
    (theirs, x, c), (ours, _, _) = built
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.mul_(0.5)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours, x, c


JOBS = ("forward", "inverse", "training step")


def jobs(net: Any, x: Tensor, c: Any) -> dict[str, Callable[[], object]]:
    """Work of programs with a network."""
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]

    def forward() -> None:
        with torch.no_grad():
            net(x, c=c)

    with torch.no_grad():
        z = net(x, c=c)[0].clone()

    def inverse() -> None:
        with torch.no_grad():
            net(z.clone(), c=c, rev=True)  # FrEIA's inverse wavelets write into what they are given

    data = x.clone().requires_grad_(not parameters)  # layers without parameters have others below them

    def train() -> None:
        for parameter in (data, *parameters):
            parameter.grad = None
        latent, log_jac = net(data, c=c)
        (latent.square().sum() / 2 - torch.as_tensor(log_jac).sum()).backward()

    return dict(zip(JOBS, (forward, inverse, train), strict=True))


def run(
    seconds: float,
    programs: Sequence[Callable[[Any, Any], Any]] = (*PROGRAMS, *LAYERS),
    chosen: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """A row for each program and job; the ratio is that of the least processor time to FrEIA's.

    With ``chosen``, only the rows whose name contains one of these texts.
    """
    found: list[dict[str, Any]] = []
    for program in programs:
        wanted = {name: f"freia {program.__name__}, {name}" for name in JOBS}
        if not any(is_chosen(work, chosen) for work in wanted.values()):
            continue
        theirs, ours, x, c = pair(program)
        expected, got = jobs(theirs, x, c), jobs(ours, x, c)
        for name, work in wanted.items():
            if not is_chosen(work, chosen):
                continue
            timings = interleave(
                {"FrEIA": expected[name], "invgraph.freia": got[name]}, seconds, least=20, clock=time.process_time
            )
            found += [row for row in rows(timings, "FrEIA", work=work) if row["contestant"] != "FrEIA"]
    return found
