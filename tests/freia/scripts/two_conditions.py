"""A chain with two conditions by index, one of which the first blocks do not read; surplus ones are ignored."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch


def subnet(c_in, c_out):
    return torch.nn.Sequential(torch.nn.Linear(c_in, 16), torch.nn.SiLU(), torch.nn.Linear(16, c_out))


inn = Ff.SequenceINN(3)
for k in range(4):
    inn.append(
        Fm.AllInOneBlock, cond=k % 2, cond_shape=(2,) if k % 2 else (4,), subnet_constructor=subnet, permute_soft=k > 1
    )
a, b = torch.randn(7, 4), torch.randn(7, 2)
z, jac = inn(torch.randn(7, 3), c=[a, b, None])
results = [z, jac, inn(z, c=[a, b], rev=True)[0], *inn(z, (a, b), rev=True, jac=False)[:1]]
conditions = inn.conditions
