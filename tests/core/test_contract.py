"""Every check of the contract on every case of the table; ``CHECKS`` lists the checks.

All run in float64. In float32 the fast suite has those that rounding can break, and the slow one has the others.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import math
import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cases import CASES, PARTS, Case
from flat import Flat
from measures import draw, equal, gap, jacobian
from torch import Tensor

import invgraph as ig
from invgraph.numerics.interval import REALS

CHECKS = {
    "shapes": "outputs have the declared shapes and the data's dtype and device",
    "round_trip": "forward, then inverse, gives the inputs",
    "inverse_round_trip": "inverse, then forward, gives the outputs",
    "log_det": "the log-det is that of the autograd Jacobian",
    "log_dets_cancel": "the log-dets of the two directions cancel",
    "log_det_form": "the log-det has shape (B,) and the data's dtype and device",
    "pure": "no tensor of the caller changes, and no result changes later",
    "layouts": "non-contiguous, channels-last and expanded inputs give the same results",
    "rows": "the rows of a batch are independent; batches of 0, 1 and 3 work",
    "gradients": "gradients equal difference quotients; every parameter gets a finite one in both directions",
    "repeatable": "two calls, and two modules built alike, give bit-equal results",
    "copies": "state_dict, pickle and deepcopy keep everything",
    "moves": "double(), to('meta') and bfloat16 move everything",
    "global_state": "the global random states stay untouched",
    "train_equals_eval": "training mode gives the results of evaluation, or fresh ones if the module is stochastic",
    "vmap": "torch.vmap gives the results of a batch",
    "extreme": "huge and tiny numbers, knots, edges of the domain and their neighbors give no NaN",
    "ranges": "results lie in the declared range and domain, and those of the table are declared",
    "no_grad": "without gradients the results are the same up to rounding",
}
DTYPES = {"float64": torch.float64, "float32": torch.float32}
LOG_DET = {torch.float64: 1e-9, torch.float32: 1e-3}
EACH_PART = frozenset(case.id for case in PARTS)
"""Cases with each layer, transform and subnet once: the fast suite's, for checks that take long."""


def every(
    check: str, *dtypes: str, slow: tuple[str, ...] = (), fast: frozenset[str] | None = None
) -> Callable[[Any], Any]:
    """Run a test on every case that does not opt out of the check, in these dtypes (default: both).

    Those of the dtypes that are named ``slow`` run in the slow suite only: there the check is one of structure, which
    rounding does not change. So do the cases whose id is not in ``fast``.
    """
    assert check in CHECKS
    pairs = []
    for case in (case for case in CASES if check not in case.without):
        for name in dtypes or DTYPES:
            marks = pytest.mark.slow if name in slow or (fast is not None and case.id not in fast) else ()
            pairs.append(pytest.param(case, DTYPES[name], id=f"{case.id}-{name}", marks=marks))
    return pytest.mark.parametrize(("case", "dtype"), pairs)


def round_trip(case: Case, dtype: torch.dtype) -> float:
    return case.tolerance if dtype == torch.float64 else case.tolerance32


def directions(case: Case, module: Any, dtype: torch.dtype, **kwargs: int) -> Any:
    """Both directions, each with data of its own to call it with."""
    return (
        (module, *case.data(module, dtype, **kwargs)),
        (module.inverse, *case.latents(module, dtype, **kwargs)),
    )


_CALLED: dict[tuple[int, torch.dtype, int], Any] = {}
"""Results of ``called`` by the id of their case, dtype and batch size."""


def called(case: Case, dtype: torch.dtype, batch: int = 3) -> Any:
    """Both directions of the module that checks share, each with data of its own and the results, without gradients.

    For checks that compare results with something; those that look at a call itself make it.
    """
    key = (id(case), dtype, batch)
    if key not in _CALLED:
        _CALLED[key] = []
        for call, xs, cs in directions(case, case.built(dtype), dtype, batch=batch):
            ys, log_det = call(xs, cs)
            _CALLED[key].append((call, xs, cs, tuple(y.detach() for y in ys), log_det.detach()))
    return _CALLED[key]


