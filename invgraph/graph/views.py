"""Views of a graph: a table, a table with measurements, and a picture."""

from __future__ import annotations

import os
from abc import ABC
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Literal

from torch import Tensor, nn

from invgraph.arguments import require_choice, require_flag
from invgraph.core.invertible import Invertible
from invgraph.core.ranges import Ends, Knowns
from invgraph.graph.measured import measurable, measuring
from invgraph.graph.ranges import follow, follow_ends
from invgraph.graph.schedule import Schedule
from invgraph.graph.summary import Summary, summarize, table
from invgraph.graph.trace import Trace, record
from invgraph.shapes import Structured

Theme = Literal["auto", "light", "dark"]
THEMES: tuple[Theme, ...] = ("auto", "light", "dark")


class Shown(Invertible, ABC):
    """Base class of a graph, with its tables and pictures."""

    forward_schedule: Schedule
    inverse_schedule: Schedule
    if TYPE_CHECKING:
        layers: nn.ModuleDict

    def __contains__(self, name: object) -> bool:
        """True if a node has this name."""
        return isinstance(name, str) and name in self.layers

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the nodes."""
        return iter(self.layers)

    def _ipython_key_completions_(self) -> list[str]:
        """Return the names of the nodes, for completion after ``graph["``."""
        return list(self.layers)

    def _follow(self, intervals: Knowns, *, inverse: bool) -> Knowns:
        return follow(self.inverse_schedule if inverse else self.forward_schedule, self.layers.values(), intervals)

    def _follow_ends(self, ends: Ends, *, inverse: bool) -> Ends:
        return follow_ends(self.inverse_schedule if inverse else self.forward_schedule, self.layers.values(), ends)

    def draw(self, path: str | os.PathLike[str], *, fold: bool = True, theme: Theme = "auto") -> None:
        """Draw the graph to a file; graphviz is not needed. Notebooks show the drawing of a graph automatically.

        Each node is a box with its name, class and transform; arrows of data are labeled with their shapes. Colors
        mark inputs and outputs (blue), conditions (amber), conditioning networks (green), layers with parameters
        (violet) and without (gray), and nested graphs (pink). A nested graph is one box: draw ``graph["name"]`` to
        see inside. In an SVG, hover over a box to see its shapes and number of parameters. In a PNG, letters that
        matplotlib's font lacks, such as Chinese ones, are taken from another installed font; a letter that none has
        is drawn as �, with a warning. Another warning says so if a PNG is too long for its texts to be read.

        Arguments:
            path: Path of the file. It ends in ``.svg``; in ``.png``, which matplotlib draws; in ``.dot``, the language
                of graphviz; or in ``.mmd``, that of Mermaid.
            fold: True to draw consecutive blocks of the same classes, transforms, shapes and wiring once, with their
                number; False to draw every node. Default: True.
            theme: Colors of an SVG or PNG: ``"light"``, ``"dark"``, or ``"auto"``, which in an SVG follows the
                reader's system and in a PNG is light. Default: ``"auto"``.

        Raises:
            GraphError: If the name ends in anything else, the folder is missing, or the file can't be written.
            DependencyError: If a PNG was asked for, and matplotlib is not installed.

        Example:
            >>> import pathlib, tempfile, invgraph as ig
            >>> x = ig.InputNode(4, name="x")
            >>> graph = ig.Graph(x, ig.Node(x, ig.Permute, name="mix"))
            >>> path = pathlib.Path(tempfile.mkdtemp(), "graph.mmd")
            >>> graph.draw(path)
            >>> for line in path.read_text().splitlines()[:6]:
            ...     print(line)
            flowchart TD
              n0(["x<br>input 4"])
              n1["mix<br>Permute"]
              n2(["output<br>4"])
              n0 -->|"4"| n1
              n1 -->|"4"| n2
        """
        from invgraph.draw.write import check_target, write  # here, because `import invgraph` is to stay quick
        from invgraph.graph.picture import Sketch

        fold = require_flag("Graph.draw", "fold", fold)
        theme = require_choice("Graph.draw", "theme", theme, THEMES)  # type: ignore[assignment]
        target = check_target("Graph.draw", path)
        write("Graph.draw", target, Sketch(self.layers, self.forward_schedule, fold).picture(), theme, self.label)

    def _repr_svg_(self) -> str:
        """Return the picture that a notebook shows."""
        from invgraph.draw.layout import layout
        from invgraph.draw.svg import svg
        from invgraph.graph.picture import Sketch

        picture = Sketch(self.layers, self.forward_schedule, fold=True).picture()
        return svg(layout(picture), "auto", self.label)

    def summary(self, x: Structured, c: Structured = ()) -> Summary:
        """Run the graph forward on a batch in evaluation mode, and measure what each node costs.

        The result prints as the graph's table with three more columns: the operations per sample (two for each
        multiply-add of a matrix product or convolution), the memory that a training step keeps for the backward pass
        of the whole batch, and the mean log-determinant with its share of the sum of all absolute ones. The memory of
        :class:`~invgraph.ContinuousFlow` is that under activation checkpointing. The graph does not change; if it is
        compiled, its plain code is measured.

        Arguments:
            x: Data, as in a call of the graph.
            c: Conditions, as in a call of the graph. Default: none.

        Raises:
            ShapeError: If the batch is empty, or a tensor does not fit.
            GraphError: If the tensors are on the meta device, or gradients are unavailable because of
                ``torch.inference_mode``.

        Example:
            >>> import torch, invgraph as ig
            >>> x = ig.InputNode(4, name="x")
            >>> args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
            >>> graph = ig.Graph(x, ig.Node(x, ig.Coupling, args, name="mix"))
            >>> graph.summary(torch.zeros(10, 4))["mix"].operations
            192.0
        """
        xs, cs = measurable("Graph.summary", "graph.summary({x}, {c})", self, x, c)
        with measuring(self):
            return summarize(self.layers, self.forward_schedule, xs, cs)

    def trace(self, values: Structured, c: Structured = (), *, inverse: bool = False) -> Trace:
        """Run the graph, and return every value inside it and the log-determinant of every node, by name.

        Gradients are recorded as in a call. A nested graph is run a second time to record its values.

        Arguments:
            values: Inputs, as in a call of the graph; for the inverse, outputs.
            c: Conditions, as in a call of the graph. Default: none.
            inverse: True for the inverse. Default: False.

        Raises:
            ShapeError: If a tensor is missing, is one too many, or has the wrong shape.
            InputTypeError: If something else was given, or tensors of another dtype or device.

        Example:
            >>> import torch, invgraph as ig
            >>> x = ig.InputNode(1, 4, 4, name="x")
            >>> h = ig.Node(x, ig.Haar, {"rebalance": 0.5}, name="haar")
            >>> graph = ig.Graph(x, [*ig.Node(h, ig.Split, {"sizes": (1, 3)}, name="split")])
            >>> trace = graph.trace(torch.ones(1, 1, 4, 4))
            >>> {name: tuple(value.shape[1:]) for name, value in trace.values.items()}
            {'x': (1, 4, 4), 'haar': (4, 2, 2), 'split[0]': (1, 2, 2), 'split[1]': (3, 2, 2)}
            >>> trace.log_dets
            {'haar': tensor([-8.3178]), 'split': tensor([0.])}
        """
        inverse = require_flag("Graph.trace", "inverse", inverse)
        source, target = (self._outputs(), self._inputs()) if inverse else (self._inputs(), self._outputs())
        found: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}
        direction = partial(record, self, inverse=inverse, found=found)
        outputs, log_det = self._call(direction, source, target, values, c)
        return Trace(*found, outputs, log_det)

    def log_dets(self, values: Structured, c: Structured = (), *, inverse: bool = False) -> dict[str, Tensor]:
        """Return the log-determinants of the nodes, each of shape ``(B,)``, by name, as :meth:`trace` does.

        Arguments:
            values: Inputs, as in a call of the graph; for the inverse, outputs.
            c: Conditions, as in a call of the graph. Default: none.
            inverse: True for the inverse. Default: False.

        Example:
            >>> import torch, invgraph as ig
            >>> x = ig.InputNode(1, 4, 4, name="x")
            >>> graph = ig.Graph(x, ig.Node(x, ig.Haar, {"rebalance": 0.5}, name="haar"))
            >>> graph.log_dets(torch.ones(2, 1, 4, 4))
            {'haar': tensor([-8.3178, -8.3178])}
        """
        return self.trace(values, c, inverse=inverse).log_dets

    def __repr__(self) -> str:
        return table(self.layers, self.forward_schedule)
