"""Invertible residual blocks in a chain, evaluated forward."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch

inn = Ff.SequenceINN(4)
for _ in range(2):
    inn.append(Fm.IResNetLayer, internal_size=6, hutchinson_samples=2)
    inn.append(Fm.ActNorm)
torch.default_generator.manual_seed(3)
z, jac = inn(torch.randn(8, 4))
results = [z.detach(), jac.detach()]
