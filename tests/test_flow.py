"""Flow: densities against formulas and integrals, samples, the paper's loss, denoising."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from measures import draw, gap
from torch import Tensor, nn
from torch.distributions import (
    Cauchy,
    Distribution,
    HalfCauchy,
    Independent,
    Laplace,
    MultivariateNormal,
    Normal,
    Pareto,
    StudentT,
    TanhTransform,
    TransformedDistribution,
    VonMises,
)

import invgraph as ig

AFFINE = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(hidden=8)}
ZERO = torch.zeros((), dtype=torch.float64)
OFF = {"validate_args": False}  # no value of the flow is refused, although the support is not all real numbers
WITHOUT_MEAN = (
    Cauchy(ZERO, ZERO + 1),
    StudentT(ZERO + 1),
    HalfCauchy(ZERO + 1, **OFF),
    Pareto(ZERO + 1, ZERO + 1, **OFF),
)
MATRIX = torch.tensor([[2.0, 0.5], [-0.25, 1.5]], dtype=torch.float64)


def linear(**kwargs: Any) -> ig.Flow:
    """z = M x: x is normal with a covariance that is known."""
    x = ig.InputNode(2, name="x")
    return ig.Flow(ig.Graph(x, ig.Node(x, ig.FixedLinear((2,), matrix=MATRIX).double())), **kwargs)


def conditional(dims: int = 2, seed: int = 1, **kwargs: Any) -> ig.Flow:
    """Three couplings under a condition of three numbers, with random weights."""
    x, c = ig.InputNode(dims, name="x"), ig.ConditionNode(3, name="c")
    h = ig.chain(x, (ig.Coupling, AFFINE), (ig.Orthogonal, {"seed": 1}), (ig.Coupling, AFFINE), conditions=c)
    return ig.Flow(ig.testing.randomize(ig.Graph(x, h, c).double(), seed, scale=0.8), **kwargs)


def two_sided(**kwargs: Any) -> ig.Flow:
    """Two inputs, two outputs, two conditions, as tuples."""
    x, y = ig.InputNode(4, name="x"), ig.InputNode(1, 2, 2, name="y")
    c, d = ig.ConditionNode(3, name="c"), ig.ConditionNode(2, name="d")
    h = ig.Node(x, ig.Coupling, AFFINE, conditions=(c, d), name="h")
    k = ig.Node(y, ig.Flatten, name="k")
    k = ig.Node(k, ig.Coupling, AFFINE, conditions=h, name="inner")
    return ig.Flow(ig.testing.randomize(ig.Graph((x, y), (h, k), (c, d)).double()), **kwargs)


def written_by_hand(flow: ig.Flow, x: Tensor, c: Tensor) -> Tensor:
    """log p(x | c) with the Jacobian by autograd, row by row."""

    def latent(row: Tensor, condition: Tensor) -> Tensor:
        z: Tensor = flow.graph(row.unsqueeze(0), condition.unsqueeze(0))[0][0]
        return z

    terms = []
    for row, condition in zip(x, c, strict=True):
        z = latent(row, condition)
        jacobian = torch.func.jacrev(latent)(row, condition)
        normal = -0.5 * (z**2).sum() - z.numel() / 2 * math.log(2 * math.pi)
        terms.append(normal + torch.linalg.det(jacobian).abs().log())
    return torch.stack(terms)


def test_log_prob_is_the_formula() -> None:
    flow = conditional()
    (x,), (c,) = draw([(2,)], 5), draw([(3,)], 5, seed=1)
    log_prob = flow.log_prob(x, c)
    assert log_prob.shape == (5,)
    assert gap((log_prob,), (written_by_hand(flow, x, c),)) <= 1e-10
    assert torch.equal(flow(x, c), log_prob)


def test_log_prob_of_a_linear_flow_is_that_of_the_normal() -> None:
    flow = linear()
    inverse = torch.linalg.inv(MATRIX)
    normal = MultivariateNormal(torch.zeros(2, dtype=torch.float64), inverse @ inverse.t())
    (x,) = draw([(2,)], 7)
    assert gap((flow.log_prob(x),), (normal.log_prob(x),)) <= 1e-10


def test_the_density_integrates_to_one() -> None:
    """On a grid of 2-D data, for two conditions."""
    flow = conditional()
    axis = torch.linspace(-15, 15, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    for (c,) in (draw([(3,)], 1, seed=2), draw([(3,)], 1, seed=3)):
        with torch.no_grad():
            density = flow.log_prob(grid, c.expand(len(grid), 3)).exp()
        assert density.sum().item() * (30 / 600) ** 2 == pytest.approx(1, abs=1e-4)  # of the grid: ReLU has kinks


def test_samples_follow_the_density() -> None:
    """The mean over samples of the model's log-density is minus its entropy, by quadrature."""
    flow = conditional()
    (c,) = draw([(3,)], 1, seed=2)
    axis = torch.linspace(-15, 15, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        logs = flow.log_prob(grid, c.expand(len(grid), 3))
        entropy = -(logs.exp() * logs).sum().item() * (30 / 600) ** 2
        samples = flow.sample(20_000, c, generator=generator).squeeze(1)
        found = -flow.log_prob(samples, c.expand(len(samples), 3))
    assert found.mean().item() == pytest.approx(entropy, abs=5 * found.std().item() / math.sqrt(20_000))


def test_samples_have_a_row_for_each_sample_and_condition() -> None:
    flow = conditional(4)
    (c,) = draw([(3,)], 5)
    assert flow.sample(7, c).shape == (7, 5, 4)
    assert flow.sample(0, c).shape == (0, 5, 4)
    assert flow.sample(7, c[:0]).shape == (7, 0, 4)
    assert linear().sample(7).shape == (7, 2)
    xs, ys = two_sided().sample(3, draw([(3,), (2,)], 5))
    assert xs.shape == (3, 5, 4)
    assert ys.shape == (3, 5, 1, 2, 2)
    assert xs.dtype == torch.float64


def test_each_sample_belongs_to_its_condition() -> None:
    """Sample (i, b) is the inverse of some latent under condition b: at temperature 0 exactly the one of the mean."""
    flow = conditional(4)
    (c,) = draw([(3,)], 5)
    samples = flow.sample(3, c, temperature=0.0)
    for row in range(5):
        expected, _ = flow.graph.inverse(torch.zeros(1, 4, dtype=torch.float64), c[row : row + 1])
        assert gap((samples[:, row],), (expected.expand(3, 4),)) <= 1e-12


def test_temperature_scales_the_latents() -> None:
    flow = conditional(4)
    (c,) = draw([(3,)], 2)
    for temperature in (0.5, 1.0, 2.0):
        generator = torch.Generator().manual_seed(5)
        samples = flow.sample(50, c, temperature, generator=generator)
        latents = torch.randn(100, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * temperature
        z, _ = flow.graph(samples.flatten(0, 1), c.repeat(50, 1))
        assert gap((z,), (latents,)) <= 1e-10


def test_sampling_moves_batch_norm_in_training_mode_alone() -> None:
    """Any forward pass of any module does so, as the pages say."""

    def normed(channels_in: int, channels_out: int) -> nn.Module:
        return nn.Sequential(nn.Linear(channels_in, 5), nn.BatchNorm1d(5), nn.Linear(5, channels_out))

    x = ig.InputNode(4, name="x")
    flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.Coupling, {"transform": ig.Affine(), "subnet": normed})))
    for training in (False, True):
        flow.train(training)
        before = {name: value.clone() for name, value in flow.named_buffers() if "running" in name}
        flow.sample(100)
        after = dict(flow.named_buffers())
        assert all(torch.equal(after[name], value) != training for name, value in before.items())
        assert len(before) == 4


