"""The sequence of all-in-one blocks of the README, soft permutations drawn from numpy's generator."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch

N_DIM = 5


def subnet_fc(dims_in, dims_out):
    return torch.nn.Sequential(torch.nn.Linear(dims_in, 16), torch.nn.ReLU(), torch.nn.Linear(16, dims_out))


inn = Ff.SequenceINN(N_DIM)
for k in range(4):
    inn.append(Fm.AllInOneBlock, subnet_constructor=subnet_fc, permute_soft=True)
optimizer = torch.optim.Adam(inn.parameters(), lr=0.001)
results = []
for _ in range(4):
    optimizer.zero_grad()
    z, log_jac_det = inn(torch.randn(20, N_DIM))
    loss = (0.5 * torch.sum(z**2, 1) - log_jac_det).mean() / N_DIM
    loss.backward()
    optimizer.step()
    results.append(loss.detach())
samples, _ = inn(torch.randn(7, N_DIM), rev=True)
results.append(samples)
