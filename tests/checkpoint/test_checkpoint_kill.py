"""Nothing is lost when a run is killed: two kills here, ten in the slow suite, fifty at night (kill_trials.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from places import SUPPORT


@pytest.mark.parametrize(
    "trials", [2, pytest.param(10, marks=pytest.mark.slow), pytest.param(50, marks=pytest.mark.nightly)]
)
def test_a_killed_run_loads_and_resumes_bit_for_bit(trials: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, SUPPORT / "kill_trials.py", "--trials", str(trials)]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout.splitlines()[-1])
    print(figures)
    assert figures["kills"] == figures["loadable"] == figures["resumed bit for bit"] == trials
    assert figures["while saving"] >= trials // 4
