"""Run that stops and resumes from its own checkpoint twice; see tests/examples/test_example_mnist_processes.py."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import process_group
import torch
import trainer
from recipe import Recipe
from torch import Tensor, nn

import invgraph as ig

VALUES = torch.randn(60, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def flow() -> ig.Flow:
    """Build the flow ``toy`` of the tests, in float64."""
    torch.manual_seed(0)
    x, c = ig.InputNode(6, name="x"), ig.ConditionNode(3, name="c")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
    h = ig.Node(x, ig.Coupling, args, conditions=c, name="first")
    h = ig.Node(ig.Node(h, ig.Permute, {"seed": 1}, name="permute"), ig.Coupling, args, conditions=c, name="second")
    return ig.Flow(ig.Graph(x, h, c)).double()


def draw(rows: Tensor) -> tuple[Tensor, ...]:
    """Return values and labels of some rows, without noise, which would depend on the number of processes."""
    return VALUES[rows], torch.eye(3, dtype=torch.float64)[rows % 3]


def loss(model: nn.Module, x: Tensor, c: Tensor) -> Tensor:
    return -model(x, c).mean() / 6


def save_slowly(*args: Any, save: Any = ig.save, **options: Any) -> None:
    """Save as on a slow disk."""
    time.sleep(1)
    save(*args, **options)


ig.save = save_slowly
recipe = Recipe(steps=6, batch=12, rate=1e-2, average=0.9)
with process_group.place("cpu") as where:
    for until in (2, 4, 6):
        history = trainer.train(flow(), loss, draw, 60, recipe, where=where, checkpoint=Path(sys.argv[1]),
                                resume=until > 2, until=until)  # fmt: skip
        assert history.reached == until
