"""Temporary evaluation mode, and changes of tensors that are undone after an error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Within the context, put all submodules in evaluation mode; afterwards, restore the mode of each."""
    before = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in before.items():
            part.training = training


def own_tensors(layer: nn.Module) -> list[Tensor]:
    """Return the parameters and buffers of a layer, without those of its parts."""
    return [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]


@contextmanager
def restored_on_error(tensors: Sequence[Tensor]) -> Iterator[None]:
    """Within the context, tensors may be changed in place; if it ends with an error, they get their old values."""
    before = [tensor.clone() for tensor in tensors]
    try:
        yield
    except BaseException:
        for tensor, old in zip(tensors, before, strict=True):
            tensor.copy_(old)
        raise


def without_inference(value: Tensor) -> Tensor:
    """Return a tensor that autograd can save: inference tensors are cloned."""
    return value.clone() if value.is_inference() else value
