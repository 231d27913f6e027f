"""Faults of FrEIA that the guide names: FrEIA has them, this library does not."""

from __future__ import annotations

import warnings

import freia_faults
import pytest
import torch

import invgraph as ig


def test_ours_has_none_of_freias_faults() -> None:
    found = freia_faults.measure(ig.freia.framework, ig.freia.modules)
    assert {what for what, value in found.items() if abs(value) > 1e-4} == set()


def test_freia_has_each_fault_that_the_guide_names() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        framework, modules = pytest.importorskip("FrEIA.framework"), pytest.importorskip("FrEIA.modules")
    torch.default_generator.manual_seed(0)
    found = freia_faults.measure(framework, modules)
    assert {what for what, value in found.items() if abs(value) < 1e-4} == set()