_BACK: dict[tuple[int, torch.dtype], Any] = {}
"""Results of ``there_and_back`` by the id of their case and dtype."""


def there_and_back(case: Case, dtype: torch.dtype) -> Any:
    """Return ``(values, log_det)`` of the other direction, for the results of each, in a batch of 16."""
    key = (id(case), dtype)
    if key not in _BACK:
        (forward, _, cs, ys, _), (inverse, _, ds, xs, _) = called(case, dtype, 16)
        (back, log_det), (again, other) = inverse(ys, cs), forward(xs, ds)
        _BACK[key] = (back, log_det.detach()), (again, other.detach())
    return _BACK[key]


@every("shapes", slow=("float32",))
def test_declared_shapes_are_real(case: Case, dtype: torch.dtype) -> None:
    module = case.built(dtype)
    for (call, xs, cs), shapes in zip(
        directions(case, module, dtype), (module.out_shapes, module.in_shapes), strict=True
    ):
        ys, _ = call(xs, cs)
        assert isinstance(ys, tuple)
        assert [tuple(y.shape) for y in ys] == [(3, *shape) for shape in shapes]
        assert all(y.dtype == dtype and y.device == xs[0].device for y in ys)
    assert sum(x[0].numel() for x in xs) == sum(y[0].numel() for y in ys)


@every("round_trip")
def test_forward_then_inverse(case: Case, dtype: torch.dtype) -> None:
    back, _ = there_and_back(case, dtype)[0]
    assert gap(back, called(case, dtype, 16)[0][1]) <= round_trip(case, dtype)


@every("inverse_round_trip")
def test_inverse_then_forward(case: Case, dtype: torch.dtype) -> None:
    back, _ = there_and_back(case, dtype)[1]
    assert gap(back, called(case, dtype, 16)[1][1]) <= round_trip(case, dtype)


@every("log_det", "float64")
def test_log_det_is_the_jacobians(case: Case, dtype: torch.dtype) -> None:
    for call, xs, cs, _, log_det in called(case, dtype):
        exact = torch.linalg.slogdet(jacobian(lambda xs, call=call, cs=cs: call(xs, cs), xs)).logabsdet
        assert gap((log_det,), (exact,)) <= LOG_DET[dtype]


@every("log_det", "float32")
def test_log_det_in_float32_is_that_in_float64(case: Case, dtype: torch.dtype) -> None:
    wide = case.build(dtype).double()
    for call, (_, xs, cs, _, log_det) in zip((wide, wide.inverse), called(case, dtype), strict=True):
        exact = call(tuple(x.double() for x in xs), tuple(c.double() for c in cs))[1]
        assert gap((log_det.double(),), (exact,)) <= LOG_DET[dtype]


@every("log_dets_cancel")
def test_log_dets_cancel(case: Case, dtype: torch.dtype) -> None:
    for (_, _, _, _, there), (_, back) in zip(called(case, dtype, 16), there_and_back(case, dtype), strict=True):
        assert gap((there,), (-back,)) <= round_trip(case, dtype)


@every("log_det_form", slow=("float32",))
def test_log_det_has_the_datas_form(case: Case, dtype: torch.dtype) -> None:
    for _, xs, _, _, log_det in called(case, dtype):
        assert log_det.shape == (3,)
        assert log_det.dtype == dtype
        assert log_det.device == xs[0].device


@every("pure", slow=("float32",))
def test_no_tensor_of_the_caller_changes(case: Case, dtype: torch.dtype) -> None:
    module = case.built(dtype)
    state = copy.deepcopy(module.state_dict())
    for call, xs, cs in directions(case, module, dtype):
        given = (*xs, *cs)
        before = [(tensor.clone(), tensor._version) for tensor in given]
        ys, log_det = call(xs, cs)
        assert all(torch.equal(t, old) and t._version == v for t, (old, v) in zip(given, before, strict=True))
        # Nor do results change later: what a call returned is the caller's, whatever is called next.
        kept = [t.clone() for t in (*ys, log_det)]
        call(xs, cs)
        assert all(torch.equal(a, b) for a, b in zip(kept, (*ys, log_det), strict=True))
    # Nor does the module: other checks call the same one.
    assert all(torch.equal(a, b) for a, b in zip(state.values(), module.state_dict().values(), strict=True))


