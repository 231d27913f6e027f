"""A graph as a ``torch.distributions`` transform, whose log-determinant comes with the value."""

from __future__ import annotations

from copy import copy
from typing import Any, Self

import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.transforms import Transform

from invgraph.arguments import require_choice
from invgraph.core.call import Ports
from invgraph.distributions.conditioned import Bijection, Conditioned, broadcast_value
from invgraph.distributions.support import as_constraint
from invgraph.errors import GraphError, ShapeError
from invgraph.shapes import Shape, Structured
from invgraph.torch_internals import version


class GraphTransform(Transform):
    """A graph under given conditions as a transform of ``torch.distributions``: see :meth:`invgraph.Graph.transform`.

    ``t(x)`` is the forward direction of the graph and ``t.inv(z)`` its inverse, of values ``sample_shape + batch_shape
    + shape`` with the batch shape of the conditions. Each call keeps its log-determinant, so
    ``t.log_abs_det_jacobian(x, y)`` of the last pair costs nothing.

    A pair of values is used again only if neither they, nor the conditions, nor anything in the graph has changed in
    between, and gradients are recorded now if and only if they were then. Changes that torch does not count, such as
    those through ``.data``, are not seen here: call the transform again after them.

    Arguments:
        graph: A graph with one input and one output.
        c: Conditions, whose leading axes are the batch shape; it may be empty. Default: none.
        cache_size: 1 to return the last ``x`` for the same ``y``, and the last ``y`` for the same ``x``, instead of
            computing it, as any transform of torch does; 0 to cache log-determinants alone. Default: 0.

    Raises:
        GraphError: If the graph has several inputs or outputs, or ``cache_size`` is neither 0 nor 1.
        ShapeError: If conditions or values have another shape.

    Example:
        >>> import torch, invgraph as ig
        >>> from torch.distributions import Independent, Normal, TransformedDistribution
        >>> x, c = ig.InputNode(2, name="x"), ig.ConditionNode(3, name="c")
        >>> args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
        >>> graph = ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=c), c)
        >>> base = Independent(Normal(torch.zeros(2), torch.ones(2)), 1)
        >>> density = TransformedDistribution(base, [graph.transform(torch.zeros(5, 3)).inv])
        >>> density.log_prob(density.sample((7,))).shape
        torch.Size([7, 5])
    """

    bijective = True

    def __init__(self, graph: Bijection, c: Structured = (), cache_size: int = 0) -> None:
        cache_size = require_choice("Graph.transform", "cache_size", cache_size, (0, 1))
        for ports in (graph._inputs(), graph._outputs()):
            if len(ports.shapes) != 1:
                advice = "a transform maps one tensor to one: join several with Flatten and Concat, or use Flow.given"
                raise GraphError("Graph.transform", f"a graph with {len(ports.shapes)} {ports.kind}s", advice)
        super().__init__(cache_size=cache_size)
        self._conditioned = Conditioned("Graph.transform", graph, c)
        self._shapes = graph._inputs().shapes[0], graph._outputs().shapes[0]
        self._last: tuple[tuple[object, ...], Tensor, Tensor, Tensor] | None = None

    @property
    def domain(self) -> constraints.Constraint:  # type: ignore[override]
        """Interval of each element of an input; real numbers where the layers do not declare it."""
        return as_constraint(self._conditioned.graph._follow_ends((None,), inverse=True)[0], self._shapes[0])

    @property
    def codomain(self) -> constraints.Constraint:  # type: ignore[override]
        """Interval of each element of an output; real numbers where the layers do not declare it."""
        return as_constraint(self._conditioned.graph._follow_ends((None,), inverse=False)[0], self._shapes[1])

    @property
    def batch_shape(self) -> torch.Size:
        """Batch shape of the conditions."""
        return self._conditioned.batch_shape

    def with_cache(self, cache_size: int = 1) -> Self:
        """Return the same transform with another cache."""
        cache_size = require_choice("Graph.transform", "cache_size", cache_size, (0, 1))
        if cache_size == self._cache_size:
            return self
        other = copy(self)
        other._inv, other._cache_size = None, cache_size  # Pyro's copies keep the inverse, that of another transform
        return other

    def __call__(self, x: Tensor) -> Tensor:
        """Return the graph's output, shape ``sample_shape + batch_shape + shape``."""
        if self._cache_size and self._last is not None and self._last[1] is x and self._holds(x):
            return self._last[2]
        return self._call(x)

    def _inv_call(self, y: Tensor) -> Tensor:
        if self._cache_size and self._last is not None and self._last[2] is y and self._holds(y):
            return self._last[1]
        return self._inverse(y)

    def _call(self, x: Tensor) -> Tensor:
        value = broadcast_value("Graph.transform", x, self._shapes[0], self.batch_shape)
        (y,), log_det = self._conditioned.forward((value,))
        self._last = self._state(x, y), x, y, log_det
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        value = broadcast_value("Graph.transform", y, self._shapes[1], self.batch_shape)
        (x,), log_det = self._conditioned.inverse((value,))
        self._last = self._state(x, y), x, y, -log_det
        return x

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """Return ``log |det dy/dx|``, shape ``sample_shape + batch_shape``, in nats.

        It is that of the call which made the pair, if that was the last one; otherwise the graph runs on ``x``.
        """
        last = self._last
        if last is None or last[1] is not x or last[2] is not y or not self._holds(x):
            self._call(x)
            last = self._last
            assert last is not None
        return last[3]

    def _state(self, x: Tensor, y: Tensor) -> tuple[object, ...]:
        versions = () if x.is_inference() or y.is_inference() else (version(x), version(y))
        return (*self._conditioned.state(), *versions)

    def _holds(self, value: Tensor) -> bool:
        """True if the last pair would come out the same again."""
        assert self._last is not None
        state, x, y, _ = self._last
        return not value.is_inference() and state == self._state(x, y)

    def forward_shape(self, shape: torch.Size) -> torch.Size:
        """Return the shape of the output for an input of this shape."""
        return self._other_shape(shape, *self._shapes)

    def inverse_shape(self, shape: torch.Size) -> torch.Size:
        """Return the shape of the input for an output of this shape."""
        return self._other_shape(shape, *self._shapes[::-1])

    def _other_shape(self, shape: torch.Size, own: Shape, other: Shape) -> torch.Size:
        ahead = tuple(shape)[: max(len(shape) - len(own), 0)]
        if tuple(shape)[len(ahead) :] != own:
            raise ShapeError("Graph.transform", f"a value of shape {tuple(shape)}", f"expected (..., {str(own)[1:]}")
        return torch.Size((*torch.broadcast_shapes(ahead, self.batch_shape), *other))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_last": None}  # type: ignore[no-untyped-call]

    def __repr__(self) -> str:
        ports: Ports = self._conditioned.graph._inputs()
        return f"GraphTransform({ports.shapes[0]} -> {self._shapes[1]}, batch_shape={tuple(self.batch_shape)})"
