"""A colorization run that is stopped or killed at a bad moment ends, resumed, with the bits of one that was not."""

import json
import os
import signal

import colorization_worker
import numpy as np
import processes
import pytest
import torch
from colorization import fitting
from PIL import Image
from safetensors.torch import load_file

import invgraph as ig

FIRST_IS_BEST = {"training 2": 1.0, "training 4": 3.0, "training 6": 2.0}
LAST_IS_BEST = {"training 2": 3.0, "training 4": 2.0, "training 6": 1.0}
FROZEN_IS_BEST = {"frozen 2": 0.5, "frozen 4": 0.7, "training 2": 1.0, "training 4": 0.6}
THAWED_IS_BEST = {"frozen 2": 0.5, "frozen 4": 0.4, "training 2": 0.2, "training 4": 0.3}
ONE_LOOK = {"training 2": 1.0}


@pytest.fixture
def data(tmp_path):
    for number in range(9):
        path = tmp_path / "photos" / ("train" if number < 8 else "val") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC).save(path)
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch):
    """The worker's changes to the module end with the test."""
    monkeypatch.setattr(fitting, "MIN_STEPS", fitting.MIN_STEPS)
    monkeypatch.setattr(fitting, "validate", fitting.validate)


def result(run):
    return load_file(run / "model.safetensors"), ig.load(run / "model.safetensors").metadata


def assert_same_result(one, other):
    (weights, figures), (expected, expected_figures) = result(one), result(other)
    assert figures == expected_figures
    assert weights.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())
    for log in other.glob("*.json"):
        assert json.loads((one / log.name).read_text()) == json.loads(log.read_text())


@pytest.mark.parametrize(
    ("losses", "file", "number"),
    [
        (FIRST_IS_BEST, "log", 1),
        (FIRST_IS_BEST, "result", 1),
        pytest.param(LAST_IS_BEST, "log", 3, marks=pytest.mark.slow),
        pytest.param(ONE_LOOK, "result", 1, marks=pytest.mark.slow),
        (THAWED_IS_BEST, "log", 3),
    ],
    ids=["best-unlogged", "best-unsaved", "last-unlogged", "only-unsaved", "second-phase"],
)
def test_killed_between_the_files_of_a_look(data, tmp_path, losses, file, number):
    (ended,) = processes.run(colorization_worker.die, [(data, tmp_path / "killed", losses, file, number)])
    assert ended.code == -signal.SIGKILL, ended.output
    assert colorization_worker.train(data, tmp_path / "killed", losses, resume=True)
    assert colorization_worker.train(data, tmp_path / "whole", losses)
    assert_same_result(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize(("losses", "best"), [(FROZEN_IS_BEST, 0.5), (THAWED_IS_BEST, 0.2)], ids=["frozen", "thawed"])
def test_the_best_of_both_phases_is_kept(data, tmp_path, losses, best):
    assert colorization_worker.train(data, tmp_path / "run", losses)
    assert result(tmp_path / "run")[1]["val"] == best


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(2, id="before-a-look", marks=pytest.mark.slow),
        pytest.param(4, id="end-of-phase"),
        pytest.param(5, id="second-phase", marks=pytest.mark.slow),
        pytest.param(8, id="last-step"),
    ],
)
def test_no_ctrl_c_is_lost(data, tmp_path, monkeypatch, call):
    calls = []
    draw = fitting.Drawing.__call__

    def interrupted(self, rows):
        calls.append(rows)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGINT)
        return draw(self, rows)

    monkeypatch.setattr(fitting.Drawing, "__call__", interrupted)
    assert not colorization_worker.train(data, tmp_path / "stopped", THAWED_IS_BEST)
    assert len(calls) == call
    assert colorization_worker.train(data, tmp_path / "stopped", THAWED_IS_BEST, resume=True)
    assert len(calls) == 8
    assert colorization_worker.train(data, tmp_path / "whole", THAWED_IS_BEST)
    assert_same_result(tmp_path / "stopped", tmp_path / "whole")


def test_a_finished_run_whose_result_is_gone_gets_it_back(data, tmp_path):
    assert colorization_worker.train(data, tmp_path / "run", ONE_LOOK)
    (tmp_path / "run" / "model.safetensors").rename(tmp_path / "kept.safetensors")
    assert colorization_worker.train(data, tmp_path / "run", ONE_LOOK, resume=True)
    assert load_file(tmp_path / "run" / "model.safetensors").keys() == load_file(tmp_path / "kept.safetensors").keys()


def test_a_loss_that_is_not_finite_is_never_better(data, tmp_path):
    losses = {"training 2": float("nan"), "training 4": 2.0, "training 6": float("inf")}
    assert colorization_worker.train(data, tmp_path / "run", losses)
    assert result(tmp_path / "run")[1]["val"] == 2.0


def test_another_recipe_is_refused_also_when_the_run_is_finished(data, tmp_path):
    assert colorization_worker.train(data, tmp_path / "run", LAST_IS_BEST)
    with pytest.raises(ValueError, match="steps 6 -> 2"):
        colorization_worker.train(data, tmp_path / "run", ONE_LOOK, resume=True)


def test_started_anew_nothing_of_the_earlier_run_is_resumed(data, tmp_path):
    run = tmp_path / "run"
    assert colorization_worker.train(data, run, THAWED_IS_BEST)
    fitting.start_anew(run, ["frozen", "training"])
    assert [path.name for path in run.iterdir()] == ["model.safetensors"]