def strided(x: Tensor) -> Tensor:
    """The same numbers, every other place in memory."""
    return torch.stack((x, x), dim=-1)[..., 0]


def channels_last(x: Tensor) -> Tensor:
    if x.ndim == 4:
        return x.contiguous(memory_format=torch.channels_last)
    return x.transpose(0, -1).contiguous().transpose(0, -1)


@every("layouts", slow=("float32",))
def test_memory_layout_changes_nothing(case: Case, dtype: torch.dtype) -> None:
    close = 1e-12 if dtype == torch.float64 else 1e-4
    for call, xs, cs, ys, log_det in called(case, dtype):
        for layout in (strided, channels_last):
            zs, other = call(tuple(map(layout, xs)), tuple(map(layout, cs)))
            assert gap((*ys, log_det), (*zs, other)) <= close
        ones = [tuple(t[:1].expand(3, *t.shape[1:]) for t in ts) for ts in (xs, cs)]
        zs, other = call(*ones)
        first, its = call(*[tuple(t.contiguous() for t in ts) for ts in ones])
        assert gap((*first, its), (*zs, other)) <= close


@every("rows", slow=("float32",))
def test_rows_are_independent(case: Case, dtype: torch.dtype) -> None:
    close = 1e-12 if dtype == torch.float64 else 1e-4
    for call, xs, cs, ys, log_det in called(case, dtype):
        for rows in (slice(0, 1), slice(1, 2), slice(2, 3), slice(0, 2)):
            zs, other = call(tuple(x[rows] for x in xs), tuple(c[rows] for c in cs))
            assert gap((*(y[rows] for y in ys), log_det[rows]), (*zs, other)) <= close
        zs, other = call(tuple(x[:0] for x in xs), tuple(c[:0] for c in cs))
        assert [z.shape for z in zs] == [(0, *y.shape[1:]) for y in ys]
        assert other.shape == (0,)


def gradcheck(call: Any, xs: tuple[Tensor, ...], cs: tuple[Tensor, ...], parameters: tuple[Tensor, ...] = ()) -> bool:
    """Compare autograd's gradients of inputs, conditions and these parameters, each by itself, with differences."""
    inputs = tuple(t.clone().requires_grad_() for t in (*xs, *cs))

    def function(*tensors: Tensor) -> Any:
        ys, log_det = call(tensors[: len(xs)], tensors[len(xs) : len(inputs)])
        return (*ys, log_det) if log_det.requires_grad else ys

    return torch.autograd.gradcheck(function, (*inputs, *parameters), fast_mode=True, check_batched_grad=False)


@every("gradients", "float64", fast=EACH_PART)
def test_gradcheck_of_inputs_and_conditions(case: Case, dtype: torch.dtype) -> None:
    for call, xs, cs in directions(case, case.built(dtype), dtype):
        assert gradcheck(call, xs, cs)


@pytest.mark.slow
@every("gradients", "float64")
def test_gradcheck_of_each_parameter(case: Case, dtype: torch.dtype) -> None:
    module = case.build(dtype)
    for call, xs, cs in directions(case, module, dtype):
        assert gradcheck(call, xs, cs, tuple(p for p in module.parameters() if p.requires_grad))


def weighted(ys: tuple[Tensor, ...], log_det: Tensor) -> Tensor:
    """Sum over all outputs with random weights, the same in every call."""
    weights = draw([t.shape[1:] for t in (*ys, log_det)], len(log_det), seed=1, dtype=log_det.dtype)
    return torch.stack([(w * t).sum() for w, t in zip(weights, (*ys, log_det), strict=True)]).sum()


