"""Modules looked up by name in the package, as configuration files need."""

import FrEIA
import torch

CONFIG = [("RNVPCouplingBlock", {"clamp": 1.5}), ("PermuteRandom", {"seed": 2}), ("GLOWCouplingBlock", {"clamp": 0.9})]


def subnet(c_in, c_out):
    return torch.nn.Sequential(torch.nn.Linear(c_in, 12), torch.nn.LeakyReLU(), torch.nn.Linear(12, c_out))


nodes = [FrEIA.framework.InputNode(5, name="x")]
for i, (name, kwargs) in enumerate(CONFIG):
    if name.endswith("Block"):
        kwargs = {**kwargs, "subnet_constructor": subnet}
    nodes.append(FrEIA.framework.Node([nodes[-1].out0], getattr(FrEIA.modules, name), kwargs, name=f"{i}_{name}"))
nodes.append(FrEIA.framework.OutputNode([nodes[-1].out0], name="z"))
inn = FrEIA.framework.GraphINN(nodes)
z, jac = inn(torch.randn(6, 5))
results = [z, jac, *inn(z, rev=True)]
