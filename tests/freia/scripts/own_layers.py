"""Layers of one's own: subclasses of InvertibleModule, plain modules, log-determinants of every kind."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch
from FrEIA.modules.base import InvertibleModule


class Cubic(InvertibleModule):
    def forward(self, x_or_z, c=None, rev=False, jac=True):
        x = x_or_z[0]
        if rev:
            y = x.sign() * x.abs().pow(1 / 3)
            return (y,), -torch.log(3 * y**2).flatten(1).sum(1)
        return (x**3,), torch.log(3 * x**2).flatten(1).sum(1)

    def output_dims(self, input_dims):
        return input_dims


class Shift(torch.nn.Module):
    """A plain module: a static method, a list, and 0 as log-determinant."""

    def __init__(self, dims_in, dims_c=None, amount=1.0):
        super().__init__()
        self.amount = torch.nn.Parameter(torch.tensor(amount))

    def forward(self, x, rev=False, jac=True):
        return [x[0] - self.amount] if rev else [x[0] + self.amount], 0

    @staticmethod
    def output_dims(input_dims):
        return [tuple(d) for d in input_dims]


class Scale(InvertibleModule):
    """A condition, and a log-determinant of one element."""

    def __init__(self, dims_in, dims_c):
        super().__init__(dims_in, dims_c)
        self.s = torch.nn.Parameter(torch.tensor([0.3]))
        self.n = dims_in[0][0]

    def forward(self, x, c=[], rev=False, jac=True):
        s = -self.s if rev else self.s
        shift = c[0].mean(1, keepdim=True)
        y = (x[0] - shift) * s.exp() if rev else x[0] * s.exp() + shift
        return (y,), s * self.n

    def output_dims(self, input_dims):
        assert len(input_dims) == 1, "one input"
        return list(input_dims)


x, c = Ff.InputNode(4, name="x"), Ff.ConditionNode(3, name="c")
a = Ff.Node(x, Cubic, {}, name="cubic")
b = Ff.Node(a, Shift, {"amount": 0.5}, name="shift")
d = Ff.Node(b, Scale, {}, conditions=[c], name="scale")
net = Ff.GraphINN([x, a, b, d, Ff.OutputNode(d), c])
data, given = torch.rand(3, 4) + 0.5, torch.randn(3, 3)
z, j = net(data, c=given)
back, j_back = net(z, c=given, rev=True)
z.sum().backward()
seq = Ff.SequenceINN(4)
seq.append(Shift, amount=2.0)
seq.append(Fm.PermuteRandom, seed=5)
seq.append(Scale, cond=1, cond_shape=(3,))
results = [z, j, back, j_back, b.module.amount.grad, d.module.s.grad, *seq(data, c=[None, given])]