@every("gradients", "float64")
def test_gradients_of_all_parameters_together(case: Case, dtype: torch.dtype) -> None:
    """Along one random direction, by a difference quotient, to 1e-7: one element that is wrong by 1 % shows."""
    module = case.build(dtype)
    parameters = [p for p in module.parameters() if p.requires_grad]
    if not parameters:
        return
    starts = [p.detach().clone() for p in parameters]
    steps = [1e-6 * draw([p.shape], 1, seed=2)[0][0] for p in parameters]
    for call, xs, cs in directions(case, module, dtype):
        inputs = tuple(tuple(t.clone().requires_grad_() for t in ts) for ts in (xs, cs))
        gradients = torch.autograd.grad(weighted(*call(*inputs)), parameters)
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, start, step in zip(parameters, starts, steps, strict=True):
                    p.copy_(start + sign * step)
            ends.append(weighted(*call(*inputs)).item())
        with torch.no_grad():
            for p, start in zip(parameters, starts, strict=True):
                p.copy_(start)
        changes = torch.cat([(g * step).flatten() for g, step in zip(gradients, steps, strict=True)])
        assert abs((ends[0] - ends[1]) / 2 - changes.sum().item()) <= 1e-7 * changes.abs().sum().clamp_min(1e-6).item()


@every("gradients", slow=("float32",))
def test_every_parameter_gets_a_finite_gradient(case: Case, dtype: torch.dtype) -> None:
    module = case.built(dtype)
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    for call, xs, cs in directions(case, module, dtype):
        ys, log_det = call(xs, cs)
        total = torch.stack([y.square().sum() for y in ys]).sum() + log_det.sum()
        if not named:
            continue
        gradients = torch.autograd.grad(total, list(named.values()), allow_unused=True)
        for name, gradient in zip(named, gradients, strict=True):
            assert gradient is not None, name
            assert bool(gradient.isfinite().all()), name
            assert bool(gradient.any()), name


@every("repeatable", slow=("float32",), fast=EACH_PART)
def test_twice_is_bit_equal(case: Case, dtype: torch.dtype) -> None:
    module = case.build(dtype)
    for call, xs, cs in directions(case, module, dtype):
        assert equal(call(xs, cs), call(xs, cs))
    again = case.build_anew(dtype)
    for (call, xs, cs), (other, _, _) in zip(
        directions(case, module, dtype), directions(case, again, dtype), strict=True
    ):
        assert equal(call(xs, cs), other(xs, cs))


@every("copies", slow=("float32",), fast=EACH_PART)
def test_copies_are_equal(case: Case, dtype: torch.dtype) -> None:
    module = case.build(dtype)
    loaded = case.build(dtype, seed=7)
    loaded.load_state_dict(module.state_dict(), strict=True)
    for twin in (loaded, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert list(twin.state_dict()) == list(module.state_dict())
        for (call, xs, cs), (other, _, _) in zip(
            directions(case, module, dtype), directions(case, twin, dtype), strict=True
        ):
            assert equal(call(xs, cs), other(xs, cs))


@every("moves", "float32")
def test_double_moves_everything(case: Case, dtype: torch.dtype) -> None:
    module = case.build(dtype).double()
    xs, cs = case.data(module, torch.float64)
    assert gap(module.inverse(module(xs, cs)[0], cs)[0], xs) <= case.tolerance
    meta = module.to("meta")
    for part in meta.modules():
        held = [*part.parameters(), *part.buffers(), *(v for v in vars(part).values() if isinstance(v, Tensor))]
        assert all(tensor.is_meta for tensor in held)


@every("moves", "float64", fast=EACH_PART)
def test_meta_tensors_pass_through(case: Case, dtype: torch.dtype) -> None:
    """Torch takes ten times as long for them as for real ones: the fast suite takes each layer and transform once."""
    meta = case.build(dtype).to("meta")
    for (call, xs, cs), shapes in zip(directions(case, meta, dtype), (meta.out_shapes, meta.in_shapes), strict=True):
        ys, log_det = call(tuple(x.to("meta") for x in xs), tuple(c.to("meta") for c in cs))
        assert [tuple(y.shape[1:]) for y in ys] == list(shapes)
        assert all(y.is_meta and y.dtype == dtype for y in (*ys, log_det))


@every("moves", "float32")
def test_bfloat16_runs(case: Case, dtype: torch.dtype) -> None:
    module = case.build(dtype).to(torch.bfloat16)
    for call, xs, cs in directions(case, module, torch.bfloat16):
        ys, log_det = call(xs, cs)
        assert all(y.dtype == torch.bfloat16 for y in (*ys, log_det))
        assert all(bool(y.isfinite().all()) for y in (*ys, log_det))


@every("global_state", slow=("float32",))
def test_global_random_states_stay_untouched(case: Case, dtype: torch.dtype) -> None:
    module = case.build(dtype)
    calls = directions(case, module, dtype)
    before = random_states()
    for call, xs, cs in calls:
        call(xs, cs)
    # The first weights of a network are torch's affair.
    if case.make is None and not {"subnet", "hidden", "width"} & set(case.args):
        case.cls(case.in_shapes, case.cond_shapes, **case.args)
    assert random_states() == before


def random_states() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), pickle.dumps(np.random.get_state()), random.getstate()


