"""The same script gives the same bits: in every process, in every thread, and when a run is interrupted."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from training import Run, digest, make_flow

import invgraph as ig

HERE = Path(__file__).parent
SCRIPT = """
import hashlib, torch, invgraph as ig
from ddp_worker import make_graph, batch
torch.set_num_threads(1)
graph = make_graph()
xs, c = batch(0, 0, 1, graph.in_shapes)
ys, log_det = graph(xs, c)
back, _ = graph.inverse(ys, c)
told = [list(graph.layers), list(graph.state_dict()), graph.forward_schedule, graph.inverse_schedule, repr(graph)]
told += [value.detach().numpy().tobytes().hex() for value in (*ys, log_det, *back)]
print(hashlib.sha256(repr(told).encode()).hexdigest())
"""


@pytest.mark.parametrize("seeds", [range(2), pytest.param(range(20), marks=pytest.mark.slow)], ids=["2", "20"])
def test_processes_with_other_hash_seeds_agree(seeds: range) -> None:
    """Order of the schedules, names of the parameters, outputs: one digest over all of them."""
    found = set()
    path = os.pathsep.join((str(HERE), str(HERE.parent)))
    for seed in seeds:
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment, check=True
        )
        found.add(run.stdout.strip())
    print(f"{len(seeds)} processes with different hash seeds: {len(found)} digest")
    assert len(found) == 1


@pytest.mark.parametrize("half", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_training_twice_and_in_two_halves_gives_the_same_bits(half: int, tmp_path: Path) -> None:
    """All the steps, once more, and half + save + resume + half: one SHA-256 of the weights."""
    digests = []
    for _ in range(2):
        run = Run()
        for _ in range(2 * half):
            run.step()
        digests.append(run.digest())
    first = Run()
    for _ in range(half):
        first.step()
    first.save(tmp_path / "half")
    second = Run(seed=3)
    second.load(tmp_path / "half")
    for _ in range(half):
        second.step()
    digests.append(second.digest())
    print(f"{2 * half} steps twice, and {half} + save + resume + {half}: SHA-256 {sorted(set(digests))}")
    assert len(set(digests)) == 1


def test_one_graph_serves_eight_threads() -> None:
    flow = make_flow(blocks=6).eval()
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(5, 1, 4, 4, generator=generator), torch.randn(5, 10, generator=generator)) for _ in range(8)]
    flow.graph.initialize(*data[0])
    alone = [_digest(flow, *pair) for pair in data]
    found: list[set[str]] = [set() for _ in data]

    def work(index: int) -> None:
        for _ in range(15):
            found[index].add(_digest(flow, *data[index]))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{one} for one in alone]


def _digest(flow: ig.Flow, x: torch.Tensor, c: torch.Tensor) -> str:
    """Outputs, inverse and gradients of one call."""
    z, log_det = flow.graph(x, c)
    back, _ = flow.graph.inverse(z, c)
    parameters = list(flow.parameters())
    gradients = torch.autograd.grad(flow.loss(x, c), parameters)
    content = b"".join(t.detach().numpy().tobytes() for t in (z, log_det, back, *gradients))
    return hashlib.sha256(content).hexdigest()


def test_a_copy_and_a_pickle_have_the_same_bits() -> None:
    import copy
    import pickle

    flow = make_flow()
    assert digest(copy.deepcopy(flow)) == digest(flow) == digest(pickle.loads(pickle.dumps(flow)))
