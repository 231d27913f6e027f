"""Nothing is lost when a run is killed: two kills here, ten in the slow suite, fifty at night (kill_trials.py)."""

from __future__ import annotations

import json

import kill_trials
import processes
import pytest


@pytest.mark.parametrize(
    "trials", [2, pytest.param(10, marks=pytest.mark.slow), pytest.param(50, marks=pytest.mark.nightly)]
)
def test_a_killed_run_loads_and_resumes_bit_for_bit(trials: int) -> None:
    (ended,) = processes.run(kill_trials.main, [(["--trials", str(trials)],)], seconds=1200)
    assert ended.code == 0, ended.output
    figures = json.loads(ended.output.splitlines()[-1])
    print(figures)
    assert figures["kills"] == figures["loadable"] == figures["resumed bit for bit"] == trials
    assert figures["while saving"] >= trials // 4
