"""A chain with methods of its own, which uses its parts."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch


class Flow(Ff.SequenceINN):
    def __init__(self, dim, blocks):
        super().__init__(dim)
        self.dim = dim
        for _ in range(blocks):
            self.append(Fm.AllInOneBlock, subnet_constructor=self.subnet, affine_clamping=1.0)
        self.prior = torch.distributions.MultivariateNormal(torch.zeros(dim), torch.eye(dim))

    @staticmethod
    def subnet(c_in, c_out):
        return torch.nn.Sequential(torch.nn.Linear(c_in, 8), torch.nn.ReLU(), torch.nn.Linear(8, c_out))

    def log_prob(self, x):
        z, jac = self(x)
        return self.prior.log_prob(z) + jac

    def sample(self, n):
        return self(self.prior.sample((n,)), rev=True)[0]


flow = Flow(3, 3)
loss = -flow.log_prob(torch.randn(11, 3)).mean()
loss.backward()
sizes = torch.tensor([len(flow.module_list), *flow.shapes[-1], *flow.dims_in[0]])
results = [loss, flow.sample(4), sizes, *[p.grad for p in flow.module_list[0].parameters() if p.grad is not None]]
