"""Figures on the front page and on the pages about speed are those of the files that the measurements wrote."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^(\S.*?) +(\d+) (\S.*?)  +([\d.]+) +[\d.]+ +[\d.]+  \S", re.M)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def flat(name: str) -> str:
    return " ".join(text(name).split())


def times() -> dict[tuple[str, int, str], float]:
    """Work, size and contestant -> the shortest time in milliseconds."""
    found = {
        (work, int(size), who): float(value)
        for work, size, who, value in ROW.findall(text("docs/performance_results.txt"))
    }
    assert len(found) > 50
    return found


def longer(who: str) -> int:
    """Return by how many percent a training step of the MNIST model takes longer than here."""
    measured = times()
    return round(100 * measured["train step", 256, who] / measured["train step", 256, "invgraph"]) - 100


def colorizations() -> str:
    """Return how many times as long FrEIA takes for 64 samples of one image."""
    measured = times()
    ratio = measured["samples of one image", 64, "FrEIA"] / measured["samples of one image", 64, "invgraph bound"]
    return f"{ratio:.1f} times as long"


def test_the_front_page_says_what_was_measured() -> None:
    page = flat("README.rst")
    plain, *peers = (longer(who) for who in ("straight", "FrEIA", "nflows", "zuko"))
    said = "{} % longer in plain torch than here, {} % longer in FrEIA, {} % longer in nflows and {} % longer in zuko"
    assert said.format(plain, *peers) in page
    assert f"64 colorizations of one image take FrEIA {colorizations()}" in page


def test_the_page_on_performance_says_what_was_measured() -> None:
    page = flat("docs/performance.rst")
    assert ", ".join(f"{longer(who)} %" for who in ("FrEIA", "nflows", "zuko")) in page
    assert f"64 colorizations of one image: FrEIA takes - {colorizations()}" in page
    assert f"{longer('invgraph reversible')} % at batch 256" in page


def test_the_table_of_the_field_is_that_of_its_file() -> None:
    rows: list[dict[str, Any]] = json.loads(text("docs/performance_field.json"))
    measured = {(row["threads"], row["work"], row["contestant"]): row for row in rows}
    threads, heads, seen = 0, [], 0
    for block in re.split(r"^   \* - ", text("docs/performance_field.inc"), flags=re.M):
        cells = [cell.strip() for cell in re.split(r"^     -", block.partition("\n\n")[0], flags=re.M)]
        if cells[0] == "work":
            heads = cells
        elif heads:
            for who, cell in zip(heads, cells, strict=True):
                value = measured.get((threads, cells[0], who))
                match = re.match(r"([\d,.]+) \(", cell)
                if value is not None and match is not None:
                    assert float(match[1].replace(",", "")) == pytest.approx(1000 * value["minimum"], rel=0.06), (
                        cells[0],
                        who,
                    )
                    seen += 1
        title = re.search(r"list-table:: (\d+) threads?: minimum \(median\), ms", block)
        threads = int(title[1]) if title else threads
    assert seen > 60


def test_the_front_page_counts_lines_as_they_are() -> None:
    for name, count in re.findall(
        r"``(examples/\w+\.py)``, (\d+) lines", flat("README.rst") + flat("docs/posterior.rst")
    ):
        assert len(text(name).splitlines()) == int(count), name


def test_pages_agree_about_the_suite() -> None:
    """The front page and the page on reliability tell of the same run."""
    passed = re.search(r"take (\d+ min \d+ s) \(([\d,]+) passed\)", flat("README.rst"))
    assert passed is not None
    assert f"{passed[2]} tests in {passed[1]}" in flat("docs/reliability.rst")
    graphs = set(re.findall(r"([\d,]+) random graphs (?:in|at)", flat("README.rst") + flat("docs/index.rst")))
    assert graphs == {"60"}