def test_a_generator_decides_and_the_global_state_stays() -> None:
    flow = conditional(4)
    (c,) = draw([(3,)], 2)
    before = torch.get_rng_state()
    first, second = (flow.sample(3, c, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


def test_rsample_has_gradients_and_sample_none() -> None:
    flow = conditional(4)
    c = draw([(3,)], 2)[0].requires_grad_()
    assert not flow.sample(3, c).requires_grad
    samples = flow.rsample(3, c)
    gradients = torch.autograd.grad(samples.square().sum(), [c, *flow.parameters()])
    assert all(bool(gradient.isfinite().all()) and bool(gradient.any()) for gradient in gradients)


def test_rsample_gradient_is_that_of_finite_differences() -> None:
    flow = conditional(2)
    c = draw([(3,)], 1)[0].requires_grad_()

    def drawn(c: Tensor) -> Tensor:
        samples: Tensor = flow.rsample(2, c, generator=torch.Generator().manual_seed(3))
        return samples

    assert torch.autograd.gradcheck(drawn, (c,))


BASES: tuple[Distribution, ...] = (
    Normal(torch.full((2,), 0.5, dtype=torch.float64), torch.full((2,), 2.0, dtype=torch.float64)),
    Independent(Laplace(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)), 1),
    MultivariateNormal(torch.ones(2, dtype=torch.float64), MATRIX @ MATRIX.t()),
    StudentT(torch.full((2,), 5.0, dtype=torch.float64)),
)


@pytest.mark.parametrize("base", BASES, ids=lambda base: type(base).__name__)
def test_base_densities_of_torch(base: Distribution) -> None:
    flow = linear(base=base)
    (x,) = draw([(2,)], 5)
    z = x @ MATRIX.t()
    own = base.log_prob(z)
    own = own.sum(1) if own.ndim > 1 else own
    assert gap((flow.log_prob(x),), (own + torch.linalg.slogdet(MATRIX).logabsdet,)) <= 1e-10
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(0)
        samples = flow.sample(3, temperature=0.0)
    assert gap((samples @ MATRIX.t(),), (base.mean.expand(3, 2),)) <= 1e-10


def test_one_base_for_each_output() -> None:
    zeros = torch.zeros(4, dtype=torch.float64)
    bases = [Normal(zeros, 1.0), Laplace(zeros, torch.ones(4, dtype=torch.float64))]
    flow, plain = two_sided(base=bases), two_sided()
    xs, cs = draw([(4,), (1, 2, 2)], 3), draw([(3,), (2,)], 3, seed=1)
    (z, w), log_det = flow.graph(xs, cs)
    expected = bases[0].log_prob(z).sum(1) + bases[1].log_prob(w).sum(1) + log_det
    assert gap((flow.log_prob(xs, cs),), (expected,)) <= 1e-10
    assert gap((plain.log_prob(xs, cs),), (expected,)) > 1e-3


def test_loss_is_the_papers_equation_six() -> None:
    flow = conditional(4)
    (x,), (c,) = draw([(4,)], 6), draw([(3,)], 6, seed=1)
    z, log_det = flow.graph(x, c)
    expected = (z.square().sum(1) / 2 - log_det).mean()
    assert gap((flow.loss(x, c),), (expected,)) <= 1e-12
    weights = sum(p.square().sum() for p in flow.parameters())
    assert gap((flow.loss(x, c, tau=0.1),), (expected + 0.1 * weights,)) <= 1e-12
    assert flow.dims == 4
    assert gap((flow.loss(x, c) + 2 * math.log(2 * math.pi),), (-flow.log_prob(x, c).mean(),)) <= 1e-12


def test_a_reversible_graph_has_the_same_density() -> None:
    plain = conditional(4)
    (x,), (c,) = draw([(4,)], 6), draw([(3,)], 6, seed=1)
    flow = ig.Flow(ig.reversible(plain.graph))
    found = []
    for own in (flow, plain):
        gradients = torch.autograd.grad(own.loss(x, c), list(plain.graph.parameters()))
        samples = own.sample(3, c, 0.8, generator=torch.Generator().manual_seed(0))
        found.append((own.log_prob(x, c), samples, own.denoise(x, c, 0.1), *gradients))
    assert gap(*found) <= 1e-12


def test_loss_with_another_base_is_the_negative_log_density() -> None:
    base = Laplace(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64))
    flow = linear(base=base)
    (x,) = draw([(2,)], 5)
    assert gap((flow.loss(x),), (-flow.log_prob(x).mean(),)) <= 1e-12


