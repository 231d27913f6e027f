"""Convolutional chains without conditions, run on other sizes than they were declared with."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch


def conv(kernel):
    def make(c_in, c_out):
        hidden = int(c_in * 1.5)
        return torch.nn.Sequential(
            torch.nn.Conv2d(c_in, hidden, kernel, padding="same"),
            torch.nn.ReLU(),
            torch.nn.Conv2d(hidden, c_out, kernel, padding="same"),
        )

    return make


flow = Ff.SequenceINN(6, 1, 1)
for i in range(4):
    flow.append(
        Fm.AllInOneBlock, subnet_constructor=conv(1 if i % 2 == 1 else 3), affine_clamping=2.0, permute_soft=False
    )
flow.append(Fm.InvAutoAct)
flow.append(Fm.Fixed1x1Conv, M=torch.eye(6) + 0.1 * torch.ones(6, 6))
results = []
for size in ((1, 1), (8, 8), (5, 7)):
    output, log_jac_dets = flow(torch.randn(2, 6, *size), c=None)
    again, _ = flow([output], rev=True)
    results += [output, log_jac_dets, again]
