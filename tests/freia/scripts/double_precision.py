"""A model in double precision."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch


def subnet(c_in, c_out):
    return torch.nn.Sequential(torch.nn.Linear(c_in, 8), torch.nn.Tanh(), torch.nn.Linear(8, c_out))


inn = Ff.SequenceINN(4)
for _ in range(3):
    inn.append(Fm.RNVPCouplingBlock, subnet_constructor=subnet, clamp=1.1)
    inn.append(Fm.PermuteRandom, seed=1)
inn = inn.double()
x = torch.randn(5, 4, dtype=torch.float64)
z, jac = inn(x)
back, jac_back = inn(z, rev=True)
results = [z, jac.double(), back - x, (jac + jac_back).double()]
