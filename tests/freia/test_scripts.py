"""Scripts in FrEIA's style, unchanged: they run on both libraries and give the same numbers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from freia_scripts import PARAMS, SCRIPTS, imports, run

import invgraph as ig


@pytest.mark.parametrize("path", PARAMS)
def test_a_script_runs_unchanged(path: Path) -> None:
    values = run(path, ours=True)
    assert values["results"]
    assert all(value.isfinite().all() for value in values["results"])


@pytest.mark.parametrize("path", PARAMS)
def test_a_script_gives_freias_numbers(path: Path) -> None:
    expected, got = run(path, ours=False), run(path, ours=True)
    for index, (theirs, mine) in enumerate(zip(expected["results"], got["results"], strict=True)):
        if theirs.numel() == 1:  # a log-determinant of one element, which FrEIA hands on
            theirs = theirs.expand_as(mine)
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5, msg=lambda text, i=index: f"result {i}: {text}")
    for name in ("names", "conditions", "shapes"):
        assert got.get(name) == expected.get(name)


def test_there_are_scripts_enough() -> None:
    assert len(SCRIPTS) >= 30


def test_every_submodule_of_freia_is_found() -> None:
    with imports(ours=True):
        for name in ("framework.graph_inn", "framework.sequence_inn", "modules.base", "modules.coupling_layers",
                     "modules.reshapes", "modules.invertible_resnet", "modules.graph_topology", "modules.orthogonal",
                     "modules.all_in_one_block", "modules.fixed_transforms", "modules.inv_auto_layers",
                     "modules.gaussian_mixture", "framework.reversible_graph_net", "modules.inverse", "utils",
                     "framework.reversible_sequential_net", "modules.splines.binned", "modules.splines.linear",
                     "modules.splines.rational_quadratic", "distributions.normal",
                     "distributions.transformed"):  # fmt: skip
            namespace: dict[str, object] = {}
            exec(f"import FrEIA.{name} as found", namespace)
            assert namespace["found"] is sys.modules[f"FrEIA.{name}"] is sys.modules[f"invgraph.freia.{name}"]


def test_installing_twice_is_fine_and_beside_freia_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with imports(ours=True), monkeypatch.context() as patch:
        ig.freia.install()
        patch.setitem(sys.modules, "FrEIA", sys)
        with pytest.raises(ig.DependencyError, match="before anything imports FrEIA"):
            ig.freia.install()
