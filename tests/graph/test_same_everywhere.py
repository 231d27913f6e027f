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

SCRIPT = """
import hashlib
import torch
import invgraph as ig

torch.set_num_threads(1)
torch.manual_seed(3)
x, y = ig.InputNode(2, 4, 4, name="x"), ig.InputNode(3)
c, d = ig.ConditionNode(2, name="c"), ig.ConditionNode(3, name="d")
args = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(hidden=4)}
e = ig.FeatureNode((c, d), torch.nn.Bilinear, {"in1_features": 2, "in2_features": 3, "out_features": 4})
parts = ig.Node(ig.Node(x, ig.Haar), ig.Split, {"sizes": (2, 2, 4)})
branches = []
for k, part in enumerate(parts):
    h = ig.Node(part, ig.Flatten)
    for seed in range(3):
        h = ig.Node(ig.Node(h, ig.Orthogonal, {"seed": seed}), ig.Coupling, args, conditions=(e, c))
    branches.append(h)
y = ig.Node(y, ig.Coupling, args, conditions=(branches[0], d))
graph = ig.Graph((x, y.sources[0].node), (ig.Node(branches, ig.Concat), y), (c, d))
ig.testing.randomize(graph)
values = [torch.randn(2, *s, generator=torch.Generator().manual_seed(1)) for s in graph.in_shapes]
given = [torch.randn(2, *s, generator=torch.Generator().manual_seed(2)) for s in graph.cond_shapes]
zs, log_det = graph(values, given)
xs, back = graph.inverse(zs, given)
names = list(graph.layers)
print([names[step.layer] for step in graph.forward_schedule.steps])
print([names[step.layer] for step in graph.inverse_schedule.steps])
print(list(graph.state_dict()))
digest = hashlib.sha256()
for tensor in (*zs, log_det, *xs, back, *graph.state_dict().values()):
    digest.update(tensor.detach().numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.parametrize(
    "count", [pytest.param(6, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.nightly)]
)
def test_processes_with_other_hash_seeds_agree(count: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Order of the schedules, names of the parameters, outputs: the same told by every process, this one included."""

    def start(seed: int) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, "-c", SCRIPT], env=environment, stdout=subprocess.PIPE, text=True)

    exec(SCRIPT, {})
    told = [capsys.readouterr().out]
    for first in range(0, count, 2):  # two at a time: two cores
        processes = [start(seed) for seed in range(first, min(first + 2, count))]
        told += [process.communicate(timeout=240)[0] for process in processes]
        assert not any(process.returncode for process in processes)
    print(f"{1 + count} processes with different hash seeds: {len(set(told))} digest")
    assert len(set(told)) == 1
    forward, inverse, keys, sha256 = told[0].splitlines()
    assert forward != inverse
    assert "bilinear_0" in forward
    assert "coupling_0" in keys
    assert len(sha256) == 64


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
        for _ in range(8):
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
