"""Images in one chain: wavelets, convolutional blocks of several kinds, then vectors."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch
from torch import nn


def conv(c_in, c_out):
    return nn.Sequential(nn.Conv2d(c_in, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, c_out, 3, padding=1))


def dense(c_in, c_out):
    return nn.Sequential(nn.Linear(c_in, 16), nn.ReLU(), nn.Linear(16, c_out))


inn = Ff.SequenceINN(3, 8, 8)
inn.append(Fm.HaarDownsampling, rebalance=0.5)
for k in range(2):
    inn.append(Fm.AllInOneBlock, subnet_constructor=conv, global_affine_type="SIGMOID", global_affine_init=0.8)
inn.append(Fm.IRevNetDownsampling)
inn.append(Fm.AllInOneBlock, subnet_constructor=conv, gin_block=True, permute_soft=True)
inn.append(Fm.Flatten)
inn.append(Fm.AllInOneBlock, subnet_constructor=dense, global_affine_type="EXP")
x = torch.randn(4, 3, 8, 8)
z, log_jac = inn(x)
(0.5 * (z**2).sum(1) - log_jac).mean().backward()
gradients = [p.grad for p in inn.parameters() if p.grad is not None]
results = [z, log_jac, *gradients, inn(z.detach(), rev=True)[0]]
