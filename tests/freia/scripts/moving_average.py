"""An average of the weights over training, in a copy of the model; half of the parameters are frozen."""

import copy

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch


def subnet(c_in, c_out):
    return torch.nn.Sequential(torch.nn.Linear(c_in, 8), torch.nn.ReLU(), torch.nn.Linear(8, c_out))


nodes = [Ff.InputNode(4, name="in")]
for k in range(2):
    nodes.append(Ff.Node(nodes[-1], Fm.PermuteRandom, {"seed": k}, name=f"permute {k}"))
    nodes.append(
        Ff.Node(nodes[-1], Fm.GLOWCouplingBlock, {"subnet_constructor": subnet, "clamp": 1.0}, name=f"glow {k}")
    )
model = Ff.GraphINN([*nodes, Ff.OutputNode(nodes[-1], name="out")])
for p in nodes[2].module.parameters():
    p.requires_grad_(False)
average = copy.deepcopy(model)
optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
for _ in range(3):
    z, jac = model(torch.randn(8, 4))
    optimizer.zero_grad()
    (z.pow(2).sum(1) / 2 - jac).mean().backward()
    optimizer.step()
    with torch.no_grad():
        for a, p in zip(average.parameters(), model.parameters()):
            if p.is_floating_point():
                a.mul_(0.9).add_(p, alpha=0.1)
results = [*average(torch.randn(5, 4)), *model(torch.randn(5, 4), rev=True)]
