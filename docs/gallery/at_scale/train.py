"""Train in several processes; stop and resume at any step: torchrun --nproc-per-node=2 train.py FOLDER STEPS."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import invgraph as ig


def build():
    x = ig.InputNode(2, name="point")
    block = {"transform": ig.RationalQuadraticSpline(), "subnet": ig.nets.MLP(32)}
    h = x
    for k in range(4):
        h = ig.Node(h, ig.Orthogonal, name=f"rotate_{k}")
        h = ig.Node(h, ig.Coupling, block, name=f"couple_{k}")
    return ig.Graph(x, h)


def batch(step, rank):
    """Return points on a ring; every process draws its own."""
    generator = torch.Generator().manual_seed(1000 * step + rank)
    angle = 6.2832 * torch.rand(64, generator=generator)
    ring = torch.stack((angle.cos(), angle.sin()), dim=1)
    return 2 * ring + 0.1 * torch.randn(64, 2, generator=generator)


def main(folder, steps):
    torch.set_num_threads(1)
    torch.manual_seed(0)  # the same start in every process
    dist.init_process_group("gloo")  # "nccl" on GPUs
    rank, path = dist.get_rank(), Path(folder) / "latest.safetensors"

    graph = build()
    optimizer = torch.optim.Adam(graph.parameters(), lr=2e-3)
    first = 0
    if path.exists():
        state = ig.load(path, graph).training
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    flow = DistributedDataParallel(ig.Flow(ig.reversible(graph)))

    for step in range(first, steps):
        loss = -flow(batch(step, rank)).mean()
        optimizer.zero_grad()
        loss.backward()  # averages the gradients of all processes
        optimizer.step()
    if rank == 0:
        training = {"optimizer": optimizer.state_dict(), "step": steps}
        ig.save(path, graph, training=training)
        print(f"steps {first} to {steps} in {dist.get_world_size()} processes: "
              f"{loss.item():.6f} nats")  # fmt: skip
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
