"""Flows under fixed conditions, and data of any leading axes."""

from __future__ import annotations

import pytest
import torch
from measures import draw, gap
from torch import Tensor

import invgraph as ig

AFFINE = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(hidden=8)}


def conditional(dims: int = 4) -> ig.Flow:
    """Couplings and an autoregressive layer under a condition of three numbers and its features."""
    x, c = ig.InputNode(dims, name="x"), ig.ConditionNode(3, name="c")
    features = ig.FeatureNode(c, torch.nn.Linear(3, 5), name="features")
    h = ig.chain(x, (ig.Coupling, AFFINE), (ig.Orthogonal, {"seed": 1}), conditions=features)
    h = ig.Node(h, ig.Autoregressive, {"transform": ig.Affine(clamp=1.0), "hidden": 8}, conditions=c)
    return ig.Flow(ig.testing.randomize(ig.Graph(x, h, c).double(), 1, scale=0.8))


def two_sided() -> ig.Flow:
    x, y = ig.InputNode(4, name="x"), ig.InputNode(1, 2, 2, name="y")
    c = ig.ConditionNode(3, name="c")
    h = ig.Node(x, ig.Coupling, AFFINE, conditions=c, name="h")
    k = ig.chain(y, ig.Flatten, (ig.Coupling, AFFINE), conditions=h)
    return ig.Flow(ig.testing.randomize(ig.Graph((x, y), (h, k), (c,)).double()))


@pytest.mark.parametrize(
    ("axes", "rows", "full"),
    [((5, 3), 3, (5, 3)), ((7,), 1, (7,)), ((5, 2), 1, (5, 2)), ((5, 1), 3, (5, 3)), ((2, 5, 3), 3, (2, 5, 3)),
     ((0,), 1, (0,)), ((0, 3), 3, (0, 3)), ((5, 0), 0, (5, 0)), ((3,), 3, (3,)), ((1,), 1, (1,))],
)  # fmt: skip
def test_densities_are_broadcast(axes: tuple[int, ...], rows: int, full: tuple[int, ...]) -> None:
    flow, (x,), (c,) = conditional(), draw([(*axes[1:], 4)], axes[0]), draw([(3,)], rows, seed=1)
    spread = x.expand(*full, 4).reshape(-1 if 0 not in full else 0, 4)
    repeated = c.expand(*full, 3).reshape(len(spread), 3)
    expected = flow.log_prob(spread, repeated).view(full)
    for found in (flow.log_prob(x, c), flow.log_prob(x, c, chunk=4), flow.bind(c).log_prob(x)):
        assert found.shape == full
        assert gap((found,), (expected,)) <= 1e-12


def test_a_density_of_samples_has_the_gradients_of_repeated_conditions() -> None:
    flow = conditional()
    (x,), (c,) = draw([(3, 4)], 5), draw([(3,)], 3, seed=1)
    x.requires_grad_()
    c.requires_grad_()
    leaves = [x, c, *flow.parameters()]
    found = torch.autograd.grad(flow.log_prob(x, c).square().sum(), leaves)
    plain = flow.log_prob(x.flatten(0, 1), c.repeat(5, 1))
    assert gap(found, torch.autograd.grad(plain.square().sum(), leaves)) <= 1e-10


def test_the_density_of_several_inputs_is_broadcast() -> None:
    flow = two_sided()
    xs, cs = draw([(3, 4), (3, 1, 2, 2)], 5), draw([(3,)], 3, seed=1)
    expected = flow.log_prob(tuple(x.flatten(0, 1) for x in xs), (cs[0].repeat(5, 1),))
    assert gap((flow.log_prob(xs, cs).flatten(),), (expected,)) <= 1e-12
    with pytest.raises(ig.ShapeError):
        flow.log_prob((xs[0], xs[1][:, 0]), cs)


@pytest.mark.parametrize("bound", [False, True])
def test_samples_come_with_their_density(bound: bool) -> None:
    flow, (c,) = conditional(), draw([(3,)], 3, seed=1)
    c.requires_grad_()
    plain, with_gradient = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    if bound:
        flows = flow.bind(c, gradients=True)
        x, log_prob = flows.sample_and_log_prob(7, generator=plain)
        y, other = flows.rsample_and_log_prob(7, generator=with_gradient)
        again = flows.rsample(7, generator=torch.Generator().manual_seed(0))
    else:
        x, log_prob = flow.sample_and_log_prob(7, c, generator=plain)
        y, other = flow.rsample_and_log_prob(7, c, generator=with_gradient)
        again = flow.rsample(7, c, generator=torch.Generator().manual_seed(0))
    assert (x.shape, log_prob.shape) == ((7, 3, 4), (7, 3))
    assert not x.requires_grad
    assert not log_prob.requires_grad
    assert gap((x, log_prob, x), (y, flow.log_prob(x, c), again)) <= 1e-10
    leaves = [c, *flow.parameters()]
    ours = torch.autograd.grad(other.square().sum(), leaves, retain_graph=True)
    theirs = torch.autograd.grad(flow.log_prob(y, c).square().sum(), leaves)
    assert gap(ours, theirs) <= 1e-8


def test_samples_without_conditions_come_with_their_density() -> None:
    x = ig.InputNode(4, name="x")
    flow = ig.Flow(ig.testing.randomize(ig.Graph(x, ig.Node(x, ig.Coupling, AFFINE)).double()))
    samples, log_prob = flow.rsample_and_log_prob(6, chunk=4)
    assert gap((log_prob,), (flow.log_prob(samples),)) <= 1e-12
    with pytest.raises(ig.GraphError, match="nothing to bind"):
        flow.bind(())


def test_leading_axes_that_do_not_fit_are_refused() -> None:
    flow, (c,) = conditional(), draw([(3,)], 3)
    for shape, words in (((5, 2, 4), "rows bound"), ((2, 4), "batch"), ((4,), "batch"), ((5, 3, 7), "dimensions")):
        with pytest.raises(ig.ShapeError, match=words):
            flow.log_prob(torch.zeros(shape).double(), c)
    with pytest.raises(ig.InputTypeError, match="nothing is cast"):
        flow.log_prob(torch.zeros(5, 3, 4), c)
    with pytest.raises(ig.ShapeError, match=r"leading axes \(5, 2\) for 3 rows"):
        flow.bind(c).log_prob(torch.zeros(5, 2, 4).double())


def test_a_grid_pays_the_condition_once() -> None:
    flow, (c,), (grid,) = conditional(), draw([(3,)], 1), draw([(4,)], 2500, seed=1)
    rows: list[int] = []
    flow.graph["features"].register_forward_hook(lambda module, args, result: rows.append(len(args[0])))

    def density(flow: ig.Flow, c: Tensor) -> Tensor:
        return flow.log_prob(grid, c)

    density(flow, c)
    assert rows == [1]
    density(flow, c.expand(2500, 3))
    assert rows == [1, 2500]
