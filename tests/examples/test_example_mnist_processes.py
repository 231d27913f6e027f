"""The MNIST example in processes of its own: several that train one model, stopped, killed and resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mnist_cinn
import pytest
import torch
from places import SUPPORT
from test_example_trainer import toy

import invgraph as ig

SCRIPT = Path(mnist_cinn.__file__)
TINY = mnist_cinn.PRESETS["tiny"]


@pytest.mark.slow
def test_ctrl_c_ends_the_program(tmp_path):
    command = [sys.executable, str(SCRIPT), "--preset", "tiny", "--steps", "1000000", "--device", "cpu"]
    command += ["--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    assert "Ctrl-C" in process.stderr.readline()  # from here on it trains
    process.send_signal(signal.SIGINT)
    told, complaints = process.communicate(timeout=60)
    assert process.returncode == 130, complaints
    assert "--resume" in told
    state = ig.load(tmp_path / "model.safetensors").training
    assert state["step"] < 1_000_000
    assert not state["history"]["finished"]


def torchrun(world, script, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment["PYTHONPATH"] = os.pathsep.join((str(SCRIPT.parent), str(SCRIPT.parent.parent), *sys.path[:1]))
    return subprocess.Popen([*command, str(script), *map(str, arguments)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=environment)  # fmt: skip


def finished(process):
    told, complaints = process.communicate(timeout=300)
    assert process.returncode == 0, complaints
    return told


def weights(path):
    flow = mnist_cinn.build(TINY.blocks, TINY.hidden, TINY.clamp)
    checkpoint = ig.load(path, flow)
    return list(flow.state_dict().values()), checkpoint.training


@pytest.mark.nightly
def test_two_processes_stopped_and_resumed_by_two_one_and_three(tmp_path):
    steps = 1500
    options = ("--preset", "tiny", "--steps", steps, "--device", "cpu", "--out")
    finished(torchrun(2, SCRIPT, *options, tmp_path / "whole"))
    run = torchrun(2, SCRIPT, *options, tmp_path / "stopped")
    assert any("Ctrl-C" in line for line in run.stderr)  # from here on it trains
    time.sleep(1)
    run.send_signal(signal.SIGTERM)  # torchrun hands it to its processes
    run.communicate(timeout=120)
    _, state = weights(tmp_path / "stopped" / "model.safetensors")
    assert 0 < state["step"] < steps
    wanted, whole = weights(tmp_path / "whole" / "model.safetensors")
    for world in (2, 1, 3):
        shutil.copytree(tmp_path / "stopped", tmp_path / str(world))
        told = finished(torchrun(world, SCRIPT, *options, tmp_path / str(world), "--resume"))
        assert f"processes: {world}" in told
        found, training = weights(tmp_path / str(world) / "model.safetensors")
        assert training["step"] == steps
        assert training["history"]["step"] == whole["history"]["step"]
        if world == 2:
            assert all(map(torch.equal, found, wanted))
        losses = [torch.tensor(record["history"]["loss"][-5:]).mean() for record in (training, whole)]
        print(
            f"stopped after {state['step']} of {steps}, resumed by {world}: loss {losses[0]:.4f}; whole {losses[1]:.4f}"
        )
        assert abs(losses[0] - losses[1]) < 0.02


OFTEN_SAVED = """
import sys, time
import mnist_cinn, process_group, trainer

trainer.SAVE_SECONDS = 0.5
rescued = process_group._rescued
# Slow words: torchrun notices a lost process every tenth of a second, and sends SIGTERM to the others.
process_group._rescued = lambda checkpoint: time.sleep(1) or rescued(checkpoint)
mnist_cinn.main(sys.argv[1:])
"""


@pytest.mark.parametrize("lost", [pytest.param(0, marks=pytest.mark.nightly), pytest.param(1, marks=pytest.mark.slow)])
def test_a_killed_process_ends_the_job_with_words_and_a_checkpoint_to_go_on_from(tmp_path, lost):
    options = ("--preset", "tiny", "--steps", 1500, "--device", "cpu", "--out")
    (tmp_path / "often.py").write_text(OFTEN_SAVED)
    run = torchrun(2, tmp_path / "often.py", *options, tmp_path / "lost")
    assert any("Ctrl-C" in line for line in run.stderr)  # from here on it trains
    checkpoint = tmp_path / "lost" / "model.safetensors"
    while ig.load(checkpoint).training["step"] == 0:
        time.sleep(0.1)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    ranks = {int(Path(f"/proc/{pid}/environ").read_text().split("\0RANK=")[1].split("\0")[0]): pid for pid in children}
    os.kill(int(ranks[lost]), signal.SIGKILL)
    _, complaints = run.communicate(timeout=60)
    assert run.returncode != 0
    assert f"process {1 - lost} of 2 can't continue" in complaints
    assert f"{checkpoint} holds the run as of" in complaints
    assert "--resume" in complaints
    assert 0 < ig.load(checkpoint).training["step"] < 1500
    finished(torchrun(2, SCRIPT, *options, tmp_path / "lost", "--resume"))
    finished(torchrun(2, SCRIPT, *options, tmp_path / "whole"))
    found, wanted = (weights(tmp_path / name / "model.safetensors")[0] for name in ("lost", "whole"))
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("world", [pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.nightly)])
def test_a_run_resumed_in_the_same_job_reads_what_was_just_written(world, tmp_path):
    finished(torchrun(world, SUPPORT / "resume_worker.py", tmp_path / "many"))
    finished(torchrun(1, SUPPORT / "resume_worker.py", tmp_path / "one"))
    flows = [toy().double() for _ in range(2)]
    for flow, name in zip(flows, ("many", "one"), strict=True):
        assert ig.load(tmp_path / name, flow).training["step"] == 6
    gaps = [float((a - b).abs().max()) for a, b in zip(*(flow.state_dict().values() for flow in flows), strict=True)]
    print(f"{world} processes, stopped after each second step: {max(gaps):.1e} from one")
    assert max(gaps) <= 1e-12


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    command += ["--preset", "tiny", "--steps", "6", "--device", "cpu", "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "processes: 2" in done.stdout
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert figures["training"]["steps"] == 6
    assert done.stdout.count("test NLL") == 1
