"""Checkpoints of graphs with branches: FrEIA numbers their modules by memory address."""

from __future__ import annotations

import io

import pytest
import torch
from freia_branches import OURS, X, branched, in_other_order, names, theirs
from torch import nn

import invgraph as ig


def test_modules_of_different_shapes_are_matched() -> None:
    sizes = (3, 4, 5)
    reference, net = in_other_order(sizes), branched(OURS, sizes)
    expected = [value.detach() for value in reference(X)]
    with pytest.warns(ig.freia.OrderWarning, match=r"of the network in another order[\s\S]*optimizer_in_order"):
        net.load_state_dict(reference.state_dict())
    torch.testing.assert_close(tuple(net(X)), tuple(expected), rtol=1e-5, atol=1e-5)
    assert len(ig.freia.candidate_orders(net, reference.state_dict())) == 1
    whole = nn.ModuleDict({"cinn": branched(OURS, sizes)})
    with pytest.warns(ig.freia.OrderWarning, match="of the network 'cinn' in"):
        whole.load_state_dict({f"cinn.{key}": value for key, value in reference.state_dict().items()})
    torch.testing.assert_close(tuple(whole["cinn"](X)), tuple(expected), rtol=1e-5, atol=1e-5)
    net.load_state_dict(net.state_dict())
    torch.testing.assert_close(tuple(net(X)), tuple(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("partial", [False, True])
def test_modules_of_equal_shapes_are_refused_until_an_order_is_picked(partial: bool) -> None:
    sizes = (6, 6)
    reference, net = in_other_order(sizes), branched(OURS, sizes)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = {key: value for key, value in reference.state_dict().items() if not (partial and key.endswith("2.bias"))}
    with pytest.raises(ig.CheckpointError, match=r"fits Node '\d/\d' and Node '\d/\d'") as caught:
        net.load_state_dict(state, strict=not partial)
    assert "load_in_order" in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    orders = ig.freia.candidate_orders(net, state)
    assert [node.name for node in orders[0]] != [node.name for node in orders[1]]
    assert names(reference) in [[node.name for node in order] for order in orders]
    with pytest.warns(ig.freia.OrderWarning):
        ig.freia.load_in_order(net, state, names(reference), strict=not partial)
    if not partial:
        torch.testing.assert_close(tuple(net(X)), tuple(reference(X)), rtol=1e-5, atol=1e-5)


def test_all_orders_of_freia_are_candidates() -> None:
    net = branched(OURS, (4, 4, 4), depth=1)
    orders = ig.freia.candidate_orders(net, net.state_dict())
    assert len(orders) == 6
    assert names(in_other_order((4, 4, 4), depth=1)) in [[node.name for node in order] for order in orders]


def test_our_own_checkpoints_load_as_they_are() -> None:
    net, other = branched(OURS, (6, 6)), branched(OURS, (6, 6))
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(X)[0], net(X)[0])
    reference = branched(theirs(), (6, 6))
    reference.load_state_dict(net.state_dict())  # the keys are FrEIA's


def test_orders_and_checkpoints_that_do_not_fit_are_refused() -> None:
    net = branched(OURS, (6, 6))
    state = net.state_dict()
    for order in ([], names(net)[1:], [*names(net)[:-1], "other"], [names(net)[0]] * len(names(net))):
        with pytest.raises(ig.ArgumentError, match="each of these nodes once"):
            ig.freia.load_in_order(net, state, order)
    with pytest.raises(ig.CheckpointError, match=r"expected keys cinn\.module_list\.0"):
        ig.freia.candidate_orders(net, state, prefix="cinn.")
    with pytest.raises(ig.CheckpointError, match="another network"):
        ig.freia.candidate_orders(branched(OURS, (3, 4)), state)
    with pytest.raises(RuntimeError, match="size mismatch"):
        branched(OURS, (5, 7)).load_state_dict(dict(state))


def test_a_graph_of_too_many_orders_is_refused_in_time() -> None:
    net = branched(OURS, (2,) * 9, depth=1)  # 9! = 362,880 orders
    state = dict(net.state_dict())
    with pytest.raises(ig.CheckpointError, match="too many orders"):
        ig.freia.candidate_orders(net, state)
    with pytest.raises(ig.CheckpointError, match="fits"):
        net.load_state_dict(state)


def test_exchanged_modules_are_matched_as_they_are() -> None:
    net = branched(OURS, (6, 6))
    net.module_list[-1] = nn.Linear(2, 2)
    state = dict(net.state_dict())
    with pytest.raises(ig.CheckpointError, match="fits"):
        net.load_state_dict(state)
