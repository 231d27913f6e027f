"""Results of the basic layers against explicit formulas, because a wrong layer may still be invertible."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from cases import CASES, Case
from measures import draw, gap
from torch import Tensor

import invgraph as ig
from invgraph.testing import randomize

MLP = ig.nets.MLP(hidden=6)


def first(result: Any) -> Tensor:
    (y,), _ = result
    return y  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("activation", "formula"),
    [
        ("atan", lambda s, a: 2 * a / math.pi * torch.atan(s / a)),
        ("tanh", lambda s, a: a * torch.tanh(s / a)),
        ("sigmoid", lambda s, a: a * (2 / (1 + torch.exp(-s / a)) - 1)),
    ],
)
@pytest.mark.parametrize("clamp", [0.5, 1.0, 1.9])
def test_affine_is_the_papers_with_its_clamp(activation: Any, formula: Any, clamp: float) -> None:
    x, raw, t = draw([(5,)] * 3, 4)
    y, log_det = ig.Affine(clamp=clamp, activation=activation).forward(x, torch.stack((raw, t), dim=1))
    s = formula(raw, clamp)
    assert gap((y, log_det), (x * s.exp() + t, s.sum(1))) <= 1e-12
    wild = torch.stack((1e6 * raw, t), dim=1)
    _, log_det = ig.Affine(clamp=clamp, activation=activation).forward(x, wild)
    assert float(log_det.abs().max()) <= 5 * clamp


def test_additive_and_volume_preserving() -> None:
    x, raw, t = draw([(5,)] * 3, 4)
    y, log_det = ig.Additive().forward(x, t.unsqueeze(1))
    assert gap((y, log_det), (x + t, torch.zeros(4, dtype=x.dtype))) == 0
    y, log_det = ig.VolumePreserving(clamp=1.0).forward(x, torch.stack((raw, t), dim=1))
    s = 2 / math.pi * torch.atan(raw)
    assert gap((y,), (x * (s - s.mean(1, keepdim=True)).exp() + t,)) <= 1e-12
    assert not log_det.any()


@pytest.mark.parametrize("separate", [False, True])
def test_coupling_is_the_papers_equations_one_and_two(separate: bool) -> None:
    """u = (u1, u2); v1 = u1 exp(s1(u2, c)) + t1(u2, c); v2 = u2 exp(s2(v1, c)) + t2(v1, c)."""
    args = {"transform": ig.Affine(clamp=1.0), "subnet": MLP, "split": 2, "separate": separate}
    block = ig.testing.randomize(ig.Coupling((5,), ((3,), (2,)), **args).double())
    (u,), cs = draw([(5,)], 4), draw([(3,), (2,)], 4, seed=1)
    u1, u2 = u[:, :2], u[:, 2:]

    def numbers(side: int, read: Tensor, size: int) -> tuple[Tensor, Tensor]:
        outputs = torch.cat([net(read, cs) for net in block.subnets[side]], dim=1)
        return 2 / math.pi * torch.atan(outputs[:, :size]), outputs[:, size:]

    s1, t1 = numbers(0, u2, 2)
    v1 = u1 * s1.exp() + t1
    s2, t2 = numbers(1, v1, 3)
    v2 = u2 * s2.exp() + t2
    (v,), log_det = block((u,), cs)
    assert gap((v, log_det), (torch.cat((v1, v2), dim=1), s1.sum(1) + s2.sum(1))) <= 1e-12


def test_one_sided_coupling_leaves_the_second_part() -> None:
    block = ig.testing.randomize(ig.Coupling((6,), transform=ig.Affine(), subnet=MLP, sides=1, split=0.34).double())
    (x,) = draw([(6,)], 4)
    y = first(block((x,)))
    assert torch.equal(y[:, 2:], x[:, 2:])
    assert bool((y[:, :2] != x[:, :2]).all())


def test_subnets_are_a_sum_of_products_and_start_at_zero() -> None:
    net = ig.nets.MLP(hidden=6).build((4,), ((3,), (2,)), 5).double()
    (x,), cs = draw([(4,)], 3), draw([(3,), (2,)], 3, seed=1)
    assert not net(x, cs).any()
    ig.testing.randomize(net)
    weights = [layer.weight for layer in net.conditions]
    hidden = (
        x @ net.layers[0].weight.t() + net.layers[0].bias + sum(c @ w.t() for c, w in zip(cs, weights, strict=True))
    )
    expected = hidden.relu() @ net.layers[1].weight.t() + net.layers[1].bias
    assert gap((net(x, cs),), (expected,)) <= 1e-12


CONDITIONAL = [case for case in CASES if case.cond_shapes]


@pytest.mark.parametrize("case", CONDITIONAL, ids=[case.id for case in CONDITIONAL])
def test_every_condition_changes_the_result(case: Case) -> None:
    module = case.build()
    for call, (values, cs) in (
        (module, case.data(module, torch.float64)),
        (module.inverse, case.latents(module, torch.float64)),
    ):
        ys, _ = call(values, cs)
        for index in range(len(cs)):
            changed = tuple(c + (0.5 if k == index else 0.0) for k, c in enumerate(cs))
            zs, _ = call(values, changed)
            assert gap(ys, zs) > 1e-6, f"condition {index}"


def test_elementwise_reads_its_own_parameters() -> None:
    layer = ig.testing.randomize(ig.Elementwise((2, 3), transform=ig.Affine(clamp=1.0)).double())
    (x,) = draw([(2, 3)], 4)
    s, t = 2 / math.pi * torch.atan(layer.params[0]), layer.params[1]
    (y,), log_det = layer((x,))
    assert gap((y, log_det), (x * s.exp() + t, s.sum().expand(4))) <= 1e-12


def test_haar_is_the_papers_figure_three() -> None:
    (x,) = draw([(2, 4, 4)], 3)
    a, b, c, d = x[..., ::2, ::2], x[..., ::2, 1::2], x[..., 1::2, ::2], x[..., 1::2, 1::2]
    wavelets = [(a + b + c + d) / 2, (a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2]
    wavelets = [wavelets[0], *(0.5 * wavelet for wavelet in wavelets[1:])]
    by_channel = torch.stack(wavelets, dim=2).flatten(1, 2)
    assert gap((first(ig.Haar((2, 4, 4), rebalance=0.5)((x,))),), (by_channel,)) <= 1e-12
    by_wavelet = torch.stack(wavelets, dim=1).flatten(1, 2)
    layer = ig.Haar((2, 4, 4), rebalance=0.5, order_by_wavelet=True)
    (y,), log_det = layer((x,))
    assert gap((y,), (by_wavelet,)) <= 1e-12
    assert gap((log_det,), (torch.full((3,), 24 * math.log(0.5), dtype=x.dtype),)) <= 1e-12


def test_squeeze_is_pixel_unshuffle() -> None:
    (x,) = draw([(2, 4, 6)], 3)
    assert torch.equal(first(ig.Squeeze((2, 4, 6))((x,))), torch.nn.functional.pixel_unshuffle(x, 2))


def test_permute_is_indexing() -> None:
    x = draw([(4, 2)], 3)[0].requires_grad_()
    order = [2, 0, 3, 1]
    y = first(ig.Permute((4, 2), order=order)((x,)))
    assert torch.equal(y, x[:, order])
    weights = draw([(4, 2)], 3, seed=1)[0]
    (found,), (expected,) = (torch.autograd.grad((z * weights).sum(), x) for z in (y, x[:, order]))
    assert torch.equal(found, expected)
    orders = {tuple(ig.Permute((30,), seed=seed).order.tolist()) for seed in range(10)}
    assert len(orders) == 10


def test_orthogonal_is_a_rotation_and_fixed_linear_its_matrix() -> None:
    rotation = ig.Orthogonal((6,), seed=3).double()
    eye = torch.eye(6, dtype=torch.float64)
    matrix = first(rotation((eye,))).t()
    assert gap((matrix @ matrix.t(),), (eye,)) <= 1e-12
    matrix = torch.tensor([[2.0, 1.0], [0.5, -1.0]], dtype=torch.float64)
    (x,) = draw([(2, 3, 3)], 4)
    (y,), log_det = ig.FixedLinear((2, 3, 3), matrix=matrix).double()((x,))
    assert gap((y,), (torch.einsum("ij,bjhw->bihw", matrix, x),)) <= 1e-12
    assert gap((log_det,), (torch.full((4,), 9 * math.log(2.5), dtype=x.dtype),)) <= 1e-12


def test_split_and_concat_are_slices() -> None:
    (x,) = draw([(2, 5, 3)], 4)
    parts, _ = ig.Split((2, 5, 3), sizes=(1, 3, 1), dim=1)((x,))
    assert all(torch.equal(p, q) for p, q in zip(parts, (x[:, :, :1], x[:, :, 1:4], x[:, :, 4:]), strict=True))
    shapes = tuple(tuple(p.shape[1:]) for p in parts)
    assert torch.equal(first(ig.Concat(shapes, dim=1)(parts)), x)
    assert torch.equal(first(ig.Flatten((2, 5, 3))((x,))), x.flatten(1))
    assert torch.equal(first(ig.Reshape((2, 5, 3), shape=(3, 10))((x,))), x.reshape(4, 3, 10))


def test_actnorm_normalizes_the_batch_it_starts_from() -> None:
    x = draw([(3, 4)], 50)[0] * 4 + 7
    layer = ig.ActNorm((3, 4)).double()
    layer.initialize((x,))
    (y,), log_det = layer((x,))
    assert gap((y.mean((0, 2)),), (torch.zeros(3, dtype=x.dtype),)) <= 1e-12
    assert gap((y.std((0, 2), correction=0),), (torch.ones(3, dtype=x.dtype),)) <= 1e-12
    expected = -4 * x.std((0, 2), correction=0).log().sum()
    assert gap((log_det,), (expected.expand(50),)) <= 1e-12
    loaded = ig.ActNorm((3, 4)).double()
    loaded.load_state_dict(layer.state_dict())
    assert torch.equal(first(loaded((x,))), y)


@pytest.mark.parametrize(("kind", "args"), [(ig.Elementwise, {"transform": ig.Affine()}), (ig.Householder, {})])
def test_conditions_come_in_any_order(kind: Any, args: dict[str, Any]) -> None:
    """Swapping a vector and an image of conditions changes neither the parameters nor the result."""
    net = {"subnet": ig.nets.ConvNet(4)}
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(0)
        one = randomize(kind((3, 2, 4), ((2, 2, 4), (5,), (3,)), **args, **net).double())
    other = kind((3, 2, 4), ((5,), (2, 2, 4), (3,)), **args, **net).double()
    other.load_state_dict(one.state_dict())
    (x, image, a, b) = draw([(3, 2, 4), (2, 2, 4), (5,), (3,)], 2)
    for left, right in ((one, other), (one.inverse, other.inverse)):
        (y,), log_det = left((x,), (image, a, b))
        (same,), log_det_again = right((x,), (a, image, b))
        assert torch.equal(y, same)
        assert torch.equal(log_det, log_det_again)
    with pytest.raises(ig.GraphError, match=r"expected \(B, "):
        kind((3, 2, 4), ((5,), (2, 3, 3)), **args, **net)
