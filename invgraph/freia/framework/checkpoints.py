"""Checkpoints of FrEIA that fit a network in several ways, and optimizers whose state goes by FrEIA's order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn, optim

from invgraph.errors import ArgumentError, CheckpointError
from invgraph.freia.framework.graph_inn import GraphINN
from invgraph.freia.framework.loading import VERSION, nodes_of, signatures, warn_of_order
from invgraph.freia.framework.node import Node
from invgraph.freia.orders import PREFIX, Order, fitting_orders, group, prefixes, renumber_keys, shapes_of

_OF_SHAPE = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg", "sum", "ax")
"""Tensors of torch's optimizers that have the shape of their parameter."""


def candidate_orders(model: nn.Module, state_dict: Mapping[str, Any], *, prefix: str | None = None) -> list[list[Node]]:
    """Return the orders of nodes in which FrEIA may have numbered the modules of a checkpoint.

    Only orders are listed in which every module fits. Orders that differ only by nodes without parameters are one.

    Arguments:
        model: GraphINN, or a module that holds one.
        state_dict: State dict that FrEIA saved, of the network or of a larger model.
        prefix: Start of the network's keys in the state dict, such as ``"inn."``. Default: found automatically.

    Raises:
        ArgumentError: If the model holds no GraphINN, or several and no prefix picks one.
        CheckpointError: If the checkpoint has other modules than the network, or several networks fit.
    """
    inn, start = _locate("candidate_orders", model, state_dict, prefix)
    nodes = nodes_of(inn)
    found = [[nodes[place] for place in order] for order in _fitting(inn, state_dict, start)]
    if not found:
        raise CheckpointError("candidate_orders", "a checkpoint of another network", "names or shapes differ")
    return found


def load_in_order(
    model: nn.Module,
    state_dict: Mapping[str, Any],
    order: Iterable[Node | str],
    *,
    strict: bool = True,
    prefix: str | None = None,
) -> None:
    """Load a checkpoint of FrEIA whose modules were numbered in a given order of nodes.

    Arguments:
        model: GraphINN, or a module that holds one. A larger model is loaded as a whole; of the state dict of a larger
            model, a GraphINN takes its part.
        state_dict: State dict that FrEIA saved, of the network or of a larger model.
        order: All nodes that have a module, or their names, in the order of the numbers in the checkpoint. In the
            process that saves, FrEIA gives it as ``[node.name for node in inn.node_list if node.module]``.
        strict: Refuse missing and surplus keys, as in ``load_state_dict``.
        prefix: Start of the network's keys in the state dict, such as ``"inn."``. Default: found automatically.

    Warns:
        OrderWarning: The order is not that of the network, so the state of an optimizer needs
            :func:`optimizer_in_order`.

    Raises:
        ArgumentError: If the order does not name each node that has a module once, or no network is found.
        CheckpointError: If the checkpoint has other modules than the network.
    """
    inn, start = _locate("load_in_order", model, state_dict, prefix)
    places = _places("load_in_order", inn, order)
    _saved(inn, state_dict, start)
    renamed: OrderedDict[str, Any] = OrderedDict(state_dict)
    metadata: dict[str, Any] = dict(getattr(state_dict, "_metadata", None) or {})
    for entries in (renamed, metadata):
        renumber_keys(entries, start + PREFIX, places)
    metadata[start.removesuffix(".")] = {"version": VERSION}  # the numbers are ours now
    if model is inn:
        renamed = OrderedDict((key.removeprefix(start), renamed[key]) for key in renamed if key.startswith(start))
        inside = {key: value for key, value in metadata.items() if f"{key}.".startswith(start)}
        metadata = {f"{key}.".removeprefix(start).removesuffix("."): value for key, value in inside.items()}
    renamed._metadata = metadata  # type: ignore[attr-defined]  # torch reads versions from this attribute
    model.load_state_dict(renamed, strict=strict)
    inn.checkpoint_order = places
    warn_of_order(inn, places, start)


