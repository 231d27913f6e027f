"""Every clamp by name and one of one's own, in couplings of one and two sides."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch


def subnet(c_in, c_out):
    return torch.nn.Linear(c_in, c_out)


def softsign(u):
    return u / (1 + u.abs())


x = Ff.InputNode(6)
h = x
nodes = [x]
for block in (Fm.RNVPCouplingBlock, Fm.GLOWCouplingBlock, Fm.GINCouplingBlock, Fm.AffineCouplingOneSided):
    for clamp in ("ATAN", "TANH", "SIGMOID", softsign):
        h = Ff.Node(h, block, {"subnet_constructor": subnet, "clamp": 0.8, "clamp_activation": clamp})
        nodes.append(h)
inn = Ff.GraphINN([*nodes, Ff.OutputNode(h)]).double()
z, jac = inn(torch.randn(5, 6).double())
results = [z, jac, *inn(z, rev=True)]
