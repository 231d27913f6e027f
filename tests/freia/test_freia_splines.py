"""Couplings by splines: inverse, log-determinant, tails, and where they start."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import invgraph as ig

Ff, Fm = ig.freia.framework, ig.freia.modules
KINDS = [Fm.LinearSpline, Fm.RationalQuadraticSpline]


def random_subnet(channels_in: int, channels_out: int) -> nn.Module:
    net = nn.Sequential(nn.Linear(channels_in, 16), nn.Tanh(), nn.Linear(16, channels_out))
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.7)
    return net


def zero_subnet(channels_in: int, channels_out: int) -> nn.Module:
    net = nn.Conv2d(channels_in, channels_out, 1)
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    return net


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("domain", [(-3.0, 3.0, -3.0, 3.0), (-1.0, 2.0, 0.0, 5.0)])
def test_splines_invert_and_report_their_log_determinant(kind: Any, domain: tuple[float, ...]) -> None:
    torch.default_generator.manual_seed(0)
    net = Ff.SequenceINN(5)
    net.append(kind, cond=0, cond_shape=(2,), subnet_constructor=random_subnet, bins=7, default_domain=domain)
    net = net.double()
    x, c = 3 * torch.randn(64, 5, dtype=torch.float64), torch.randn(64, 2, dtype=torch.float64)
    z, log_jac = net(x, [c])
    back, log_jac_back = net(z, [c], rev=True)
    torch.testing.assert_close(back, x, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(log_jac_back, -log_jac, rtol=1e-8, atol=1e-8)

    def alone(row: Tensor, given: Tensor) -> Tensor:
        return net(row.unsqueeze(0), [given.unsqueeze(0)])[0][0]  # type: ignore[no-any-return]

    matrices = torch.stack([torch.autograd.functional.jacobian(lambda row, i=i: alone(row, c[i]), x[i])
                            for i in range(8)])  # fmt: skip
    torch.testing.assert_close(torch.linalg.slogdet(matrices).logabsdet, log_jac[:8].detach())
    (z.sum() + log_jac.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_give_the_default_domain(kind: Any) -> None:
    net = Ff.SequenceINN(2, 3, 3)
    net.append(kind, subnet_constructor=zero_subnet, default_domain=(-2.0, 2.0, -4.0, 4.0))
    x = torch.linspace(-5, 5, 18).reshape(1, 2, 3, 3)
    z, log_jac = net(x)
    if kind is Fm.LinearSpline:
        torch.testing.assert_close(z, 2 * x)
        torch.testing.assert_close(log_jac, 18 * torch.tensor([2.0]).log())
    else:
        outside = x.abs() > 2
        torch.testing.assert_close(z[outside], 2 * x[outside])
        identity = Ff.SequenceINN(2, 3, 3)
        identity.append(kind, subnet_constructor=zero_subnet)
        torch.testing.assert_close(identity(x), (x, torch.zeros(1)), rtol=1e-5, atol=1e-5)


def test_a_spline_of_ones_own_takes_parameters_at_both_ends_of_a_bin() -> None:
    class Mine(Fm.BinnedSpline):  # type: ignore[name-defined,misc]
        def __init__(self, dims_in: Any, **kwargs: Any) -> None:
            super().__init__(dims_in, **kwargs, parameter_counts={"marks": kwargs["bins"] + 1})

        def _spline1(self, x: Tensor, parameters: dict[str, Tensor], rev: bool = False) -> tuple[Tensor, Tensor]:
            assert parameters.keys() == {"left", "right", "bottom", "top", "marks_left", "marks_right"}
            assert all(value.shape == x.shape for value in parameters.values())
            assert ((parameters["left"] <= x) & (x <= parameters["right"])).all()
            return x, torch.zeros_like(x)

        _spline2 = _spline1

    net = Ff.SequenceINN(5)
    net.append(Mine, subnet_constructor=nn.Linear, bins=3)
    assert net(torch.randn(4, 5))[0].shape == (4, 5)
    names = ["bins", "min_bin_sizes", "default_domain"]
    assert [name for name, _ in net[0].named_buffers()] == names


def test_wrong_splines_are_refused() -> None:
    for kwargs, message in (
        ({"bins": 0}, "at least one bin"),
        ({"min_bin_sizes": (-1.0, 0.1)}, "negative"),
        ({"default_domain": (0.0, 0.5, 0.0, 5.0)}, "wider than all smallest bins"),
    ):
        with pytest.raises(ig.GraphError, match=message):
            Fm.LinearSpline([(4,)], subnet_constructor=nn.Linear, **kwargs)
    narrow = Fm.LinearSpline([(4,)], subnet_constructor=lambda i, o: nn.Linear(i, 1))
    with pytest.raises(ig.ShapeError, match="expected 44"):
        narrow((torch.zeros(1, 4),))
