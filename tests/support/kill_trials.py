"""Kill a training run with SIGKILL at random moments, and show that nothing is lost.

``python tests/support/kill_trials.py --trials 50`` trains a small model that saves after every step, kills it at a
random moment, loads what lies on the disk, and trains on to the end: the weights must be those of the run that nobody
killed, bit for bit. Every other trial waits for a save to begin and kills within it. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from training import Run

STEPS = 12
MODEL = {"blocks": 4, "hidden": 128}


def train(path: Path, phase: mmap.mmap | None, resume: bool) -> str:
    """Train to the end, saving after every step, and return the digest of the weights."""
    run = Run(**MODEL)
    if resume:
        run.load(path)
    else:
        run.save(path)
    while run.steps < STEPS:
        run.step()
        if phase is not None:
            phase[0] = 1
        run.save(path)
        if phase is not None:
            phase[0] = 0
            phase[1] = run.steps
    return run.digest()


def trial(path: Path, within_save: bool, seconds: float, chance: random.Random) -> tuple[bool, int] | None:
    """Kill a run; return True if it was saving then, and its last complete step, or None if it had ended before."""
    phase = mmap.mmap(-1, 2)
    child = os.fork()
    if child == 0:
        try:
            train(path, phase, resume=False)
            os._exit(0)
        finally:  # never back into the parent's code
            os._exit(1)
    step = chance.randrange(STEPS - 1)
    while not (path.exists() and phase[1] >= step and (phase[0] or not within_save)):
        time.sleep(0.0001)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0, "the run failed by itself"
            return None
    time.sleep(chance.uniform(0, seconds / STEPS / (4 if within_save else 1)))
    saving, step = bool(phase[0]), int(phase[1])
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return (saving, step) if os.WIFSIGNALED(status) else None


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)  # before any fork: a child has no threads to inherit
    chance = random.Random(arguments.seed)
    figures = {"kills": 0, "while saving": 0, "loadable": 0, "resumed bit for bit": 0, "temporary files left": 0}
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder) / "warm", None, resume=False)
        start = time.perf_counter()
        whole = train(Path(folder) / "whole", None, resume=False)
        seconds = time.perf_counter() - start
        while figures["kills"] < arguments.trials:
            place = Path(tempfile.mkdtemp(dir=folder))
            killed = trial(place / "model", bool(figures["kills"] % 2), seconds, chance)
            if killed is None:
                continue
            saving, step = killed
            figures["kills"] += 1
            figures["while saving"] += saving
            figures["temporary files left"] += len(list(place.iterdir())) - 1
            Run(**MODEL).load(place / "model")
            figures["loadable"] += 1
            figures["resumed bit for bit"] += train(place / "model", None, resume=True) == whole
            print(f"kill {figures['kills']}: at step {step}{', while saving' if saving else ''}", file=sys.stderr)
    print(json.dumps(figures))
    return 0 if figures["loadable"] == figures["resumed bit for bit"] == arguments.trials else 1


if __name__ == "__main__":
    sys.exit(main())