@every("train_equals_eval", slow=("float32",))
def test_training_equals_evaluation(case: Case, dtype: torch.dtype) -> None:
    module = case.build(dtype)
    twin = copy.deepcopy(module).eval()
    module.train()
    if module.stochastic:
        assert_draws_anew(case, module, twin, dtype)
        return
    for (call, xs, cs), (other, _, _) in zip(
        directions(case, module, dtype), directions(case, twin, dtype), strict=True
    ):
        assert equal(call(xs, cs), other(xs, cs))


def assert_draws_anew(case: Case, module: ig.Invertible, twin: ig.Invertible, dtype: torch.dtype) -> None:
    """In training each call draws from torch's global generator, and only from that; in evaluation nothing is drawn."""
    xs, cs = case.data(module, dtype)
    first, state = module(xs, cs), random_states()
    assert not equal(first, module(xs, cs))
    assert random_states()[0] != state[0]
    assert random_states()[1:] == state[1:]
    with torch.random.fork_rng(devices=()):
        results = []
        for other in (module, copy.deepcopy(module)):
            torch.manual_seed(5)
            results.append(other(xs, cs))
        assert equal(*results)
    state = random_states()
    assert equal(twin(xs, cs), twin(xs, cs))
    assert random_states() == state


@every("vmap", slow=("float32",))
def test_vmap(case: Case, dtype: torch.dtype) -> None:
    close = 1e-12 if dtype == torch.float64 else 1e-4
    for call, xs, cs, ys, log_det in called(case, dtype):
        rows = [tuple(t.unsqueeze(1) for t in ts) for ts in (xs, cs)]
        zs, other = torch.vmap(call)(*rows)
        assert gap((*ys, log_det), (*(z.squeeze(1) for z in zs), other.squeeze(1))) <= close


