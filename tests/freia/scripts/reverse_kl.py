"""The inverse is called first, and starts the normalization; gradients go through it."""

import FrEIA
import FrEIA.framework as Ff
import torch


def subnet(i, o):
    return torch.nn.Sequential(torch.nn.Linear(i, 16), torch.nn.Tanh(), torch.nn.Linear(16, o))


net = Ff.SequenceINN(4)
for name, kwargs in (
    ("ActNorm", {}),
    ("NICECouplingBlock", {"subnet_constructor": subnet}),
    ("HouseholderPerm", {"n_reflections": 3}),
):
    net.append(getattr(FrEIA.modules, name), **kwargs)
net.append(FrEIA.modules.AffineCouplingOneSided, subnet_constructor=subnet, clamp=1.0, clamp_activation="SIGMOID")
optimizer = torch.optim.SGD(net.parameters(), lr=1e-2)
results = []
for _ in range(3):
    optimizer.zero_grad()
    x, log_jac = net(torch.randn(16, 4), rev=True)
    loss = ((x - 2) ** 2).sum(1).mean() - log_jac.mean()
    loss.backward()
    optimizer.step()
    results += [loss.detach(), x.detach()]
results += [p.grad for p in net.parameters()]
