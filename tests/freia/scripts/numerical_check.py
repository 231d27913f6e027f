"""The log-determinant beside finite differences, with a condition."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch


def subnet(c_in, c_out):
    return torch.nn.Sequential(torch.nn.Linear(c_in, 6), torch.nn.Tanh(), torch.nn.Linear(6, c_out))


x, c = Ff.InputNode(3), Ff.ConditionNode(2)
h = Ff.Node(x, Fm.RNVPCouplingBlock, {"subnet_constructor": subnet}, conditions=c)
g = Ff.Node(h, Fm.AffineCouplingOneSided, {"subnet_constructor": subnet, "clamp_activation": "TANH"}, conditions=[c])
net = Ff.GraphINN([x, c, h, g, Ff.OutputNode(g)])
data, given = torch.randn(4, 3), torch.randn(4, 2)
z, jac = net(data, c=given)
close = torch.isclose(net.log_jacobian_numerical(data, c=given), jac, atol=0.05)
results = [z, jac, close.all().float()]
