"""Trained weights that come with the repository: checkpoints in half precision, which are used in float32.

``examples/publish.py`` writes them. Parameters are rounded to 11 bits, buffers are kept as they are. Like every
checkpoint of the library, a file holds a SHA-256 of all its bytes, which is verified before anything is used.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

import invgraph as ig

FOLDER = Path(__file__).parent / "trained"


def save_half(path: Path, model: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Save a model with its parameters in half precision.

    Arguments:
        path: Path of the file.
        model: Model in float32, which is left as it is.
        metadata: Metadata of the checkpoint.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ig.save(path, _cast(copy.deepcopy(model), torch.float16), metadata={**metadata, "parameters": "float16"})


def load_weights(path: Path | str, model: nn.Module) -> ig.Checkpoint:
    """Load a checkpoint in float32 or in half precision into a model in float32.

    Raises:
        CheckpointError: If the file is missing, damaged, or belongs to another model, which then stays as it is.
    """
    if ig.load(path).metadata.get("parameters") != "float16":
        return ig.load(path, model)
    before = [(parameter, parameter.data) for parameter in model.parameters()]
    try:
        checkpoint = ig.load(path, _cast(model, torch.float16))
    except BaseException:
        for parameter, data in before:  # converting them back would leave them rounded
            parameter.data = data
        raise
    _cast(model, torch.float32)
    return checkpoint


def trained_or_own(own: Path, name: str) -> Path:
    """Return the checkpoint of the user's own run, or else that of the repository, and print which it is.

    Arguments:
        own: Path of the user's checkpoint, which may not exist.
        name: Name of the trained model in the repository; if there is none, ``own`` is returned.
    """
    trained = FOLDER / f"{name}.safetensors"
    if own.exists() or not trained.exists():
        return own
    print(f"{own} does not exist: using the trained model of the repository, described in {name}.rst beside it")
    return trained


def _cast(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model
