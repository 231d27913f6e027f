"""A trial without data: the shapes that a network returns, or a clear refusal where it is declared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from invgraph.errors import GraphError, InvgraphError
from invgraph.shapes import Shape, Tensors, batched
from invgraph.torch_internals import floating_tensor, tensor_stores, version


def trial_inputs(module: nn.Module, shapes: tuple[Shape, ...]) -> Tensors:
    """Return tensors without data, batches of two of these shapes, in the dtype of a module."""
    own = floating_tensor(module)
    dtype = torch.get_default_dtype() if own is None else own.dtype
    return tuple(torch.empty(2, *shape, device="meta", dtype=dtype) for shape in shapes)


def trial(where: str, module: nn.Module, *arguments: Any, kind: str | None = None) -> Any:
    """Run a module on tensors without data, and return its result; the module stays as it is.

    Arguments:
        where: The layer or node, for errors.
        module: The network.
        arguments: What it is called with: meta tensors, or tuples of them.
        kind: What errors call the network. Default: the name of its class.

    Raises:
        GraphError: If the module is lazy, or refuses the shapes.
    """
    kind = type(module).__name__ if kind is None else kind
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(tensor):
            given = f"{kind} with the lazy {name.removeprefix('module.')}"
            advice = "lazy modules have no shapes yet: call it once first, or write nn.Linear(in, out)"
            raise GraphError(where, given, advice)
    with torch.no_grad(), torch.device("meta"), _without_data(module):
        try:
            return module(*arguments)
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            shapes = ", ".join(_describe(argument) for argument in arguments)
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            reason = f"{error.given}: {error.advice}" if isinstance(error, InvgraphError) else reason
            plain = _plain_tensors(module) if "meta" in reason else ""
            reason += f" It holds the plain tensor {plain}: make it a buffer, by register_buffer" if plain else ""
            raise GraphError(where, f"{kind} tried on {shapes}", f"it fails: {reason}") from error


def changes_inputs(where: str, module: nn.Module, inputs: Tensors, *arguments: Any) -> bool:
    """Return True if a module changes a tensor that it reads, in the mode of its trial or in the other one.

    Dropout passes its argument on in evaluation mode, for example to an activation that works in place.

    Arguments:
        where: The layer or node, for errors.
        module: The network, after its trial.
        inputs: The tensors that it read.
        arguments: What it was called with, which holds these.
    """
    in_place = any(getattr(part, "inplace", False) is True for part in module.modules())
    if in_place and not any(map(version, inputs)):
        modes = [(part, part.training) for part in module.modules()]
        try:
            for part, training in modes:
                part.training = not training
            trial(where, module, *arguments)
        except GraphError:
            pass  # it is not the mode that it was declared in
        finally:
            for part, training in modes:
                part.training = training
    return any(map(version, inputs))


@contextmanager
def _without_data(module: nn.Module) -> Iterator[None]:
    """Put meta tensors in place of a module's parameters and buffers, and back; a module may stand in it twice."""
    stores = list(tensor_stores(module.modules()))
    before = [dict(store) for store in stores]
    metas: dict[int, Tensor] = {}  # tied tensors stay tied
    try:
        for store in stores:
            for name, tensor in store.items():
                if tensor is not None:
                    store[name] = metas.setdefault(id(tensor), tensor.detach().to("meta"))
        yield
    finally:
        for store, saved in zip(stores, before, strict=True):
            store.clear()
            store.update(saved)


def _plain_tensors(module: nn.Module) -> str:
    """Return the names of tensors that are attributes of a module, and neither its parameters nor its buffers."""
    attributes = ((path, name, value) for path, part in module.named_modules() for name, value in vars(part).items())
    found = (f"{path}.{name}" for path, name, value in attributes if isinstance(value, Tensor))
    return ", ".join(repr(name.removeprefix("module").removeprefix(".")) for name in found)


def _describe(argument: object) -> str:
    if isinstance(argument, Tensor):
        return batched(tuple(argument.shape[1:]))
    if isinstance(argument, tuple):
        return ", ".join(_describe(entry) for entry in argument) or "no conditions"
    return repr(argument)
