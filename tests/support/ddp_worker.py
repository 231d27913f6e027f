"""One rank of training runs: ``torchrun --nproc_per_node=N tests/support/ddp_worker.py KIND,KIND,... FOLDER``.

Every rank trains on its part of the same batch; rank 0 writes the weights after 20 steps. Without torchrun, a single
process does the reference run that the others must reproduce. Kinds: ``forward``, ``inverse`` (trains an ``Inverse``),
``reversible``, ``fsdp`` and ``fsdp-inverse`` (``fully_shard`` of every node), ``killed`` (rank 1 dies after 5 steps,
which rank 0 has saved) and ``resumed``.
"""

from __future__ import annotations

import os
import signal
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from small_graphs import build, deep_graph
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import invgraph as ig
from invgraph.testing import randomize

STEPS, ROWS, LAST = 20, 12, 5


def make_graph() -> ig.Graph:
    """Build a graph with everything that DDP must handle: two inputs, a feature node, an inner condition, a split."""
    torch.manual_seed(0)
    x, y, c = ig.InputNode(6, name="x"), ig.InputNode(4, name="y"), ig.ConditionNode(3, name="c")
    feature = ig.FeatureNode(c, nn.Linear, {"in_features": 3, "out_features": 5}, name="feature")
    args = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(hidden=8)}
    h = ig.Node(ig.Node(x, ig.ActNorm, name="norm"), ig.Coupling, args, conditions=feature, name="first")
    a, b = ig.Node(h, ig.Split, {"sizes": (2, 4)}, name="split")
    z = ig.Node(y, ig.Coupling, args, conditions=(a, feature), name="inner")
    b = ig.Node(ig.Node(b, ig.Orthogonal, {"seed": 1}, name="turn"), ig.Coupling, args, conditions=c, name="last")
    graph = ig.Graph([x, y], [a, b, z], c)
    data = torch.randn(64, 6), torch.randn(64, 4)
    graph.initialize(data, torch.randn(64, 3))
    return randomize(graph, seed=1).double()


def batch(step: int, rank: int, world: int, shapes: tuple[tuple[int, ...], ...]) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return this rank's rows of the batch of a step."""
    generator = torch.Generator().manual_seed(step)
    values = [torch.randn(ROWS, *shape, generator=generator, dtype=torch.float64) for shape in (*shapes, (3,))]
    *xs, c = (value[rank::world] for value in values)
    return tuple(xs), c


def shard(graph: ig.Graph, world: int) -> None:
    """Apply FSDP2: the parameters of each node are sharded, and gathered for its call in either direction."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh("cpu", (world,))
    for module in (*graph.layers.values(), graph):
        fully_shard(module, mesh=mesh)
        if isinstance(module, ig.Invertible):
            register_fsdp_forward_method(module, "inverse")


def gather_state(graph: ig.Graph) -> dict[str, Tensor]:
    """Return the whole state, on rank 0."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(graph, options=StateDictOptions(full_state_dict=True, cpu_offload=True))


def run(kind: str, out: Path, rank: int, world: int) -> None:
    """Train, and write the weights."""
    graph = make_graph()
    module: nn.Module = graph
    if "inverse" in kind:
        module = ig.Inverse(graph)
    elif kind == "reversible":
        module = ig.reversible(graph)
    if "fsdp" in kind and world > 1:
        shard(graph, world)
    elif world > 1:
        module = DistributedDataParallel(module)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    start = 0
    if kind == "resumed":
        training = ig.load(out, graph).training
        optimizer.load_state_dict(training["optimizer"])
        start = training["step"]
    shapes = graph.out_shapes if "inverse" in kind else graph.in_shapes
    for step in range(start, STEPS):
        xs, c = batch(step, rank, world, shapes)
        values, log_det = module(xs, c)
        loss = torch.stack([value.square().flatten(1).sum(1) for value in values]).sum(0).mean() / 2 - log_det.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if kind == "killed" and step + 1 == LAST:
            if rank == 0:
                ig.save(out, graph, training={"optimizer": optimizer.state_dict(), "step": LAST})
            dist.barrier()
            if rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
    if "fsdp" in kind and world > 1:
        state, graph = gather_state(graph), make_graph()
        if rank == 0:
            graph.load_state_dict(state)
    if rank == 0:
        ig.save(out, graph, metadata={"kind": kind, "world": world})


def main(kinds: str, folder: Path) -> None:
    torch.set_num_threads(1)
    # torch warns about in-place changes of views, which do not occur here.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor")
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    for kind in kinds.split(","):
        run(kind, folder / kind, rank, world)
    if world > 1:
        # Wait for each other: gloo sometimes aborts in a process that still runs while another one exits.
        dist.barrier()
        dist.destroy_process_group()


def data_of_two_ranks() -> tuple[Tensor, Tensor]:
    """Data and conditions, of which either rank takes one half."""
    generator = torch.Generator().manual_seed(5)
    x, c = (torch.randn(8, n, generator=generator, dtype=torch.float64) for n in (8, 3))
    return x, c


def data_dependent() -> ig.Graph:
    """Return a graph with layers that are set from data."""
    x = ig.InputNode(8, name="x")
    h = ig.Node(x, ig.ActNorm, name="norm")
    h = ig.Node(h, ig.AllInOne, {"subnet": ig.nets.MLP(4), "seed": 1}, name="block")
    return ig.Graph(x, h).double()


def initialize_after_wrapping(folder: Path) -> None:
    """Initialize each rank from its half of the data, and write what it has set: together, and then alone."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank, states = dist.get_rank(), {}
    torch.manual_seed(0)
    graph = data_dependent()
    model = DistributedDataParallel(graph)
    x = data_of_two_ranks()[0][4 * rank : 4 * rank + 4]
    for kind, group in (("together", None), ("alone", False)):
        model.module.initialize(x, again=kind == "alone", group=group)
        states[kind] = {name: tensor.clone() for name, tensor in graph.state_dict().items()}
    torch.save(states, folder / f"rank_{rank}")
    dist.barrier()
    dist.destroy_process_group()


def reversible_gradients(folder: Path) -> None:
    """Write the gradients of one step of a reversible graph in two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank = dist.get_rank()
    graph = build(lambda: deep_graph(3))
    model = DistributedDataParallel(ig.reversible(graph))
    half = slice(4 * rank, 4 * rank + 4)
    z, log_det = model(*(value[half] for value in data_of_two_ranks()))
    (z.square().sum(1) / 2 - log_det).mean().backward()
    if rank == 0:
        torch.save([p.grad for p in graph.parameters()], folder / "gradients")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
