"""A conditional INN with a list of conditions, parameters found by their keys, and a checkpoint in memory."""

import io

import torch
import torch.nn as nn
from FrEIA.framework import ConditionNode, GraphINN, InputNode, Node, OutputNode
from FrEIA.modules import Flatten, GLOWCouplingBlock, PermuteRandom


class Cinn(nn.Module):
    def __init__(self):
        super().__init__()
        self.cinn = self.build()
        for key, param in self.cinn.named_parameters():
            parts = key.split(".")
            if param.requires_grad:
                param.data = 0.01 * torch.randn(param.shape)
                if len(parts) > 3 and parts[3] == "2":  # the last layer of each subnet
                    param.data.fill_(0.0)
                if parts[2].startswith("subnet"):
                    param.data += 0.02

    def build(self):
        def subnet(ch_in, ch_out):
            return nn.Sequential(nn.Linear(ch_in, 24), nn.ReLU(), nn.Linear(24, ch_out))

        cond = ConditionNode(10)
        nodes = [InputNode(1, 6, 6)]
        nodes.append(Node(nodes[-1], Flatten, {}))
        for k in range(3):
            nodes.append(Node(nodes[-1], PermuteRandom, {"seed": k}))
            nodes.append(
                Node(nodes[-1], GLOWCouplingBlock, {"subnet_constructor": subnet, "clamp": 1.0}, conditions=cond)
            )
        return GraphINN([*nodes, cond, OutputNode(nodes[-1])], verbose=False)

    def forward(self, x, labels):
        return self.cinn(x, c=[nn.functional.one_hot(labels, 10).float()], jac=True)

    def reverse_sample(self, z, labels):
        return self.cinn(z, c=nn.functional.one_hot(labels, 10).float(), rev=True)[0]


model = Cinn()
buffer = io.BytesIO()
torch.save({"net": model.state_dict()}, buffer)
buffer.seek(0)
again = Cinn()
again.load_state_dict({k: v for k, v in torch.load(buffer)["net"].items() if "tmp_var" not in k})
images, labels = torch.rand(4, 1, 6, 6), torch.tensor([1, 5, 0, 9])
z, jac = again(images, labels)
results = [z, jac, again.reverse_sample(z, labels)]
names = sorted(model.state_dict())
