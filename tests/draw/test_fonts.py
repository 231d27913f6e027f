"""Letters that matplotlib's font lacks: another installed font has them, or a warning says that none has."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import invgraph as ig

matplotlib = pytest.importorskip("matplotlib")

from matplotlib import font_manager  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from invgraph.draw.fonts import set_fonts  # noqa: E402

BUNDLED = Path(matplotlib.get_data_path())


def graph(name: str) -> ig.Graph:
    x = ig.InputNode(4, name="x")
    return ig.Graph(x, ig.Node(x, ig.Permute, name=name))


def bundled(*names: str) -> list[Any]:
    """Return the fonts that come with matplotlib, or those of some names."""
    fonts = [entry for entry in font_manager.fontManager.ttflist if BUNDLED in Path(entry.fname).parents]
    return [entry for entry in fonts if not names or entry.name in names]


@pytest.fixture(autouse=True)
def only_bundled_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Without the fonts of this machine, and without the notes of matplotlib's log."""
    monkeypatch.setattr(font_manager.fontManager, "ttflist", bundled())
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    logger = logging.getLogger("matplotlib.font_manager")
    monkeypatch.setattr(logger, "disabled", True)
    font_manager.fontManager._findfont_cached.cache_clear()
    yield
    font_manager.fontManager._findfont_cached.cache_clear()


def picture(graph: ig.Graph, path: Path, **settings: Any) -> bytes:
    with matplotlib.rc_context(settings):
        graph.draw(path)
    return path.read_bytes()


def test_letters_come_from_another_font(tmp_path: Path) -> None:
    """``cmtt10`` has no Cyrillic letters, DejaVu Sans has them; matplotlib's warning would be an error."""
    picture(graph("слой 1"), tmp_path / "graph.png", **{"font.family": "cmtt10"})


def test_only_texts_that_need_another_font_get_one() -> None:
    figure = Figure()
    plain, both = figure.text(0, 0, "mix", weight="bold"), figure.text(0, 0, "слой mix", weight="bold")
    with matplotlib.rc_context({"font.family": "cmtt10"}):
        own = plain.get_fontfamily()
        set_fonts([plain, both], "here", stacklevel=1)
        assert plain.get_fontfamily() == own
        assert both.get_fontfamily()[0] == "cmtt10"
        assert both.get_fontfamily()[1].startswith("DejaVu Sans")


def test_a_letter_that_no_font_has_is_replaced_and_named_in_one_warning(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Graph.draw: no installed font has the letters 像画, ") as warned:
        drawn = picture(graph("画像 mix"), tmp_path / "graph.png")
    assert [warning.filename for warning in warned] == [__file__]
    assert "Noto Sans CJK" in str(warned[0].message)
    with pytest.warns(UserWarning, match="合結"):
        assert drawn == picture(graph("結合 mix"), tmp_path / "same.png")


def test_other_kinds_of_drawing_keep_the_letters(tmp_path: Path) -> None:
    for suffix in ("svg", "dot", "mmd"):
        graph("画像").draw(tmp_path / f"graph.{suffix}")
        assert "画像" in (tmp_path / f"graph.{suffix}").read_text(encoding="utf-8")


def test_a_font_that_was_installed_later_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """matplotlib lists the fonts once, and keeps the list from one process to the next."""
    files = [entry.fname for entry in bundled("DejaVu Sans")]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", bundled("cmtt10"))
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [*files, str(tmp_path / "gone.ttf"), __file__])
    picture(graph("слой 1"), tmp_path / "graph.png", **{"font.family": "cmtt10"})


def test_names_of_elements_are_drawn_too() -> None:
    with matplotlib.rc_context({"font.family": "cmtt10"}):
        figure = ig.inference.corner(torch.randn(50, 2), names=["масса", "x"])
        assert "DejaVu Sans" in " ".join(figure.axes[1].xaxis.label.get_fontfamily())
    result = ig.inference.Calibration(torch.randint(100, (500, 2)), torch.rand(500), draws=99)
    with pytest.warns(UserWarning, match="draw_calibration: no installed font has the letters 質量") as warned:
        ig.inference.draw_calibration(result, ["質量", "x"])
    assert warned[0].filename == __file__
