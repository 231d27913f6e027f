"""Colorization: features of a pyramid as conditions of each resolution, given as a list."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch
import torch.nn as nn


def conv(c_in, c_out):
    return nn.Sequential(nn.Conv2d(c_in, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, c_out, 3, padding=1))


def dense(c_in, c_out):
    return nn.Sequential(nn.Linear(c_in, 12), nn.ReLU(), nn.Linear(12, c_out))


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.levels = nn.ModuleList([nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, stride=2, padding=1)])

    def forward(self, gray):
        fine = self.levels[0](gray)
        coarse = self.levels[1](fine.relu())
        return [fine, coarse, coarse.mean((2, 3))]


scales = [Ff.ConditionNode(4, 8, 8), Ff.ConditionNode(6, 4, 4), Ff.ConditionNode(6)]
nodes = [Ff.InputNode(2, 8, 8)]
nodes.append(Ff.Node(nodes[-1], Fm.GLOWCouplingBlock, {"subnet_constructor": conv, "clamp": 1.0}, conditions=scales[0]))
nodes.append(Ff.Node(nodes[-1], Fm.HaarDownsampling, {"order_by_wavelet": True}))
for k in range(2):
    nodes.append(Ff.Node(nodes[-1], Fm.PermuteRandom, {"seed": k}))
    nodes.append(
        Ff.Node(nodes[-1], Fm.GLOWCouplingBlock, {"subnet_constructor": conv, "clamp": 1.0}, conditions=scales[1])
    )
nodes.append(Ff.Node(nodes[-1], Fm.Flatten, {}))
nodes.append(Ff.Node(nodes[-1], Fm.GLOWCouplingBlock, {"subnet_constructor": dense}, conditions=scales[2]))
cinn = Ff.GraphINN([*nodes, *scales, Ff.OutputNode(nodes[-1])], verbose=False)
pyramid = Pyramid()
features = pyramid(torch.rand(3, 1, 8, 8))
z, jac = cinn(torch.randn(3, 2, 8, 8), c=features)
(z.square().mean() - jac.mean()).backward()
results = [z, jac, *[p.grad for p in pyramid.parameters()], cinn(z.detach(), c=features, rev=True)[0]]
