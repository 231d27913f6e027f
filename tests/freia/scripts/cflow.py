"""Conditional chains on vectors, as anomaly detectors use them: hard permutations, conditions by index."""

import math

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock

P, C = 8, 12


def subnet_fc(dims_in, dims_out):
    return torch.nn.Sequential(
        torch.nn.Linear(dims_in, 2 * dims_in), torch.nn.ReLU(), torch.nn.Linear(2 * dims_in, dims_out)
    )


coder = SequenceINN(C)
for _ in range(4):
    coder.append(
        AllInOneBlock,
        cond=0,
        cond_shape=(P,),
        subnet_constructor=subnet_fc,
        affine_clamping=1.9,
        global_affine_type="SOFTPLUS",
        permute_soft=False,
    )
e, c = torch.randn(16, C), torch.randn(16, P)
z, log_jac_det = coder(e, [c])
log_prob = C * -0.5 * math.log(2 * math.pi) - 0.5 * torch.sum(z**2, 1) + log_jac_det
loss = -torch.nn.LogSigmoid()(log_prob / C)
loss.mean().backward()
results = [loss, *[p.grad for p in coder.parameters() if p.grad is not None], coder(z, [c], rev=True)[0]]
conditions = list(coder.conditions)
