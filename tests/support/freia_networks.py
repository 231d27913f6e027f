"""Small networks made of FrEIA's nodes and layers, and data for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import invgraph as ig

Ff, Fm = ig.freia.framework, ig.freia.modules


def subnet(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 8), nn.Tanh(), nn.Linear(8, channels_out))


def conditional(blocks: int = 3) -> Any:
    x, c = Ff.InputNode(4, name="x"), Ff.ConditionNode(2, name="c")
    nodes: list[Any] = [x]
    for _ in range(blocks):
        nodes.append(Ff.Node(nodes[-1], Fm.GLOWCouplingBlock, {"subnet_constructor": subnet}, conditions=c))
        nodes.append(Ff.Node(nodes[-1], Fm.PermuteRandom, {"seed": len(nodes)}))
    return Ff.GraphINN([*nodes, c, Ff.OutputNode(nodes[-1])])


def sequence() -> Any:
    net = Ff.SequenceINN(4)
    net.append(Fm.AllInOneBlock, cond=1, cond_shape=(2,), subnet_constructor=subnet)
    net.append(Fm.ActNorm)
    return net


X, C = torch.randn(5, 4), torch.randn(5, 2)
