"""The reversible runner in two processes: the gradients of one."""

from __future__ import annotations

from pathlib import Path

import torch
from small_graphs import build, deep_graph
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

import invgraph as ig


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    graph = build(lambda: deep_graph(3))
    model = DistributedDataParallel(ig.reversible(graph))
    x, c = data()
    half = slice(4 * rank, 4 * rank + 4)
    z, log_det = model(x[half], c[half])
    (z.square().sum(1) / 2 - log_det).mean().backward()
    if rank == 0:
        torch.save([p.grad for p in graph.parameters()], f"{folder}/gradients")
    distributed.destroy_process_group()


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return tuple(torch.randn(8, n, generator=generator, dtype=torch.float64) for n in (8, 3))  # type: ignore[return-value]


def test_two_processes_find_the_gradients_of_one(tmp_path: Path) -> None:
    multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    graph = build(lambda: deep_graph(3))
    x, c = data()
    z, log_det = graph(x, c)
    (z.square().sum(1) / 2 - log_det).mean().backward()
    found = torch.load(tmp_path / "gradients", weights_only=True)
    for p, grad in zip(graph.parameters(), found, strict=True):
        assert p.grad is not None
        assert torch.allclose(p.grad, grad, atol=1e-12)
