"""An inverse problem: padded data, latent and measured parts of the output, losses in both directions."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch
import torch.nn as nn

ndim_x, ndim_y, ndim_z, ndim_tot = 4, 3, 2, 8


def subnet_fc(c_in, c_out):
    return nn.Sequential(nn.Linear(c_in, 16), nn.ReLU(), nn.Linear(16, c_out))


nodes = [Ff.InputNode(ndim_tot, name="input")]
for k in range(3):
    nodes.append(
        Ff.Node(nodes[-1], Fm.GLOWCouplingBlock, {"subnet_constructor": subnet_fc, "clamp": 2.0}, name=f"c_{k}")
    )
    nodes.append(Ff.Node(nodes[-1], Fm.PermuteRandom, {"seed": k}, name=f"p_{k}"))
nodes.append(Ff.OutputNode(nodes[-1], name="output"))
model = Ff.GraphINN(nodes, verbose=False)


def mmd(a, b):
    aa, bb, ab = torch.cdist(a, a), torch.cdist(b, b), torch.cdist(a, b)
    return sum((0.2 / (0.2 + d)).mean() * s for d, s in ((aa, 1), (bb, 1), (ab, -2)))


optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)
results = []
for _ in range(3):
    x, y = torch.randn(16, ndim_x), torch.rand(16, ndim_y)
    pad_x, pad_yz = 0.05 * torch.randn(16, ndim_tot - ndim_x), 0.05 * torch.randn(16, ndim_tot - ndim_y - ndim_z)
    output, _ = model(torch.cat((x, pad_x), dim=1))
    short = torch.cat((output[:, :ndim_z], output[:, -ndim_y:].detach()), dim=1)
    loss = nn.functional.mse_loss(output[:, ndim_z:], torch.cat((pad_yz, y), dim=1))
    loss = loss + mmd(short, torch.cat((torch.randn(16, ndim_z), y), dim=1))
    optimizer.zero_grad()
    loss.backward()
    back, _ = model(torch.cat((torch.randn(16, ndim_z), pad_yz, y), dim=1), rev=True)
    loss_rev = mmd(back, torch.cat((x, pad_x), dim=1))
    loss_rev.backward()
    for p in model.parameters():
        if p.grad is not None:
            p.grad.data.clamp_(-15.0, 15.0)
    optimizer.step()
    results += [loss.detach(), loss_rev.detach()]
