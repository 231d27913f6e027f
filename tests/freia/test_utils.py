"""FrEIA's small functions."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch

import invgraph as ig

U = ig.freia.utils


def test_sums_leave_axes_out() -> None:
    x = torch.arange(24.0).reshape(2, 3, 4)
    assert torch.equal(U.sum_except_batch(x), x.sum((1, 2)))
    assert torch.equal(U.sum_except(x, -1, 0), x.sum(1))
    assert torch.equal(U.f_except(torch.amax, x, 1, keepdim=True), x.amax((0, 2), keepdim=True))
    with pytest.raises(ig.ArgumentError, match="leave at least one axis"):
        U.sum_except_batch(torch.zeros(3))


def test_every_tensor_of_a_structure_is_moved() -> None:
    Pair = namedtuple("Pair", "a b")
    shared = [torch.zeros(1)]
    given = {"list": shared, "again": shared, "pair": Pair(torch.zeros(1), 3), "tuple": (torch.zeros(1), "x")}
    given["itself"] = given  # type: ignore[assignment]
    moved = U.force_to(given, torch.float64)
    assert moved is given
    assert shared[0].dtype == moved["pair"].a.dtype == moved["tuple"][0].dtype == torch.float64
    assert moved["pair"].b == 3
    assert U.force_to(torch.zeros(1), dtype=torch.float64).dtype == torch.float64


def test_shapes_of_networks_and_layers() -> None:
    net = ig.freia.framework.SequenceINN(1, 2, 2)
    net.append(ig.freia.modules.Flatten)
    assert U.output_dims_compatible(net) == [(4,)]
    assert U.output_dims_compatible(net[0]) == [(4,)]