def test_frozen_parameters_are_not_in_the_prior() -> None:
    flow = conditional(4)
    (x,), (c,) = draw([(4,)], 6), draw([(3,)], 6, seed=1)
    for parameter in flow.parameters():
        parameter.requires_grad_(False)
    next(flow.parameters()).requires_grad_()
    expected = flow.loss(x, c) + 0.1 * next(flow.parameters()).square().sum()
    assert gap((flow.loss(x, c, tau=0.1),), (expected,)) <= 1e-12


def test_denoise_is_the_posterior_mean_of_a_gaussian() -> None:
    """Clean data with covariance S under noise sigma^2: E[clean | x] = S (S + sigma^2)^-1 x, exactly."""
    sigma = 0.7
    flow = linear()  # its data have the covariance of the noisy data, (M^T M)^-1
    inverse = torch.linalg.inv(MATRIX)
    noisy = inverse @ inverse.t()
    clean = noisy - sigma**2 * torch.eye(2, dtype=torch.float64)
    (x,) = draw([(2,)], 5)
    before = x.clone()
    expected = x @ torch.linalg.solve(noisy, clean)
    assert gap((flow.denoise(x, sigma=sigma),), (expected,)) <= 1e-10
    with torch.no_grad():
        assert gap((flow.denoise(x, sigma=sigma),), (expected,)) <= 1e-10
    assert torch.equal(x, before)
    assert not x.requires_grad


