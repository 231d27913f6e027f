"""A neural spline flow for vectors, conditional or not."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from torch import Tensor, nn

from invgraph.arguments import as_numbers, is_int, require_flag
from invgraph.errors import ArgumentError, GraphError, ShapeError
from invgraph.flow import Flow
from invgraph.graph.graph import Graph
from invgraph.graph.node import ConditionNode, FeatureNode, InputNode, Node
from invgraph.layers.autoregressive import Autoregressive
from invgraph.layers.box import Box
from invgraph.layers.conv1x1 import Conv1x1
from invgraph.layers.coupling import Coupling
from invgraph.layers.elementwise import Elementwise
from invgraph.layers.permute import Permute
from invgraph.layers.standardize import Standardize
from invgraph.nets.residual import ResidualMLP
from invgraph.nets.summary import Standardizer
from invgraph.shapes import Shape, as_shape
from invgraph.transforms.rational_quadratic_spline import RationalQuadraticSpline


def spline_flow(
    features: int,
    context: int | tuple[int, ...] = (),
    *,
    data: Tensor | None = None,
    conditions: Tensor | None = None,
    summary: nn.Module | None = None,
    bounds: tuple[Any, Any] | None = None,
    autoregressive: bool = False,
    blocks: int | None = None,
    hidden: int = 64,
    bins: int = 8,
) -> Flow:
    """Return a neural spline flow for vectors, conditional or not, ready to be trained.

    It uses only public names, so you can copy it and adapt it to your problem.

    Arguments:
        features: Number of elements of a vector.
        context: Number of elements of the condition, or its shape, such as ``(2, 100)`` for a series that ``summary``
            reads. Default: no condition.
        data: Training data ``(N, features)``, whose mean and standard deviation the flow standardizes by; within the
            bounds, if there are any. Default: the data are standardized already.
        conditions: Training conditions ``(N, *context)``, likewise.
        summary: Network that reads the standardized condition and returns a vector. The flow gets a copy, so that two
            flows never train the same one: the trained one is ``flow.graph["summary"]``. Default: the condition itself,
            a vector.
        bounds: Lower and upper ends of the elements, such as those of a uniform prior: numbers, or tensors
            ``(features,)``. Samples lie between them, and the density outside is zero. Default: no bounds.
        autoregressive: True for autoregressive layers instead of couplings: faster to train, with fewer parameters,
            but slower to draw samples from. Default: False.
        blocks: Number of layers. Default: 3 couplings, each of both halves; or 4 autoregressive layers.
        hidden: Width of the networks. Default: 64.
        bins: Number of pieces of each spline. Default: 8.

    Raises:
        GraphError: If a size is out of range, or the condition is not a vector and there is no summary.
        ShapeError: If data or conditions have another shape.
        ArgumentError: If statistics or a summary are given without a condition, or an argument has the wrong type.
        NumericsError: If data lie outside the bounds.

    References:
        C. Durkan, A. Bekasov, I. Murray, G. Papamakarios, "Neural Spline Flows", 2019,
        https://arxiv.org/abs/1906.04032

    Example:
        >>> import torch, invgraph as ig
        >>> flow = ig.recipes.spline_flow(features=2, context=3)
        >>> flow.log_prob(torch.zeros(5, 2), torch.zeros(5, 3)).shape
        torch.Size([5])
        >>> flow.given(torch.zeros(3)).sample((100,)).shape
        torch.Size([100, 2])
    """
    require_flag("spline_flow", "autoregressive", autoregressive)
    blocks = (4 if autoregressive else 3) if blocks is None else blocks
    features, blocks = as_shape((features, blocks), "spline_flow (features, blocks)")
    x = InputNode(features, name="x")
    h: Any = x
    data = None if data is None else _rows("data", data, (features,))
    if bounds is not None:
        if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
            raise ArgumentError("spline_flow", f"bounds={bounds!r}", "bounds must be two: lower and upper ends")
        box = Box((features,), low=bounds[0], high=bounds[1], check_domain=True)
        data = None if data is None else box((data.to(box.low),))[0][0]
        h = Node(h, Box, {"low": bounds[0], "high": bounds[1]}, name="box")
    if data is not None:
        h = Node(h, Standardize, {"mean": data.mean(0), "std": data.std(0)}, name="scaled")
    c: Any = ()
    read: Any = ()
    if not is_int(context) and not isinstance(context, Iterable):
        raise ArgumentError("spline_flow", f"context={context!r}", "context must be an int, or a tuple of ints")
    sizes = tuple(context) if isinstance(context, Iterable) else (context,)
    shape = () if sizes in ((), (0,)) else as_shape(sizes, "spline_flow (context)")
    if shape:
        c = read = ConditionNode(*shape, name="c")
        if conditions is not None:
            known = _rows("conditions", conditions, shape)
            read = FeatureNode(read, Standardizer(known.mean(0), known.std(0)), name="standardized")
        if summary is not None:
            read = FeatureNode(read, deepcopy(summary), name="summary")
        if len(read.shape) != 1:
            raise GraphError(
                "spline_flow", f"a condition of shape {read.shape}", "give a summary that returns a vector"
            )
    elif conditions is not None or summary is not None:
        raise ArgumentError("spline_flow", "a summary or conditions without context", "give context, their shape")
    spline = RationalQuadraticSpline(bins=bins, bound=5.0)
    subnet = ResidualMLP(hidden, blocks=2)
    for k in range(blocks):
        if features == 1:
            args: dict[str, Any] = {"transform": spline, "subnet": subnet if read else None}
            h = Node(h, Elementwise, args, conditions=read, name=f"spline_{k}")
        elif autoregressive:
            args = {"transform": spline, "hidden": max(hidden, features), "layers": 3}
            h = Node(h, Autoregressive, args, conditions=read, name=f"spline_{k}")
            h = Node(h, Permute, {"order": tuple(range(features))[::-1]}, name=f"reversed_{k}")
        else:
            h = Node(h, Coupling, {"transform": spline, "subnet": subnet}, conditions=read, name=f"spline_{k}")
            if features == 2:  # of two elements, a permutation would mix nothing
                h = Node(h, Conv1x1, name=f"mix_{k}")
            elif k < blocks - 1:  # not a rotation: priors often have sharp edges along the axes
                h = Node(h, Permute, name=f"mix_{k}")
    return Flow(Graph(x, h, c))


def _rows(name: str, values: Any, shape: Shape) -> Tensor:
    """Return training data in float64; refuse other shapes, and a single row, which has no deviation."""
    exact = as_numbers("spline_flow", name, values)
    if exact.shape[1:] != shape or len(exact) < 2:
        given = f"{name} of shape {tuple(exact.shape)}"
        raise ShapeError("spline_flow", given, f"expected (N, {', '.join(map(str, shape))}), N at least 2")
    return exact
