"""Optimizers and larger models from FrEIA, whose order of modules is another."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from freia_branches import OURS, branched, in_other_order, names
from torch import Tensor, nn

import invgraph as ig

X = torch.randn(64, 12) * torch.arange(1, 13) / 4

Make = Callable[[Any, list[nn.Parameter]], torch.optim.Optimizer]


class Model(nn.Module):
    """A larger model: a network, and what stands before and after it."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.before = nn.Linear(12, 12)
        self.inn = branched(OURS, sizes)
        self.after = nn.Linear(12, 12)

    def forward(self, x: Tensor) -> Any:
        z, log_jac = self.inn(x + 0.1 * self.before(x))
        return z + 0.1 * self.after(z), log_jac


def train(model: Any, optimizer: torch.optim.Optimizer, steps: int) -> float:
    loss = torch.tensor(0.0)
    for _ in range(steps):
        z, log_jac = model(X)
        loss = (0.5 * z.square().sum(1) - log_jac).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def other_order(inn: Any) -> list[int]:
    """An order that FrEIA may give where the branches are alike; of three or more, one that is not its own inverse."""
    alike = branched(OURS, (6,) * (len(inn.module_list) // 2 - 1))
    own = names(inn)
    orders = [
        [own.index(node.name) for node in nodes] for nodes in ig.freia.candidate_orders(alike, alike.state_dict())
    ]
    twice = [[order[place] for place in order] for order in orders]
    return max(zip(twice, orders, strict=True))[1] if len(orders) > 2 else orders[-1]


def in_order(model: Any, order: list[int]) -> list[nn.Parameter]:
    """The parameters of a model, as they would be if its network numbered its modules in an order."""
    inn = getattr(model, "inn", model)
    inside = [p for place in order for p in inn.module_list[place].parameters()]
    if model is inn:
        return inside
    return [*model.before.parameters(), *inside, *model.after.parameters()]


def saved(model: Any, order: list[int]) -> dict[str, Tensor]:
    """The state dict of a model, as it would be if its network numbered its modules in an order."""
    start = "inn.module_list." if hasattr(model, "inn") else "module_list."
    number = {str(place): str(index) for index, place in enumerate(order)}
    found = {}
    for key, value in model.state_dict().items():
        place, dot, name = key.removeprefix(start).partition(".")
        found[f"{start}{number[place]}{dot}{name}" if key.startswith(start) else key] = value.clone()
    return found


def adam(model: Any, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-2)


def momentum_by_kind(model: Any, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    inside = {id(p) for p in getattr(model, "inn", model).parameters()}
    weights = [p for p in parameters if id(p) in inside and p.ndim == 2]
    biases = [p for p in parameters if id(p) in inside and p.ndim == 1]
    rest = [p for p in parameters if id(p) not in inside]
    groups = [{"params": group, "lr": lr} for group, lr in ((biases, 1e-3), (weights, 2e-3), (rest, 1e-4)) if group]
    return torch.optim.SGD(groups, lr=1e-3, momentum=0.9)


@pytest.mark.filterwarnings("ignore::invgraph.freia.OrderWarning")
@pytest.mark.parametrize("make", [adam, momentum_by_kind])
@pytest.mark.parametrize("sizes", [(6, 6), (3, 4, 5)])
@pytest.mark.parametrize("larger", [False, True])
def test_training_goes_on_as_where_it_was_saved(make: Make, sizes: tuple[int, ...], larger: bool) -> None:
    reference: Any = Model(sizes) if larger else branched(OURS, sizes)
    order = other_order(reference.inn if larger else reference)
    optimizer = make(reference, in_order(reference, order))
    train(reference, optimizer, 4)
    weights, state = saved(reference, order), copy.deepcopy(optimizer.state_dict())
    expected = train(reference, optimizer, 4)

    model: Any = Model(sizes) if larger else branched(OURS, sizes)
    optimizer = make(model, list(model.parameters()))
    if sizes == (6, 6):
        with pytest.raises(ig.CheckpointError, match="load_in_order") as caught:
            model.load_state_dict(weights)
        assert ("prefix='inn.'" in str(caught.value)) == larger
        nodes = [node for node in (model.inn if larger else model).node_list if node.module is not None]
        listed = [nodes[place] for place in order]
        assert listed in ig.freia.candidate_orders(model, weights)
        ig.freia.load_in_order(model, weights, listed)
    else:
        model.load_state_dict(weights)
    before = copy.deepcopy(state)
    optimizer.load_state_dict(ig.freia.optimizer_in_order(model, optimizer, state))
    assert str(state) == str(before)  # the caller's is as it was
    assert train(model, optimizer, 4) == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("ignore::invgraph.freia.OrderWarning")
def test_training_goes_on_as_in_freia() -> None:
    reference, model = in_other_order((6, 6)), branched(OURS, (6, 6))
    optimizer = adam(reference, list(reference.parameters()))
    train(reference, optimizer, 20)
    checkpoint = copy.deepcopy({"m": reference.state_dict(), "o": optimizer.state_dict()})
    ig.freia.load_in_order(model, checkpoint["m"], names(reference))
    state = copy.deepcopy(checkpoint["o"])  # torch's optimizers train what they load in place
    other = adam(model, list(model.parameters()))
    other.load_state_dict(ig.freia.optimizer_in_order(model, other, state))
    by_name = ig.freia.optimizer_in_order(model, other, checkpoint["o"], names(reference))
    assert str(by_name) == str(ig.freia.optimizer_in_order(model, other, checkpoint["o"]))
    for name in names(model):
        theirs, own = (net.get_module_by_name(name).parameters() for net in (reference, model))
        for parameter, mine in zip(theirs, own, strict=True):
            assert torch.equal(optimizer.state[parameter]["exp_avg"], other.state[mine]["exp_avg"])
    assert train(model, other, 20) == pytest.approx(train(reference, optimizer, 20), rel=1e-4)


def test_a_checkpoint_in_our_order_is_no_reason_for_a_warning() -> None:
    model = Model((3, 4, 5))
    optimizer = adam(model, list(model.parameters()))
    train(model, optimizer, 1)
    for state in (model.state_dict(), dict(model.state_dict())):  # marked, and matched by structure
        model.load_state_dict(state)
        ordered = ig.freia.optimizer_in_order(model, optimizer, optimizer.state_dict())
        assert str(ordered) == str(optimizer.state_dict())
    ig.freia.load_in_order(model, saved(model, list(range(9))), names(model.inn))


@pytest.mark.filterwarnings("ignore::invgraph.freia.OrderWarning")
def test_a_network_finds_its_part_of_a_larger_state_dict() -> None:
    model, network = Model((6, 6)), branched(OURS, (6, 6))
    order = other_order(network)
    listed = [network.node_list[1:-1][place].name for place in order]
    weights = {f"net.{key}": value for key, value in saved(model, order).items()}
    assert listed in [[node.name for node in nodes] for nodes in ig.freia.candidate_orders(network, weights)]
    for prefix in (None, "net.inn."):
        network = branched(OURS, (6, 6))
        ig.freia.load_in_order(network, weights, listed, prefix=prefix)
        assert torch.equal(network(X)[0], model.inn(X)[0])
    weights.update({key.replace("net.", "ema."): value for key, value in weights.items()})
    with pytest.raises(ig.CheckpointError, match=r"'net\.inn\.', 'ema\.inn\.' that fit"):
        ig.freia.candidate_orders(network, weights)
    assert ig.freia.candidate_orders(network, weights, prefix="ema.inn.")


@pytest.mark.filterwarnings("ignore::invgraph.freia.OrderWarning")
def test_a_model_of_two_networks_needs_a_prefix() -> None:
    model = nn.ModuleDict({"a": branched(OURS, (6, 6)), "b": branched(OURS, (3, 4, 5))})
    weights = dict(model.state_dict())
    with pytest.raises(ig.ArgumentError, match=r"'a\.', 'b\.'"):
        ig.freia.candidate_orders(model, weights)
    assert ig.freia.candidate_orders(model, weights, prefix="b.") == [list(model["b"].node_list[1:-1])]
    order = other_order(model["a"])
    listed = [model["a"].node_list[1 + place] for place in order]
    ig.freia.load_in_order(model, weights, listed, prefix="a.")
    assert model["a"].checkpoint_order == tuple(order)
    optimizer = torch.optim.SGD(model.parameters())
    numbers = ig.freia.optimizer_in_order(model, optimizer, optimizer.state_dict())["param_groups"][0]["params"]
    inside = len(list(model["a"].parameters()))
    assert numbers[:inside] != list(range(inside)) == sorted(numbers[:inside])
    assert numbers[inside:] == list(range(inside, len(numbers)))
    with pytest.raises(ig.ArgumentError, match=r"'a\.', 'b\.'"):
        ig.freia.optimizer_in_order(model, optimizer, optimizer.state_dict(), listed)
    with pytest.raises(ig.ArgumentError, match="holds one"):
        ig.freia.candidate_orders(nn.Linear(2, 2), weights)


def test_optimizers_that_do_not_fit_are_refused() -> None:
    model = branched(OURS, (3, 4, 5))
    parameters = list(model.parameters())
    optimizer = adam(model, parameters)
    train(model, optimizer, 1)
    state = optimizer.state_dict()
    with pytest.raises(ig.ArgumentError, match="load its weights first"):
        ig.freia.optimizer_in_order(model, optimizer, state)
    model.load_state_dict(model.state_dict())
    with pytest.raises(ig.CheckpointError, match="built in another way"):
        ig.freia.optimizer_in_order(model, optimizer, state, [names(model)[0], *names(model)[3:5], *names(model)[1:3],
                                                              *names(model)[5:]])  # fmt: skip
    for other, message in (
        (adam(model, parameters[::-1]), "in another order than"),
        (torch.optim.LBFGS(parameters), "start with a new optimizer"),
        (adam(model, parameters[1:]), "build the optimizer as it was"),
    ):
        with pytest.raises(ig.InvgraphError, match=message):
            ig.freia.optimizer_in_order(model, other, state)
    with pytest.raises(ig.ArgumentError, match="each of these nodes once"):
        ig.freia.optimizer_in_order(model, optimizer, state, ["x"])
