"""A layer that is given no seed gets one from its place in the graph: another one in each block, always the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import processes
import pytest
import seeded_blocks
import torch
from seeded_blocks import SUBNET, blocks, orders
from torch import Tensor

import invgraph as ig

READER = {"reflections": 2, "subnet": SUBNET}


def drawn(layer: Any) -> Tensor:
    """All that a layer holds, in one tensor."""
    return torch.cat([tensor.detach().double().flatten() for tensor in layer.state_dict().values()])


RANDOM = {
    "permute": (ig.Permute, {}),
    "orthogonal": (ig.Orthogonal, {}),
    "orthogonal_linear": (ig.OrthogonalLinear, {}),
    "householder": (ig.Householder, {}),
    "conv1x1": (ig.Conv1x1, {}),
    "conv1x1_orthogonal": (ig.Conv1x1, {"orthogonal": True}),
    "low_rank_linear": (ig.LowRankLinear, {"rank": 2}),
    "all_in_one_soft": (ig.AllInOne, {"subnet": SUBNET}),
    "all_in_one_hard": (ig.AllInOne, {"subnet": SUBNET, "permutation": "hard", "householder": 1}),
}


def made(build: Any) -> Tensor:
    torch.default_generator.manual_seed(0)  # for the subnets
    return drawn(build())


@pytest.mark.parametrize("name", RANDOM)
def test_each_block_of_a_loop_draws_its_own_numbers(name: str) -> None:
    cls, args = RANDOM[name]
    h = ig.InputNode(12, name="x")
    found = []
    for _ in range(3):
        torch.default_generator.manual_seed(0)
        h = ig.Node(h, cls, args)
        found.append(drawn(h.module))
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("name", RANDOM)
def test_a_seed_that_is_given_counts_everywhere(name: str, seed: int) -> None:
    cls, args = RANDOM[name]
    inside = made(lambda: ig.Node(ig.InputNode(12, name="x"), cls, {**args, "seed": seed}).module)
    assert torch.equal(inside, made(lambda: cls((12,), **args, seed=seed)))


@pytest.mark.parametrize("name", RANDOM)
def test_without_a_seed_it_is_zero_outside_a_graph_and_the_place_inside(name: str) -> None:
    cls, args = RANDOM[name]
    assert torch.equal(made(lambda: cls((12,), **args)), made(lambda: cls((12,), **args, seed=0)))
    x = ig.InputNode(12, name="x")
    seed = ig.Node(x, cls, args).seed
    for given in (args, {**args, "seed": None}):
        inside = made(lambda given=given: ig.Node(x, cls, given).module)
        assert torch.equal(inside, made(lambda: cls((12,), **args, seed=seed)))


def test_a_loop_of_24_blocks_has_24_orders() -> None:
    assert len({tuple(order) for order in blocks()}) == 24


def test_the_seeds_are_the_same_in_another_process(tmp_path: Path) -> None:
    """The other hashes strings differently, unless PYTHONHASHSEED is set."""
    (ended,) = processes.run(seeded_blocks.write, [(tmp_path / "orders", 3)])
    assert ended.code == 0, ended.output
    assert (tmp_path / "orders").read_text() == str(blocks(3))


def test_the_seeds_stay_those_they_are() -> None:
    """A change here changes every untrained model that is built without seeds."""
    x = ig.InputNode(4, name="x")
    h = ig.Node(x, ig.Permute, name="mix")
    again = ig.Node(h, ig.Permute)
    assert (x.seed, h.seed, again.seed) == (3532478766091755469, 7621896531068033708, 2871406171036764453)


def test_what_else_is_declared_changes_nothing() -> None:
    before = blocks(3)
    other = ig.InputNode(30, name="y")
    kept = [ig.Node(other, ig.Permute), ig.ConditionNode(3, name="label")]
    assert blocks(3) == before
    assert kept


def test_branches_differ() -> None:
    a, b = ig.InputNode(30, name="a"), ig.InputNode(30, name="b")
    one, other = orders(ig.Graph((a, b), (ig.Node(a, ig.Permute), ig.Node(b, ig.Permute))))
    assert one != other
    x = ig.InputNode(60, name="x")
    parts = ig.Node(x, ig.Split, {"sizes": (30, 30)})
    one, other = orders(ig.Graph(x, [ig.Node(part, ig.Permute) for part in parts]))
    assert one != other


def test_names_classes_and_conditions_count() -> None:
    x, c, d = ig.InputNode(6, name="x"), ig.ConditionNode(2, name="c"), ig.ConditionNode(2, name="d")
    nodes = [
        ig.Node(x, ig.Householder, READER, conditions=c),
        ig.Node(x, ig.Householder, READER, conditions=d),
        ig.Node(x, ig.Householder, READER, conditions=(c, d)),
        ig.Node(x, ig.Householder, READER, conditions=(d, c)),
        ig.Node(x, ig.Householder, READER, conditions=c, name="turn"),
        ig.Node(x, ig.Householder),
        ig.Node(x, ig.Permute),
    ]
    assert len({node.seed for node in nodes}) == len(nodes)
    assert all(0 <= node.seed < 2**63 for node in nodes)


def test_seeds_depend_on_the_order_in_which_a_node_reads_its_inputs() -> None:
    a, b = ig.InputNode(3, name="a"), ig.InputNode(3, name="b")
    assert ig.Node((a, b), ig.Concat).seed != ig.Node((b, a), ig.Concat).seed


def test_a_chain_gives_each_layer_a_seed() -> None:
    x = ig.InputNode(30, name="x")
    graph = ig.Graph(x, ig.chain(x, ig.Permute, ig.Permute, (ig.Permute, {"seed": 3}), ig.Permute((30,))))
    assert len({tuple(order) for order in orders(graph)}) == 4
    assert orders(graph)[2:] == [ig.Permute((30,), seed=seed).order.tolist() for seed in (3, 0)]


def test_layers_of_users_are_given_seeds_too() -> None:
    class Mine(ig.Permute):
        """A permutation of a user."""

        def __init__(self, in_shapes: Any, cond_shapes: Any = (), *, seed: int | None = None) -> None:
            super().__init__(in_shapes, cond_shapes, seed=seed)
            self.seed = seed

    class Fixed(ig.Permute):
        """A permutation of a user who chose."""

        def __init__(self, in_shapes: Any, cond_shapes: Any = (), *, seed: int = 5) -> None:
            super().__init__(in_shapes, cond_shapes, seed=seed)
            self.seed = seed

    x = ig.InputNode(4, name="x")
    node = ig.Node(x, Mine)
    assert node.module.seed == node.seed
    assert ig.Node(x, Mine, {"seed": 2}).module.seed == 2
    assert ig.Node(x, Fixed).module.seed == 5
    assert Mine((4,)).seed is None


def test_stochastic_layers_keep_their_seed() -> None:
    x = ig.InputNode(4, name="x")
    assert ig.Node(x, ig.Dequantize, {"levels": 8}).module.seed.item() == 0


def test_a_checkpoint_brings_its_permutations_along(tmp_path: Any) -> None:
    def build(args: dict[str, int]) -> ig.Graph:
        x = ig.InputNode(30, name="x")
        return ig.Graph(x, ig.Node(x, ig.Permute, args, name="mix"))

    saved, loaded = build({"seed": 0}), build({})
    assert orders(saved) != orders(loaded)
    ig.save(tmp_path / "model.safetensors", saved)
    ig.load(tmp_path / "model.safetensors", loaded)
    assert orders(saved) == orders(loaded)
