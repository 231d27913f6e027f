"""Networks that go through their layers by themselves, to add something to the arithmetic of the library."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch
from torch import nn


class ResidualGraph(Ff.GraphINN):
    """A graph whose forward also returns the log-determinant of every block by name."""

    def forward(self, x, c=None, rev=False):
        tensors = {(node, 0): x for node in (self.out_nodes if rev else self.in_nodes)}
        tensors.update({(node, 0): value for node, value in zip(self.condition_nodes, c)})
        special = self.in_nodes + self.out_nodes + self.condition_nodes
        per_block = {}
        for node in reversed(self.node_list) if rev else self.node_list:
            if node in special:
                continue
            inputs = tuple(tensors[source] for source in (node.outputs if rev else node.inputs))
            given = {"c": [tensors[cond, 0] for cond in node.conditions]} if node.conditions else {}
            outputs, jac = self._check_output(node, node.module(inputs, rev=rev, jac=True, **given), True, rev)
            for index, output in enumerate(outputs):
                tensors[node, index] = output
            per_block[node.name] = jac
        (end,) = self.in_nodes if rev else self.out_nodes
        return tensors[(end.outputs if rev else end.inputs)[0]], per_block


class NoisyChain(Ff.SequenceINN):
    """A chain that shifts the data between its layers."""

    def forward(self, x, c=None, rev=False, jac=True):
        x, total, places = (x,), 0, range(len(self.module_list))
        for i in reversed(places) if rev else places:
            if rev:
                x = (x[0] - 0.1 * i,)
            given = {} if self.conditions[i] is None else {"c": [c[self.conditions[i]]]}
            x, j = self.module_list[i](x, rev=rev, jac=jac, **given)
            if not rev:
                x = (x[0] + 0.1 * i,)
            total = j + total
        return x if self.force_tuple_output else x[0], total


def subnet(c_in, c_out):
    return nn.Sequential(nn.Linear(c_in, 12), nn.ELU(), nn.Linear(12, c_out))


chain = NoisyChain(6)
chain.append(Fm.RNVPCouplingBlock, cond=0, cond_shape=(2,), subnet_constructor=subnet, clamp=1.1)
chain.append(Fm.PermuteRandom)
chain.append(Fm.AllInOneBlock, subnet_constructor=subnet, global_affine_init=0.8)

start, label = Ff.InputNode(6, name="start"), Ff.ConditionNode(2, name="label")
mixed = Ff.Node(start, Fm.PermuteRandom, {"seed": 4}, name="mixed")
parts = Ff.Node(mixed, Fm.Split, {"section_sizes": [2, 4]}, name="parts")
lower = Ff.Node(parts.out1, Fm.GLOWCouplingBlock, {"subnet_constructor": subnet}, conditions=label, name="lower")
upper = Ff.Node(parts.out0, Fm.InvAutoAct, {}, name="upper")
joined = Ff.Node([lower.out0, upper.out0], Fm.Concat, {}, name="joined")
graph = ResidualGraph([start, label, mixed, parts, lower, upper, joined, Ff.OutputNode(joined, name="end")])

x, c = torch.randn(7, 6), torch.randn(7, 2)
results = []
for net in (graph, chain):
    z, j = net(x, c=[c])
    back, k = net(z, c=[c], rev=True)
    results += [z, back]
    for jac in (j, k):
        by_name = (
            [jac[name].expand(7) for name in ("mixed", "parts", "lower", "upper", "joined")] if net is graph else []
        )
        results += by_name or [jac]
sum(value.sum() for value in results).backward()
results.append(chain.module_list[0].subnet_s1[0].weight.grad)
