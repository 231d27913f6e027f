"""``ig.fused``: how it is turned, and that the contract holds without kernels too."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from cases import CONV, MLP, Case

import invgraph as ig
from invgraph.fused.switch import fused


@pytest.fixture(autouse=True)
def enabled_afterwards() -> Iterator[None]:
    assert fused.enabled
    yield
    ig.fused(True)


def test_as_a_call_it_stays() -> None:
    ig.fused(False)
    assert not fused.enabled
    ig.fused(False)
    ig.fused(True)
    assert fused.enabled


def test_as_a_context_it_nests() -> None:
    states = []
    with ig.fused(False):
        states.append(fused.enabled)
        with ig.fused(True):
            states.append(fused.enabled)
            with ig.fused(False):
                states.append(fused.enabled)
            states.append(fused.enabled)
        states.append(fused.enabled)
    assert states == [False, True, False, True, False]
    assert fused.enabled


def test_a_context_inside_a_call_gives_back_what_was_there() -> None:
    ig.fused(False)
    with ig.fused(True):
        assert fused.enabled
    assert not fused.enabled


def test_an_exception_restores_it() -> None:
    def fail() -> None:
        with ig.fused(False):
            assert not fused.enabled
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert fused.enabled


def test_a_wrong_argument_changes_nothing() -> None:
    for wrong in (0, "no", None):
        with pytest.raises(ig.errors.ArgumentError, match="enabled must be True or False"):
            ig.fused(wrong)  # type: ignore[arg-type]
        assert fused.enabled


def test_a_coupling_has_its_kernel_only_while_it_is_on() -> None:
    layer = ig.Coupling((4,), transform=ig.Affine(), subnet=MLP)
    x = torch.ones(2, 4)
    assert layer._kernel(x) is not None
    with ig.fused(False):
        assert layer._kernel(x) is None
    assert layer._kernel(x) is not None


def contract() -> ModuleType:
    path = Path(__file__).parents[1] / "core" / "test_contract.py"
    spec = importlib.util.spec_from_file_location("contract_without_kernels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def has_kernel(case: Case) -> bool:
    affine = type(case.args.get("transform")) is ig.Affine and case.args.get("subnet") in (MLP, CONV)
    return (case.cls is ig.Coupling and affine) or case.cls is ig.Permute


def checks() -> Iterator[Any]:
    """Each check of the contract, on each case and dtype that it has.

    The fast suite takes the cases with kernels in float64, the slow one in float32; the others are nightly.
    """
    for name, check in vars(contract()).items():
        marks = getattr(check, "pytestmark", ())
        for mark in (mark for mark in marks if mark.name == "parametrize"):
            for parameters in mark.args[1]:
                case, dtype = parameters.values
                there = () if dtype == torch.float64 else pytest.mark.slow
                marks = there if has_kernel(case) else pytest.mark.nightly
                yield pytest.param(check, case, dtype, id=f"{name}-{parameters.id}", marks=marks)


@pytest.mark.parametrize(("check", "case", "dtype"), list(checks()))
def test_the_contract_holds_without_kernels(check: Callable[..., None], case: Case, dtype: torch.dtype) -> None:
    with ig.fused(False):
        check(case, dtype)
