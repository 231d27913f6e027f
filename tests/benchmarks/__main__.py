"""``python -m tests.benchmarks``: one command, one table, results as JSON and as plots.

Close everything else first: with another process running, minima and medians part. The GPU column is measured where
torch finds a GPU; without one it is unmeasured.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks import (
    aims,
    bedrooms,
    blocks,
    digits,
    field,
    field_profile,
    field_report,
    freia,
    kernels,
    mnist,
    sampling,
    scaling,
)
from tests.benchmarks.plots import plot

Rows = list[dict[str, Any]]


def sections(
    compiled: bool,
    seconds: float,
    device: str = "cpu",
    done: Callable[[Rows], None] | None = None,
    chosen: Sequence[str] = (),
) -> dict[str, Callable[[], Rows]]:
    """Sections that can be measured, each within about so many seconds (compilation apart)."""
    return {
        "mnist-256": lambda: mnist.run(256, 3 * seconds, compiled),
        "mnist-16": lambda: mnist.run(16, seconds, compiled),
        "bedrooms": lambda: bedrooms.run(2 * seconds),
        "field": lambda: field.run(seconds / 5, compiled, device=device, done=done, chosen=chosen),
        "blocks": lambda: blocks.run(seconds, compiled=compiled, chosen=chosen),
        "digits": digits.run,
        "sampling": lambda: [*sampling.density(seconds), *sampling.memory()],
        "kernels": lambda: kernels.run(seconds / 2),
        "freia": lambda: freia.run(seconds / 4, chosen=chosen),
        "depth": lambda: scaling.depth(seconds),
        "channels": lambda: scaling.channels(seconds / 2),
        "build": scaling.build,
        "import": scaling.imports,
        "compile": scaling.compiling,
    }


def table(rows: Rows) -> str:
    """The rows as text."""
    lines = [f"{'work':22} {'size':>8} {'contestant':34} {'min ms':>10} {'median ms':>10} {'ratio':>7}  to"]
    errors = [row for row in rows if "largest" in row]
    for row in rows:
        if "largest" in row:
            continue
        size = next((row[key] for key in ("batch", "depth", "channels", "nodes") if key in row), "")
        if "minimum" not in row:
            peak = sampling.text(row) if "stated_bytes" in row else row.get("failed", "")
            lines.append(f"{row['work']:22} {size!s:>8} {row['contestant']:34} {peak}")
            continue
        median = f"{row['median'] * 1e3:10.2f}" if "median" in row else " " * 10
        ratio = f"{row['ratio']:7.3f}  {row['to']}" if "ratio" in row else ""
        saved = f"  saved {row['saved_bytes'] / 1024:,.0f} KiB" if "saved_bytes" in row else ""
        text = (
            f"{row['work']:22} {size!s:>8} {row['contestant']:34} {row['minimum'] * 1e3:10.2f} {median} {ratio}{saved}"
        )
        lines.append(text.rstrip())
    if errors:
        lines = [digits.text(errors)] if len(errors) == len(rows) else [*lines, digits.text(errors)]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(sections(False, 1)), help="sections; default: all")
    parser.add_argument("--aims", action="store_true", help=f"only the sections {', '.join(aims.SECTIONS)}")
    text = "only rows whose name contains one of these texts, of field, blocks, freia, --profile"
    parser.add_argument("--rows", nargs="+", default=(), metavar="TEXT", help=text)
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled contestants out")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="for each section; the larger ones take 2 or 3 times it"
    )
    parser.add_argument("--threads", type=int, default=1, help="of all sections but field, and of --profile")
    parser.add_argument("--profile", action="store_true", help="what bounds the rows of the section field, and no more")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the section field")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/benchmarks"), help="folder of results.json, table.txt and plots"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.profile:
        found = field_profile.run(options.seconds / 10, options.rows)
        (options.out / "field_profile.json").write_text(json.dumps(found, indent=1))
        (options.out / "field_profile.rst").write_text(field_profile.list_table(found))
        print("\n" + field_profile.list_table(found))
        return

    def done(rows: Rows) -> None:
        """Keep what there is of a long section."""
        (options.out / "field.json").write_text(json.dumps(rows, indent=1))
        field_report.write(rows, options.out)

    chosen = sections(not options.no_compile, options.seconds, options.device, done, options.rows)
    file = options.out / "results.json"
    results: dict[str, Rows] = json.loads(file.read_text())["sections"] if file.exists() else {}
    for name in options.only or (aims.SECTIONS if options.aims else chosen):
        print(f"{name} ...", flush=True)
        results[name] = chosen[name]()
        if name == "field":
            print("\n" + field_report.write(results[name], options.out), flush=True)
        else:
            print(table(results[name]), flush=True)
        if name == "digits":
            (options.out / "digits.json").write_text(json.dumps(results[name], indent=1))
            (options.out / "digits.rst").write_text(digits.list_table(results[name]))
        machine = {"torch": torch.__version__, "python": platform.python_version(), "threads": options.threads}
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "unmeasured"
        file.write_text(json.dumps({"machine": {**machine, "gpu": device}, "sections": results}, indent=1))
    plain = {name: section for name, section in results.items() if name != "field"}
    text = table([row for section in plain.values() for row in section])
    if "field" in results:
        text += "\n\n" + field_report.write(results["field"], options.out)
    if any(name in results for name in aims.SECTIONS):
        text += "\n\n" + aims.table(aims.aims(results))
    (options.out / "table.txt").write_text(text + "\n")
    print("\n" + text)
    plot(plain, options.out)


if __name__ == "__main__":
    main()
