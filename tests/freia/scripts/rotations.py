"""Learned and fixed rotations of all kinds in one chain."""

import warnings

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock, HouseholderPerm, InvAutoAct, OrthogonalTransform


def subnet(c_in, c_out):
    return torch.nn.Sequential(torch.nn.Linear(c_in, 10), torch.nn.ELU(), torch.nn.Linear(10, c_out))


inn = SequenceINN(6)
inn.append(HouseholderPerm, n_reflections=4, fixed=True)
inn.append(
    AllInOneBlock,
    subnet_constructor=subnet,
    permute_soft=True,
    learned_householder_permutation=3,
    reverse_permutation=True,
)
inn.append(OrthogonalTransform, clamp=2.0)
inn.append(InvAutoAct)
inn.append(HouseholderPerm, n_reflections=2)
inn = inn.double()
x = torch.randn(9, 6).double()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    z, jac = inn(x)
z.square().sum().backward()
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    back, _ = inn(z.detach(), rev=True)
results = [z, jac, back, inn.module_list[1].vk_householder.grad, inn.module_list[4].Vs.grad]