def extremes(interval: tuple[float, float] | None, shapes: Any, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Rows of one extreme number each, and rows that mix them; within the closed interval, where there is one."""
    info = torch.finfo(dtype)
    centers = [-3.0, 0.0, 1.0, 3.0] if interval is None else [*interval, sum(interval) / 2]
    near = torch.tensor(centers, dtype=dtype)
    around = torch.cat([near, *(near.nextafter(torch.full_like(near, way)) for way in (-torch.inf, torch.inf))])
    tiny = torch.tensor([info.tiny, info.tiny / 8, info.eps], dtype=dtype)
    huge = torch.tensor([1e4, 1e10, 1e20, 1e30], dtype=dtype)
    numbers = torch.cat((around, tiny, -tiny, huge, -huge, torch.tensor([-0.0], dtype=dtype)))
    if interval is not None:
        numbers = numbers[(numbers >= interval[0]) & (numbers <= interval[1])]
    rows = torch.arange(len(numbers))[:, None]

    def filled(size: int) -> Tensor:
        return torch.cat((numbers[rows.expand(-1, size)], numbers[(rows + 5 * torch.arange(size)) % len(numbers)]))

    return tuple(filled(math.prod(shape)).unflatten(1, shape) for shape in shapes)


@every("extreme")
def test_extreme_numbers_give_no_nan(case: Case, dtype: torch.dtype) -> None:
    """Nor infinities, but at the edges of a domain."""
    module = case.built(dtype) if not case.built(dtype).training else case.build(dtype).eval()
    for (call, _, _), shapes, interval in zip(
        directions(case, module, dtype),
        (module.in_shapes, module.out_shapes),
        (case.domain, case.codomain),
        strict=True,
    ):
        xs = extremes(interval, shapes, dtype)
        _, cs = case.data(module, dtype, batch=len(xs[0]))
        with torch.no_grad():
            ys, log_det = call(xs, cs)
        edges = torch.tensor(interval or (), dtype=dtype)
        inside = ~torch.stack([torch.isin(x, edges).flatten(1).any(1) for x in xs]).any(0)
        for result in (*ys, log_det):
            assert not bool(result.isnan().any())
            assert bool(result[inside].isfinite().all())


@every("ranges", "float64")
def test_results_lie_in_the_declared_range(case: Case, dtype: torch.dtype) -> None:
    """Of a layer's own data and of numbers that reach far; a bounded domain or range of the table is declared."""
    module = case.built(dtype)
    for (call, xs, cs), declared, interval, there in zip(
        directions(case, module, dtype, batch=64),
        (module.range, module.domain),
        (case.domain, case.codomain),
        (case.codomain, case.domain),
        strict=True,
    ):
        if case.cls is ig.Dequantize and call is module:
            xs = tuple(x.floor() for x in xs)  # the checks of the table take neighbors of integers too
        with torch.no_grad():
            found = [call(xs, cs)[0]]
            if interval is None and case.cls is not ig.Dequantize:
                found.append(call(tuple(20 * x for x in xs), cs)[0])
        assert len(declared) == len(found[0])
        for ys in found:
            for y, own in zip(ys, declared, strict=True):
                assert own is None or (y.min() >= own.low and y.max() <= own.high)
        bounded = [own for own in declared if own is not None and own != REALS]
        assert (there is not None) == bool(bounded), declared


def test_every_layer_and_transform_declares_its_range() -> None:
    """All but those that keep the range of their data, which is not known before they are wired."""
    keeping = {ig.Permute, ig.Squeeze, ig.Flatten, ig.Reshape, ig.Split, ig.Concat, ig.Inverse, ig.Graph}
    splines = {ig.LinearSpline, ig.QuadraticSpline, ig.CubicSpline, ig.RationalQuadraticSpline}
    for case in CASES:
        transform = case.args.get("transform")
        each = transform if isinstance(transform, tuple) else (transform,)
        keeps = case.cls in keeping or any(type(one) in splines for one in each)
        assert keeps or None not in (*case.build().range, *case.build().domain), case.id


def public(kind: type) -> set[type]:
    """The classes of the package of this kind that can be used as they are."""
    named = {value for value in vars(ig).values() if inspect.isclass(value) and issubclass(value, kind)}
    return {value for value in named if not inspect.isabstract(value)}


@every("no_grad")
def test_gradients_change_no_number(case: Case, dtype: torch.dtype) -> None:
    for call, xs, cs, ys, log_det in called(case, dtype):
        with torch.no_grad():
            plain = call(xs, cs)
        for one, other in zip((*ys, log_det), (*plain[0], plain[1]), strict=True):
            room = {torch.float64: 1e-13, torch.float32: 1e-5}[dtype]
            assert (one - other).abs().max() <= room * max(1.0, other.abs().max().item())


def test_every_layer_has_a_case() -> None:
    assert public(ig.Invertible) - {case.cls for case in CASES} == set()


def test_every_transform_has_a_case() -> None:
    assert public(ig.Transform) - {type(case.args.get("transform")) for case in CASES} == set()


def test_case_names_differ() -> None:
    names = [case.id for case in CASES]
    assert len(names) == len(set(names))


def test_opting_out_names_a_check_and_says_why() -> None:
    for check, reason in itertools.chain.from_iterable(case.without.items() for case in CASES):
        assert check in CHECKS
        assert len(reason) > 10


def test_a_graph_declared_alone_takes_tensors() -> None:
    built = [case.build() for case in CASES if case.make and case.make.__name__ == "single_graph"]
    assert [isinstance(module, Flat) for module in built] == [True]
    z, log_det = built[0].module(torch.zeros(2, 4, dtype=torch.float64), torch.zeros(2, 3, dtype=torch.float64))
    assert z.shape == (2, 4)
    assert log_det.shape == (2,)
