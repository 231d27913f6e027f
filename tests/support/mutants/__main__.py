"""Plant mistakes in a copy of the package, one at a time, and see whether the tests catch each.

``python -m tests.support.mutants`` runs all of them; with the arguments ``haar graph``, those whose file's path holds
one of the words; ``-j 4`` runs four at a time. The tests run without any mistake first, and must pass. A mutant is
caught if the tests named with it then fail, or don't end. Any other outcome is printed and makes the exit status 1: a
mutant that survived, one that no longer fits the source, one whose tests don't pass without it, and tests that pytest
does not even collect.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import hypothesis.strategies  # noqa: F401  imported here, once for all
import networkx as nx  # noqa: F401
import pytest
import torch  # noqa: F401

from . import MUTANTS
from .mutant import ROOT, Mutant

Work = tuple[Mutant | None, tuple[str, ...]]

SECONDS = 300
"""Processor time after which tests are taken not to end; without a mistake they take a minute at most."""


def start(work: Work, folder: Path) -> int:
    """Fork a process that runs the tests on a copy of the package with this mistake; return its id.

    Torch and pytest are imported once, in the process that forks; the package is not.
    """
    mutant, tests = work
    parts = ("invgraph", "tests", "examples") if any("examples" in test for test in tests) else ("invgraph", "tests")
    for part in parts:
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "benchmarks"))
    shutil.copy(ROOT / "setup.cfg", folder)
    if mutant is not None:
        mutant.plant(folder)
    child = os.fork()
    if child:
        return child
    try:
        os._exit(tested(tests, folder))
    except BaseException:  # the child must not run on as a second parent
        traceback.print_exc()
        os._exit(70)


def tested(tests: tuple[str, ...], folder: Path) -> int:
    """Run the tests on the copy, in this process; return pytest's exit code."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 10))
    log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    import invgraph

    assert str(invgraph.__file__).startswith(str(folder)), "the copy is not what gets imported"
    imported = "ignore:Module already imported:pytest.PytestAssertRewriteWarning"
    return int(pytest.main(["-q", "-x", "-W", imported, "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))


def run(jobs: int, work: Sequence[Work]) -> Iterator[tuple[Work, int, str]]:
    """Yield each piece of work with pytest's exit code and the end of its output, as they end."""
    waiting, running = list(work)[::-1], {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        while waiting or running:
            while waiting and len(running) < jobs:
                piece = waiting.pop()
                folder = Path(place, str(len(waiting)))
                running[start(piece, folder)] = (piece, folder)
            child, status = os.wait()
            done, folder = running.pop(child)
            output = (folder / "log").read_text()[-1000:]
            shutil.rmtree(folder)
            yield done, os.waitstatus_to_exitcode(status), output


def tell(outcome: str, mutant: Mutant, *details: str) -> str:
    print("\n  ".join([f"{outcome:9} {mutant.file}: {mutant.label}", *details]), flush=True)
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only mutants of files whose path holds one of these")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="how many at a time")
    options = parser.parse_args()
    for word in options.words:
        if not any(word in mutant.file for mutant in MUTANTS):
            parser.error(f"no mutant's file has {word!r} in its path")
    chosen = [m for m in MUTANTS if not options.words or any(word in m.file for word in options.words)]
    outcomes: Counter[str] = Counter()
    live = []
    for mutant in chosen:
        if problems := mutant.problems():
            outcomes[tell("STALE", mutant, *problems)] += 1
        else:
            live.append(mutant)
    failing = {}
    for (_, tests), code, output in run(options.jobs, [(None, t) for t in dict.fromkeys(m.tests for m in live)]):
        if code:
            failing[tests] = code
            print(f"without any mistake, pytest {' '.join(tests)} ends with {code}:\n{output}", flush=True)
    for mutant in live:
        if mutant.tests in failing:
            outcomes[tell("UNTRIED", mutant, "its tests don't pass without it")] += 1
    for (found, _), code, output in run(options.jobs, [(m, m.tests) for m in live if m.tests not in failing]):
        assert found is not None
        if code in (0, 1, -signal.SIGXCPU):  # all passed, some failed, or they did not end
            outcomes[tell("caught" if code else "SURVIVED", found)] += 1
        else:  # for example 2, not even collected: this says nothing of the mistake
            outcomes[tell("BROKEN", found, f"pytest ended with {code}", output)] += 1
    print(f"{outcomes['caught']} of {len(chosen)} mutants caught; {dict(outcomes)}")
    return 0 if outcomes["caught"] == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main())
