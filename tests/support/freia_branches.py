"""Networks of FrEIA's with branches, whose modules it numbers by memory address."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

import invgraph as ig

OURS = (ig.freia.framework, ig.freia.modules)
X = torch.randn(4, 12)


def theirs() -> tuple[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        framework, modules = pytest.importorskip("FrEIA.framework"), pytest.importorskip("FrEIA.modules")
    return framework, modules


def subnet(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 5), nn.Tanh(), nn.Linear(5, channels_out))


def branched(package: tuple[Any, Any], sizes: tuple[int, ...], depth: int = 2) -> Any:
    """A network of one branch for each size, with as many couplings as its depth, joined at the end."""
    ff, fm = package
    x = ff.InputNode(sum(sizes), name="x")
    split = ff.Node(x, fm.Split, {"section_sizes": list(sizes)}, name="split")
    nodes, ends = [x, split], []
    for branch in range(len(sizes)):
        h: Any = (split, branch)
        for level in range(depth):
            h = ff.Node(h, fm.GLOWCouplingBlock, {"subnet_constructor": subnet}, name=f"{branch}/{level}")
            nodes.append(h)
        ends.append(h)
    joined = ff.Node([end.out0 for end in ends], fm.Concat, {}, name="join")
    last = ff.Node(joined, fm.NICECouplingBlock, {"subnet_constructor": subnet}, name="last")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ff.GraphINN([*nodes, joined, last, ff.OutputNode(last, name="z")])


def names(net: Any) -> list[str]:
    return [node.name for node in net.node_list if node.module is not None]


def in_other_order(sizes: tuple[int, ...], depth: int = 2) -> Any:
    """One of FrEIA's networks whose order is not ours."""
    own = names(branched(OURS, sizes, depth))
    kept = []
    for _ in range(200):  # orders follow from addresses
        net = branched(theirs(), sizes, depth)
        kept.append(net)
        if names(net) != own:
            return net
    pytest.skip("FrEIA gave the same order 200 times")
