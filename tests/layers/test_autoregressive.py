"""Autoregressive flows: dependencies between elements, both inverses, IAF."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import invgraph as ig
from invgraph.core.call import CheckedTensors
from invgraph.testing import randomize

SPLINE = ig.RationalQuadraticSpline(bins=4)


def layer(size: int = 6, conds: Any = (), hidden: int = 32, scale: float = 1.0, **args: Any) -> ig.Autoregressive:
    torch.manual_seed(0)
    args.setdefault("transform", ig.Affine(clamp=1.0))
    return randomize(ig.Autoregressive((size,), conds, hidden=hidden, **args).double(), seed=1, scale=scale)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def jacobian(module: Any, x: Tensor, c: Any = ()) -> Tensor:
    return torch.func.jacrev(lambda x: module((x[None],), c)[0][0][0])(x)


@pytest.mark.parametrize("hidden", [3, 5, 32])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("conds", [(), ((2,),)], ids=["alone", "conditional"])
def test_each_number_depends_on_all_before_it_and_no_others(hidden: int, layers: int, conds: Any) -> None:
    module = layer(5, conds, hidden=hidden, layers=layers)
    seen = torch.zeros(5, 5, dtype=torch.bool)
    for seed in range(20):  # a ReLU may be off for one sample
        cs = tuple(normal(1, *shape, seed=100 + seed) for shape in conds)
        seen |= jacobian(module, normal(5, seed=seed), cs) != 0
    assert not bool(seen.triu(1).any())
    if hidden == 32:
        assert bool(seen.tril().sum() == 15)


def test_narrow_networks_still_see_late_inputs() -> None:
    module = layer(40, hidden=4)
    seen = torch.zeros(40, dtype=torch.bool)
    for seed in range(20):
        seen |= jacobian(module, normal(40, seed=seed))[39] != 0
    assert seen.nonzero().max() == 39
    assert seen[:39].nonzero().max() >= 25


@pytest.mark.parametrize("conds", [(), ((2,),)], ids=["alone", "conditional"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("hidden", [2, 3, 7, 8, 9, 16, 17])
def test_every_input_is_seen_at_every_width(hidden: int, layers: int, conds: Any) -> None:
    """Test the masks: the last output sees all inputs before it; with enough hidden units, every output does."""
    net = layer(9, conds, hidden=hidden, layers=layers).subnet
    reach = torch.eye(9)
    for index in range(layers + 1):
        reach = net.get_buffer(f"mask_{index}").float() @ reach
    seen = reach.view(2, 9, 9)[0] > 0
    assert not bool(seen.triu().any())
    assert bool(seen[8, :8].all())
    if hidden >= (9 if conds else 8):
        assert bool(torch.equal(seen, torch.ones(9, 9).tril(-1).bool()))
        # A unit that sees nothing but the conditions serves the first number.
        assert bool((net.get_buffer("mask_0").sum(1) == 0).any()) == bool(conds)


def test_one_unit_is_refused_where_it_is_too_few() -> None:
    assert ig.Autoregressive((2,), transform=ig.Affine(), hidden=1).size == 2
    for size, conds in ((3, ()), (2, ((2,),))):
        with pytest.raises(ig.GraphError, match=f"hidden=1 for {size} numbers(?s:.*)at least 2"):
            ig.Autoregressive((size,), conds, transform=ig.Affine(), hidden=1)


class Products(TorchDispatchMode):
    """Counts the multiplications in products of matrices; torch's own counter puts hooks on all modules."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm", "addmm_"):
            a, b = args[-2:]
            self.count += a.shape[0] * a.shape[1] * b.shape[1]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "plain"])
@pytest.mark.parametrize("conds", [(), ((2,),)], ids=["alone", "conditional"])
@pytest.mark.parametrize("hidden", [2, 7, 40])
def test_the_inverse_takes_the_arithmetic_of_one_pass(hidden: int, conds: Any, fused: bool) -> None:
    """Multiplications of the products, which are all but a few; the masked half of them is not computed."""
    module = layer(20, conds, hidden=hidden, layers=2)
    y, cs = normal(5, 20), tuple(normal(5, *shape, seed=3) for shape in conds)
    flops = []
    with torch.no_grad(), ig.fused(fused):
        for call in (module, module.inverse):
            with Products() as products:
                call((y,), cs)
            flops.append(products.count)
    assert 0 < flops[1] < flops[0]


