"""The reversible runner in two processes: the gradients of one."""

from __future__ import annotations

from pathlib import Path

import processes
import torch
from ddp_worker import data_of_two_ranks, reversible_gradients
from small_graphs import build, deep_graph


def test_two_processes_find_the_gradients_of_one(tmp_path: Path) -> None:
    ended = processes.run(reversible_gradients, [(tmp_path,)] * 2, processes.ranks(2))
    assert [one.code for one in ended] == [0, 0], ended
    graph = build(lambda: deep_graph(3))
    x, c = data_of_two_ranks()
    z, log_det = graph(x, c)
    (z.square().sum(1) / 2 - log_det).mean().backward()
    found = torch.load(tmp_path / "gradients", weights_only=True)
    for p, grad in zip(graph.parameters(), found, strict=True):
        assert p.grad is not None
        assert torch.allclose(p.grad, grad, atol=1e-12)
