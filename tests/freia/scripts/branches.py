"""Branches of different sizes that are joined again; weights are set by the names of the nodes."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch
from torch import nn


def conv(c_in, c_out):
    return nn.Conv2d(c_in, c_out, 1)


x = Ff.InputNode(4, 6, 6, name="x")
split = Ff.Node(x, Fm.Split, {"n_sections": 2, "dim": 1}, name="split")
top = Ff.Node(split.out0, Fm.GLOWCouplingBlock, {"subnet_constructor": conv, "clamp": 1.0}, name="top")
low = Ff.Node(split.out1, Fm.NICECouplingBlock, {"subnet_constructor": conv}, name="low")
join = Ff.Node([top.out0, low.out0], Fm.Concat, {"dim": 1}, name="join")
net = Ff.GraphINN([x, split, top, low, join, Ff.OutputNode(join, name="y")])
for name, value in (("top", 0.1), ("low", -0.2)):
    for p in net.get_module_by_name(name).parameters():
        p.data.fill_(value)
z, jac = net(torch.randn(2, 4, 6, 6))
results = [z, jac, *net(z, rev=True)]
