"""The guide's blocks for sbi and lampe run as they are printed, after those that make the simulator and the data."""

from __future__ import annotations

import re
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what others deprecate is not our affair
    pytest.importorskip("sbi.inference")
    pytest.importorskip("lampe")

PAGE = Path(__file__).parents[2] / "docs" / "posterior.rst"


def blocks(directive: str) -> list[str]:
    found = re.findall(rf"\.\. {directive}\n\n((?:    .*\n|\n)+)", PAGE.read_text())
    return [textwrap.dedent(block) for block in found]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    simulator, *_ = blocks("testcode::")
    exec(simulator, names)
    names["observation"] = names["simulate"](names["prior"](1))[0]
    with_sbi, with_lampe = blocks("code-block:: python")
    exec(with_sbi.replace(".train()", ".train(max_num_epochs=2)"), names)
    low, high, samples = (names[name] for name in ("low", "high", "samples"))
    assert samples.shape == (1000, 3)
    assert ((samples >= low) & (samples <= high)).all()
    exec(with_lampe, names)
    assert names["samples"].shape == (1000, 3)
    assert names["loss"](names["theta"], names["vectors"]).isfinite()
