"""Continuous-time flow: data follow an ordinary differential equation whose vector field is a network."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from invgraph.arguments import require_choice, require_count, require_positive
from invgraph.core.invertible import Result
from invgraph.core.stochastic import Stochastic, signs
from invgraph.core.subnet import check_subnet, make_subnet
from invgraph.errors import DependencyError, GraphError, NumericsError
from invgraph.numerics.linalg import own_precision
from invgraph.shapes import Shape, Tensors
from invgraph.torch_internals import batch_norms, forward_mode, packs_saved_tensors

State = tuple[Tensor, Tensor]
_ADAPTIVE = ("dopri5", "dopri8", "bosh3", "adaptive_heun")
Field = Callable[[float | Tensor, State], State]


class ContinuousFlow(Stochastic):
    r"""Move data along the vector field that a network defines (FFJORD).

    .. math:: \frac{dx}{dt} = f(x, t, c), \qquad
              \log |\det J| = \int_0^T \operatorname{tr} \frac{\partial f}{\partial x} \, dt

    Both directions integrate the same equation, so they invert each other up to the error of the solver, and the
    log-determinant has an error of the same order. With the built-in classical Runge-Kutta scheme the error falls with
    the fourth power of ``steps``; with a solver of torchdiffeq it follows ``tolerance``. The network should be smooth,
    as ``nets.ResidualMLP`` and ``nets.ResidualConvNet`` are: the kinks of a ReLU reduce the order of the scheme.
    Autocast is disabled inside the solver.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``; conditions of any shapes that the subnet accepts.

    Log-det:
        Integral of the trace, nats per sample. With ``trace="exact"`` it takes D backward passes of the network for D
        elements. With ``trace="estimate"`` it takes one, with a random vector of signs (Hutchinson), the same for all
        steps of a call. The estimate is unbiased. In ``train()`` mode each call draws a new vector from torch's global
        generator; in ``eval()`` mode both directions use the same one until :func:`~invgraph.reseed` draws another.

    Arguments:
        in_shapes: Shape of the input.
        cond_shapes: Shapes of the conditions.
        subnet: Factory ``f(channels_in, channels_out) -> nn.Module`` of the vector field's network, which gets the time
            as an additional condition of shape ``(B, 1)``.
        time: Length T of the time interval. Default: 1.
        steps: Number of steps of the built-in solver, which takes 16 by default; adaptive ones choose their own.
        trace: ``"exact"`` (default) or ``"estimate"``.
        solver: ``"rk4"`` (default), which is built in, or one of torchdiffeq's adaptive solvers ``"dopri5"``,
            ``"dopri8"``, ``"bosh3"`` and ``"adaptive_heun"``, which choose their steps for the whole batch
            (``pip install torchdiffeq``).
        tolerance: Relative and absolute tolerance of torchdiffeq's solvers, 1e-6 by default; ``"rk4"`` has none.
        seed: Seed of the trace estimate in evaluation mode. Default: 0.
        fixed_noise: True to use the vector of the seed in training mode as well. Default: False.

    Raises:
        GraphError: If an argument is out of range or belongs to another solver, or the subnet does not fit.
        ArgumentError: If an argument has the wrong type.
        DependencyError: If the solver needs torchdiffeq, which is not installed.

    References:
        W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever, D. Duvenaud, "FFJORD: Free-form Continuous Dynamics
        for Scalable Reversible Generative Models", 2018, https://arxiv.org/abs/1810.01367; R. T. Q. Chen et al.,
        "Neural Ordinary Differential Equations", 2018, https://arxiv.org/abs/1806.07366

    Example:
        >>> import torch, invgraph as ig
        >>> flow = ig.ContinuousFlow((2,), ((3,),), subnet=ig.nets.ResidualMLP(hidden=16), steps=8)
        >>> (y,), log_det = flow((torch.ones(4, 2),), (torch.zeros(4, 3),))
        >>> y.shape, log_det.shape
        (torch.Size([4, 2]), torch.Size([4]))
    """

    range_kind = "any"
    conditional = True
    fixed_size_reason = None
    uses_torch_func = True  # which a compiled graph can't run under activation checkpointing

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        subnet: object,
        time: float = 1.0,
        steps: int | None = None,
        trace: Literal["exact", "estimate"] = "exact",
        solver: str = "rk4",
        tolerance: float | None = None,
        seed: int = 0,
        fixed_noise: bool = False,
    ) -> None:
        super().__init__(in_shapes, cond_shapes, seed=seed, fixed_noise=fixed_noise)
        where = "ContinuousFlow"
        self.time = require_positive(where, "time", time)
        self.exact = require_choice(where, "trace", trace, ("exact", "estimate")) == "exact"
        self.solver = solver = require_choice(where, "solver", solver, ("rk4", *_ADAPTIVE))
        if solver == "rk4" and tolerance is not None:
            advice = "it takes equal steps: give their number, steps, or one of torchdiffeq's solvers"
            raise GraphError(where, f"tolerance={tolerance!r} for solver='rk4'", advice)
        if solver != "rk4" and steps is not None:
            given = f"steps={steps!r} for solver={solver!r}"
            raise GraphError(where, given, "it chooses its steps: give tolerance, or solver='rk4'")
        self.steps = require_count(where, "steps", 16 if steps is None else steps)
        self.tolerance = require_positive(where, "tolerance", 1e-6 if tolerance is None else tolerance)
        if solver != "rk4":
            _import_odeint(solver)
        self.net = make_subnet("ContinuousFlow", subnet, *self._subnet_shapes())

    def _subnet_shapes(self) -> tuple[Shape, tuple[Shape, ...], Shape]:
        """Return the shapes of what the subnet reads, as data and conditions (the last is time), and returns."""
        return self.in_shapes[0], (*self.cond_shapes, (1,)), self.in_shapes[0]

    def _resize(self, before: tuple[Shape, ...]) -> None:
        super()._resize(before)
        check_subnet(self.label, self.net, *self._subnet_shapes())

    def _draws(self) -> bool:
        return super()._draws() and not self.exact

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        return self._flow(xs[0], cs, 0.0, self.time)

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        return self._flow(ys[0], cs, self.time, 0.0)

    def _flow(self, x: Tensor, cs: Tensors, start: float, end: float) -> Result:
        if any(norm.training for norm in batch_norms(self.net.modules())):
            given = "a BatchNorm in train() mode in the network"
            advice = "it makes a sample's velocity depend on the others, so no sample has a log-determinant of its own"
            raise GraphError(self.label, given, f"{advice}: use nn.LayerNorm or nn.GroupNorm, or call .eval() on it")
        probe = x if self.exact else signs(self.noise_seed(x), x)

        with own_precision(x):  # rounding to half precision would exceed the solver's error
            solve = self._in_equal_steps if self.solver == "rk4" else self._adapted
            y, log_det = solve(x, cs, probe, start, end)
        return (y,), log_det

    def _in_equal_steps(self, x: Tensor, cs: Tensors, probe: Tensor, start: float, end: float) -> State:
        return _runge_kutta(self._along(cs, probe), (x, x.new_zeros(x.shape[0])), start, end, self.steps)

    def _adapted(self, x: Tensor, cs: Tensors, probe: Tensor, start: float, end: float) -> State:
        """Return the end of all finite rows, which share their steps; the others, for which there is none, are NaN."""
        finite = torch.stack([value.flatten(1).isfinite().all(1) for value in (x, *cs)]).all(0)
        rows = finite.nonzero().squeeze(1)
        if len(rows) < len(x):
            part = x[rows], tuple([c[rows] for c in cs]), probe[rows]
            y, log_det = self._adapted(*part, start, end)
            nan = torch.full_like(x, math.nan), x.new_full(x.shape[:1], math.nan)
            return nan[0].index_copy(0, rows, y), nan[1].index_copy(0, rows, log_det)
        begin = (x, x.new_zeros(x.shape[0]))
        if not len(x):
            return begin
        times = torch.tensor([start, end], dtype=x.dtype, device=x.device)
        settings = {"rtol": self.tolerance, "atol": self.tolerance, "method": self.solver}
        try:
            ys, log_dets = _import_odeint(self.solver)(self._along(cs, probe), begin, times, **settings)
        except AssertionError as error:
            if "underflow in dt" not in str(error):
                raise
            given = f"data for which {self.solver} finds no step that is small enough"
            advice = "the velocity is NaN or changes too fast: look at the network, or give a larger tolerance"
            raise NumericsError(self.label, given, advice) from error
        return ys[-1], log_dets[-1]

    def _along(self, cs: Tensors, probe: Tensor) -> Field:
        """Return the vector field as a function of time and state."""

        def field(t: float | Tensor, state: State) -> State:
            moment = probe.new_ones(probe.shape[0], 1) * t
            return self._field(state[0], (*cs, moment), probe)

        return field

    def _field(self, x: Tensor, cs: Tensors, probe: Tensor) -> State:
        """Return the velocity, and the trace of its Jacobian per sample."""

        def velocity(at: Tensor) -> Tensor:
            return self.net(at, cs).to(x.dtype)

        if not torch.compiler.is_compiling() and packs_saved_tensors():
            return self._field_by_forward_mode(x, cs, probe)
        value, vjp = self._vjp(velocity, x)
        if not self.exact:
            (row,) = vjp(probe)
            return value, (row * probe).flatten(1).sum(1)
        dims = math.prod(self.in_shapes[0])
        basis = torch.eye(dims, dtype=x.dtype, device=x.device).view(dims, 1, *x.shape[1:]).expand(dims, *x.shape)
        (rows,) = torch.func.vmap(vjp)(basis)
        return value, rows.flatten(2).diagonal(dim1=0, dim2=2).sum(1)

    def _field_by_forward_mode(self, x: Tensor, cs: Tensors, probe: Tensor) -> State:
        """Return the same from directional derivatives, where ``torch.func`` can't run (activation checkpointing)."""
        dims = math.prod(self.in_shapes[0])
        if self.exact:
            basis = torch.eye(dims, dtype=x.dtype, device=x.device).view(dims, 1, *x.shape[1:])
            directions, count = basis.expand(dims, *x.shape).flatten(0, 1), dims
        else:
            directions, count = probe, 1
        points, given = (tuple([t.expand(count, *t.shape).flatten(0, 1) for t in side]) for side in ((x,), cs))
        with forward_mode(), forward_ad.dual_level():
            values = self.net(forward_ad.make_dual(points[0], directions), given).to(x.dtype)
            value, derivative = forward_ad.unpack_dual(values)
        terms = torch.zeros_like(directions) if derivative is None else derivative * directions
        return value[: x.shape[0]], torch.unflatten(terms.flatten(1).sum(1), 0, (count, -1)).sum(0)

    def _vjp(self, velocity: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Callable[..., Any]]:
        """Return the velocity and its vector-Jacobian product; what ``torch.func`` can't pass is refused by name."""
        if torch.compiler.is_exporting():
            advice = "torch can't export the derivatives that are taken inside: export the rest of the graph"
            raise GraphError(self.label, "a call under torch.export", advice)
        if torch.compiler.is_compiling():
            return torch.func.vjp(velocity, x)[:2]
        try:
            return torch.func.vjp(velocity, x)[:2]
        except RuntimeError as error:
            if "setup_context" not in str(error):
                raise
            given = "an autograd.Function in the network, such as a full backward hook"
            advice = "the trace of its Jacobian is taken inside, by torch.func, which can't pass it: remove it"
            raise GraphError(self.label, given, advice) from error

    def extra_repr(self) -> str:
        steps = f", steps={self.steps}" if self.solver == "rk4" else ""
        trace = "exact" if self.exact else "estimate"
        return f"{super().extra_repr()}, time={self.time}, solver={self.solver}{steps}, trace={trace}"


def _runge_kutta(field: Field, state: State, start: float, end: float, steps: int) -> State:
    """Integrate by the classical fourth-order scheme, in equal steps."""
    h = (end - start) / steps
    for index in range(steps):
        t = start + index * h
        first = field(t, state)
        second = field(t + h / 2, _euler_step(state, h / 2, first))
        third = field(t + h / 2, _euler_step(state, h / 2, second))
        fourth = field(t + h, _euler_step(state, h, third))
        for derivative, weight in ((first, 1), (second, 2), (third, 2), (fourth, 1)):
            state = _euler_step(state, h * weight / 6, derivative)
    return state


def _euler_step(state: State, h: float, derivative: State) -> State:
    return state[0] + derivative[0] * h, state[1] + derivative[1] * h


def _import_odeint(solver: str) -> Any:
    """Import torchdiffeq, which is optional, and return its integrator."""
    try:
        import torchdiffeq
    except ImportError as error:
        given = f"solver={solver!r}"
        advice = "needs a package: pip install torchdiffeq, or use the built-in solver='rk4'"
        raise DependencyError("ContinuousFlow", given, advice) from error
    return torchdiffeq.odeint