def optimizer_in_order(
    model: nn.Module,
    optimizer: optim.Optimizer,
    state_dict: Mapping[str, Any],
    order: Iterable[Node | str] | None = None,
    *,
    prefix: str | None = None,
) -> dict[str, Any]:
    """Return the state dict of an optimizer from FrEIA, with the order of parameters that this process has.

    Torch gives an optimizer's state to parameters by their place, and with branches FrEIA's places differ from process
    to process. Load the weights first, so that their order is known.

    Arguments:
        model: GraphINN, or a module that holds some.
        optimizer: Optimizer of this process, built as it was when the state was saved, with any groups.
        state_dict: State dict of the optimizer, from FrEIA.
        order: Nodes or names, as for :func:`load_in_order`. Default: the order in which the weights were loaded.
        prefix: Key prefix in the model of the network that ``order`` is about, such as ``"inn."``; needed where a model
            holds several.

    Raises:
        ArgumentError: If the weights were not loaded and there is no order, the model holds no GraphINN, or the
            optimizer has the parameters in another order than the network, or keeps state of all parameters together.
        CheckpointError: If the state does not fit the parameters.

    Example:
        >>> import torch, invgraph as ig
        >>> Ff, Fm = ig.freia.framework, ig.freia.modules
        >>> x = Ff.InputNode(4, name="x")
        >>> h = Ff.Node(x, Fm.ActNorm, {}, name="norm")
        >>> inn = Ff.GraphINN([x, h, Ff.OutputNode(h)])
        >>> optimizer = torch.optim.Adam(inn.parameters())
        >>> checkpoint = {"inn": inn.state_dict(), "optimizer": optimizer.state_dict()}
        >>> _ = inn.load_state_dict(checkpoint["inn"])
        >>> state = ig.freia.optimizer_in_order(inn, optimizer, checkpoint["optimizer"])
        >>> optimizer.load_state_dict(state)
    """
    where = "optimizer_in_order"
    networks = _networks(where, model)
    given: Order | None = None
    if order is not None:
        chosen = _pick(where, networks, prefix)
        given = _places(where, chosen, order)
    if isinstance(optimizer, optim.LBFGS):
        raise ArgumentError(
            where, "an LBFGS optimizer", "its state is one vector of all parameters: start with a new optimizer"
        )
    sizes = [len(each["params"]) for each in optimizer.param_groups]
    saved_sizes = [len(each["params"]) for each in state_dict["param_groups"]]
    if sizes != saved_sizes:
        counts = f"groups of {saved_sizes} parameters for groups of {sizes}"
        raise CheckpointError(where, counts, "build the optimizer as it was when its state was saved")
    groups = [{**each, "params": list(each["params"])} for each in state_dict["param_groups"]]
    for inn in networks.values():
        places = given if given is not None and inn is chosen else inn.checkpoint_order
        ours, theirs = _ranks(inn, range(len(inn.module_list))), None if places is None else _ranks(inn, places)
        for saved, own in zip(groups, optimizer.param_groups, strict=True):
            _permute(saved["params"], own["params"], ours, theirs)
    for saved, own in zip(groups, optimizer.param_groups, strict=True):
        saved.pop("param_names", None)  # FrEIA's names, which hold its numbers; torch keeps the optimizer's
        for number, parameter in zip(saved["params"], own["params"], strict=True):
            _require_shapes(state_dict["state"].get(number, {}), number, parameter)
    return {**state_dict, "param_groups": groups}