def test_denoise_keeps_the_structure_and_leaves_no_gradient() -> None:
    flow = two_sided()
    xs, cs = draw([(4,), (1, 2, 2)], 3), draw([(3,), (2,)], 3, seed=1)
    clean = flow.denoise(xs, cs, sigma=0.1)
    assert [tuple(t.shape) for t in clean] == [(3, 4), (3, 1, 2, 2)]
    assert all(not t.requires_grad for t in clean)
    assert all(p.grad is None for p in flow.parameters())
    assert gap(flow.denoise(xs, cs, sigma=0.0), xs) == 0


def test_denoise_takes_samples_of_every_shape_that_log_prob_takes() -> None:
    x, c = ig.InputNode(2, name="x"), ig.ConditionNode(3, name="c")
    flow = ig.Flow(ig.testing.randomize(ig.Graph(x, ig.Node(x, ig.Coupling, AFFINE, conditions=c), c)).double())
    conditions = torch.randn(4, 3, dtype=torch.float64)
    samples = flow.sample(5, conditions)
    clean = flow.denoise(samples, conditions, sigma=0.1)
    for one, own in zip(samples, clean, strict=True):
        torch.testing.assert_close(own, flow.denoise(one, conditions, 0.1))
    alone = flow.denoise(samples[:, 1], conditions[1:2], 0.1)  # many points under one condition
    torch.testing.assert_close(alone, clean[:, 1])
    spread = flow.denoise(samples[:, :1], conditions, 0.1)  # each point under all conditions
    torch.testing.assert_close(spread, flow.denoise(samples[:, :1].expand(5, 4, 2), conditions, 0.1))
    for wrong, error in ((samples[:, :3], ig.ShapeError), (samples.long(), ig.InputTypeError)):
        with pytest.raises(error):
            flow.denoise(wrong, conditions, 0.1)


@pytest.mark.parametrize("method", ["sample", "rsample", "sample_and_log_prob", "rsample_and_log_prob"])
@pytest.mark.parametrize("n", [{"n": 5}, torch.zeros(4, 3), "{x}", None, 2.0])
def test_the_number_of_samples_is_looked_at_before_the_conditions(method: str, n: Any) -> None:
    x, c = ig.InputNode(2, name="x"), ig.ConditionNode(3, name="c")
    flow = ig.Flow(ig.Graph(x, ig.Node(x, ig.Coupling, AFFINE, conditions=c), c))
    with pytest.raises(ig.ArgumentError, match=rf"Flow\.{method}\n  given: n: {type(n).__name__}\n  n must be an int"):
        getattr(flow, method)(n)
    with pytest.raises(ig.InputTypeError, match=rf"call flow\.{method}\(5, c\)"):
        getattr(flow, method)(5)


def test_what_neither_is_a_graph_nor_wraps_one_takes_no_graphs_place() -> None:
    flow, data = linear(), torch.randn(3, 2, dtype=torch.float64)
    before, density = flow.graph, flow.log_prob(data)
    for name in ("graph", "model"):
        for wrong in (nn.Linear(2, 2), None, 3, nn.Sequential(nn.Tanh())):
            with pytest.raises(ig.ArgumentError, match="expected a Graph"):
                setattr(flow, name, wrong)
    assert flow.graph is before
    flow.graph = torch.compile(flow.graph, backend="eager")  # type: ignore[assignment]
    torch.testing.assert_close(flow.log_prob(data), density)


