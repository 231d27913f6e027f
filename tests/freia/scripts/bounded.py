"""Bounded outputs by a sigmoid at the end, and sampling from a uniform latent."""

import FrEIA.framework as ff
import FrEIA.modules as fm
import torch


def make_subnet(width):
    def subnet(c_in, c_out):
        net = torch.nn.Sequential(torch.nn.Linear(c_in, width), torch.nn.GELU(), torch.nn.Linear(width, c_out))
        net[-1].weight.data.fill_(0.01)
        net[-1].bias.data.fill_(0.0)
        return net

    return subnet


flow = ff.SequenceINN(4)
for k in range(2):
    flow.append(fm.NICECouplingBlock, subnet_constructor=make_subnet(8))
    flow.append(fm.GINCouplingBlock, subnet_constructor=make_subnet(8), clamp=0.5, clamp_activation="SIGMOID")
flow.append(fm.InvertibleSigmoid)
u, jac = flow(torch.randn(6, 4))
x, jac_back = flow(torch.rand(6, 4) * 0.9 + 0.05, rev=True)
results = [u, jac, x, jac_back]
