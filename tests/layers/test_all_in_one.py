"""AllInOne: composition of its parts, and arguments that it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import invgraph as ig
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
    ],
)
def test_wrong_arguments_are_refused(args: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ig.AllInOne((5,), **{"subnet": MLP, **args})
