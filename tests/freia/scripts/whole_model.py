"""Whole models pickled and copied; subclasses of the networks; a chain walked by hand."""

import copy
import io

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch


class Walked(Ff.SequenceINN):
    def forward(self, x, c=None, rev=False, jac=True):
        total = 0
        values = (x,)
        for module in reversed(self.module_list) if rev else self.module_list:
            values, j = module(values, rev=rev, jac=jac)
            total = total + j
        return values[0], total


class Flow(Ff.GraphINN):
    def forward(self, x, c=None, rev=False, jac=True):
        z, j = super().forward(x, c=c, rev=rev, jac=jac)
        return z * 2, j


def subnet(i, o):
    return torch.nn.Linear(i, o)


chain = Walked(1, 4, 4)
chain.append(Fm.HaarDownsampling)
chain.append(Fm.IRevNetUpsampling)
chain.append(Fm.Reshape, output_dims=(16,))
chain.append(Fm.LearnedElementwiseScaling)
chain.append(Fm.AllInOneBlock, subnet_constructor=subnet, learned_householder_permutation=2, reverse_permutation=True)
x = torch.randn(2, 1, 4, 4)
z, j = chain(x)
inp = Ff.InputNode(6)
node = Ff.Node(inp, Fm.RNVPCouplingBlock, {"subnet_constructor": subnet, "clamp_activation": "TANH"})
flow = Flow([inp, node, Ff.OutputNode(node)])
data = torch.randn(3, 6)
results = [z, j, chain(z, rev=True)[0], *flow(data), *copy.deepcopy(flow)(data)]
buffer = io.BytesIO()
torch.save(Fm.NICECouplingBlock([(6,)], subnet_constructor=torch.nn.Linear).F, buffer)
shapes = [tuple(s) for s in chain.shapes], [len(chain), type(chain[1]).__name__]
doubled = torch.nn.DataParallel(flow)
results += [*doubled(data)]
