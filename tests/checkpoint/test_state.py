"""Training state comes back in value and in type, at any depth; what would not is refused by its place."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, defaultdict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import invgraph as ig


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def same(a: Any, b: Any) -> bool:
    """Equal in value and in type, at any depth; NaN equals itself."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bool(torch.equal(a.nan_to_num(7), b.nan_to_num(7)))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return len(a) == len(b) and all(same(k, q) and same(a[k], b[q]) for k, q in zip(a, b, strict=True))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) or (a != a and b != b)


def _tensors(dtype: torch.dtype) -> st.SearchStrategy[Tensor]:
    sizes = st.lists(st.integers(0, 3), max_size=3)
    return sizes.map(lambda shape: (torch.arange(math.prod(shape)).reshape(shape) % 2).to(dtype))


DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool)


KEYS = st.one_of(st.text(max_size=5), st.integers(), st.booleans(), st.none(), st.tuples(st.integers(), st.text()))


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.complex_numbers(allow_nan=False),
    st.sampled_from(DTYPES).flatmap(_tensors),
    st.sampled_from(("f8", "f4", "i8", "u4", "u1", "?")).map(lambda kind: np.arange(4).astype(kind)[::2]),
    st.floats(allow_nan=False).map(np.float64),
)


STATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(st.text(), inner, max_size=2).map(OrderedDict),
        st.dictionaries(st.text(), st.integers(), max_size=2).map(Counter),
    ),
    max_leaves=12,
)


PLAIN = nn.Linear(1, 1)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(STATES)
def test_training_state_comes_back_in_value_and_type(tmp_path_factory: pytest.TempPathFactory, state: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "state.safetensors"
    ig.save(path, PLAIN, training=state)
    assert same(ig.load(path).training, state)


PAIR = namedtuple("PAIR", "a b")


@pytest.mark.parametrize("value", [torch.Size((2, 3)), bytearray(b"ab"), b"ab", (1, 2), [1, (2,)]])
def test_training_state_comes_back_in_its_type(path: Path, value: Any) -> None:
    ig.save(path, PLAIN, training=value)
    loaded = ig.load(path).training
    assert loaded == value
    assert type(loaded) is type(value)


@pytest.mark.parametrize("value", [PAIR(1, 2), defaultdict(list, a=[1])])
def test_a_type_that_would_not_come_back_is_refused(path: Path, value: Any) -> None:
    with pytest.raises(ig.CheckpointError, match=r"given: training\['x'\]: a \w+\n.*would be loaded as a (tuple|dict)"):
        ig.save(path, PLAIN, training={"x": value})


@pytest.mark.parametrize("value", [lambda: 0, object(), {1, 2}, {"deep": [nn.Linear(1, 1)]}, np.array(["a"])])
def test_what_cannot_be_stored_is_refused_by_its_place(path: Path, value: Any) -> None:
    with pytest.raises(ig.CheckpointError, match=r"given: training\['x'\].*\n  can't be stored"):
        ig.save(path, PLAIN, training={"x": value})
    assert not path.exists()


def test_an_array_in_another_order_of_bytes_is_refused(path: Path) -> None:
    with pytest.raises(ig.CheckpointError, match=r"a numpy array of >f4\n.*convert it"):
        ig.save(path, PLAIN, training=np.ones(2, dtype=">f4"))


def test_numbers_that_python_does_not_print_are_refused(path: Path) -> None:
    with pytest.raises(ig.CheckpointError, match="training: Exceeds the limit"):
        ig.save(path, nn.Linear(2, 2), training={"step": 10**5000})
    assert not path.exists()


def test_state_that_holds_itself_is_refused(path: Path) -> None:
    loop: list[Any] = []
    loop.append({"again": loop})
    with pytest.raises(ig.CheckpointError, match="does it contain itself"):
        ig.save(path, PLAIN, training=loop)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.empty(2, device="meta"),
        torch.eye(2).to_sparse(),
        torch.zeros(2, dtype=torch.complex128),
    ],
    ids=["meta", "sparse", "complex128"],
)
def test_tensors_that_cannot_be_stored_are_refused(path: Path, tensor: Tensor) -> None:
    with pytest.raises(ig.CheckpointError, match="only dense, real tensors with data can be stored") as caught:
        ig.save(path, PLAIN, training={"steps": [1, {"x": tensor}], "y": torch.zeros(2)})
    assert "training['steps'][1]['x']: torch." in str(caught.value)
    assert not path.exists()
