"""Checks of ``Graph(check_finite=True)`` where values can't be read: compiled, exported, mapped and without data."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

import invgraph as ig

pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]
BLAME = r"node 'last' \(Elementwise\)"


def checked(spoiled: bool = False, *, check_finite: bool = True) -> ig.Graph:
    """A graph whose last node makes a NaN, or does not."""
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(8)}
    h = ig.Node(x, ig.Coupling, args, conditions=c, name="first")
    h = ig.Node(h, ig.Elementwise, {"transform": ig.Affine()}, name="last")
    graph = ig.testing.randomize(ig.Graph(x, h, c, check_finite=check_finite).double())
    if spoiled:
        with torch.no_grad():
            graph["last"].params.view(-1)[-1] = float("nan")
    return graph


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)


class Backend:
    """A compiler that counts what it is given."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, module: Any, example: Any) -> Any:
        self.count += 1
        return module.forward


def close(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(ours, theirs, strict=True))


def test_a_compiled_graph_checks_in_plain_code() -> None:
    x, c = data()
    backend = Backend()
    graph = checked().compile(backend=backend)
    expected = copy.deepcopy(graph)(x, c)
    assert close(graph(x, c), expected)
    assert close(graph.inverse(expected[0], c), (x, -expected[1]))
    assert close(graph.bind(c)(x[None]), (expected[0][None], expected[1][None]))
    assert backend.count == 0
    for call in (lambda: graph(x, c), lambda: graph.inverse(x, c), lambda: graph.bind(c).inverse(x[None])):
        with torch.no_grad():
            graph["last"].params.view(-1)[-1] = float("nan")
        with pytest.raises(ig.NumericsError, match=BLAME):
            call()


def test_a_compiled_graph_compiles_once_the_checks_are_off() -> None:
    x, c = data()
    backend = Backend()
    graph = checked().compile(backend=backend)
    expected = graph(x, c)
    assert backend.count == 0
    graph.check_finite = False
    assert close(graph(x, c), expected)
    assert backend.count == 1


def test_a_graph_inside_a_compiled_one_is_checked() -> None:
    x, c = data()
    outer, given = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    graph = ig.Graph(outer, ig.Node(outer, checked(spoiled=True), conditions=given, name="inner"), given)
    with pytest.raises(ig.NumericsError, match=BLAME):
        graph.compile(backend=Backend())(x, c)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("wrap", [lambda graph: graph, ig.reversible], ids=["graph", "reversible"])
def test_torch_compile_leaves_a_checked_graph_as_it_is(wrap: Callable[[ig.Graph], Any]) -> None:
    torch.compiler.reset()
    x, c = data()
    graph = checked()
    assert close(torch.compile(wrap(graph), backend="eager")(x, c), graph(x, c))
    with pytest.raises(ig.NumericsError, match=BLAME):
        torch.compile(wrap(checked(spoiled=True)), backend="eager")(x, c)
    bad = x.clone()
    bad[2, 1] = torch.inf
    with pytest.raises(ig.NumericsError, match="input 'x': NaN or infinite"):
        torch.compile(wrap(graph), backend="eager")(bad, c)


def test_a_compiler_that_may_not_stop_says_why() -> None:
    torch.compiler.reset()
    x, c = data()
    with pytest.raises(Exception, match=r"check_finite=True(?s:.*)graph.check_finite = False"):
        torch.compile(checked(), backend="eager", fullgraph=True)(x, c)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_exported_program_has_no_checks() -> None:
    x, c = data()
    graph = checked()
    for program in (ig.export(graph, "forward"), torch.export.export(graph, (x, c))):
        assert close(program.module()(x, c), graph(x, c))
    z, log_det = ig.export(checked(spoiled=True), "forward").module()(x, c)
    assert z.isnan().any()
    assert log_det.shape == (5,)
    assert graph.check_finite


def test_vmap_checks_all_samples() -> None:
    x, c = data()
    plain = checked(check_finite=False)
    graph, spoiled = checked(), checked(spoiled=True)
    graph.load_state_dict(plain.state_dict())

    def log_det(graph: ig.Graph) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda u, v: graph(u[None], v[None])[1][0]  # type: ignore[no-any-return]

    assert torch.allclose(torch.vmap(log_det(graph))(x, c), plain(x, c)[1], rtol=1e-12, atol=1e-12)
    assert torch.allclose(
        torch.vmap(torch.func.grad(log_det(graph)))(x, c), torch.vmap(torch.func.grad(log_det(plain)))(x, c)
    )
    for transform in (torch.func.grad, torch.func.jacrev, torch.func.jacfwd, lambda function: function):
        with pytest.raises(ig.NumericsError, match=BLAME):
            torch.vmap(transform(log_det(spoiled)))(x, c)
    bad = x.clone()
    bad[3, 0] = float("nan")
    with pytest.raises(ig.NumericsError, match="input 'x': NaN or infinite"):
        torch.vmap(log_det(graph))(bad, c)


def test_tensors_without_data_pass() -> None:
    x, c = data()
    graph = checked()
    z, log_det = copy.deepcopy(graph).to("meta")(x.to("meta"), c.to("meta"))
    assert (z.shape, log_det.shape) == ((5, 4), (5,))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        z, log_det = graph(mode.from_tensor(x), mode.from_tensor(c))
    assert (z.shape, log_det.shape) == ((5, 4), (5,))
