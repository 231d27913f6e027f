"""A flow under given conditions as a ``torch.distributions.Distribution``."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.distributions import constraints

from invgraph.arguments import is_int, require_precise
from invgraph.core.ranges import Ends
from invgraph.distributions.closed_forms import NoClosedForms
from invgraph.distributions.conditioned import Bijection, Conditioned, broadcast_value
from invgraph.distributions.support import as_constraint
from invgraph.errors import ArgumentError, DependencyError, GraphError
from invgraph.shapes import Structured, Tensors
from invgraph.torch_internals import all_true, floating_tensor

if TYPE_CHECKING:
    from torch.types import _size


class LatentDensity(Protocol):
    """The parts of a density of latents that are used here; it stands on a higher level."""

    @property
    def ends(self) -> Ends: ...

    def log_prob(self, zs: Tensors) -> Tensor: ...

    def draw(
        self, count: int, temperature: float, generator: torch.Generator | None, reference: Tensor | None
    ) -> Tensors: ...


class Density(Protocol):
    """The parts of a flow that are used here; the flow itself stands on a higher level."""

    @property
    def graph(self) -> Any: ...

    @property
    def latents(self) -> Any: ...  # a LatentDensity

    @property
    def has_rsample(self) -> bool: ...


class FlowDistribution(NoClosedForms):
    """The density of a flow under given conditions: see :meth:`invgraph.Flow.given`.

    ``sample``, ``rsample``, ``log_prob`` and ``expand`` are those of ``torch.distributions``. Moments, ``entropy``,
    ``cdf`` and ``mode`` have no closed form: they raise a ``ClosedFormError``, a ``NotImplementedError`` that says how
    to estimate them from samples. For a divergence from another distribution ``p``, draw with
    :meth:`rsample_and_log_prob` and average ``log_q - p.log_prob(x)``.

    The flow's parameters stay those of the flow: the distribution follows them when they are trained, and gradients
    reach them. What depends on the conditions alone is computed once while no gradients are recorded.

    Arguments:
        flow: A flow over a graph with one input.
        c: Conditions ``batch_shape + shape``, for each condition of the graph. Default: none, batch shape ``()``.
        validate_args: True to refuse values that are NaN. Default: as torch does, True unless Python runs with ``-O``.

    Raises:
        GraphError: If the graph has several inputs.
        ShapeError: If conditions, or a value, have another shape.
        InputTypeError: If conditions, or a value, are not tensors of floating-point numbers.

    Example:
        >>> import torch, invgraph as ig
        >>> x, c = ig.InputNode(2, name="x"), ig.ConditionNode(3, name="c")
        >>> args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
        >>> flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=c), c))
        >>> posterior = flow.given(torch.zeros(3))
        >>> samples, log_prob = posterior.rsample_and_log_prob((1000,))
        >>> samples.shape, torch.allclose(log_prob, posterior.log_prob(samples), atol=1e-5)
        (torch.Size([1000, 2]), True)
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  # as torch declares it

    def __init__(self, flow: Density, c: Structured = (), *, validate_args: bool | None = None) -> None:
        graph: Bijection = flow.graph
        shapes = graph._inputs().shapes
        if len(shapes) != 1:
            advice = "a distribution is over one tensor: join the inputs in the graph, or use Flow.log_prob and sample"
            raise GraphError("Flow.given", f"a graph with {len(shapes)} inputs", advice)
        conditioned = Conditioned("Flow.given", graph, c)
        self._hold(flow, conditioned, torch.Size())
        super().__init__(conditioned.batch_shape, torch.Size(shapes[0]), validate_args=validate_args)

    def _hold(self, flow: Density, conditioned: Conditioned, extra: torch.Size) -> None:
        self.flow, self._under = flow, conditioned
        self._extra = extra  # leading axes of the batch that the conditions don't have: they fold into the samples

    @property
    def _conditioned(self) -> Conditioned:
        """The flow's graph, which may have been exchanged, under the conditions."""
        self._under = self._under.of(self.flow.graph)
        return self._under

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        return self.flow.has_rsample

    @property
    def support(self) -> constraints.Constraint:
        """Interval of each element outside of which the density is zero, such as that of a ``Box``; or real numbers.

        A layer that does not declare its domain counts as one for all real numbers, and so does a base whose support is
        not an interval, or not known. For values outside, ``log_prob`` is minus infinity, and no error is raised; only
        such a base may raise one.
        """
        graph: Bijection = self.flow.graph
        latents: LatentDensity = self.flow.latents
        return as_constraint(graph._follow_ends(latents.ends, inverse=True)[0], tuple(self.event_shape))

    def expand(self, batch_shape: _size, _instance: Any = None) -> Any:
        """Return the distribution with a larger batch shape; new leading axes cost nothing."""
        new = self._get_checked_instance(FlowDistribution, _instance)  # type: ignore[no-untyped-call]
        sizes = (batch_shape,) if is_int(batch_shape) else tuple(batch_shape)
        if not all(is_int(size) and size >= 0 for size in sizes):
            raise GraphError("FlowDistribution.expand", f"batch_shape={sizes}", "sizes must be ints, 0 or more")
        wide = torch.Size(sizes)
        core = self._conditioned.batch_shape
        pairs = zip(wide[::-1], self.batch_shape[::-1], strict=False)
        if len(wide) < len(self.batch_shape) or any(size not in (new_size, 1) for new_size, size in pairs):
            given = f"batch_shape={tuple(wide)}"
            raise GraphError("FlowDistribution.expand", given, f"{tuple(self.batch_shape)} can't be expanded to it")
        extra, own = wide[: len(wide) - len(core)], wide[len(wide) - len(core) :]
        new._hold(self.flow, self._conditioned if own == core else self._conditioned.expand(own), extra)
        super(FlowDistribution, new).__init__(wide, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draw samples ``sample_shape + batch_shape + event_shape``, without gradient."""
        return self._draw(sample_shape)[0]

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Draw samples like :meth:`sample`, with gradients with respect to parameters and conditions."""
        self._require_rsample("rsample")
        return self._draw(sample_shape)[0]

    @torch.no_grad()
    def sample_and_log_prob(self, sample_shape: _size = ()) -> tuple[Tensor, Tensor]:
        """Draw samples and return them with their log-densities, from one run of the graph; without gradient."""
        return self._draw_and_score(sample_shape)

    def rsample_and_log_prob(self, sample_shape: _size = ()) -> tuple[Tensor, Tensor]:
        """Draw samples and return them with their log-densities, with gradients, as a variational bound needs them."""
        self._require_rsample("rsample_and_log_prob")
        return self._draw_and_score(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log-densities in nats, shape ``sample_shape + batch_shape``."""
        full = broadcast_value("FlowDistribution.log_prob", value, tuple(self.event_shape), self.batch_shape)
        if self._validate_args and not all_true(value.isnan().logical_not()):
            raise GraphError("FlowDistribution.log_prob", "a value with NaN", "not in the support: real numbers")
        zs, log_det = self._conditioned.forward((full,))
        return self._score(zs, log_det)

    def to_pyro(self) -> Any:
        """Return the distribution with Pyro's methods, for ``pyro.sample`` in models and guides.

        Register the flow's parameters with ``pyro.module("flow", flow)``.

        Raises:
            DependencyError: If pyro-ppl is not installed.
        """
        kind = _pyro_class()
        return self.expand(self.batch_shape, kind.__new__(kind))

    def _score(self, zs: Tensors, log_det: Tensor) -> Tensor:
        ports = self.flow.graph._outputs()
        flat = tuple(z.reshape(log_det.numel(), *shape) for z, shape in zip(zs, ports.shapes, strict=True))
        latents: LatentDensity = self.flow.latents
        return require_precise(latents.log_prob(flat).reshape(log_det.shape) + log_det)

    def _draw(self, sample_shape: _size) -> tuple[Tensor, Tensors, Tensor]:
        """Return samples, their latents, and the log-determinants of the inverse."""
        ahead = _as_size(sample_shape) + self.batch_shape
        own, rows, density = floating_tensor(self.flow.graph), self._conditioned.rows, self.flow.latents
        latents: Tensors = density.draw(math.prod(ahead), 1.0, None, rows[0] if own is None and rows else own)
        zs = tuple(z.reshape(*ahead, *z.shape[1:]) for z in latents)
        (x,), log_det = self._conditioned.inverse(zs)
        return x, zs, log_det

    def _draw_and_score(self, sample_shape: _size) -> tuple[Tensor, Tensor]:
        x, zs, log_det = self._draw(sample_shape)
        return x, self._score(zs, -log_det)

    def _require_rsample(self, method: str) -> None:
        if not self.has_rsample:
            advice = "the base has no rsample, so samples have no gradients: call sample, or use another base"
            raise ArgumentError(f"FlowDistribution.{method}", "a flow without rsample", advice)

    def __repr__(self) -> str:
        shapes = f"batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)}"
        return f"{type(self).__name__}({shapes})"


def _as_size(sample_shape: object) -> torch.Size:
    if not isinstance(sample_shape, Sequence) or not all(is_int(size) and size >= 0 for size in sample_shape):
        given = f"sample_shape={sample_shape!r}"
        raise ArgumentError("FlowDistribution", given, "sample_shape must be a tuple of ints, such as (1000,)")
    return torch.Size(sample_shape)


@functools.cache
def _pyro_class() -> Any:
    """Return the class with Pyro's methods; it is made here because importing Pyro takes a second."""
    try:
        from pyro.distributions.torch_distribution import TorchDistributionMixin
    except ModuleNotFoundError as error:
        raise DependencyError("to_pyro", "no package pyro", "pip install pyro-ppl") from error

    def expand(self: Any, batch_shape: _size, _instance: Any = None) -> Any:
        new = kind.__new__(kind) if _instance is None else _instance
        return FlowDistribution.expand(self, batch_shape, new)

    def reduce(self: Any) -> Any:
        plain = FlowDistribution.expand(self, self.batch_shape, FlowDistribution.__new__(FlowDistribution))
        return FlowDistribution.to_pyro, (plain,)

    methods = {"__doc__": FlowDistribution.to_pyro.__doc__, "expand": expand, "__reduce__": reduce}
    kind: Any = type("PyroFlowDistribution", (FlowDistribution, TorchDistributionMixin), methods)
    return kind