def test_denoise_takes_sigma_third() -> None:
    flow = conditional(4)
    (x,), (c,) = draw([(4,)], 3), draw([(3,)], 3, seed=1)
    assert torch.equal(flow.denoise(x, c, 0.3), flow.denoise(x, c, sigma=0.3))


def test_denoise_takes_what_inference_mode_made() -> None:
    flow = conditional(4)
    (x,), (c,) = draw([(4,)], 3), draw([(3,)], 3, seed=1)
    with torch.inference_mode():
        a, b = x.clone(), c.clone()
    assert torch.equal(flow.denoise(a, b, 0.3), flow.denoise(x, c, 0.3))


def test_a_prior_over_no_trained_parameters_is_zero() -> None:
    flow = linear()
    (x,) = draw([(2,)], 3)
    assert torch.equal(flow.loss(x, tau=0.1), flow.loss(x))


def test_repr_names_a_base_but_not_the_default() -> None:
    assert linear().extra_repr() == ""
    assert linear(base=BASES[0]).extra_repr() == "base=Normal (2,)"
    assert linear(base=BASES[1]).extra_repr() == "base=Independent(Laplace) (2,)"


def test_a_checkpoint_is_refused_under_another_base(tmp_path: Path) -> None:
    ig.save(tmp_path / "a", linear(base=BASES[0]))
    ig.load(tmp_path / "a", linear(base=BASES[0]))
    for other in (linear(), linear(base=BASES[3])):
        with pytest.raises(ig.CheckpointError, match="base=Normal"):
            ig.load(tmp_path / "a", other)


def test_a_base_of_another_dtype_or_device_is_named() -> None:
    """Refused where it would have been promoted silently (a density) or blamed on the graph (samples)."""
    narrow, (x,) = Normal(torch.zeros(2), 1.0), draw([(2,)], 3)
    scattered = Independent(Normal(torch.zeros(2, device="meta"), torch.ones(2, device="meta"), validate_args=False), 1)
    for flow, words in ((linear(base=narrow), "torch.float32"), (linear(base=scattered), "on meta")):
        for call in (lambda flow=flow: flow.log_prob(x), lambda flow=flow: flow.sample(2)):
            with pytest.raises(ig.InputTypeError) as caught:
                call()
            assert re.search(f"base 0: .*{words}", str(caught.value))
            assert "does not move with the flow" in str(caught.value)


def test_a_base_without_rsample_has_samples_but_no_gradients() -> None:
    ones = torch.ones(2, dtype=torch.float64)
    flow = linear(base=Independent(VonMises(0 * ones, ones), 1))
    assert flow.sample(3).shape == (3, 2)
    with pytest.raises(ig.ArgumentError, match=r"Independent\(VonMises\) without rsample"):
        flow.rsample(3)


def test_a_flow_is_a_module() -> None:
    flow = conditional()
    assert isinstance(flow, nn.Module)
    assert all(key.startswith("model.layers.") for key in flow.state_dict())
    wide = conditional().float()
    assert wide.sample(2, torch.zeros(1, 3)).dtype == torch.float32


