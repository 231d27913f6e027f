"""A run that resumes three times from what it just wrote; tests/examples/test_example_mnist.py starts it."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
import trainer
from torch import Tensor, nn

import invgraph as ig

VALUES = torch.randn(60, 6, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def flow() -> ig.Flow:
    """As ``toy`` of the tests, in float64."""
    torch.manual_seed(0)
    x, c = ig.InputNode(6, name="x"), ig.ConditionNode(3, name="c")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
    h = ig.Node(x, ig.Coupling, args, conditions=c, name="first")
    h = ig.Node(ig.Node(h, ig.Permute, {"seed": 1}, name="permute"), ig.Coupling, args, conditions=c, name="second")
    return ig.Flow(ig.Graph(x, h, c)).double()


def draw(rows: Tensor) -> tuple[Tensor, ...]:
    """Without noise: that of a row depends on how many processes there are."""
    return VALUES[rows], torch.eye(3, dtype=torch.float64)[rows % 3]


def loss(model: nn.Module, x: Tensor, c: Tensor) -> Tensor:
    return -model(x, c).mean() / 6


def slowly(*args: Any, save: Any = ig.save, **options: Any) -> None:
    """A disk that takes its time."""
    time.sleep(1)
    save(*args, **options)


ig.save = slowly
recipe = trainer.Recipe(steps=6, batch=12, rate=1e-2, average=0.9)
with trainer.place("cpu") as where:
    for until in (2, 4, 6):
        history = trainer.train(flow(), loss, draw, 60, recipe, where=where, checkpoint=Path(sys.argv[1]),
                                resume=until > 2, until=until)  # fmt: skip
        assert history.reached == until
