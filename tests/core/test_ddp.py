"""Several processes train what one would, with gloo, in both directions, and after a rank was killed.

The fast suite forks the ranks from one process; the slow one starts them with torchrun.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import ddp_worker
import processes
import pytest
import torch
from places import ROOT, SUPPORT

import invgraph as ig

TOLERANCE = 1e-12


def torchrun(world: int, kinds: str, folder: Path) -> subprocess.CompletedProcess[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={world}", f"--master_port={port}",
               "--master_addr=127.0.0.1", str(SUPPORT / "ddp_worker.py"), kinds, str(folder)]  # fmt: skip
    path = os.pathsep.join((str(SUPPORT), str(ROOT), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def forked(world: int, kinds: str, folder: Path) -> list[processes.Ended]:
    return processes.run(ddp_worker.main, [(kinds, folder)] * world, processes.ranks(world))


def gap(one: Path, other: Path) -> float:
    """The largest difference between the weights in two checkpoints."""
    graphs = []
    for path in (one, other):
        graphs.append(ddp_worker.make_graph())
        ig.load(path, graphs[-1])
    pairs = zip(graphs[0].state_dict().values(), graphs[1].state_dict().values(), strict=True)
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)


def alone(kinds: str, folder: Path) -> None:
    folder.mkdir()
    for kind in kinds.split(","):
        ddp_worker.run(kind, folder / kind, rank=0, world=1)


@pytest.mark.parametrize(
    ("world", "kinds", "launcher"),
    [
        (2, "forward,inverse,reversible", "fork"),
        pytest.param(2, "forward,inverse,reversible", "torchrun", marks=pytest.mark.slow),
        pytest.param(3, "forward,inverse,reversible", "torchrun", marks=pytest.mark.nightly),
        pytest.param(2, "fsdp,fsdp-inverse", "torchrun", marks=pytest.mark.slow),
    ],
)
def test_several_processes_equal_one(world: int, kinds: str, launcher: str, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone(kinds, tmp_path / "one")
    torch.set_num_threads(before)
    (tmp_path / "many").mkdir()
    if launcher == "fork":
        ended = forked(world, kinds, tmp_path / "many")
        assert [one.code for one in ended] == [0] * world, ended
    else:
        run = torchrun(world, kinds, tmp_path / "many")
        assert run.returncode == 0, run.stderr
    for kind in kinds.split(","):
        difference = gap(tmp_path / "one" / kind, tmp_path / "many" / kind)
        print(f"{kind}, {world} processes, {ddp_worker.STEPS} steps: {difference:.1e} from one process")
        assert difference <= TOLERANCE
        moved = gap(tmp_path / "one" / kind, tmp_path / "one" / kinds.split(",")[0])
        assert kind in (kinds.split(",")[0], "reversible") or moved > 1e-3, "the kinds train different things"


def test_other_ranks_resume_after_one_was_killed(tmp_path: Path) -> None:
    """Two processes, one killed after 5 of 20 steps; three go on from the checkpoint, and end where one would."""
    ended = forked(2, "killed", tmp_path)
    assert ended[1].code == -signal.SIGKILL, ended
    assert ended[0].code != 0, ended
    assert ig.load(tmp_path / "killed").training["step"] == ddp_worker.LAST
    shutil.copy(tmp_path / "killed", tmp_path / "resumed")
    ended = forked(3, "resumed", tmp_path)
    assert [one.code for one in ended] == [0, 0, 0], ended
    alone("forward", tmp_path / "one")
    assert gap(tmp_path / "one" / "forward", tmp_path / "resumed") <= TOLERANCE


@pytest.mark.slow
def test_torchrun_ends_when_a_rank_is_killed_and_resumes(tmp_path: Path) -> None:
    run = torchrun(2, "killed", tmp_path)
    assert run.returncode != 0
    assert "Signal 9 (SIGKILL)" in run.stderr
    assert ig.load(tmp_path / "killed").training["step"] == ddp_worker.LAST
    shutil.copy(tmp_path / "killed", tmp_path / "resumed")
    run = torchrun(3, "resumed", tmp_path)
    assert run.returncode == 0, run.stderr
    alone("forward", tmp_path / "one")
    difference = gap(tmp_path / "one" / "forward", tmp_path / "resumed")
    print(f"killed at 2 processes, resumed on 3: {difference:.1e} from one uninterrupted process")
    assert difference <= TOLERANCE


def test_processes_that_initialize_together_set_the_same(tmp_path: Path) -> None:
    """After DDP has wrapped the model, which copies no more; as one process would from the whole batch."""
    ended = processes.run(ddp_worker.initialize_after_wrapping, [(tmp_path,)] * 2, processes.ranks(2))
    assert [process.code for process in ended] == [0, 0], ended
    one, other = (torch.load(tmp_path / f"rank_{rank}") for rank in range(2))
    graph = ddp_worker.data_dependent()
    graph.initialize(ddp_worker.data_of_two_ranks()[0])
    for name, tensor in graph.state_dict().items():
        assert torch.equal(one["together"][name], other["together"][name])
        assert torch.allclose(one["together"][name].double(), tensor.double(), rtol=0, atol=1e-12), name
    assert not torch.equal(one["alone"]["layers.norm.shift"], other["alone"]["layers.norm.shift"])
