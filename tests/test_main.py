"""``python -m invgraph``: versions, and a self-check that can fail."""

from __future__ import annotations

import platform
import runpy
import subprocess
import sys

import pytest
import torch

import invgraph as ig
import invgraph.__main__ as program


def test_it_prints_versions_and_checks(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main() == 0
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert lines["invgraph"].startswith(ig.__version__)
    assert lines["torch"].startswith(torch.__version__)
    assert lines["python"] == platform.python_version()
    assert lines["4"].startswith("of 4 checks passed")


def test_a_layer_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    forward = ig.Haar._forward

    def wrong(self: ig.Haar, xs: tuple[torch.Tensor, ...], given: object) -> object:
        ys, log_det = forward(self, xs, given)
        return ys, log_det + 1e-6

    monkeypatch.setattr(ig.Haar, "_forward", wrong)
    assert program.main() == 1
    report = capsys.readouterr().out
    assert "FAILED       round trip" in report
    assert "FAILED       log-determinant" in report


def test_a_check_that_raises_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(path: str, graph: ig.Graph) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(ig, "save", broken)
    assert program.main() == 1
    assert "FAILED       checkpoint: OSError: no space left" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # it was imported above
def test_it_runs_as_a_module(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["invgraph"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("invgraph", run_name="__main__")
    assert ended.value.code == 0
    assert "checks passed" in capsys.readouterr().out


def test_an_option_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        program.main(["--verbose"])
    assert "unrecognized arguments: --verbose" in capsys.readouterr().err


@pytest.mark.slow
def test_it_runs_as_a_program() -> None:
    done = subprocess.run([sys.executable, "-m", "invgraph"], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "checks passed" in done.stdout
    assert done.stderr == ""
