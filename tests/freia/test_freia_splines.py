"""Couplings by splines: inverse, log-determinant, tails, and where they start."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import invgraph as ig

Ff, Fm = ig.freia.framework, ig.freia.modules
KINDS = [Fm.LinearSpline, Fm.RationalQuadraticSpline]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"default_domain": (-1.0, 2.0, 0.0, 5.0)},
    {"identity_tails": True},
    {"domain_clamping": 2.5},
    {"identity_tails": True, "domain_clamping": 4.0},
]


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


@pytest.mark.parametrize("kind", [*KINDS, Fm.ElementwiseRationalQuadraticSpline])
@pytest.mark.parametrize("options", OPTIONS)
def test_splines_invert_and_report_their_log_determinant(kind: Any, options: dict[str, Any]) -> None:
    torch.default_generator.manual_seed(0)
    net = Ff.SequenceINN(5)
    net.append(kind, cond=0, cond_shape=(2,), subnet_constructor=random_subnet, bins=7, **options)
    net = net.double()
    x, c = 3 * torch.randn(64, 5, dtype=torch.float64), torch.randn(64, 2, dtype=torch.float64)
    z, log_jac = net(x, [c])
    back, log_jac_back = net(z, [c], rev=True)
    torch.testing.assert_close(back, x, rtol=1e-7, atol=1e-7)
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


def mapped(kind: Any, raw: Tensor, x: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    """Values and log-determinant of a spline of one channel that is given these parameters."""

    def subnet(channels_in: int, channels_out: int) -> nn.Module:
        net = nn.Linear(channels_in, channels_out)
        nn.init.zeros_(net.weight)
        net.bias.data.zero_()[: len(raw)] = raw
        return net

    if kind is Fm.ElementwiseRationalQuadraticSpline:
        layer = kind([(1,)], **options)
        layer.spline_parameters.data = raw
        (y,), log_jac = layer((x.unsqueeze(1),))
        return y[:, 0], log_jac
    layer = kind([(2,)], [(1,)], subnet_constructor=subnet, split_len=1, **options)
    (y,), log_jac = layer((torch.stack((torch.zeros_like(x), x), dim=1),), c=(torch.zeros(len(x), 1),))
    first = kind([(2,)], [(1,)], subnet_constructor=subnet, split_len=1, **options)
    at_zero = first((torch.zeros(1, 2),), c=(torch.zeros(1, 1),))[1] / 2
    return y[:, 1], log_jac - at_zero


def test_parameters_are_in_the_order_of_freias_development_version() -> None:
    raw = torch.tensor([0.3, -0.8, 1.1, -0.2, 0.9, 0.4, 0.25, -0.5])  # widths, heights, bottom, left
    shift = math.log(math.expm1(2.0 - 0.1))
    widths, heights = (0.1 + torch.nn.functional.softplus(part + shift) for part in (raw[:3], raw[3:6]))
    knots_x = torch.cat((torch.zeros(1), widths.cumsum(0))) - 3.0 + raw[7]
    knots_y = torch.cat((torch.zeros(1), heights.cumsum(0))) - 3.0 + raw[6]
    x = torch.linspace(float(knots_x[0]) + 0.01, float(knots_x[-1]) - 0.01, 40)
    y, _ = mapped(Fm.LinearSpline, raw, x, bins=3)
    torch.testing.assert_close(y.detach(), torch.from_numpy(np.interp(x, knots_x, knots_y)).float())


def test_a_clamped_domain_is_narrower() -> None:
    raw = torch.tensor([2.0, 2.0, 2.0, 2.0, 0.0, 0.0])
    x = torch.tensor([-30.0, 30.0])
    width = 2 * (0.1 + torch.nn.functional.softplus(torch.tensor(2.0 + math.log(math.expm1(3.0 - 0.1)))))
    factor = 4.0 * torch.tanh(width / 4.0) / width
    wide, narrow = (mapped(Fm.LinearSpline, raw, x, bins=2, **more)[0] for more in ({}, {"domain_clamping": 4.0}))
    torch.testing.assert_close(wide.detach(), x)
    torch.testing.assert_close(narrow.detach(), x)
    base = Fm.BinnedSplineBase([(1,)], bins=2, domain_clamping=4.0)
    found = base.constrain_parameters(base.split_parameters(raw.unsqueeze(0), 1))
    torch.testing.assert_close(found["widths"].sum(), 4.0 * torch.tanh(width / 4.0))
    torch.testing.assert_close(found["left"].sum(), -3.0 * factor)


def test_identity_tails_are_the_identity_and_bins_fill_a_square() -> None:
    raw = torch.tensor([0.5, -0.5, 0.1, 0.7, 0.3, 0.2])  # widths, heights, total_width, a derivative
    x = torch.tensor([-9.0, -3.3, 3.3, 9.0])
    for kind in (Fm.RationalQuadraticSpline, Fm.ElementwiseRationalQuadraticSpline):
        y, log_jac = mapped(kind, raw, x, bins=2, identity_tails=True)
        torch.testing.assert_close(y.detach()[[0, 3]], x[[0, 3]])
        if kind is Fm.ElementwiseRationalQuadraticSpline:
            torch.testing.assert_close(log_jac.detach()[[0, 3]], torch.zeros(2))
    base = Fm.BinnedSplineBase([(1,)], bins=2, identity_tails=True)
    found = base.constrain_parameters(base.split_parameters(raw[:5].unsqueeze(0), 1))
    assert found.keys() == {"left", "bottom", "widths", "heights"}
    whole = 6.0 * torch.nn.functional.softplus(raw[4] + math.log(math.e - 1))
    torch.testing.assert_close(found["heights"].sum(), whole)
    torch.testing.assert_close(found["left"].sum(), -whole / 2)


def test_keys_are_those_of_freias_development_version() -> None:
    spline = Fm.RationalQuadraticSpline([(4,)], subnet_constructor=nn.Linear)
    names = ["bins", "min_bin_sizes", "default_domain", "identity_tails", "default_width"]
    assert list(spline.state_dict())[:5] == [f"spline_base.{name}" for name in names]
    learned = Fm.ElementwiseRationalQuadraticSpline([(4, 2, 3)], bins=5)
    assert learned.spline_parameters.shape == (4 * 16, 2, 3)
    assert set(learned.state_dict()) == {*names, "spline_parameters"}
    chosen = Fm.ElementwiseRationalQuadraticSpline([(4,)], [(3,)], nn.Linear, bins=5)
    assert chosen.subnet.weight.shape == (4 * 16, 3)


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


def test_a_spline_has_the_slope_of_its_lines_at_its_ends() -> None:
    x = torch.tensor([-1.9999, 1.9999, 2.5])
    raw = torch.zeros(3 * 3 + 1)  # widths, heights, bottom and left, derivatives
    options = {"bins": 3, "default_domain": (-2.0, 2.0, -4.0, 4.0)}
    _, log_jac = mapped(Fm.ElementwiseRationalQuadraticSpline, raw, x, **options)
    torch.testing.assert_close(log_jac.detach(), torch.full((3,), math.log(2.0)), rtol=1e-3, atol=1e-3)
