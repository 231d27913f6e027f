"""Check of the table in docs/catalog/index.rst against the layers."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import invgraph as ig

PAGES = Path(__file__).parent.parent / "docs" / "catalog"
SHAPES = {"v": (4,), "s": (4, 4), "i": (4, 4, 4), "w": (2, 2, 4, 2)}
VECTOR, SPATIAL = {"subnet": ig.nets.MLP(4)}, {"subnet": ig.nets.ConvNet(4)}
AFFINE = {"transform": ig.Affine()}
SMOOTH = {"v": {"subnet": ig.nets.ResidualMLP(4)}, "": {"subnet": ig.nets.ResidualConvNet(4)}}


def rows() -> dict[str, list[str]]:
    """Layer -> what it works on, conditional, inverse, cost."""
    text = (PAGES / "index.rst").read_text(encoding="utf-8")
    table: dict[str, list[str]] = {}
    for name, body in re.findall(r"\* - :class:`~invgraph\.(\w+)`\n((?:     - .*\n)+)", text):
        table[name] = [cell.strip() for cell in re.findall(r"     - (.*)\n", body)]
    return table


TABLE = rows()


def build(name: str, kind: str) -> ig.Invertible:
    """A small one for vectors, signals, images or volumes."""
    shape = SHAPES[kind]
    subnet = VECTOR if kind == "v" else SPATIAL
    args: dict[str, dict[str, Any]] = {
        "Coupling": {**AFFINE, **subnet},
        "MaskedCoupling": {**AFFINE, **subnet},
        "AllInOne": subnet,
        "Elementwise": AFFINE,
        "Autoregressive": {**AFFINE, "hidden": 8},
        "PatchAutoregressive": {**AFFINE, "width": 8},
        "FixedLinear": {"matrix": (torch.eye(shape[0]) * 2).tolist()},
        "Standardize": {"mean": 1.0, "std": 2.0},
        "Box": {"low": -2.0, "high": 5.0},
        "LowRankLinear": {"rank": 1},
        "Reshape": {"shape": (torch.Size(shape).numel(),)},
        "Split": {"sizes": (1, shape[0] - 1)},
        "ContinuousFlow": {**SMOOTH["v" if kind == "v" else ""], "steps": 2},
        "Dequantize": {"levels": 4},
    }
    cls = getattr(ig, name)
    if name == "Concat":
        return cls((shape, shape))
    return cls(shape, ((3,),) if name == "GaussianMixture" else (), **args.get(name, {}))


def test_every_layer_stands_in_the_table() -> None:
    exported = {name for name, value in vars(ig).items() if inspect.isclass(value) and issubclass(value, ig.Invertible)}
    assert set(TABLE) == exported - {"Invertible", "Inverse", "Graph"}


def test_every_transform_stands_in_its_page() -> None:
    page = (PAGES / "transforms.rst").read_text(encoding="utf-8")
    for name, value in vars(ig).items():
        if inspect.isclass(value) and issubclass(value, ig.Transform) and value is not ig.Transform:
            assert f"~invgraph.{name}`" in page


def test_every_subnet_stands_in_its_page() -> None:
    page = (PAGES / "nets.rst").read_text(encoding="utf-8")
    names = [name for name, value in vars(ig.nets).items() if inspect.isclass(value)]
    assert len(names) >= 7
    assert all(f"``nets.{name}(" in page for name in names)


@pytest.mark.parametrize("name", TABLE)
def test_conditional_is_what_the_class_says(name: str) -> None:
    assert (TABLE[name][1] == "yes") == getattr(ig, name).conditional


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in TABLE for kind in SHAPES])
def test_it_works_on_what_the_table_says_and_nothing_else(name: str, kind: str) -> None:
    if kind not in TABLE[name][0].split():
        with pytest.raises(ig.GraphError):
            build(name, kind)
        return
    layer = build(name, kind)
    generator = torch.Generator().manual_seed(0)
    xs = tuple(torch.randint(4, (8, *shape), generator=generator).float() for shape in layer.in_shapes)
    xs = tuple(x + (0 if name == "Dequantize" else 0.1 * torch.randn(x.shape, generator=generator)) for x in xs)
    cs = tuple(torch.eye(shape[0])[:1].expand(8, -1) for shape in layer.cond_shapes)
    layer.initialize(xs, cs)
    ys, log_det = layer(xs, cs)
    back, undone = layer.inverse(ys, cs)
    assert log_det.shape == (8,)
    assert all((x - b).abs().max() < 1e-4 for x, b in zip(xs, back, strict=True))
    assert (log_det + undone).abs().max() < 1e-3


def drawn() -> set[str]:
    """Names in the table of portraits, which is read and not imported: it needs the tools of the documentation."""
    table = (PAGES.parent / "portraits" / "table.py").read_text(encoding="utf-8")
    return set(re.findall(r'^    "([\w.]+)": ', table, re.M))


def test_every_class_has_a_portrait_and_none_is_left_over() -> None:
    classes = {name: value for name, value in vars(ig).items() if inspect.isclass(value)}
    layers = {name for name, value in classes.items() if issubclass(value, (ig.Invertible, ig.Transform))}
    factories = {f"nets.{name}" for name, value in vars(ig.nets).items() if isinstance(value, type(ig.nets.MLP))}
    subnets = {name for name in factories if issubclass(getattr(ig.nets, name[5:]), ig.SubnetFactory)}
    assert drawn() == layers - {"Invertible", "Graph", "Transform"} | subnets


def test_the_catalog_shows_every_portrait() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES.glob("*.rst"))
    shown = {name for names in re.findall(r"\.\. portraits?:: (.+)", text) for name in names.split()}
    assert shown == drawn() - {"Inverse"}