MISTAKES = (
    (lambda: linear().sample(-1), ig.GraphError, "n must be at least 0"),
    (lambda: linear().sample(2.0), ig.ArgumentError, "n must be"),
    (lambda: linear().sample(2, temperature=-1.0), ig.GraphError, "temperature must be"),
    (lambda: linear().sample(2, temperature=float("nan")), ig.GraphError, "temperature must be"),
    (lambda: conditional().sample(2), ig.InputTypeError, "condition 'c'"),
    (lambda: two_sided().sample(2, (torch.zeros(2, 3).double(), torch.zeros(1, 2).double())), ig.ShapeError,
     "same batch size"),
    (lambda: linear(base=Normal(torch.zeros(3), 1.0)), ig.GraphError, "expected (2,)"),
    (lambda: linear(base=[BASES[0], BASES[0]]), ig.GraphError, "one for each output"),
    (lambda: linear(base=["normal"]), ig.ArgumentError, "Distribution"),
    (lambda: linear(base=BASES[0]).sample(2, generator=torch.Generator()), ig.ArgumentError, "global"),
    (lambda: linear().sample(2, generator=3), ig.ArgumentError, "torch.Generator"),
    (lambda: linear().to("meta").sample(2, generator=torch.Generator()), ig.ArgumentError, "a generator on cpu"),
    (lambda: linear().loss(torch.zeros(1, 2).double(), tau="a"), ig.ArgumentError, "tau must be a number"),
    (lambda: linear().loss(torch.zeros(1, 2).double(), tau=-1.0), ig.GraphError, "tau must be finite and not negative"),
    (lambda: linear().denoise(torch.zeros(1, 2).double()), ig.ArgumentError, "sigma must be a number"),
    (lambda: linear().denoise(torch.zeros(1, 2).double(), sigma=10**400), ig.GraphError, "sigma must be finite"),
    (lambda: linear().denoise(torch.zeros(1, 2).double(), (), -0.1), ig.GraphError, "sigma must be finite"),
    (lambda: linear().denoise(torch.zeros(1, 2).double(), (), True), ig.ArgumentError, "sigma must be a number"),
    (lambda: torch.inference_mode()(linear().denoise)(torch.zeros(1, 2).double(), (), 0.1), ig.GraphError,
     "inference_mode"),
    (lambda: linear(base=TransformedDistribution(BASES[0], TanhTransform(), **OFF)).sample(2, temperature=0.5),
     ig.ArgumentError, "has no finite mean"),
    *((lambda base=base: linear(base=base.expand((2,))).sample(3, temperature=0.7), ig.ArgumentError,
       "has no finite mean") for base in WITHOUT_MEAN),
    *((lambda base=base: linear(base=Independent(base.expand((2,)), 1)).rsample(3, temperature=0.7), ig.ArgumentError,
       "has no finite mean") for base in WITHOUT_MEAN),
    (lambda: ig.Flow(nn.Linear(2, 2)), ig.ArgumentError, "expected a Graph"),
)  # fmt: skip


@pytest.mark.parametrize(("mistake", "error", "words"), MISTAKES)
def test_mistakes_are_refused(mistake: Any, error: type[ig.InvgraphError], words: str) -> None:
    with pytest.raises(error) as caught:
        mistake()
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_no_log_densities_under_given_conditions(dtype: torch.dtype) -> None:
    density = linear().to(dtype).given()
    assert density.sample((5,)).dtype == dtype
    values = torch.zeros(5, 2, dtype=dtype)
    for call in (density.sample_and_log_prob, density.rsample_and_log_prob, lambda: density.log_prob(values)):
        with pytest.raises(ig.InputTypeError, match=f"a flow in {dtype}"):
            call()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_no_log_densities(dtype: torch.dtype) -> None:
    """Sums over thousands of elements would come in steps of 32 nats."""
    flow = linear().to(dtype)
    assert flow.sample(2).dtype == dtype
    with pytest.raises(ig.InputTypeError, match=r"torch\.autocast"):
        flow.sample_and_log_prob(2)
    for call in (flow, flow.log_prob, flow.loss):
        with pytest.raises(ig.InputTypeError, match=r"a flow in torch\.b?float16\n.*torch\.autocast"):
            call(torch.zeros(2, 2, dtype=dtype))


def test_another_graph_brings_its_own_sizes() -> None:
    """The constant of the density is that of the new graph; a base that does not fit is refused."""

    def graph_of(size: int) -> ig.Graph:
        x = ig.InputNode(size, name="x")
        return ig.Graph(x, ig.Node(x, ig.Permute, {"seed": 0}))

    flow, data = ig.Flow(graph_of(4)), torch.randn(3, 2)
    flow.graph = graph_of(2)
    assert torch.equal(flow.log_prob(data), ig.Flow(graph_of(2)).log_prob(data))
    assert torch.equal(flow.loss(data), ig.Flow(graph_of(2)).loss(data))
    assert flow.sample(5).shape == (5, 2)
    based = ig.Flow(graph_of(2), base=Independent(Normal(torch.zeros(2), torch.ones(2)), 1))
    with pytest.raises(ig.GraphError, match="shape"):
        based.graph = graph_of(4)
    assert based.log_prob(data).shape == (3,)
    runner = ig.reversible(graph_of(2))
    with pytest.raises(ig.GraphError, match="make another runner"):
        runner.graph = graph_of(4)
