"""Mistakes in drawings of graphs, and in what a graph shows of itself."""

from __future__ import annotations

from .mutant import Mutant

LAYOUT, WRITE = "tests/draw/test_layout.py", "tests/draw/test_write.py"
FONTS, TABLE = "tests/draw/test_fonts.py", "tests/draw/test_table.py"
PICTURE, SHOWN, MAIN = "tests/graph/test_picture.py", "tests/graph/test_views.py", "tests/test_main.py"

MUTANTS = (
    Mutant("an arrow crosses the title of a frame whose corners are taken", "draw/layout.py",
           "max(gaps, key=_width)", "gaps[0]", (LAYOUT,)),
    Mutant("a title stands in the left corner whatever crosses it", "draw/layout.py",
           "if gap[1] - gap[0] >= room)", "if True)", (LAYOUT,)),
    Mutant("numbers with gaps are merged as if there were none", "graph/picture.py",
           "if _are_consecutive(numbers) else", "if True else", (PICTURE,)),
    Mutant("conditions stand at the top of a drawing", "draw/ranks.py",
           "if node in late and readers[node]:", "if False:", (LAYOUT,)),
    Mutant("a sweep that makes more crossings is kept", "draw/ranks.py",
           "if count < fewest:", "if False:", (LAYOUT,)),
    Mutant("neighbors of a row may overlap", "draw/columns.py",
           "distance = gap + (a.left + b.right if mirrored else a.right + b.left)", "distance = 0.5 * gap", (LAYOUT,)),
    Mutant("texts of a drawing are not escaped", "draw/svg.py",
           "{place}>{escape(text)}</text>", "{place}>{text}</text>", (LAYOUT,)),
    Mutant("a drawing is written into a pipe", "draw/write.py",
           "if target.exists() and not target.is_file():", "if False:", (WRITE, "-k", "refused_and_stays")),
    Mutant("a picture has the letters of one font only", "draw/fonts.py",
           "text.set(family=[*own, *used], text=", "text.set(text=", (FONTS,)),
    Mutant("fonts installed since matplotlib listed them are not found", "draw/fonts.py",
           "if lost and _add_new_fonts():", "if False:", (FONTS, "-k", "later")),
    Mutant("a wide letter takes one cell of a table", "draw/table.py",
           "0 if combining(letter) else 2 if east_asian_width(letter) in \"WF\" else 1", "1", (TABLE,)),
    Mutant("equal blocks may read different conditions", "graph/fold.py",
           "if not (shifted or outside or first):", "if False:", (PICTURE,)),
    Mutant("what leaves a block early is not drawn", "graph/fold.py",
           "while times > 1 and _leaks(", "while False and _leaks(", (PICTURE,)),
    Mutant("streams that blocks swap are drawn as if they did not", "graph/fold.py",
           "passed == _in_order(", "passed != _in_order and (", (PICTURE,)),
    Mutant("blocks that pass a feature are drawn as if each computed it anew", "graph/fold.py",
           "set(carried) == set(data)", "set(carried) >= set(data)", (PICTURE,)),
    Mutant("tied parameters are counted once a node", "graph/summary.py",
           "dict.fromkeys(parameter for", "list(parameter for", (PICTURE,)),
    Mutant("a value inside a graph is drawn as data wherever it is read", "graph/picture.py",
           'kind = self.kinds.get(maker[0], "condition")', 'kind: ArrowKind = "data"', (PICTURE,)),
    Mutant("the table shows no conditions", "graph/summary.py",
           "for side in (step.inputs, step.conditions))", "for side in (step.inputs, ()))", (SHOWN,)),
    Mutant("operations are counted for the batch, not for a sample", "graph/summary.py",
           "operations[k] / batch, kept[k],", "operations[k], kept[k],", (SHOWN,)),
    Mutant("what an earlier node keeps is counted again", "graph/summary.py",
           "if storage.data_ptr() not in seen:", "if True:", (SHOWN,)),
    Mutant("a self-check passes with any error", "__main__.py",
           "good, found = error <= bound,", "good, found = True,", (MAIN,)),
)  # fmt: skip
