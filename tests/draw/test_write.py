"""Files of drawings, and names of files that are refused."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import invgraph as ig
from invgraph.draw.boxes import Arrow, Box, Picture
from invgraph.draw.write import write


def graph() -> ig.Graph:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(2, name="c")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(4)}
    return ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=c, name="$mix$"), c)


def test_the_suffix_chooses_the_kind(tmp_path: Path) -> None:
    starts = {"svg": b"<svg ", "png": b"\x89PNG\r\n\x1a\n", "dot": b"digraph {", "mmd": b"flowchart TD"}
    for suffix, start in starts.items():
        path = tmp_path / f"graph.{suffix}"
        graph().draw(path if suffix == "svg" else str(path))
        assert path.read_bytes().startswith(start)


def test_both_themes_are_in_an_svg_unless_one_is_asked_for(tmp_path: Path) -> None:
    texts = {}
    for theme in ("auto", "light", "dark"):
        graph().draw(tmp_path / f"{theme}.svg", theme=theme)  # type: ignore[arg-type]
        texts[theme] = (tmp_path / f"{theme}.svg").read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in texts["auto"]
    assert "prefers-color-scheme" not in texts["light"] + texts["dark"]
    assert "#14181e" in texts["dark"]
    assert "#14181e" not in texts["light"]


@pytest.mark.parametrize(
    ("path", "words"),
    [("graph", "end in .svg, .png, .dot or .mmd"), ("graph.pdf", "end in"), (os.devnull, "end in"),
     ("missing/graph.svg", "folder does not exist")],
)  # fmt: skip
def test_names_that_are_refused(path: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ig.GraphError, match=words):
        graph().draw(path if path == os.devnull else tmp_path / path)


def test_a_pipe_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "pipe.svg"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # so that a writer would not wait for one
    with pytest.raises(ig.GraphError, match="not a regular file"):
        graph().draw(path)
    os.close(reader)
    assert path.is_fifo()


def test_arguments_of_other_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ig.ArgumentError, match="str or a Path"):
        graph().draw(3)  # type: ignore[arg-type]
    with pytest.raises(ig.GraphError, match="theme must be"):
        graph().draw(tmp_path / "a.svg", theme="pink")  # type: ignore[arg-type]
    with pytest.raises(ig.ArgumentError, match="fold must be"):
        graph().draw(tmp_path / "a.svg", fold=1)  # type: ignore[arg-type]


def test_a_png_that_can_not_be_read_warns(tmp_path: Path) -> None:
    boxes = [Box("layer", f"node_{k}", "Permute") for k in range(300)]
    long = Picture(tuple(boxes), tuple(Arrow((k, 0), (k + 1, 0), "data", "4") for k in range(299)))
    with pytest.warns(UserWarning, match=r"^here: the picture is too long for a .png: at 16,000 pixels.*draw a .svg"):
        write("here", tmp_path / "long.png", long, "light", "long")
    write("here", tmp_path / "short.png", Picture(long.boxes[:200], long.arrows[:199]), "light", "short")


def test_a_png_without_matplotlib_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ig.errors.DependencyError, match="pip install"):
        graph().draw(tmp_path / "graph.png")
    assert not (tmp_path / "graph.png").exists()
