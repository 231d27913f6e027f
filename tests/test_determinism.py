"""The same script gives the same order, keys and outputs in every process, whatever its hashes."""

from __future__ import annotations

import os
import subprocess
import sys

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


def test_eight_processes_agree_on_order_keys_and_outputs() -> None:
    def start(seed: int) -> subprocess.Popen[str]:
        env = {**os.environ, "PYTHONHASHSEED": str(seed), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen([sys.executable, "-c", SCRIPT], env=env, stdout=subprocess.PIPE, text=True)

    told: list[str] = []
    for pair in ((0, 1), (2, 3), (4, 5), (6, 7)):  # two at a time: two cores
        processes = [start(seed) for seed in pair]
        told += [process.communicate(timeout=240)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0]
    assert len(set(told)) == 1
    forward, inverse, keys, digest = told[0].splitlines()
    assert forward != inverse
    assert "bilinear_0" in forward
    assert "coupling_0" in keys
    assert len(digest) == 64
