"""Anomaly detection on patches of feature maps: one decoder for each layer, positions as conditions."""

import math

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch


def positional(D, H, W):
    P = torch.zeros(D, H, W)
    D = D // 2
    div = torch.exp(torch.arange(0.0, D, 2) * -(math.log(1e4) / D))
    w, h = torch.arange(0.0, W).unsqueeze(1), torch.arange(0.0, H).unsqueeze(1)
    P[0:D:2] = torch.sin(w * div).transpose(0, 1).unsqueeze(1).repeat(1, H, 1)
    P[1:D:2] = torch.cos(w * div).transpose(0, 1).unsqueeze(1).repeat(1, H, 1)
    P[D::2] = torch.sin(h * div).transpose(0, 1).unsqueeze(2).repeat(1, 1, W)
    P[D + 1 :: 2] = torch.cos(h * div).transpose(0, 1).unsqueeze(2).repeat(1, 1, W)
    return P


def subnet_fc(i, o):
    return torch.nn.Sequential(torch.nn.Linear(i, 2 * i), torch.nn.ReLU(), torch.nn.Linear(2 * i, o))


def load_decoder(dim, cond):
    coder = Ff.SequenceINN(dim)
    for _ in range(3):
        coder.append(
            Fm.AllInOneBlock, cond=0, cond_shape=(cond,), subnet_constructor=subnet_fc, affine_clamping=1.9,
            global_affine_type="SOFTPLUS", permute_soft=True,
        )  # fmt: skip
    return coder


P, sizes = 8, ((6, 3), (10, 2))
decoders = [load_decoder(dim, P) for dim, _ in sizes]
params = [p for d in decoders for p in d.parameters()]
optimizer = torch.optim.Adam(params, lr=2e-4)
results = []
for (dim, size), decoder in zip(sizes, decoders):
    e = torch.randn(2, dim, size, size)
    p = positional(P, size, size).unsqueeze(0).repeat(2, 1, 1, 1)
    e_r = e.reshape(2, dim, -1).transpose(1, 2).reshape(-1, dim)
    c_r = p.reshape(2, P, -1).transpose(1, 2).reshape(-1, P)
    for index in torch.randperm(len(e_r)).split(4):
        z, log_jac_det = decoder(e_r[index], [c_r[index]])
        log_prob = (dim * -0.9189385 - 0.5 * z.pow(2).sum(1) + log_jac_det) / dim
        optimizer.zero_grad()
        loss = -torch.nn.functional.logsigmoid(log_prob).mean()
        loss.backward()
        optimizer.step()
    results.append(loss.detach())
