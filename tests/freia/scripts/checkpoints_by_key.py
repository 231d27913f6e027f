"""A checkpoint with other things beside the weights, whose keys are filtered and whose prefix is stripped."""

import io

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch


def subnet(c_in, c_out):
    return torch.nn.Sequential(torch.nn.Linear(c_in, 8), torch.nn.ReLU(), torch.nn.Linear(8, c_out))


def build():
    nodes = [Ff.InputNode(4)]
    for k in range(2):
        nodes.append(Ff.Node(nodes[-1], Fm.GLOWCouplingBlock, {"subnet_constructor": subnet}))
        nodes.append(Ff.Node(nodes[-1], Fm.ActNorm, {}))
    return Ff.GraphINN(nodes + [Ff.OutputNode(nodes[-1])])


first, second = build(), build()
x = torch.randn(16, 4)
first(x)
file = io.BytesIO()
torch.save({"opt": {}, "net": {f"module.{k}": v for k, v in first.state_dict().items()}, "epoch": 3}, file)
file.seek(0)
state = {k[len("module.") :]: v for k, v in torch.load(file)["net"].items()}
missing = second.load_state_dict(state)
results = [*first(x), *second(x), torch.tensor(len(missing.missing_keys))]
names = sorted(state)
