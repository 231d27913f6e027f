"""Blocks of one's own that derive from the all-in-one block: another coupling, and another order of its steps."""

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import torch
import torch.nn as nn


def subnet(c_in, c_out):
    return nn.Sequential(nn.Linear(c_in, 24), nn.Tanh(), nn.Linear(24, c_out))


class SteadyBlock(Fm.AllInOneBlock):
    """Bounds the shift as well."""

    def __init__(self, *args, bound=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.bound = bound

    def _affine(self, x, a, rev=False):
        half = x.shape[1]
        log_scale = self.clamp * torch.tanh(0.1 * a[:, :half])
        if self.GIN:
            log_scale = log_scale - torch.mean(log_scale, dim=self.sum_dims, keepdim=True)
        shift = self.bound * torch.tanh(a[:, half:])
        log_jac = torch.sum(log_scale, dim=self.sum_dims)
        if rev:
            return (x - shift) * torch.exp(-log_scale), -log_jac
        return x * torch.exp(log_scale) + shift, log_jac


class RotatedBlock(Fm.AllInOneBlock):
    """Applies a learned scale between coupling and permutation."""

    def __init__(self, dims_in, **kwargs):
        super().__init__(dims_in, **kwargs)
        self.between = nn.Parameter(0.3 * torch.randn(1, self.in_channels))

    def forward(self, x, c=[], rev=False, jac=True):
        if self.householder:
            self.w_perm = self._construct_householder_permutation()
            if rev or self.reverse_pre_permute:
                self.w_perm_inv = self.w_perm.transpose(0, 1).contiguous()
        sign = -1 if rev else 1
        x = x[0]
        if rev:
            x, scale_jac = self._permute(x, rev=True)
            x = x * torch.exp(-self.between)
        elif self.reverse_pre_permute:
            x = self._pre_permute(x, rev=False)
        x1, x2 = torch.split(x, self.splits, dim=1)
        x2, log_jac = self._affine(x2, self.subnet(torch.cat([x1, *c], 1)), rev=rev)
        x = torch.cat((x1, x2), 1)
        if not rev:
            x, scale_jac = self._permute(x * torch.exp(self.between), rev=False)
        elif self.reverse_pre_permute:
            x = self._pre_permute(x, rev=True)
        return (x,), log_jac + sign * (scale_jac + self.between.sum())


torch.manual_seed(11)
inn = Ff.SequenceINN(5)
inn.append(SteadyBlock, subnet_constructor=subnet, bound=0.5, global_affine_init=0.7)
inn.append(SteadyBlock, subnet_constructor=subnet, gin_block=True)
inn.append(RotatedBlock, subnet_constructor=subnet, permute_soft=True, global_affine_type="EXP")
inn.append(RotatedBlock, cond=0, cond_shape=(2,), subnet_constructor=subnet, reverse_permutation=True)
inn.append(RotatedBlock, subnet_constructor=subnet, learned_householder_permutation=2, reverse_permutation=True)

x, c = torch.randn(16, 5), torch.randn(16, 2)
z, log_jac = inn(x, [c])
back, log_jac_back = inn(z, [c], rev=True)
assert torch.allclose(back, x, atol=1e-4)
(0.5 * (z**2).sum(1) - log_jac).mean().backward()
gradient = torch.cat([p.grad.flatten() for p in inn.parameters() if p.grad is not None])

results = [z.detach(), log_jac.detach(), back.detach(), log_jac_back.detach(), gradient]
