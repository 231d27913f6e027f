"""Whatever people put on the layers of a subnet counts, in every layer and every runner.

One table: habits (tests/support/adapters.py) x graphs x runners. Two things tell what is right: the same graph with
``ig.fused(False)`` in the plain runner; and, independently of that switch, a graph whose weights were merged by hand.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from adapters import HABITS, Habit, Watch, apply, merge, nothing, places
from found import Found, compare, found
from torch import Tensor, nn

import invgraph as ig
from invgraph.testing import randomize

pytestmark = [
    # A hook on all modules is told that the inputs of some need no gradient.
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),
    # The compiler looks at every attribute of a tensor that it is given.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
]

AFFINE, ROWS, SAMPLES = ig.Affine(clamp=1.0), 3, 2
VECTOR, IMAGE = (4,), (2, 4, 4)
CONDITIONS = {VECTOR: ((2,), (3,)), IMAGE: ((2,), (1, 4, 4))}


def plain(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 5), nn.ReLU(), nn.Linear(5, channels_out))


def plain_conv(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels_in, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, channels_out, 1))


def coupling(subnet: Any, **args: Any) -> tuple[Any, dict[str, Any]]:
    return ig.Coupling, {"transform": AFFINE, "subnet": subnet, **args}


# Layer, its arguments, the shape of the data, and whether it runs without conditions and with them.
GRAPHS: dict[str, tuple[Any, dict[str, Any], tuple[int, ...], tuple[bool, ...]]] = {
    "MLP": (*coupling(ig.nets.MLP(5)), VECTOR, (False, True)),
    "MLP of 2 hidden layers": (*coupling(ig.nets.MLP(5, layers=2)), VECTOR, (False, True)),
    "ConvNet": (*coupling(ig.nets.ConvNet(3)), IMAGE, (False, True)),
    "ResidualMLP": (*coupling(ig.nets.ResidualMLP(4, blocks=1)), VECTOR, (False, True)),
    "ResidualConvNet": (*coupling(ig.nets.ResidualConvNet(3, blocks=1)), IMAGE, (False, True)),
    "UNet": (*coupling(ig.nets.UNet(2, levels=1)), IMAGE, (False, True)),
    "GatedAttention": (*coupling(ig.nets.GatedAttention(4, blocks=1, heads=2)), IMAGE, (False, True)),
    "ViT": (*coupling(ig.nets.ViT(4, depth=1, heads=2, patch=2)), IMAGE, (False, True)),
    "Sequential": (*coupling(plain), VECTOR, (False, True)),
    "Sequential of convolutions": (*coupling(plain_conv), IMAGE, (False, True)),
    "Autoregressive": (ig.Autoregressive, {"transform": AFFINE, "hidden": 5, "layers": 2}, VECTOR, (False, True)),
    "MaskedCoupling": (ig.MaskedCoupling, {"transform": AFFINE, "subnet": ig.nets.MLP(5)}, VECTOR, (False, True)),
    "AllInOne": (ig.AllInOne, {"subnet": ig.nets.MLP(5)}, VECTOR, (False, True)),
    "Elementwise": (ig.Elementwise, {"transform": AFFINE, "subnet": ig.nets.MLP(5)}, VECTOR, (True,)),
    "Householder": (ig.Householder, {"reflections": 2, "subnet": ig.nets.MLP(5)}, VECTOR, (True,)),
}


@functools.cache
def built(name: str, conditional: bool, scratch: bool = False) -> ig.Graph:
    """Two blocks of the layer; nothing is ever put on them. One of the two graphs is there to be written to."""
    cls, args, shape, _ = GRAPHS[name]
    x = ig.InputNode(*shape, name="x")
    cs = [ig.ConditionNode(*c, name=f"c{k}") for k, c in enumerate(CONDITIONS[shape] if conditional else ())]
    h: Any = x
    for _ in range(2):
        h = ig.Node(ig.Node(h, ig.Permute, {"order": tuple(reversed(range(shape[0])))}), cls, args, conditions=cs)
    graph = ig.Graph([x], [h], cs).double().eval()
    return randomize(graph, seed=1, scale=0.5)


class Subject:
    """A graph with a habit on its layers, and the graph without it whose weights give the same.

    Attributes:
        graph: The graph with the habit.
        parameters: Its parameters, or those of the graph that it is a copy of.
        merged: The other graph.
        watch: What the hooks saw.
    """

    def __init__(self, name: str, conditional: bool, habit: Habit, only: int | None = None) -> None:
        whole = copy.deepcopy(built(name, conditional))
        self.watch = Watch([])
        chosen = places(whole) if only is None else places(whole)[only : only + 1 or None]
        self.places = chosen
        amounts = [habit.put(place, self.watch) for place in chosen]
        whole.eval()
        self.merged = built(name, conditional, scratch=True)
        self.merged.load_state_dict(built(name, conditional).state_dict())
        merge(self.merged, amounts, only)
        self.parameters = tuple(whole.parameters())
        self.graph: Any = whole if habit.copies is None else habit.copies(whole)


def draw(graph: ig.Graph, rows: int, seed: int) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Values, and conditions of ``ROWS`` rows, repeated for as many samples as there are."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, graph.in_shapes), (ROWS, graph.cond_shapes))
    xs, cs = (tuple(torch.randn(n, *s, generator=generator, dtype=torch.float64) for s in many) for n, many in shapes)
    return tuple(x.requires_grad_() for x in xs), tuple(c.requires_grad_() for c in cs)


def repeated(cs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(c.repeat(SAMPLES, *(1,) * (c.ndim - 1)) for c in cs)


def direction(module: Any, inverse: bool) -> Callable[[Any, Any], Any]:
    return module.inverse if inverse else module


def run_plain(subject: Subject, inverse: bool) -> Iterator[tuple[str, Found]]:
    call, leaves = direction(subject.graph, inverse), draw(subject.graph, SAMPLES * ROWS, 0)
    yield "plain", found(lambda xs, cs: call(xs, repeated(cs)), leaves, subject.parameters, True)
    with torch.no_grad():
        yield "plain without gradient", found(lambda xs, cs: call(xs, repeated(cs)), leaves, (), False)


def run_bound(subject: Subject, inverse: bool) -> Iterator[tuple[str, Found]]:
    leaves = draw(subject.graph, SAMPLES * ROWS, 0)

    def call(xs: Any, cs: Any) -> Any:
        bound = subject.graph.bind(cs, gradients=True)
        ys, log_det = direction(bound, inverse)(tuple(x.unflatten(0, (SAMPLES, ROWS)) for x in xs))
        return tuple(y.flatten(0, 1) for y in ys), log_det.flatten(0, 1)

    if not subject.graph.cond_shapes:
        return
    yield "bound", found(call, leaves, subject.parameters, True)
    with torch.no_grad():
        yield "bound without gradient", found(call, leaves, (), False)


def run_reversible(subject: Subject, inverse: bool) -> Iterator[tuple[str, Found]]:
    call, leaves = direction(ig.reversible(subject.graph), inverse), draw(subject.graph, SAMPLES * ROWS, 0)
    yield "reversible", found(lambda xs, cs: call(xs, repeated(cs)), leaves, subject.parameters, True)


def expected(subject: Subject, inverse: bool) -> Found:
    """Results of the graph without kernels."""
    with ig.fused(False):
        return next(run_plain(subject, inverse))[1]


def by_hand(subject: Subject, inverse: bool) -> Found:
    """Results of the graph with merged weights."""
    leaves, call = draw(subject.merged, SAMPLES * ROWS, 0), direction(subject.merged, inverse)
    with ig.fused(False), torch.no_grad():
        return found(lambda xs, cs: call(xs, repeated(cs)), leaves, (), False)


def check(name: str, conditional: bool, habit: Habit, runners: Any, only: int | None = None) -> None:
    subject = Subject(name, conditional, habit, only)
    for inverse in (False, True):
        merged = by_hand(subject, inverse)
        with habit.during(subject.watch) if habit.during else nullcontext():
            right = expected(subject, inverse)
            compare(merged, right, "merged by hand")
            for runner in runners:
                before = subject.watch.calls
                for what, got in runner(subject, inverse):
                    compare(got, right, f"{what}, {'inverse' if inverse else 'forward'}")
                    called = subject.watch.calls - before
                    if habit.counts == "forward" or (habit.counts == "backward" and "data gradients" in got):
                        assert called >= len(subject.places), what
                    before = subject.watch.calls
    for layer, x, output, before_ in subject.watch.seen:
        exact = apply(layer, x, layer.weight * layer.mask if isinstance(layer, MASKED) else layer.weight, layer.bias)
        torch.testing.assert_close(output, exact, rtol=1e-12, atol=1e-12)
        assert torch.equal(output, before_)


MASKED = ig.nets.masked.Linear


RUNNERS = (run_plain, run_bound, run_reversible)
QUICK = ("MLP", "ConvNet", "Autoregressive")
"""Graphs with a kernel, and the one with layers of its own: all habits are tried in the fast suite."""


def table() -> Iterator[Any]:
    """Habits x graphs: the fast suite takes the quick ones, and every other graph with some of the habits.

    The slow one takes a third of the rest.
    """
    cases = [(name, given) for name, row in GRAPHS.items() for given in row[3]]
    for row, habit in enumerate(HABITS):
        for column, (name, given) in enumerate(cases):
            fast = (name in QUICK and given) or (row + column) % len(cases) == 0
            marks = () if fast else pytest.mark.slow if (row + column) % 3 == 0 else pytest.mark.nightly
            yield pytest.param(habit, name, given, id=f"{habit}-{name}{' | c' if given else ''}", marks=marks)


@pytest.mark.parametrize(("habit", "name", "conditional"), list(table()))
def test_it_counts_in_every_layer(habit: str, name: str, conditional: bool) -> None:
    check(name, conditional, HABITS[habit], RUNNERS)


ON_LAYERS = [habit for habit, row in HABITS.items() if row.put is not nothing and not row.during]
ONE = [
    pytest.param(name, place, marks=() if (name, place) in (("MLP", -1), ("Autoregressive", 0)) else pytest.mark.slow)
    for name in ("MLP", "MLP of 2 hidden layers", "ConvNet", "Autoregressive")
    for place in (0, -1)
]


@pytest.mark.parametrize(("name", "place"), ONE)
@pytest.mark.parametrize("habit", ON_LAYERS)
def test_it_counts_in_one_layer(habit: str, name: str, place: int) -> None:
    check(name, True, HABITS[habit], RUNNERS, only=place)


def check_compiled(habit: str, name: str, conditional: bool, inverse: bool, only: int | None = None) -> None:
    torch._dynamo.reset()
    row = HABITS[habit]
    subject = Subject(name, conditional, row, only)
    with row.during(subject.watch) if row.during else nullcontext():
        right = expected(subject, inverse)
        subject.graph.compile(backend="eager")
        if row.counts == "backward":
            with pytest.raises(ig.errors.GraphError, match=r"torch can't compile them.*fullgraph=False"):
                next(run_plain(subject, inverse))
            subject.graph.compile(backend="eager", fullgraph=False)
        for what, got in run_plain(subject, inverse):
            compare(got, right, f"compiled, {what}")


def compiled_table() -> Iterator[Any]:
    """Both directions of the first graph, and either of the others, by turns: each takes seconds.

    The fast suite takes a hook that keeps what it sees: no code can be shared between blocks then. The slow one takes
    a graph of every third habit, another one for the next.
    """
    for place, habit in enumerate(HABITS):
        for column, (name, row) in enumerate(GRAPHS.items()):
            for inverse in (False, True) if column == 0 else ((place + column) % 2 == 1,):
                fast = (habit, name, inverse) == ("forward hook that observes", "MLP", False)
                slow = place % 3 == 0 and column == place // 3 % len(GRAPHS) and not (column == 0 and inverse)
                marks = () if fast else pytest.mark.slow if slow else pytest.mark.nightly
                id_ = f"{habit}-{name}-{'inverse' if inverse else 'forward'}"
                yield pytest.param(habit, name, row[3][-1], inverse, id=id_, marks=marks)


@pytest.mark.parametrize(("habit", "name", "conditional", "inverse"), list(compiled_table()))
def test_it_counts_in_the_compiled_runner(habit: str, name: str, conditional: bool, inverse: bool) -> None:
    check_compiled(habit, name, conditional, inverse)


def test_full_backward_hooks_are_refused_when_compiling() -> None:
    graph = Subject("MLP", False, HABITS["full backward hook"]).graph.compile(backend="eager")
    (x,), _ = draw(graph, ROWS, 0)
    for call in (graph, graph.inverse):
        with pytest.raises(ig.errors.GraphError, match=r"torch can't compile them.*fullgraph=False"):
            call((x,))


@pytest.mark.nightly
@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("habit", ON_LAYERS)
def test_equal_blocks_do_not_share_code_if_one_of_them_was_changed(habit: str, place: int) -> None:
    check_compiled(habit, "MLP", True, inverse=False, only=place)


def test_a_hook_put_on_a_compiled_graph_counts() -> None:
    graph = copy.deepcopy(built("MLP", False)).compile(backend="eager")
    (x,), _ = draw(graph, ROWS, 0)
    (before,), _ = graph((x,))
    layer = places(graph)[-1].layer
    handle = layer.register_forward_hook(lambda _, arguments, output: output * 1.5)
    assert not torch.allclose(graph((x,))[0][0], before)
    handle.remove()
    assert torch.allclose(graph((x,))[0][0], before)
    last = list(graph.layers.values())[-1]
    last.register_forward_hook(lambda _, arguments, output: ((output[0][0] * 1.5,), output[1]))
    assert torch.allclose(graph((x,))[0][0], before * 1.5)


@pytest.mark.parametrize("habit", ["spectral_norm, old", "spectral_norm, parametrization"])
def test_a_reversible_graph_refuses_layers_that_change_at_each_call(habit: str) -> None:
    graph = Subject("MLP", False, HABITS[habit]).graph.train()
    (x,), _ = draw(graph, ROWS, 0)
    with pytest.raises(ig.errors.GraphError, match=r"layers\.coupling.*buffers change at each call(.|\n)*\.eval\(\)"):
        ig.reversible(graph)((x,))
    ig.reversible(graph.eval())((x,))


@pytest.mark.parametrize("layer", ["tanh", "dropout"])
def test_autoregressive_refuses_a_layer_that_is_not_linear(layer: str) -> None:
    graph = copy.deepcopy(built("Autoregressive", False))
    (x,), _ = draw(graph, ROWS, 0)
    place = places(graph)[1]
    extra = nn.Tanh() if layer == "tanh" else nn.Dropout(0.5)
    place.replace(nn.Sequential(place.layer, extra))
    with pytest.raises(ig.errors.GraphError, match=r"a Sequential in place of a linear layer(.|\n)*no activation"):
        graph.train()((x,))
    if layer == "dropout":
        graph.eval()((x,))


@pytest.mark.filterwarnings("ignore:.*quantiz.*")
@pytest.mark.parametrize("name", ["MLP", "MLP of 2 hidden layers", "ResidualMLP", "Sequential", "ViT", "Autoregressive",
                                  "MaskedCoupling", "AllInOne", "Elementwise", "Householder"])  # fmt: skip
def test_dynamic_quantization_counts(name: str) -> None:
    graph = torch.ao.quantization.quantize_dynamic(copy.deepcopy(built(name, True)).float(), {nn.Linear})
    assert any("Quantized" in type(module).__name__ or "quantized" in type(module).__module__
               for module in graph.modules())  # fmt: skip
    leaves = tuple(tuple(t.detach().float() for t in ts) for ts in draw(graph, ROWS, 0))
    with torch.no_grad():
        for inverse in (False, True):
            with ig.fused(False):
                right = found(direction(graph, inverse), leaves, (), False)["values"]
            bound = direction(graph.bind(leaves[1]), inverse)(tuple(x[None] for x in leaves[0]))
            own = found(direction(graph, inverse), leaves, (), False)["values"]
            again = found(direction(ig.reversible(graph), inverse), leaves, (), False)["values"]
            for a, b, c, d in zip(right, own, again, (*bound[0], bound[1]), strict=True):
                for other in (b, c, d.flatten(0, 1)):
                    torch.testing.assert_close(a, other, rtol=1e-5, atol=1e-5)
