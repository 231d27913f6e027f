"""Several inputs and outputs, joined and split again, read in every way that nodes allow."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch


def subnet(c_in, c_out):
    return torch.nn.Linear(c_in, c_out)


a, b = Ff.InputNode(2, name="a"), Ff.InputNode(4, name="b")
joined = Ff.Node([a.out0, (b, 0)], Fm.Concat, {"dim": 0}, name="joined")
mixed = Ff.Node((joined, 0), Fm.GINCouplingBlock, {"subnet_constructor": subnet, "split_len": 2}, name="mixed")
split = Ff.Node([mixed.out0], Fm.Split, {"section_sizes": [1, 2, 3], "dim": 0}, name="split")
outs = [Ff.OutputNode(split.out2), Ff.OutputNode((split, 0)), Ff.OutputNode([split.out1])]
net = Ff.GraphINN([a, b, joined, mixed, split, *outs])
x = [torch.randn(5, 2), torch.randn(5, 4)]
(z1, z2, z3), jac = net(x)
(a_again, b_again), jac_back = net([z1, z2, z3], rev=True)
results = [z1, z2, z3, jac, a_again, b_again, jac_back]
