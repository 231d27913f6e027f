"""A model of one's own around a network: training with a schedule, evaluation without gradients, both directions."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, dim=5, cond=2):
        super().__init__()
        self.embed = nn.Linear(1, cond)
        self.inn = self.make(dim, cond)

    @staticmethod
    def subnet(c_in, c_out):
        return nn.Sequential(nn.Linear(c_in, 16), nn.ReLU(), nn.Dropout(0.0), nn.Linear(16, c_out))

    def make(self, dim, cond):
        c = Ff.ConditionNode(cond, name="c")
        nodes = [Ff.InputNode(dim, name="x")]
        for k in range(3):
            nodes.append(
                Ff.Node(
                    nodes[-1],
                    Fm.AllInOneBlock,
                    {"subnet_constructor": self.subnet, "affine_clamping": 1.5, "permute_soft": True},
                    conditions=c,
                    name=f"block_{k}",
                )
            )
        return Ff.GraphINN([*nodes, c, Ff.OutputNode(nodes[-1], name="z")], verbose=False)

    def forward(self, x, t, rev=False):
        return self.inn(x, c=[self.embed(t)], rev=rev)


model = Model()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
results = []
for _ in range(3):
    optimizer.zero_grad()
    z, jac = model(torch.randn(12, 5), torch.rand(12, 1))
    loss = (0.5 * z.pow(2).sum(1) - jac).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
    results.append(loss.detach())
model.eval()
with torch.no_grad():
    results.append(model(torch.randn(3, 5), torch.rand(3, 1), rev=True)[0])
