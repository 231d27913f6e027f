"""Subnets of the library: conditions are precomputed, the last layer is zero, rows of a batch are independent."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch

import invgraph as ig
from invgraph import nets
from invgraph.core.subnet import SubnetFactory
from invgraph.nets.transformer import Block
from invgraph.numerics.patches import from_patches, to_patches
from invgraph.testing import randomize

VECTORS = [nets.MLP(6), nets.MLP(6, layers=3), nets.ResidualMLP(6)]
IMAGES = [
    nets.ConvNet(4),
    nets.ConvNet(4, kernel=1, layers=2),
    nets.ResidualConvNet(4),
    nets.GatedAttention(4, heads=2),
    nets.UNet(2),
    nets.ViT(8, depth=2, heads=2),
]
SHAPES = {1: (3,), 2: (3, 8), 3: (3, 4, 8), 4: (3, 4, 4, 4)}
SETUPS = [(net, SHAPES[1]) for net in VECTORS] + [(net, SHAPES[rank]) for net in IMAGES for rank in (2, 3, 4)]


def built(factory: SubnetFactory, shape: tuple[int, ...], out: int = 5) -> tuple[Any, torch.Tensor, Any]:
    """Return a subnet with a vector and a condition of the data's size, and its arguments."""
    conds = ((2,), (1, *shape[1:]))
    g = torch.Generator().manual_seed(0)
    x, *cs = (torch.randn(3, *s, generator=g, dtype=torch.float64) for s in (shape, *conds))
    return factory.build(shape, conds, out).double(), x, tuple(cs)


@pytest.mark.parametrize(("factory", "shape"), SETUPS, ids=str)
def test_the_last_layer_starts_at_zero(factory: SubnetFactory, shape: tuple[int, ...]) -> None:
    net, x, cs = built(factory, shape)
    y = net(x, cs)
    assert y.shape == (3, 5, *shape[1:])
    assert not y.any()


@pytest.mark.parametrize(("factory", "shape"), SETUPS, ids=str)
def test_what_is_precomputed_depends_on_the_conditions_only(factory: SubnetFactory, shape: tuple[int, ...]) -> None:
    net, x, cs = built(factory, shape)
    randomize(net)
    given = net.prepare(cs)
    assert torch.equal(net.combine(x, given), net(x, cs))
    changed = net(x, (cs[0] + 1, cs[1]))
    assert not torch.allclose(net(x, cs), changed)
    assert not torch.allclose(net(x, cs), net(x, (cs[0], cs[1] + 1)))
    # Each precomputed row serves any number of samples.
    rows = net(torch.cat((x, x + 1)), given)
    assert torch.allclose(rows, torch.cat((net(x, cs), net(x + 1, cs))), atol=1e-13)
    assert net.broadcasts


@pytest.mark.parametrize(("factory", "shape"), SETUPS, ids=str)
def test_rows_are_independent_and_copies_are_equal(factory: SubnetFactory, shape: tuple[int, ...]) -> None:
    net, x, cs = built(factory, shape)
    randomize(net)
    y = net(x, cs)
    for row in range(3):
        part = slice(row, row + 1)
        assert torch.allclose(net(x[part], tuple(c[part] for c in cs)), y[part], atol=1e-13)
    assert torch.equal(pickle.loads(pickle.dumps(net))(x, cs), y)
    assert torch.equal(copy.deepcopy(net).eval()(x, cs), y)
    assert pickle.loads(pickle.dumps(factory)) == factory
    assert hash(factory) == hash(copy.deepcopy(factory))


@pytest.mark.parametrize(("factory", "shape"), SETUPS, ids=str)
def test_every_parameter_gets_a_gradient(factory: SubnetFactory, shape: tuple[int, ...]) -> None:
    net, x, cs = built(factory, shape)
    randomize(net)(x, cs).square().sum().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in net.parameters())


@pytest.mark.parametrize(
    "factory", [nets.ViT(8, depth=1, heads=2), nets.GatedAttention(8, blocks=1), nets.UNet(4)], ids=str
)
def test_a_stack_of_modern_couplings_round_trips(factory: SubnetFactory) -> None:
    x, c = ig.InputNode(4, 8, 8, name="x"), ig.ConditionNode(10, name="c")
    block = (ig.Coupling, {"transform": ig.Affine(), "subnet": factory})
    graph = ig.Graph(x, ig.chain(x, block, (ig.Permute, {"seed": 1}), block, conditions=c), c).double()
    randomize(graph)
    g = torch.Generator().manual_seed(0)
    data, label = torch.randn(2, 4, 8, 8, generator=g).double(), torch.randn(2, 10, generator=g).double()
    z, log_det = graph(data, label)
    back, undone = graph.inverse(z, label)
    assert (back - data).abs().max() < 1e-12
    assert (log_det + undone).abs().max() < 1e-11


@pytest.mark.parametrize("shape", [(6,), (2, 6), (3, 4, 2), (1, 2, 4, 6)])
def test_patches_are_a_rearrangement(shape: tuple[int, ...]) -> None:
    x = torch.arange(2.0 * torch.Size(shape).numel()).view(2, *shape)
    tokens = to_patches(x, 2)
    assert torch.equal(from_patches(tokens, shape, 2), x)
    assert torch.equal(tokens.flatten().sort().values, x.flatten())


def test_a_patch_is_a_square_of_every_channel() -> None:
    x = torch.arange(32.0).view(1, 2, 4, 4)
    assert to_patches(x, 2)[0, 1].tolist() == x[0, :, :2, 2:].flatten().tolist()


def test_a_block_step_by_step_equals_the_causal_block() -> None:
    block = Block(8, heads=2, causal=True).double()
    h = torch.randn(3, 5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole, cache, steps = block(h), None, []
    for token in h.split(1, dim=1):
        out, cache = block.step(token, cache)
        steps.append(out)
    assert torch.allclose(torch.cat(steps, dim=1), whole, atol=1e-13)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: nets.ResidualMLP(0), ig.GraphError, "hidden must be at least 1"),
        (lambda: nets.ResidualMLP(4).build((3, 8, 8), (), 4), ig.GraphError, "works on vectors"),
        (lambda: nets.ResidualConvNet(4, kernel=2), ig.GraphError, "kernel must be odd"),
        (lambda: nets.ResidualConvNet(4).build((3,), (), 4), ig.GraphError, "for vectors use nets.ResidualMLP"),
        (lambda: nets.UNet(4).build((3, 6, 8), (), 4), ig.GraphError, "6 is not divisible by 4"),
        (lambda: nets.UNet(4, levels=1.0), ig.ArgumentError, "levels must be an int"),
        (lambda: nets.GatedAttention(6, heads=4), ig.GraphError, "multiple of heads"),
        (lambda: nets.ViT(6, heads=4), ig.GraphError, "multiple of heads"),
        (lambda: nets.ViT(8).build((3, 5, 8), (), 4), ig.GraphError, "5 is not divisible by patch=2"),
        (lambda: nets.ViT(8)(3, 4), ig.GraphError, "must know the data's shape"),
        (lambda: nets.GatedAttention(8)(3, 4), ig.GraphError, "must know the data's shape"),
    ],
)
def test_wrong_arguments_are_refused(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()
