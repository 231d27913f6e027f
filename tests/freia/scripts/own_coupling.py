"""Subclasses of the base of couplings."""

import FrEIA.framework as Ff
import torch
from FrEIA.modules.coupling_layers import _BaseCouplingBlock


class Tanh(_BaseCouplingBlock):
    def __init__(self, dims_in, dims_c=[], subnet_constructor=None, clamp=2.0, clamp_activation="TANH", split_len=0.5):
        super().__init__(dims_in, dims_c, clamp, clamp_activation, split_len)
        self.first = subnet_constructor(self.split_len2 + self.condition_length, self.split_len1)
        self.second = subnet_constructor(self.split_len1 + self.condition_length, self.split_len2)

    def _coupling1(self, x1, u2, rev=False):
        s = self.clamp * self.f_clamp(self.first(u2))
        j = torch.sum(s, dim=tuple(range(1, self.ndims + 1)))
        return (x1 * torch.exp(-s), -j) if rev else (x1 * torch.exp(s), j)

    def _coupling2(self, x2, u1, rev=False):
        t = self.second(u1)
        return (x2 - t, 0.0) if rev else (x2 + t, 0.0)


calls = []


def subnet(i, o):
    calls.append((i, o))
    return torch.nn.Linear(i, o)


x = Ff.InputNode(7)
c = [Ff.ConditionNode(2), Ff.ConditionNode(1)]
h = Ff.Node(x, Tanh, {"subnet_constructor": subnet, "clamp": 0.8}, conditions=c)
g = Ff.Node(h, Tanh, {"subnet_constructor": subnet, "split_len": 2, "clamp_activation": torch.sin}, conditions=c[1])
net = Ff.GraphINN([x, h, g, Ff.OutputNode(g), *c])
data, given = torch.randn(4, 7), [torch.randn(4, 2), torch.randn(4, 1)]
z, j = net(data, c=given)
results = [z, j, *net(z, c=tuple(given), rev=True), torch.tensor(calls)]