@pytest.mark.parametrize("fused", [True, False], ids=["kernel", "plain"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("hidden", [2, 5, 30])
@pytest.mark.parametrize("conds", [(), ((2,),)], ids=["alone", "conditional"])
@pytest.mark.parametrize(
    "transform",
    [ig.Affine(clamp=1.0), SPLINE, pytest.param(ig.MixtureCDF(components=2), marks=pytest.mark.slow)],
    ids=str,
)
def test_the_inverse_by_places_is_that_of_whole_passes(
    transform: Any, conds: Any, hidden: int, layers: int, fused: bool
) -> None:
    """Values and gradients, of 1 and 3 samples per condition; a hook on a layer leaves the whole passes."""
    module = layer(11, conds, hidden=hidden, layers=layers, transform=transform, scale=0.5)
    y = normal(6, 11).requires_grad_()
    rows = [(normal(count, 2, seed=3).requires_grad_(),) if conds else () for count in (6, 2)]
    for cs in rows if conds else rows[:1]:
        found = []
        for hooked in (True, False):
            calls: list[Any] = []

            def note(*args: Any, calls: list[Any] = calls) -> None:
                calls.append(args)

            hook = module.subnet.layers[0].register_forward_hook(note) if hooked else None
            with ig.fused(fused):
                (x,), log_det = module.inverse(CheckedTensors((y,)), module.precompute(cs))
            loss = (x * normal(6, 11, seed=8)).sum() + (log_det * normal(6, seed=9)).sum()
            leaves = [y, *cs, *module.parameters()]
            found.append([x, log_det, *torch.autograd.grad(loss, leaves, materialize_grads=True)])
            assert len(calls) == (11 if hooked else 0)
            if hook is not None:
                hook.remove()
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("transform", [ig.Affine(clamp=1.0), SPLINE], ids=str)
def test_second_derivatives_of_the_inverse(transform: Any) -> None:
    module = layer(4, ((2,),), hidden=6, transform=transform, scale=0.5)
    y, c = normal(2, 4).requires_grad_(), normal(2, 2, seed=3).requires_grad_()
    weights = [parameter for parameter in module.parameters() if parameter.ndim == 2][:1]

    def inverse(y: Tensor, c: Tensor, *weights: Tensor) -> Any:
        (x,), log_det = module.inverse((y,), (c,))
        return x, log_det

    assert torch.autograd.gradcheck(inverse, (y, c, *weights))
    assert torch.autograd.gradgradcheck(inverse, (y, c, *weights), fast_mode=True)


def test_a_checkpoint_of_an_early_version_fits() -> None:
    """Names of tensors and of classes, by which a checkpoint is compared."""
    module = layer(4, ((2,),), layers=2)
    names = [f"layers.{index}.{name}" for index in range(3) for name in ("weight", "bias")]
    assert list(module.state_dict()) == [f"subnet.{name}" for name in (*names, "condition.weight")]
    assert [type(part).__name__ for part in module.modules()] == [
        "Autoregressive", "_Masked", "ModuleList", "Linear", "Linear", "Linear", "Linear",
    ]  # fmt: skip


@pytest.mark.parametrize("conds", [(), ((3,),), ((3,), (2, 4))], ids=str)
@pytest.mark.parametrize("transform", [ig.Affine(), SPLINE, ig.MixtureCDF(components=2)], ids=str)
def test_the_inverse_is_exact(conds: Any, transform: Any) -> None:
    module = layer(6, conds, transform=transform, scale=0.3)
    x, cs = normal(20, 6), tuple(normal(20, *shape, seed=7) for shape in conds)
    (y,), log_det = module((x,), cs)
    (back,), minus = module.inverse((y,), cs)
    assert torch.allclose(back, x, rtol=0, atol=1e-11)
    assert torch.allclose(minus, -log_det, rtol=0, atol=1e-11)


def test_the_inverse_is_iaf() -> None:
    module = layer(5, ((2,),))
    iaf = ig.Inverse(module)
    z, c = normal(7, 5), normal(7, 2, seed=3)
    (x,), log_det = iaf((z,), (c,))
    exact = torch.stack([torch.func.jacrev(lambda z, c=c: iaf((z[None],), (c[None],))[0][0][0])(z)
                         for z, c in zip(z, c, strict=True)])  # fmt: skip
    assert torch.allclose(log_det, torch.linalg.slogdet(exact).logabsdet, rtol=0, atol=1e-10)
    (back,), _ = iaf.inverse((x,), (c,))
    assert torch.allclose(back, z, rtol=0, atol=1e-11)
    node, cond = ig.InputNode(5, name="z"), ig.ConditionNode(2, name="c")
    graph = ig.Graph(node, ig.Node(node, iaf, conditions=cond), cond)
    assert torch.equal(graph(z, c)[0], x)


@pytest.mark.parametrize("tolerance", [1e-4, 1e-12])
@pytest.mark.parametrize("transform", [ig.Affine(clamp=1.0), SPLINE], ids=str)
def test_the_quick_inverse_keeps_its_tolerance(transform: Any, tolerance: float) -> None:
    module = layer(64, ((3,),), transform=transform, scale=0.3, tolerance=tolerance)
    sizes = count_parts(module)
    y, c = 2 * normal(20, 64), normal(20, 3, seed=5)
    with torch.no_grad():
        (x,), log_det = module.inverse((y,), (c,))
    assert 0 < len(sizes) <= 32
    assert set(sizes) == {64}
    (image,), there = module((x,), (c,))
    assert ((image - y).abs() <= tolerance * y.abs().clamp(min=1)).all()
    assert torch.allclose(log_det, -there, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("blocks", "parts"), [(1, [8] * 4), (2, [4, 4] * 2)], ids=["whole", "blocks"])
def test_the_quick_inverse_falls_back_to_the_exact_one(blocks: int, parts: list[int]) -> None:
    """A block that does not converge is inverted exactly by itself."""
    quick = layer(8, transform=ig.Affine(clamp=3.0), scale=9.0, tolerance=1e-10, blocks=blocks)
    exact = layer(8, transform=ig.Affine(clamp=3.0), scale=9.0)
    y = 5 * normal(4, 8)
    sizes = count_parts(quick)
    with torch.no_grad():
        (x,), log_det = quick.inverse((y,))
        (wanted,), its = exact.inverse((y,))
    assert sizes == parts
    close = 0 if blocks == 1 else 1e-12
    assert torch.allclose(x, wanted, rtol=close, atol=0)
    assert torch.allclose(log_det, its, rtol=close, atol=0)


@pytest.mark.parametrize("blocks", [1, 3, 8, 64])
@pytest.mark.parametrize("transform", [ig.Affine(clamp=1.0), SPLINE], ids=str)
def test_the_inverse_by_blocks_keeps_its_tolerance(transform: Any, blocks: int) -> None:
    module = layer(64, ((3,),), transform=transform, scale=0.3, tolerance=1e-6, blocks=blocks)
    sizes = count_parts(module)
    y, c = 2 * normal(20, 64), normal(20, 3, seed=5)
    with torch.no_grad():
        (x,), log_det = module.inverse((y,), (c,))
    assert sum(sizes) <= 64 * 32
    (image,), there = module((x,), (c,))
    assert ((image - y).abs() <= 1e-6 * y.abs().clamp(min=1) + 1e-12).all()
    assert torch.allclose(log_det, -there, rtol=0, atol=1e-11)


def test_blocks_evaluate_fewer_parameters_than_one_guess_at_all() -> None:
    evaluated, passes = {}, {}
    for blocks in (1, 2, 4, 8):
        module = layer(256, transform=SPLINE, scale=0.3, hidden=64, layers=2, tolerance=1e-6, blocks=blocks)
        sizes = count_parts(module)
        with torch.no_grad():
            module.inverse((normal(64, 256),))
        evaluated[blocks], passes[blocks] = sum(sizes) / 256, len(sizes)
        print(f"{blocks} blocks: {len(sizes)} passes, the parameters of {evaluated[blocks]:.2f} samples")
    print("exact: 256 passes, the parameters of 1 sample")
    assert evaluated[1] > evaluated[2] > evaluated[4] > evaluated[8]
    assert passes[8] < 256


def test_the_quick_inverse_is_exact_where_gradients_are_recorded() -> None:
    quick, exact = layer(8, tolerance=1e-2), layer(8)
    y = normal(4, 8).requires_grad_()
    for one, other in zip(gradients(quick, y), gradients(exact, y), strict=True):
        assert torch.equal(one, other)


def gradients(module: ig.Autoregressive, y: Tensor) -> tuple[Tensor, ...]:
    (x,), log_det = module.inverse((y,))
    return torch.autograd.grad(x.square().sum() + log_det.sum(), (y, *module.parameters()))


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("tolerance", [None, 1e-6])
def test_small_batches(batch: int, tolerance: Any) -> None:
    module = layer(4, ((2,),), tolerance=tolerance)
    with torch.no_grad():
        for call in (module, module.inverse):
            (y,), log_det = call((normal(batch, 4),), (normal(batch, 2),))
            assert y.shape == (batch, 4)
            assert log_det.shape == (batch,)


def test_huge_and_subnormal_numbers_come_back() -> None:
    module = layer(3, transform=SPLINE)
    x = torch.tensor([[1e30, 0.0, -1e30], [5e-324, -1e-310, 3.0], [-3.0, 3.0000000000000004, 1e4]], dtype=torch.float64)
    (y,), log_det = module((x,))
    assert bool(y.isfinite().all() & log_det.isfinite().all())
    (back,), _ = module.inverse((y,))
    assert torch.allclose(back, x, rtol=1e-10, atol=1e-10)


@pytest.mark.slow  # the fast suite compiles one of each layer: tests/graph/test_compile.py
def test_density_compiles_without_a_graph_break_and_so_does_the_exact_inverse() -> None:
    module = layer(4, transform=SPLINE)
    x = normal(3, 4)
    for call in (module, module.inverse):
        torch._dynamo.reset()
        (y,), log_det = torch.compile(call, fullgraph=True, backend="eager")((x,))
        (z,), other = call((x,))
        assert torch.allclose(y, z, rtol=0, atol=1e-12)
        assert torch.allclose(log_det, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        ({"transform": ig.Sigmoid()}, ig.GraphError, "takes no parameters"),
        ({"transform": ig.VolumePreserving()}, ig.GraphError, "couples the elements of a sample"),
        ({"transform": "affine"}, ig.ArgumentError, "expected a transform"),
        ({"hidden": 0}, ig.GraphError, "positive"),
        ({"hidden": 2.5}, ig.ArgumentError, "int"),
        ({"layers": 0}, ig.GraphError, "positive"),
        ({"tolerance": 0}, ig.GraphError, "tolerance must be positive"),
        ({"tolerance": 1e-3, "blocks": 0}, ig.GraphError, "positive"),
        ({"tolerance": 1e-3, "blocks": 5}, ig.GraphError, "there are 4 numbers"),
        ({"tolerance": 1e-3, "blocks": 2.0}, ig.ArgumentError, "int"),
        ({"blocks": 2}, ig.GraphError, "give a tolerance too"),
        ({"tolerance": "low"}, ig.ArgumentError, "tolerance must be a number"),
    ],
)
def test_bad_arguments_are_refused(args: dict[str, Any], error: Any, words: str) -> None:
    with pytest.raises(error) as caught:
        ig.Autoregressive((4,), **({"transform": ig.Affine(), "hidden": 4} | args))
    assert words in str(caught.value)


def test_a_single_number_is_refused() -> None:
    with pytest.raises(ig.GraphError, match="use Elementwise"):
        ig.Autoregressive((1,), transform=ig.Affine(), hidden=4)


def count_parts(module: ig.Autoregressive) -> list[int]:
    """Record, for each subsequent evaluation of the network, for how many elements it computes parameters."""
    sizes: list[int] = []
    original = module.subnet.part

    def counted(x: Tensor, given: Any, places: slice) -> Tensor:
        sizes.append(places.stop - places.start)
        return original(x, given, places)

    module.subnet.part = counted
    return sizes


def test_the_kinks_of_hidden_units_start_in_different_places_and_the_layer_at_the_identity() -> None:
    layer = ig.Autoregressive((4,), ((3,),), transform=ig.RationalQuadraticSpline(), hidden=32, layers=2)
    for hidden in layer.subnet.layers[:-1]:
        assert isinstance(hidden.bias, torch.Tensor)
        assert hidden.bias.unique().numel() == 32
    x = torch.randn(5, 4)
    (y,), log_det = layer((x,), (torch.randn(5, 3),))
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(log_det, torch.zeros(5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("transform", [ig.Affine(), ig.RationalQuadraticSpline(bins=3)])
def test_weights_that_are_no_parameters_are_read_at_every_call(transform: Any) -> None:
    """FSDP and hypernetworks have such."""
    module = layer(4, ((3,),), hidden=8, layers=2, transform=transform)
    x, c = normal(5, 4), normal(5, 3)
    first = module.subnet.layers[0]
    weight = first.weight.detach()
    del first.weight
    for factor in (1.0, 2.0):
        first.weight = weight * factor
        (y,), log_det = module((x,), (c,))
        with ig.fused(False):
            (expected,), expected_log_det = module((x,), (c,))
        torch.testing.assert_close((y, log_det), (expected, expected_log_det))


def test_a_condition_layer_with_a_bias_keeps_it() -> None:
    module = layer(4, ((3,),), hidden=8)
    x, c = normal(5, 4), normal(5, 3)
    width = module.subnet.condition.out_features
    module.subnet.condition = torch.nn.Linear(3, width).double()
    (y,), _ = module((x,), (c,))
    with ig.fused(False):
        torch.testing.assert_close(y, module((x,), (c,))[0][0])


def test_weights_put_in_for_one_call_are_not_kept() -> None:
    module = layer(4, (), hidden=8)
    fast = {name: (2 * value).requires_grad_() for name, value in module.named_parameters()}
    alive = [weakref.ref(value) for value in fast.values()]
    torch.func.functional_call(module, fast, ((normal(5, 4),),))
    del fast
    gc.collect()
    assert not any(reference() is not None for reference in alive)
