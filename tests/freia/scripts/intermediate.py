"""Intermediate values, numerical log-determinants, tuples by force, and calls without log-determinants."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch

a, b = Ff.InputNode(2, name="a"), Ff.InputNode(3, name="b")
both = Ff.Node([a.out0, b.out0], Fm.Concat, {"dim": 0}, name="both")
mixed = Ff.Node(both, Fm.FixedLinearTransform, {"M": torch.randn(5, 5), "b": torch.randn(5)}, name="mixed")
act = Ff.Node(mixed, Fm.InvAutoActTwoSided, {}, name="act")
parts = Ff.Node(act, Fm.Split, {"section_sizes": [4, 1]}, name="parts")
outs = [Ff.OutputNode((parts, 0), name="big"), Ff.OutputNode(parts.out1, name="small")]
net = Ff.GraphINN([a, b, both, mixed, act, parts, *outs], force_tuple_output=True)
x = [torch.randn(4, 2), torch.randn(4, 3)]
values, jacobians = net(x, intermediate_outputs=True)
z, j = net(x)
back, jac_back = net(z, rev=True)
results = [values[both, 0], values[act, 0], values[parts, 1], values[outs[0], 0], *z, j, *back, jac_back]
results += [torch.as_tensor(jacobians[node]).expand(4) for node in (both, mixed, act, parts)]
inverse_values, _ = net(z, rev=True, intermediate_outputs=True)
results += [inverse_values[mixed, 0], inverse_values[a, 0], net(x, jac=False)[0][0]]
