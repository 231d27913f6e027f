"""Invertible convolutions with matrices of one's own between couplings of images, and layers reached by index."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import numpy as np
import torch
from torch import nn


def conv(c_in, c_out):
    return nn.Sequential(nn.Conv2d(c_in, 6, 1), nn.ReLU(), nn.Conv2d(6, c_out, 1))


def random_orthog(n):
    w, _ = np.linalg.qr(np.random.randn(n, n))
    return torch.FloatTensor(w)


inn = Ff.SequenceINN(4, 6, 6)
for k in range(3):
    inn.append(Fm.Fixed1x1Conv, M=random_orthog(4))
    inn.append(Fm.GLOWCouplingBlock, subnet_constructor=conv, clamp=1.2)
inn.append(Fm.Flatten)
inn.append(Fm.FixedLinearTransform, M=torch.diag(torch.linspace(0.5, 2, 144)), b=torch.ones(144))
for p in inn.module_list[1].subnet1.parameters():
    p.data *= 0.5
z, jac = inn(torch.randn(3, 4, 6, 6))
results = [z, jac, inn(z, rev=True)[0], inn.module_list[0].M.flatten()]
