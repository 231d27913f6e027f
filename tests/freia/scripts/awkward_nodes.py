"""Nodes in any order, names twice, dots and blanks in names, unused conditions, float sizes, conditions of one axis."""

import FrEIA.framework as Ff
import torch
from FrEIA.framework.graph_inn import Node
from FrEIA.modules import *


class Temperature(InvertibleModule):
    def forward(self, x, c=None, rev=False, jac=True):
        s = c[0].view(-1, 1) * (-1 if rev else 1)
        return (x[0] * s.exp(),), s.sum(1) * x[0].shape[1]

    def output_dims(self, dims):
        return dims


half = 8 / 2
unused, t = Ff.ConditionNode(5, name="unused"), Ff.ConditionNode(1, name="same name")
size = Ff.ConditionNode(2, half, half)
x = Ff.InputNode(4, 4, 4, name="same name")
affine = Node(
    x,
    ConditionalAffineTransform,
    {"subnet_constructor": lambda i, o: torch.nn.Conv2d(i, o, 1)},
    conditions=size,
    name="a.b",
)
flat = Node(affine, Flatten, {}, name="a.b")
hot = Node(flat, Temperature, {}, conditions=t, name="keys of ModuleDict: pop")
out = Ff.OutputNode(hot)
net = Ff.GraphINN([out, t, hot, unused, flat, size, affine, x])
data = torch.randn(3, 4, 4, 4)
given = [torch.randn(3), torch.randn(3, 5), torch.randn(3, 2, 4, 4)]
z, j = net(data, c=given)
results = [
    z,
    j,
    *net((z,), given, True),
    torch.tensor(net.dims_in),
    torch.tensor(net.get_node_by_name("a.b").output_dims),
]
listed = [len(net.in_nodes), len(net.out_nodes), len(net.condition_nodes), len(net.node_list), len(net.module_list)]
results.append(torch.tensor(listed))
