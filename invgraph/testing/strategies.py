"""Hypothesis strategies: random shapes, layers, and conditional graphs with several inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import nn

from invgraph.core.invertible import Invertible
from invgraph.errors import GraphError
from invgraph.graph.graph import Graph
from invgraph.layers.concat import Concat
from invgraph.layers.reshape import Flatten
from invgraph.layers.split import Split
from invgraph.shapes import Shape, numel
from invgraph.testing.program import CONDITION, INPUT, Op, Program, Ref
from invgraph.testing.recipes import Recipe, Start, accepted, build, recipes, small_network, unconditional
from invgraph.testing.sketch import Sketch

Draw: TypeAlias = st.DrawFn
Range: TypeAlias = int | tuple[int, int]


def shapes(min_axes: int = 1, max_axes: int = 4) -> st.SearchStrategy[Shape]:
    """Shapes of vectors, signals, images and volumes with at most 96 elements.

    Arguments:
        min_axes: Minimum number of axes: 1 for vectors, 2 for signals, 3 for images, 4 for volumes. Default: 1.
        max_axes: Maximum number of axes. Default: 4.

    Example:
        >>> from hypothesis import find
        >>> import invgraph as ig
        >>> find(ig.testing.shapes(min_axes=3, max_axes=3), lambda shape: True)
        (1, 1, 1)
    """
    return st.integers(min_axes, max_axes).flatmap(_sizes)


def _sizes(axes: int) -> st.SearchStrategy[Shape]:
    """Return channels, then sizes that are often even, so that they can be halved."""
    channels, size = (st.integers(1, 6), st.sampled_from((1, 2, 4, 3))) if axes < 4 else (st.integers(1, 3), st.just(2))
    return st.tuples(channels, *(size for _ in range(axes - 1)))


def layers(
    shape: Shape | None = None,
    cond_shapes: tuple[Shape, ...] | None = None,
    *,
    dtype: torch.dtype = torch.float64,
) -> st.SearchStrategy[Invertible]:
    """Layers with one input and random parameters: all that fit and are exact up to rounding for any data.

    They are well conditioned: a chain of sixteen has a round trip error below 1e-10. ``Sigmoid``, ``Logit`` and
    ``Softplus`` (to or from an interval), ``GaussianMixture`` (its condition selects a component), ``Dequantize`` and
    ``ContinuousFlow`` are never drawn; ``Autoregressive`` and ``Residual`` only for few elements.

    Arguments:
        shape: Shape of the input. Default: drawn.
        cond_shapes: Shapes of the conditions: vectors, or of the spatial size of the input. Default: up to two, drawn.
        dtype: Dtype of the parameters. Default: float64.

    Example:
        >>> import hypothesis, invgraph as ig
        >>> @hypothesis.given(ig.testing.layers(shape=(4,)))
        ... def test_layers_of_four_channels(layer):
        ...     ig.testing.check_invertible(layer)
    """
    return _layers(shape, cond_shapes, dtype)


@st.composite
def _layers(draw: Draw, shape: Shape | None, cond_shapes: tuple[Shape, ...] | None, dtype: torch.dtype) -> Invertible:
    shape = draw(shapes()) if shape is None else shape
    if cond_shapes is None:
        vectors = st.tuples(st.integers(1, 3))
        maps = st.tuples(st.integers(1, 3), *map(st.just, shape[1:]))
        drawn = draw(st.lists(st.one_of(vectors, maps), max_size=2))
        cond_shapes = tuple(sorted(drawn, key=len, reverse=True))  # maps first, for Elementwise
    recipe = draw(st.sampled_from(recipes(shape, cond_shapes)))
    return build(recipe, (shape,), cond_shapes, draw(_seeds), dtype)


def graphs(
    *,
    max_nodes: int = 8,
    inputs: Range = (1, 2),
    outputs: Range = (1, 3),
    conditions: Range = (0, 2),
    also: Sequence[Recipe] = (),
    dtype: torch.dtype = torch.float64,
) -> st.SearchStrategy[Graph]:
    """Valid conditional graphs with random parameters, including splits, concats, features and nested graphs.

    Their layers are those of :func:`layers`, conditioned on conditions, features and inner values.

    Arguments:
        max_nodes: Approximate maximum number of nodes; a few more may be needed to join outputs or use all conditions.
            Default: 8.
        inputs: Number of inputs, or its range. Default: 1 to 2.
        outputs: Number of outputs, or its range. Default: 1 to 3.
        conditions: Number of conditions, or its range. Default: 0 to 2.
        also: Additional layers, as pairs ``(class, args)``; used for all shapes that the class accepts. If there are
            any, every graph contains at least one of them.
        dtype: Dtype of the parameters. Default: float64.

    Raises:
        GraphError: If an additional layer accepts none of the shapes that are tried.

    Example:
        >>> import hypothesis, invgraph as ig
        >>> mine = [(ig.Elementwise, {"transform": ig.Affine(clamp=0.5)})]
        >>> @hypothesis.given(ig.testing.graphs(conditions=(1, 2), also=mine))
        ... def test_my_layer_in_graphs(graph):
        ...     ig.testing.check_invertible(graph)
    """
    return programs(
        max_nodes=max_nodes,
        inputs=inputs,
        outputs=outputs,
        conditions=conditions,
        also=tuple(also),
        starts=tuple(start for recipe in also for start in accepted(recipe, _range(conditions)[1], dtype)),
        dtype=dtype,
    ).map(Program.declare)


@st.composite
def programs(
    draw: Draw,
    *,
    max_nodes: int = 8,
    inputs: Range = (1, 2),
    outputs: Range = (1, 3),
    conditions: Range = (0, 2),
    also: tuple[Recipe, ...] = (),
    starts: tuple[Start, ...] = (),
    dtype: torch.dtype = torch.float64,
) -> Program:
    """Programs of the graphs that :func:`graphs` declares; each begins with one of ``starts``, if there are any."""
    counts = [draw(st.integers(*_range(side))) for side in (inputs, conditions)]
    ins, given = (tuple(draw(shapes()) for _ in range(count)) for count in counts)
    fewest, most = _range(outputs)
    if numel(ins) < fewest:  # an output has at least one element
        ins = ((fewest,), *ins[1:])
    start = draw(st.sampled_from(starts)) if starts else None
    if start is not None:
        ins, given = (start[1], *ins[1:]), (*start[2], *given[len(start[2]) :])
        assume(numel(ins) >= fewest)
    return draw(bodies(ins, given, max_nodes, (fewest, most), also, dtype, True, start))


@st.composite
def bodies(
    draw: Draw,
    inputs: tuple[Shape, ...],
    conditions: tuple[Shape, ...],
    max_nodes: int,
    outputs: tuple[int, int],
    also: tuple[Recipe, ...],
    dtype: torch.dtype,
    nesting: bool,
    start: Start | None = None,
) -> Program:
    """Programs with the given inputs and conditions, the first of which ``start`` reads."""
    sketch = Sketch(inputs, conditions)
    growth = _Growth(draw, sketch, also, dtype)
    if start is not None:
        growth.begin(start)
    for _ in range(draw(st.integers(min(2, max_nodes), max_nodes))):
        kind = draw(st.sampled_from(("layer", "layer", "layer", "layer", "join", "feature", "nested")))
        if kind == "join" and len(sketch.live) > max(1, outputs[0]):
            growth.join()
        elif kind == "feature":
            growth.feature()
        elif kind == "nested" and nesting:
            growth.nested()
        else:
            growth.layer()
    growth.use_conditions()
    fewest, most = outputs
    while len(sketch.live) > most:
        growth.join()
    while len(sketch.live) < fewest:
        growth.divide()
    single: tuple[bool, bool, bool] = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    return sketch.program(single)


class _Growth:
    """Steps by which a sketch grows."""

    def __init__(self, draw: Draw, sketch: Sketch, also: tuple[Recipe, ...], dtype: torch.dtype) -> None:
        self.draw, self.sketch, self.also, self.dtype = draw, sketch, also, dtype

    def begin(self, start: Start) -> None:
        """Add a layer that reads the first input, and the first conditions if it has any."""
        recipe, shape, cond_shapes = start
        conditions = tuple(Ref(CONDITION, index) for index in range(len(cond_shapes)))
        self.sketch.add(Op(self._build(recipe, (shape,), cond_shapes), (Ref(INPUT, 0),), conditions))

    def layer(self) -> None:
        """Add a layer with one input and up to two conditions."""
        source = self._live()
        conditions = self._conditions((source,), most=2)
        shape, cond_shapes = self.sketch.shapes[source], self._shapes(conditions)
        known = recipes(shape, cond_shapes)
        if not cond_shapes and self.draw(st.booleans()):  # half of the time a reshape or a linear map
            known = unconditional(shape)
        recipe = self.draw(st.sampled_from((*known, *self.also)))
        try:
            module = self._build(recipe, (shape,), cond_shapes)
        except GraphError:
            if recipe not in self.also:
                raise
            module = self._build(known[0], (shape,), cond_shapes)
        self.sketch.add(Op(module, (source,), conditions))

    def join(self) -> None:
        """Concatenate two values along the channels if all other sizes agree, and as vectors otherwise."""
        pair = tuple(self.draw(st.permutations(self.sketch.live))[:2])
        first, second = self._shapes(pair)
        if len(first) != len(second) or first[1:] != second[1:]:
            pair = tuple(self._flat(ref) for ref in pair)
        self.sketch.add(Op(self._build((Concat, {}), self._shapes(pair), ()), pair))

    def divide(self) -> None:
        """Split the largest value in two."""
        source = self._flat(max(self.sketch.live, key=lambda ref: math.prod(self.sketch.shapes[ref])))
        (size,) = self.sketch.shapes[source]
        module = self._build((Split, {"sizes": (1, size - 1)}), self._shapes((source,)), ())
        self.sketch.add(Op(module, (source,)))

    def feature(self) -> None:
        """Add a network that reads conditions, features and inner values."""
        known = list(self.sketch.shapes)
        count = self.draw(st.integers(1, min(2, len(known))))
        self._feature(tuple(self.draw(st.permutations(known))[:count]))

    def nested(self) -> None:
        """Add a nested graph."""
        count = self.draw(st.integers(1, min(2, len(self.sketch.live))))
        sources = tuple(self.draw(st.permutations(self.sketch.live))[:count])
        allowed = self.sketch.allowed(sources)
        conditions = tuple(self.draw(st.permutations(allowed))[: self.draw(st.integers(0, 2))]) if allowed else ()
        shapes, cond_shapes = self._shapes(sources), self._shapes(conditions)
        inner = self.draw(bodies(shapes, cond_shapes, 3, (1, 3), self.also, self.dtype, False))
        self.sketch.add(Op(None, sources, conditions, inner))

    def use_conditions(self) -> None:
        """Add a layer for each unused condition, because a graph raises an error for those."""
        for condition in self.sketch.unused():
            source = self._live()
            conditions = (self._fitting(condition, source),)
            shapes = self._shapes((source, *conditions))
            recipe = self.draw(st.sampled_from(recipes(shapes[0], shapes[1:])))
            self.sketch.add(Op(self._build(recipe, shapes[:1], shapes[1:]), (source,), conditions))

    def _live(self) -> Ref:
        ref: Ref = self.draw(st.sampled_from(self.sketch.live))
        return ref

    def _conditions(self, sources: tuple[Ref, ...], most: int) -> tuple[Ref, ...]:
        allowed = self.sketch.allowed(sources)
        count = self.draw(st.integers(0, min(most, len(allowed))))
        chosen = self.draw(st.permutations(allowed))[:count] if count else []
        fitting = [self._fitting(ref, sources[0]) for ref in chosen]
        return tuple(sorted(fitting, key=lambda ref: -len(self.sketch.shapes[ref])))  # maps first, for Elementwise

    def _fitting(self, ref: Ref, source: Ref) -> Ref:
        """Return a condition that fits the source: the value itself, or a vector feature of it."""
        shape, size = self.sketch.shapes[ref], self.sketch.shapes[source]
        return ref if len(shape) == 1 or shape[1:] == size[1:] else self._feature((ref,))

    def _feature(self, refs: tuple[Ref, ...]) -> Ref:
        network = small_network(self._shapes(refs), self.draw(_seeds), self.dtype)
        return self.sketch.add(Op(network, (), refs))[0]

    def _flat(self, ref: Ref) -> Ref:
        if len(self.sketch.shapes[ref]) == 1:
            return ref
        return self.sketch.add(Op(self._build((Flatten, {}), self._shapes((ref,)), ()), (ref,)))[0]

    def _shapes(self, refs: Sequence[Ref]) -> tuple[Shape, ...]:
        return tuple(self.sketch.shapes[ref] for ref in refs)

    def _build(self, recipe: Any, shapes: tuple[Shape, ...], cond_shapes: tuple[Shape, ...]) -> nn.Module:
        return build(recipe, shapes, cond_shapes, self.draw(_seeds), self.dtype)


_seeds = st.integers(0, 2**16 - 1)


def _range(side: Range) -> tuple[int, int]:
    return (side, side) if isinstance(side, int) else side
