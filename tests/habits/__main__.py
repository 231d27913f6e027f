"""Try every habit on every graph in every runner, and print the table: ``python -m tests.habits``.

With the arguments ``DDP hook``, only habits whose name holds one of the words; ``--runners plain,bound`` chooses
runners; ``--part 2/10`` tries the second tenth of the habits; ``--rst`` prints the table of docs/habits.rst and tries
nothing. The exit status is 1 if a cell is neither right nor refused as the table says. Compiled and exported graphs
take seconds: a quarter of the graphs is tried so, or all with ``--every 1``.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import warnings
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

import torch
from habit_table import GRAPHS, HABITS, RUNNERS
from habit_table.page import cells, rst, tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only habits whose name holds one of these")
    parser.add_argument("--runners", default=",".join(RUNNERS), help="those to try, with commas")
    parser.add_argument("--every", type=int, default=4, help="one in so many graphs is compiled and exported")
    parser.add_argument("--part", default="1/1", help="which part of the habits, and of how many: 2/10")
    parser.add_argument("--rst", action="store_true", help="print the table of the docs instead")
    options = parser.parse_args()
    if options.rst:
        print(rst(), end="")
        return 0
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Full backward hook is firing")
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
    runners = options.runners.split(",")
    chosen = [h for h in HABITS.values() if not options.words or any(word in h.name for word in options.words)]
    part, parts = map(int, options.part.split("/"))
    chosen = chosen[(part - 1) * len(chosen) // parts : part * len(chosen) // parts]
    width = max(len(habit.name) for habit in chosen)
    print(f"{'':{width}}", *(f"{runner:12}" for runner in runners), "graphs", sep="  ")
    total: Counter[str] = Counter()
    wrong: list[str] = []
    for habit in chosen:
        outcomes: dict[str, Counter[str]] = {runner: Counter() for runner in runners}
        missing = [package for package in habit.needs if importlib.util.find_spec(package) is None]
        for cell in () if missing else cells(habit, runners=runners, every=options.every):
            try:
                outcome = habit.try_on(cell)
            except Exception as error:
                outcome = "WRONG"
                text = " ".join(str(error).split())[:200]
                wrong.append(f"{habit.name}: {cell.name}, {cell.runner}, inverse={cell.inverse}: {text}")
            outcomes[cell.runner][outcome] += 1
            total[outcome] += 1
        graphs = f"needs {missing[0]}" if missing else str(len([name for name in GRAPHS if name not in habit.without]))
        print(f"{habit.name:{width}}", *(f"{tally(outcomes[r]):12}" for r in runners), graphs, sep="  ", flush=True)
    print(f"{len(chosen)} habits x {len(GRAPHS)} graphs: {total.total()} cells; {tally(total)}")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
