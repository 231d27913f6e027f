"""Build a node's module from its class and arguments, and check it against the values that the node reads."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn

from invgraph.core.invertible import Invertible
from invgraph.core.known_shape import known_shape
from invgraph.core.trial import changes_inputs, trial, trial_inputs
from invgraph.errors import ArgumentError, GraphError, InvgraphError
from invgraph.shapes import Shape
from invgraph.transforms.transform import Transform

Shapes: TypeAlias = tuple[Shape, ...]


def build_layer(
    where: str, read: str, module: object, args: object, shapes: tuple[Shapes, Shapes], seed: int
) -> Invertible:
    """Return the layer of a node, built if a class is given; its shapes must be those of what the node reads.

    Arguments:
        where: The node, for errors.
        read: The names of the nodes that it reads, for errors.
        module: A class of layers, or a layer.
        args: The keyword arguments of the class.
        shapes: The shapes of the inputs and of the conditions.
        seed: The seed for a class that takes one, unless the arguments hold one.

    Raises:
        GraphError: If the layer does not fit the shapes.
        ArgumentError: If it is not a layer, or an argument is unknown, missing or of the wrong type.
    """
    in_shapes, cond_shapes = shapes
    kind = module if isinstance(module, type) else type(module)
    if not issubclass(kind, Invertible):
        raise _not_a_layer(where, kind)
    if inspect.isabstract(module):
        lacking = " and ".join(sorted(kind.__abstractmethods__))
        advice = f"{kind.__name__} is abstract, it lacks {lacking}: "
        advice += "give a class that derives from it" if kind is Invertible else "define them in the class"
        raise ArgumentError(where, f"module={kind.__name__}", advice)
    layer = build(f"{where} of {read}", module, args, shapes, seed)
    assert isinstance(layer, Invertible)
    for what, expected, got in (
        ("inputs", layer.in_shapes, in_shapes),
        ("conditions", layer.cond_shapes, cond_shapes),
    ):
        if expected != got:
            advice = f"the layer expects {_describe(expected)}, gets {_describe(got)}"
            if what == "conditions" and not layer.conditional:
                advice = f"{kind.__name__} takes no conditions"
            raise GraphError(where, f"{what} of shapes {_describe(got)}", advice)
    return layer


def _not_a_layer(where: str, kind: type) -> ArgumentError:
    """Return the refusal of what can't transform the values of a node, with the place where it can be used."""
    name = kind.__name__
    if issubclass(kind, Transform):
        advice = f"{name} is not an Invertible but a transform: put it in Elementwise(transform={name}(...))"
    elif issubclass(kind, nn.Module):
        advice = f"{name} is not an Invertible; use it as a subnet of a layer such as Coupling"
    else:
        advice = "expected a layer: a class of layers with args, a layer already built, or a graph"
    return ArgumentError(where, f"module={name}", advice)


def build_network(where: str, module: object, args: object) -> nn.Module:
    """Return the feed-forward network of a feature node, built if a class is given.

    Raises:
        ArgumentError: If it is not a network, or an argument is unknown, missing or of the wrong type.
    """
    kind = module if isinstance(module, type) else type(module)
    if issubclass(kind, Invertible):
        raise ArgumentError(where, kind.__name__, "expected a feed-forward nn.Module, not an Invertible")
    if not issubclass(kind, nn.Module):
        advice = f"a {kind.__name__} is not an nn.Module: wrap it in a module, whose forward calls it"
        raise ArgumentError(where, f"module={getattr(module, '__name__', kind.__name__)}", advice)
    net = build(where, module, args)
    assert isinstance(net, nn.Module)
    return net


def _describe(shapes: tuple[Shape, ...]) -> str:
    return ", ".join(map(str, shapes)) or "none"


def build(where: str, module: object, args: object, shapes: tuple[object, ...] = (), seed: int | None = None) -> object:
    """Return the module: as given, or made of its class, the shapes that it reads and its arguments."""
    if args is not None and not isinstance(args, Mapping):
        raise ArgumentError(where, f"args={args!r}", "args must be a mapping of argument names to values")
    if not isinstance(module, type):
        if args is not None:
            raise ArgumentError(
                where, f"args={dict(args)!r}", "the module is already built: pass args only with a class"
            )
        return module
    arguments = dict(args or {})
    _check_arguments(where, module, arguments)
    if seed is not None and arguments.get("seed") is None and _takes_seed(module):
        arguments["seed"] = seed
    try:
        return module(*shapes, **arguments)
    except InvgraphError as error:
        raise error.at(where) from error


def _check_arguments(where: str, module: type, arguments: dict[str, Any]) -> None:
    """Refuse unknown and missing arguments, with the name that was probably meant."""
    parameters = inspect.signature(module).parameters.values()
    accepted = [p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if issubclass(module, Invertible):
        if accepted[:1] != ["in_shapes"]:
            name = module.__name__
            raise ArgumentError(
                where, f"the class {name}", f"{name} is not built from shapes: give the node {name}(...)"
            )
        accepted = [name for name in accepted if name not in ("in_shapes", "cond_shapes")]
    for name in arguments:
        if name not in accepted and not any(p.kind is p.VAR_KEYWORD for p in parameters):
            close = difflib.get_close_matches(str(name), accepted, n=1)
            hint = (
                f"did you mean {close[0]!r}?" if close else f"{module.__name__} takes {', '.join(accepted) or 'none'}"
            )
            raise ArgumentError(where, f"args={arguments!r}", f"unknown argument {name!r}; {hint}")
    for p in parameters:
        if p.name in accepted and p.default is p.empty and p.name not in arguments:
            raise ArgumentError(where, f"args={arguments!r}", f"{module.__name__} needs {p.name!r}")


def _takes_seed(module: type) -> bool:
    """True if the constructor has a parameter ``seed`` that is None by default."""
    parameter = inspect.signature(module).parameters.get("seed")
    return parameter is not None and parameter.kind is not parameter.POSITIONAL_ONLY and parameter.default is None


def feature_shapes(where: str, net: nn.Module, shapes: Shapes) -> Shapes:
    """Return the shapes of what a feature network returns, if need be from a trial without data."""
    if not shapes:
        raise GraphError(where, "no conditions", "a feature reads at least one condition")
    if len(shapes) == 1 and (shape := known_shape(net, shapes[0])) is not None:
        return (shape,)
    read = trial_inputs(net, shapes)
    try:
        result = trial(where, net, *read)
    except GraphError as error:
        if not any(isinstance(part, (nn.Embedding, nn.EmbeddingBag)) for part in net.modules()):
            raise
        advice = "nn.Embedding takes integers, and the conditions of a graph are floating-point: give one-hot labels"
        advice += " (torch.nn.functional.one_hot) and take nn.Linear(classes, size)"
        raise GraphError(where, error.given, advice) from error
    if changes_inputs(where, net, read, *read):
        advice = "the condition is read by others too: write inplace=False in the network's first layer"
        raise GraphError(where, f"{type(net).__name__}, which changes its condition in place", advice)
    outputs = result if isinstance(result, (tuple, list)) else (result,)
    for output in outputs:
        if not isinstance(output, Tensor) or output.ndim < 2 or output.shape[0] != 2:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise GraphError(where, f"returned {got}", "a feature is a tensor (B, C, ...), or a tuple of such")
    return tuple(tuple(output.shape[1:]) for output in outputs)
