"""A feed-forward INN in the style of the tutorials: nodes in a list, training, sampling."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch

N_DIM = 6


def subnet_fc(dims_in, dims_out):
    return torch.nn.Sequential(torch.nn.Linear(dims_in, 32), torch.nn.ReLU(), torch.nn.Linear(32, dims_out))


nodes = [Ff.InputNode(N_DIM, name="input")]
for k in range(4):
    nodes.append(
        Ff.Node(nodes[-1], Fm.GLOWCouplingBlock, {"subnet_constructor": subnet_fc, "clamp": 2.0}, name=f"coupling_{k}")
    )
    nodes.append(Ff.Node(nodes[-1], Fm.PermuteRandom, {"seed": k}, name=f"permute_{k}"))
nodes.append(Ff.OutputNode(nodes[-1], name="output"))
model = Ff.GraphINN(nodes, verbose=False)

trainable = [p for p in model.parameters() if p.requires_grad]
for p in trainable:
    p.data = 0.05 * torch.randn_like(p)
optimizer = torch.optim.Adam(trainable, lr=1e-3, betas=(0.8, 0.9))
losses = []
for _ in range(5):
    optimizer.zero_grad()
    x = torch.randn(32, N_DIM) * 2 + 1
    z, log_jac_det = model(x)
    loss = (0.5 * torch.sum(z**2, 1) - log_jac_det).mean() / N_DIM
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trainable, 10.0)
    optimizer.step()
    losses.append(loss.detach())
missing = [p for p in trainable if p.grad is None]
samples, log_jac = model(torch.randn(8, N_DIM), rev=True)
results = [*losses, samples, log_jac, torch.tensor(len(missing))]
