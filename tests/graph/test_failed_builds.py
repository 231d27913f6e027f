"""A declaration or a build that is refused leaves nothing half-made: what it was given stays, and can be used again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import invgraph as ig

AFFINE = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(hidden=4)}


def told(*nodes: Any) -> list[tuple[dict[str, Any], list[str], dict[str, Any]]]:
    """Everything that nodes and their layers hold."""
    return [
        (dict(vars(node)), sorted(vars(node.module)), {k: v.clone() for k, v in node.module.state_dict().items()})
        for node in nodes
    ]


def same(before: Any, after: Any) -> bool:
    return all(
        fields == its and names == own and all(torch.equal(state[key], other[key]) for key in (*state, *other))
        for (fields, names, state), (its, own, other) in zip(before, after, strict=True)
    )


def test_a_refused_graph_leaves_its_nodes_as_they_were() -> None:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    a, b = ig.Node(x, ig.Split, {"sizes": (2, 2)}, name="split")
    changed = ig.Node(a, ig.Coupling, AFFINE, conditions=(b, c), name="a")
    crossed = ig.Node(b, ig.Coupling, AFFINE, conditions=a, name="b")
    before = told(changed, crossed)
    refused: tuple[tuple[Any, Any, Any], ...] = (
        (x, [changed], c),  # an output that leads nowhere
        (x, [changed, b], ()),  # a condition that is not listed
        (x, [changed, crossed], c),  # each inverse waits for the other
        ([x, ig.InputNode(2)], [changed, b], c),  # an input that nothing reads
    )
    for inputs, outputs, conditions in refused:
        with pytest.raises(ig.GraphError):
            ig.Graph(inputs, outputs, conditions)
        assert same(before, told(changed, crossed))
    z, _ = ig.Graph(x, [changed, b], c)(torch.zeros(2, 4), torch.zeros(2, 3))
    assert [tuple(part.shape) for part in z] == [(2, 2), (2, 2)]


def test_a_refused_node_leaves_what_it_reads_and_the_names_as_they_were() -> None:
    x = ig.InputNode(4, name="x")
    first = ig.Node(x, ig.Permute)
    before = told(first)
    for module, args in ((ig.Coupling, {**AFFINE, "sides": 3}), (ig.Permute, {"sede": 1}), (ig.Haar, {})):
        with pytest.raises(ig.InvgraphError):
            ig.Node(first, module, args)
        assert same(before, told(first))
    assert list(ig.Graph(x, ig.Node(first, ig.Permute)).layers) == ["permute_0", "permute_1"]


def test_a_layer_that_fails_while_it_is_built_changes_nothing_of_the_next() -> None:
    def broken(channels_in: int, channels_out: int) -> nn.Module:
        raise ZeroDivisionError

    x = ig.InputNode(4, name="x")
    with pytest.raises((ig.InvgraphError, ZeroDivisionError)):
        ig.Node(x, ig.Coupling, {**AFFINE, "subnet": broken})
    torch.manual_seed(0)
    left = ig.Graph(x, ig.Node(x, ig.Coupling, AFFINE)).state_dict()
    torch.manual_seed(0)
    right = ig.Graph(x, ig.Node(x, ig.Coupling, AFFINE)).state_dict()
    assert list(left) == list(right)
    assert all(torch.equal(left[key], right[key]) for key in left)
