"""The paper's small colorization model (4.3), its conditioning network left out: features are given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import invgraph as ig
from tests.benchmarks.timing import Job, interleave, rows, train_step

# Channels, size and hidden width of the convolutional stages, with their feature maps and numbers of blocks.
FEATURES = ((64, 64, 64), (128, 32, 32), (128, 16, 16), (512,))
HIDDEN = (32, 64, 128, 512)
CLAMP = 1.0


def graph() -> ig.Graph:
    ab = ig.InputNode(2, 64, 64, name="ab")
    c = [ig.ConditionNode(*shape, name=f"feature_{k}") for k, shape in enumerate(FEATURES)]

    def block(h: Any, stage: int, k: int, kernel: int = 3) -> ig.Node:
        subnet = ig.nets.ConvNet(HIDDEN[stage], kernel) if stage < 3 else ig.nets.MLP(HIDDEN[stage])
        args = {"transform": ig.Affine(clamp=CLAMP), "subnet": subnet}
        return ig.Node(h, ig.Coupling, args, conditions=c[stage], name=f"stage_{stage}_{k}")

    h: Any = ab
    for k in range(2):
        h = block(h, 0, k)
    h = ig.Node(h, ig.Haar, {"rebalance": 0.5})
    for k in range(4):
        h = ig.Node(block(h, 1, k, (3, 1)[k % 2]), ig.Permute, {"seed": k})
    split = ig.Node(h, ig.Split, {"sizes": (2, 6)})
    h = ig.Node(split[0], ig.Haar, {"rebalance": 0.5})
    for k in range(4):
        h = ig.Node(block(h, 2, k, (3, 1)[k % 2]), ig.Permute, {"seed": 10 + k})
    second = ig.Node(h, ig.Split, {"sizes": (4, 4)})
    h = ig.Node(second[0], ig.Flatten)
    for k in range(4):
        h = ig.Node(block(h, 3, k), ig.Permute, {"seed": 20 + k})
    outs = [h, ig.Node(second[1], ig.Flatten), ig.Node(split[1], ig.Flatten)]
    return ig.Graph(ab, ig.Node(outs, ig.Concat), c)


def freia() -> Any:
    import FrEIA.framework as ff
    import FrEIA.modules as fm

    c = [ff.ConditionNode(*shape) for shape in FEATURES]

    def convolutional(hidden: int, kernel: int) -> Any:
        def subnet(channels_in: int, channels_out: int) -> nn.Module:
            first = nn.Conv2d(channels_in, hidden, kernel, padding=kernel // 2)
            return nn.Sequential(first, nn.ReLU(), nn.Conv2d(hidden, channels_out, kernel, padding=kernel // 2))

        return subnet

    def connected(channels_in: int, channels_out: int) -> nn.Module:
        return nn.Sequential(nn.Linear(channels_in, HIDDEN[3]), nn.ReLU(), nn.Linear(HIDDEN[3], channels_out))

    nodes: list[Any] = [ff.InputNode(2, 64, 64)]

    def block(source: Any, stage: int, k: int) -> Any:
        subnet = connected if stage == 3 else convolutional(HIDDEN[stage], 3 if stage == 0 else (3, 1)[k % 2])
        args = {"subnet_constructor": subnet, "clamp": CLAMP}
        nodes.append(ff.Node(source, fm.GLOWCouplingBlock, args, conditions=c[stage]))
        return nodes[-1]

    def node(source: Any, kind: Any, args: dict[str, Any]) -> Any:
        nodes.append(ff.Node(source, kind, args))
        return nodes[-1]

    h = nodes[0]
    for k in range(2):
        h = block(h, 0, k)
    h = node(h, fm.HaarDownsampling, {"rebalance": 0.5})
    for k in range(4):
        h = node(block(h, 1, k), fm.PermuteRandom, {"seed": k})
    split = node(h, fm.Split, {"section_sizes": [2, 6], "dim": 0})
    h = node(split.out0, fm.HaarDownsampling, {"rebalance": 0.5})
    for k in range(4):
        h = node(block(h, 2, k), fm.PermuteRandom, {"seed": 10 + k})
    second = node(h, fm.Split, {"section_sizes": [4, 4], "dim": 0})
    h = node(second.out0, fm.Flatten, {})
    for k in range(4):
        h = node(block(h, 3, k), fm.PermuteRandom, {"seed": 20 + k})
    flat = [h, node(second.out1, fm.Flatten, {}), node(split.out1, fm.Flatten, {})]
    joined = node([f.out0 for f in flat], fm.Concat1d, {"dim": 0})
    return ff.GraphINN([*nodes, *c, ff.OutputNode(joined)])


def features(batch: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(batch, *shape) for shape in FEATURES)


def run(seconds: float) -> list[dict[str, object]]:
    """A train step at batch 8, and 8 and 64 colorizations of one image."""
    batch = 8
    x, cs = torch.randn(batch, 2, 64, 64), features(batch)
    plain, other = graph(), None
    runner = ig.reversible(graph())
    jobs: dict[str, Job] = {
        "invgraph": train_step(plain, x, cs),
        "invgraph reversible": train_step(runner, x, cs),
    }
    try:
        other = freia()
        jobs["FrEIA"] = train_step(other, x, list(cs))
    except ImportError as error:
        print(f"  FrEIA: not installed ({error})")
    found = rows(interleave(jobs, seconds / 3), "invgraph", work="train step", batch=batch)
    for samples in (8, 64):
        found += rows(interleave(sampling_jobs(plain, other, samples), seconds / 3), "invgraph bound",
                      work="samples of one image", batch=samples)  # fmt: skip
    return found


def sampling_jobs(plain: ig.Graph, other: Any, samples: int) -> dict[str, Job]:
    """Colorizations of one image, everyone given the same features; binding is counted in."""
    one = features(1)
    z = torch.randn(samples, 8192)
    repeated = tuple(c.expand(samples, *c.shape[1:]).contiguous() for c in one)
    jobs: dict[str, Job] = {
        "invgraph bound": lambda: plain.bind(one).inverse(z.unsqueeze(1)),
        "invgraph": lambda: plain.inverse(z, repeated),
    }
    kept = plain.bind(one)
    jobs["invgraph bound before"] = lambda: kept.inverse(z.unsqueeze(1))
    if other is not None:
        jobs["FrEIA"] = lambda: other(z, list(repeated), rev=True)
    return {name: torch.no_grad()(job) for name, job in jobs.items()}
