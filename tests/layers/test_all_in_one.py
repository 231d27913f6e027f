"""AllInOne: composition of its parts, and arguments that it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

import invgraph as ig
from invgraph.numerics.gains import Gain
from invgraph.testing import randomize

MLP = ig.nets.MLP(hidden=6)


def test_gins_block_preserves_volumes() -> None:
    block = ig.AllInOne((6,), transform=ig.VolumePreserving(), scale=False, subnet=MLP, householder=2)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    (y,), log_det = randomize(block)((x,))
    assert not log_det.any()
    assert not torch.allclose(y.norm(dim=1), x.norm(dim=1))


@pytest.mark.parametrize("permutation", ["soft", "hard"])
def test_a_stack_of_reversed_blocks_starts_as_the_identity(permutation: Any) -> None:
    x = ig.InputNode(5, name="x")
    args = {"subnet": MLP, "permutation": permutation, "householder": 3, "reverse": True}
    graph = ig.Graph(x, ig.chain(x, *[(ig.AllInOne, {**args, "seed": seed}) for seed in range(4)])).double()
    data = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z, log_det = graph(data)
    assert torch.allclose(z, data, atol=1e-12)
    assert not log_det.any()


def test_it_is_the_coupling_the_scale_and_the_rotation() -> None:
    block = randomize(ig.AllInOne((5,), ((2,),), subnet=MLP, split=2).double())
    coupling = ig.Coupling((5,), ((2,),), transform=ig.Affine(), subnet=MLP, sides=1, split=2).double()
    coupling.subnets[0][0].load_state_dict(block.subnet.state_dict())
    g = torch.Generator().manual_seed(0)
    x, c = (torch.randn(3, n, dtype=torch.float64, generator=g) for n in (5, 2))
    (y,), log_det = block((x,), (c,))
    (v,), share = coupling((x,), (c,))
    assert torch.allclose(y, (v * block.log_scale.exp() + block.shift) @ block.rotation.t(), atol=1e-13)
    assert torch.allclose(log_det, share + block.log_scale.sum(), atol=1e-13)


@pytest.mark.parametrize("function", ["exp", "softplus", "sigmoid"])
def test_the_gain_starts_where_it_is_told(function: Any) -> None:
    block = ig.AllInOne((4,), subnet=MLP, permutation="hard", gain=0.25, gain_function=function).double()
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (y,), log_det = block((x,))
    assert torch.allclose(y, 0.25 * x[:, block.order], atol=1e-12)
    assert torch.allclose(log_det, torch.full((3,), 4 * math.log(0.25), dtype=torch.float64), atol=1e-12)


def test_gains_are_what_their_functions_say() -> None:
    raw = torch.linspace(-40, 40, 81, dtype=torch.float64)
    for function, start in (("exp", 2.0), ("softplus", 0.5), ("sigmoid", 3.0)):
        gain = Gain(function, start)
        value = gain.value(raw)
        assert (value > 0).all()
        assert torch.allclose(gain.log(raw), value.log(), atol=1e-9)
        middle = raw[30:51]
        assert torch.allclose(gain.raw(gain.value(middle)), middle, atol=1e-6)
    assert Gain("sigmoid", 1.0).value(raw).max() <= 10
    low = torch.tensor([-200.0], requires_grad=True)
    (slope,) = torch.autograd.grad(Gain("softplus", 1.0).log(low).sum(), low)
    assert slope.item() == 1


def test_a_batch_sets_any_gain() -> None:
    x = 0.5 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) + 1
    for function in ("exp", "softplus", "sigmoid"):
        block = ig.AllInOne((4,), subnet=MLP, gain_function=function)  # type: ignore[arg-type]
        block.initialize((x,))
        (y,), _ = block((x,))
        v = y @ block.rotation
        assert v.mean(0).abs().max() < 1e-5
        assert (v.std(0, correction=0) - 1).abs().max() < 1e-5
    block = ig.AllInOne((4,), subnet=MLP, gain_function="sigmoid")
    with pytest.raises(ig.NumericsError, match="a sigmoid's is below 10"):
        block.initialize((x / 100,))


def test_damping_is_a_factor_on_the_subnet() -> None:
    def net(a: int, b: int) -> nn.Module:
        return nn.Linear(a, b)

    block = ig.AllInOne((4,), subnet=net, permutation="hard", damping=0.1).double()
    coupling = ig.Coupling((4,), transform=ig.Affine(), subnet=net, sides=1).double()
    coupling.load_state_dict({f"subnets.0.0.module.{k}": 0.1 * v for k, v in block.subnet.module.state_dict().items()})
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (v,), log_det = coupling((x,))
    (y,), other = block((x,))
    assert torch.allclose(y, v[:, block.order], atol=1e-13)
    assert torch.allclose(other, log_det, atol=1e-13)


def test_a_single_channel_is_transformed_given_the_conditions_alone() -> None:
    block = randomize(ig.AllInOne((1,), ((2,),), subnet=MLP, permutation="hard"))
    x, c = torch.ones(2, 1), torch.tensor([[0.0, 1.0], [2.0, -1.0]])
    (y,), log_det = block((x,), (c,))
    assert y[0] != y[1]
    assert log_det[0] != log_det[1]
    with pytest.raises(ig.GraphError, match="at least 2 channels"):
        ig.AllInOne((1,), subnet=MLP)


def test_hard_permutations_are_an_index_unless_they_learn() -> None:
    assert list(dict(ig.AllInOne((4,), subnet=MLP, permutation="hard").named_buffers())) == ["order", "inverse_order"]
    args = {"subnet": MLP, "permutation": "hard", "seed": 2}
    block, dense = ig.AllInOne((6,), **args), ig.AllInOne((6,), householder=1, **args)
    assert torch.equal(dense.rotation, torch.eye(6)[block.order])


def test_hard_permutations_permute() -> None:
    block = ig.AllInOne((7,), subnet=MLP, permutation="hard", seed=3)
    x = torch.arange(7.0)[None]
    assert sorted(block((x,))[0][0][0].tolist()) == list(range(7))


def test_the_rotation_stays_orthogonal_in_float64() -> None:
    block = ig.AllInOne((20,), subnet=MLP).double()
    assert torch.allclose(block.rotation @ block.rotation.t(), torch.eye(20, dtype=torch.float64), atol=1e-14)


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ({"permutation": "loose"}, ig.GraphError, "'soft' or 'hard'"),
        ({"householder": -1}, ig.GraphError, "at least 0"),
        ({"householder": 1.5}, ig.ArgumentError, "householder must be an int"),
        ({"seed": True}, ig.ArgumentError, "seed must be an int"),
        ({"transform": "affine"}, ig.ArgumentError, "expected a transform"),
        ({"split": 5}, ig.GraphError, "each needs at least one channel"),
        ({"gain": 0.0}, ig.GraphError, "gain must be positive"),
        ({"gain": 10.0, "gain_function": "sigmoid"}, ig.GraphError, "below its bound, 10"),
        ({"gain_function": "relu"}, ig.GraphError, "one of 'exp', 'softplus', 'sigmoid'"),
        ({"gain": 2.0, "scale": False}, ig.GraphError, "scale=False keeps the gain at 1"),
        ({"damping": -0.1}, ig.GraphError, "damping must be positive"),
    ],
)
def test_wrong_arguments_are_refused(args: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ig.AllInOne((5,), **{"subnet": MLP, **args})


@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e30])
def test_reflections_depend_on_the_directions_of_their_vectors(factor: float) -> None:
    block, other = (ig.AllInOne((4,), subnet=MLP, householder=2) for _ in range(2))
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        block.reflections.mul_(factor)
    (y,), _ = block((x,))
    plain = other((x,))[0][0] if factor else x @ other.rotation.t()  # zeros reflect nothing
    assert torch.allclose(y, plain, atol=1e-6)
    y.sum().backward()
    assert bool(block.reflections.grad.isfinite().all())


def test_a_block_without_a_scale_takes_constant_channels() -> None:
    block = ig.AllInOne((4,), subnet=MLP, scale=False, permutation="hard")
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]]).expand(5, -1)
    block.initialize((x,))
    assert torch.equal(block.shift, -x[0])
    block = ig.AllInOne((4,), subnet=MLP, scale=False, permutation="hard")
    ig.Inverse(block).initialize((x[:1],))
    assert torch.equal(block.shift, x[0, block.inverse_order])
    with pytest.raises(ig.NumericsError, match="constant"):
        ig.AllInOne((4,), subnet=MLP).initialize((x,))