def _ranks(inn: GraphINN, order: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Return the rank of each parameter where the modules are numbered in an order; a shared one counts once."""
    ranks: dict[int, tuple[int, int]] = {}
    for number, place in enumerate(order):
        for index, parameter in enumerate(inn.module_list[place].parameters()):
            ranks.setdefault(id(parameter), (number, index))
    return ranks


def _permute(numbers: list[int], parameters: list[Tensor], ours: Any, theirs: Any) -> None:
    """Give a network's parameters in a group the numbers that stand at their places in FrEIA's order."""
    mine = [place for place, parameter in enumerate(parameters) if id(parameter) in ours]
    if not mine:
        return
    if theirs is None:
        given = "a network whose weights were not loaded"
        raise ArgumentError("optimizer_in_order", given, "load its weights first, or pass the order of its nodes")
    if mine != sorted(mine, key=lambda place: ours[id(parameters[place])]):
        given = "an optimizer with the network's parameters in another order than network.parameters()"
        raise ArgumentError("optimizer_in_order", given, "FrEIA's order can't be found out: start with a new optimizer")
    before = list(numbers)
    for place, wanted in zip(mine, sorted(mine, key=lambda place: theirs[id(parameters[place])]), strict=True):
        numbers[wanted] = before[place]


def _require_shapes(state: Mapping[str, Any], number: int, parameter: Tensor) -> None:
    for name in _OF_SHAPE:
        value = state.get(name)
        if isinstance(value, Tensor) and value.ndim > 0 and value.shape != parameter.shape:
            given = f"{name} of parameter {number} of shape {tuple(value.shape)}, for one of {tuple(parameter.shape)}"
            advice = "the state is in another order, or of an optimizer that was built in another way"
            raise CheckpointError("optimizer_in_order", given, advice)


def _networks(where: str, model: nn.Module) -> dict[str, GraphINN]:
    """Return the networks in a model by the start of their keys, without those inside of others."""
    found: dict[str, GraphINN] = {}
    for name, module in model.named_modules():
        start = f"{name}." if name else ""
        if isinstance(module, GraphINN) and not any(start.startswith(outer) for outer in found):
            found[start] = module
    if not found:
        raise ArgumentError(where, f"a {type(model).__name__}", "expected a GraphINN, or a module that holds one")
    return found


def _pick(where: str, networks: Mapping[str, GraphINN], prefix: str | None) -> GraphINN:
    if prefix is not None and prefix in networks:
        return networks[prefix]
    if len(networks) == 1:
        return next(iter(networks.values()))
    given = f"prefix={prefix!r} for a model of {len(networks)} networks"
    raise ArgumentError(where, given, f"pick one by its prefix: {', '.join(map(repr, networks))}")


def _locate(where: str, model: nn.Module, state: Mapping[str, Any], prefix: str | None) -> tuple[GraphINN, str]:
    """Return a network and the start of its keys in a state dict."""
    networks = _networks(where, model)
    inn = _pick(where, networks, prefix)
    if prefix is not None:
        return inn, prefix
    start = next(start for start, network in networks.items() if network is inn)
    there = prefixes(state)
    if start in there:
        return inn, start
    modules = len(inn.module_list)
    sized = [start for start in there if group(state, start + PREFIX, modules) is not None]
    fitting = [start for start in sized if next(_fitting(inn, state, start), None) is not None]
    if len(fitting) > 1:
        given = f"networks at {', '.join(map(repr, fitting))} that fit"
        raise CheckpointError(where, given, "pick one by its prefix: prefix=...")
    return inn, fitting[0] if fitting else start


def _fitting(inn: GraphINN, state: Mapping[str, Any], start: str) -> Any:
    """Return an iterator over the orders that fit the modules of a state dict below a prefix."""
    saved = _saved(inn, state, start)
    return fitting_orders(inn.graph, [shapes_of(entries) for entries in saved], signatures(inn.module_list))


def _saved(inn: GraphINN, state: Mapping[str, Any], start: str) -> list[dict[str, Any]]:
    saved = group(state, start + PREFIX, len(inn.module_list))
    if saved is None or not any(saved):
        given = f"keys such as {next(iter(state), None)!r} for {len(inn.module_list)} modules"
        advice = f"expected keys {start}{PREFIX}0. ...; the start of the network's keys is prefix=..."
        raise CheckpointError("GraphINN", given, advice)
    return saved


def _places(where: str, inn: GraphINN, order: Iterable[Node | str]) -> Order:
    """Return the numbers of nodes that are listed by themselves or by name."""
    nodes, listed = nodes_of(inn), list(order)
    places = [place for item in listed for place, node in enumerate(nodes) if item is node or item == node.name]
    if len(places) != len(listed) or sorted(places) != list(range(len(nodes))):
        given = f"order={[item if isinstance(item, str) else item.name for item in listed]}"
        advice = "name each of these nodes once, or pass nodes where names occur twice: "
        raise ArgumentError(where, given, advice + ", ".join(repr(node.name) for node in nodes))
    return tuple(places)
