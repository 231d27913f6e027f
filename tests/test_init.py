"""Start values of models: the helpers of ig.init, initialization by data through a graph, and deep stacks."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import invgraph as ig
from invgraph.testing import randomize


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 32), nn.ReLU(), nn.Linear(32, channels_out))


def stack(depth: int, subnet: Any, *, norm: bool = False, clamp: float = 1.9) -> ig.Graph:
    x, h = (node := ig.InputNode(8, name="x")), node
    for k in range(depth):
        h = ig.Node(h, ig.Permute, {"seed": k})
        h = ig.Node(h, ig.ActNorm) if norm else h
        h = ig.Node(h, ig.Coupling, {"transform": ig.Affine(clamp=clamp), "subnet": subnet})
    return ig.Graph(x, h)


def round_trip(graph: ig.Graph, x: torch.Tensor) -> float:
    z, log_det = graph(x)
    assert bool(torch.isfinite(z).all())
    assert bool(torch.isfinite(log_det).all())
    back, _ = graph.inverse(z)
    return float((back - x).abs().max().detach())


DEFAULTS: list[tuple[str, Callable[[ig.Graph], object]]] = [
    ("as built", lambda graph: None),
    ("after some training", lambda graph: randomize(graph, scale=0.1)),
    ("the paper's normal, last layers too", lambda graph: ig.init.scaled_normal(graph, zero_last=False)),
]


@pytest.mark.parametrize(
    ("told", "start"),
    [pytest.param(*row, id=row[0], marks=pytest.mark.slow if place == 1 else ()) for place, row in enumerate(DEFAULTS)],
)
def test_128_default_blocks_round_trip_in_float32(told: str, start: Callable[[ig.Graph], object]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        graph = stack(128, ig.nets.MLP(hidden=64))
        start(graph)
        assert round_trip(graph, noise(64, 8)) <= 1e-3


@pytest.mark.slow
def test_128_default_images_blocks_round_trip_in_float32() -> None:
    x = ig.InputNode(4, 4, 4, name="x")
    block = (ig.AllInOne, {"subnet": ig.nets.ConvNet(hidden=8), "transform": ig.Affine(clamp=1.0)})
    graph = ig.Graph(x, ig.chain(x, *(block,) * 128))
    assert round_trip(randomize(graph, scale=0.05), noise(4, 4, 4, 4)) <= 1e-3


def test_128_blocks_of_plain_subnets_start_as_the_identity() -> None:
    graph = stack(128, plain, clamp=2.0)
    ig.init.identity(graph)
    assert round_trip(graph, noise(64, 8)) == 0


NETS = [
    ((4,), ig.nets.MLP(8)),
    ((4,), ig.nets.ResidualMLP(8)),
    ((4,), plain),
    ((4, 4, 4), ig.nets.ConvNet(8)),
    ((4, 4, 4), ig.nets.ResidualConvNet(8)),
    ((4, 4, 4), ig.nets.UNet(4)),
    ((4, 4, 4), ig.nets.GatedAttention(4, heads=2)),
    ((4, 4, 4), ig.nets.ViT(4, depth=1, heads=2)),
]


@pytest.mark.parametrize(("shape", "subnet"), NETS, ids=lambda value: type(value).__name__)
def test_identity_makes_every_coupling_the_identity(shape: tuple[int, ...], subnet: Any) -> None:
    layer = ig.Coupling(shape, ((3,),), transform=ig.Affine(), subnet=subnet)
    x, c = noise(2, *shape), noise(2, 3)
    randomize(layer)
    assert not torch.allclose(layer((x,), (c,))[0][0], x)
    ig.init.identity(layer)
    (y,), log_det = layer((x,), (c,))
    assert torch.equal(y, x)
    assert not log_det.any()


WEIGHT_NORMS = [nn.utils.parametrizations.weight_norm, nn.utils.weight_norm]


def normed(wrap: Any, outside: bool) -> ig.Coupling:
    def subnet(channels: int, channels_out: int) -> nn.Module:
        layers = nn.Linear(channels, 8), nn.Linear(8, channels_out)
        first, last = layers if outside else map(wrap, layers)
        return nn.Sequential(first, nn.ReLU(), last)

    layer = ig.Coupling((4,), transform=ig.Affine(), subnet=subnet)
    for linear in [part for part in layer.modules() if isinstance(part, nn.Linear)] if outside else []:
        wrap(linear)
    return layer


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("outside", [True, False])
@pytest.mark.parametrize("wrap", WEIGHT_NORMS)
@pytest.mark.parametrize("start", [ig.init.identity, ig.init.xavier, ig.init.scaled_normal])
def test_subnets_under_weight_norm_start_as_the_identity_and_learn(start: Any, wrap: Any, outside: bool) -> None:
    layer, x = normed(wrap, outside), noise(5, 4)
    start(layer)
    (y,), log_det = layer((x,))
    assert torch.equal(y, x)
    (y.square().sum() - log_det.sum()).backward()
    assert sum(int(p.grad.abs().sum() > 0) for p in layer.parameters() if p.grad is not None) >= 4


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("wrap", WEIGHT_NORMS)
def test_weights_under_weight_norm_are_those_that_are_drawn(wrap: Any) -> None:
    layer, x = normed(wrap, False), noise(5, 4)
    ig.init.scaled_normal(layer, seed=3, zero_last=False)
    for part in layer.modules():
        if isinstance(part, nn.Linear):
            part(torch.zeros(1, part.in_features))  # the older kind computes its weight then
            assert part.weight.std() < 0.1
    deviation = layer((x,))[0][0] - x
    assert 0 < deviation.abs().max() < 1
    assert bool(deviation.isfinite().all())


@pytest.mark.filterwarnings("ignore:.*spectral_norm:FutureWarning")
@pytest.mark.parametrize("wrap", [nn.utils.parametrizations.spectral_norm, nn.utils.spectral_norm])
def test_a_weight_that_cannot_be_zero_is_refused_and_nothing_changes(wrap: Any) -> None:
    layer = normed(wrap, False)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    for start in (ig.init.identity, ig.init.xavier, ig.init.scaled_normal):
        with pytest.raises(ig.GraphError, match="it can't be zero"):
            start(layer)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_normalization_layers_of_any_kind_keep_their_scales() -> None:
    def subnet(channels: int, channels_out: int) -> nn.Module:
        kinds = nn.InstanceNorm2d(8, affine=True), nn.RMSNorm(4), nn.LayerNorm(4), nn.BatchNorm2d(8)
        return nn.Sequential(nn.Conv2d(channels, 8, 1), *kinds, nn.Conv2d(8, channels_out, 1))

    layer = ig.Coupling((4, 4, 4), transform=ig.Affine(), subnet=subnet)
    for start in (ig.init.xavier, ig.init.scaled_normal):
        start(layer)
        norms = [part for part in layer.modules() if "Norm" in type(part).__name__]
        assert len(norms) == 8
        assert all(bool((part.weight == 1).all()) for part in norms)  # type: ignore[operator]


def test_identity_covers_autoregressive_and_residual_layers() -> None:
    x = noise(2, 4)
    for layer in (ig.Autoregressive((4,), transform=ig.Affine(), hidden=8), ig.Residual((4,), hidden=8)):
        randomize(layer)
        ig.init.identity(layer)
        assert torch.equal(layer((x,))[0][0], x)


def test_the_papers_normal_has_its_deviation_and_is_repeatable() -> None:
    layer = ig.Coupling((64,), transform=ig.Affine(), subnet=ig.nets.MLP(hidden=512))
    state = torch.get_rng_state()
    ig.init.scaled_normal(layer, std=0.02, seed=5)
    net = layer.subnets[0][0]
    assert abs(net.layers[0].weight.std() - 0.02) < 0.001
    assert abs(net.layers[0].bias.std() - 0.02) < 0.002
    assert not net.layers[-1].weight.any()
    first = net.layers[0].weight.clone()
    ig.init.scaled_normal(layer, std=0.02, seed=5)
    assert torch.equal(first, net.layers[0].weight)
    assert not torch.equal(first, layer.subnets[1][0].layers[0].weight)
    assert torch.equal(state, torch.get_rng_state())


def test_xaviers_deviation_follows_the_fans() -> None:
    layer = ig.Coupling((8, 4, 4), transform=ig.Affine(), subnet=ig.nets.ConvNet(hidden=256, kernel=3))
    ig.init.xavier(layer, gain=2.0, zero_last=False)
    first, last = layer.subnets[0][0].layers
    assert abs(first.weight.std() / (2 * (2 / (9 * (4 + 256))) ** 0.5) - 1) < 0.03
    assert abs(last.weight.std() / (2 * (2 / (9 * (256 + 8))) ** 0.5) - 1) < 0.03
    assert not first.bias.any()


def test_norms_keep_their_start() -> None:
    layer = ig.Coupling((4, 4, 4), transform=ig.Affine(), subnet=ig.nets.ViT(4, depth=1, heads=2))
    ig.init.xavier(layer)
    ig.init.scaled_normal(layer)
    norms = [module for module in layer.modules() if isinstance(module, nn.LayerNorm)]
    assert norms
    assert all(bool((norm.weight == 1).all()) for norm in norms)


@pytest.mark.parametrize(
    ("std", "error"), [(-1.0, ig.GraphError), (float("nan"), ig.GraphError), ("a", ig.ArgumentError)]
)
def test_wrong_deviations_are_refused(std: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="std must be"):
        ig.init.scaled_normal(nn.Identity(), std=std)


MISTAKES: list[tuple[Callable[[], object], type[ig.InvgraphError], str]] = [
    (lambda: ig.init.identity(ig.Coupling), ig.ArgumentError, "already built"),  # type: ignore[arg-type]
    (lambda: ig.init.xavier("a"), ig.ArgumentError, "already built"),  # type: ignore[arg-type]
    (lambda: ig.init.xavier(nn.Identity(), "a"), ig.ArgumentError, "gain must be"),  # type: ignore[arg-type]
    (lambda: ig.init.xavier(nn.Identity(), math.nan), ig.GraphError, "gain must be finite"),
    (lambda: ig.init.xavier(nn.Identity(), 10**400), ig.GraphError, "gain must be finite"),
    (lambda: ig.init.xavier(nn.Identity(), -1.0), ig.GraphError, "not negative"),
    (lambda: ig.init.xavier(nn.Identity(), seed="a"), ig.ArgumentError, "seed must be"),  # type: ignore[arg-type]
    (lambda: ig.init.xavier(nn.Identity(), seed=2**64), ig.GraphError, "seed must be at least"),
    (lambda: ig.init.xavier(nn.Identity(), zero_last=1), ig.ArgumentError, "zero_last must"),  # type: ignore[arg-type]
    (lambda: ig.init.scaled_normal(None), ig.ArgumentError, "already built"),  # type: ignore[arg-type]
    (lambda: ig.init.scaled_normal(nn.Identity(), seed=0.5), ig.ArgumentError, "seed must"),  # type: ignore[arg-type]
    (lambda: ig.init.scaled_normal(nn.Identity(), seed=10**9999), ig.GraphError, "seed of 33216 bits"),
]


@pytest.mark.parametrize(("mistake", "error", "words"), MISTAKES)
def test_mistakes_are_refused(mistake: Callable[[], object], error: type[ig.InvgraphError], words: str) -> None:
    with pytest.raises(error) as caught:
        mistake()
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


# Initialization by data


def moments(y: torch.Tensor) -> tuple[float, float]:
    """The worst mean, and the worst deviation from 1, of a channel."""
    channels = y.detach().transpose(0, 1).flatten(1)
    return float(channels.mean(1).abs().max()), float((channels.std(1, correction=0) - 1).abs().max())


def test_actnorms_of_a_graph_start_from_what_reaches_them() -> None:
    graph = stack(6, ig.nets.MLP(hidden=16), norm=True)
    with pytest.raises(ig.GraphError, match=r"call initialize\(batch\)"):
        graph(noise(4, 8))
    randomize(graph)
    batch = noise(256, 8) * 5 + 3
    graph.initialize(batch)
    reached: list[tuple[float, float]] = []
    norms = [module for module in graph.modules() if isinstance(module, ig.ActNorm)]
    hooks = [norm.register_forward_hook(lambda m, i, out: reached.append(moments(out[0][0]))) for norm in norms]
    graph(batch)
    for hook in hooks:
        hook.remove()
    assert len(reached) == 6
    assert all(mean < 1e-4 and deviation < 1e-4 for mean, deviation in reached)
    assert round_trip(graph, batch) < 1e-3


def test_conditions_features_and_nested_graphs_take_part() -> None:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
    inner_x, inner_c = ig.InputNode(4, name="x"), ig.ConditionNode(2, name="c")
    inner = ig.Graph(inner_x, ig.chain(inner_x, (ig.Coupling, args), ig.ActNorm, conditions=inner_c), inner_c)
    feature = ig.FeatureNode(c, nn.Linear, {"in_features": 3, "out_features": 2}, name="feature")
    h = ig.Node(x, inner, conditions=feature, name="nested")
    h = ig.Node(h, ig.AllInOne, {"subnet": ig.nets.MLP(hidden=8), "permutation": "hard"}, conditions=c, name="block")
    graph = randomize(ig.Graph(x, h, c))
    batch, given = noise(256, 4) * 3 - 1, noise(256, 3, seed=1)
    graph.initialize(batch, given, again=True)  # randomize has set the block
    middle = graph["nested"](batch, graph["feature"](given))[0]
    assert max(moments(middle)) < 1e-4
    assert max(moments(graph(batch, given)[0])) < 1e-4  # a permutation keeps channels as they are


@pytest.mark.parametrize("norm", [ig.ActNorm, ig.AllInOne])
def test_an_inverted_layer_starts_from_what_reaches_it(norm: type[ig.Invertible]) -> None:
    layer = randomize(norm((4,), **({} if norm is ig.ActNorm else {"subnet": ig.nets.MLP(8), "permutation": "hard"})))
    x = ig.InputNode(4, name="x")
    h = ig.chain(x, (ig.Orthogonal, {"seed": 1}), ig.Inverse(layer))
    graph = ig.Graph(x, h)
    batch = noise(256, 4) * 3 - 1
    graph.initialize(batch, again=True)  # randomize has set the block
    y = graph(batch)[0]
    inner = layer((y,))[0][0]  # what the layer undid
    assert torch.allclose(inner, graph["orthogonal_0"]((batch,))[0][0], atol=1e-4)
    if norm is ig.ActNorm:
        assert max(moments(y)) < 1e-4
    assert round_trip(graph, batch) < 1e-4


def test_the_inverse_of_a_graph_starts_along_the_inverse() -> None:
    z = noise(256, 8) * 5 + 3
    reached: list[tuple[float, float]] = []
    outer_x = ig.InputNode(8, name="z")
    for wrap in (
        ig.Inverse,
        lambda graph: ig.Graph(outer_x, ig.Node(outer_x, ig.Inverse(graph))),
        lambda graph: ig.Inverse(ig.Inverse(ig.Inverse(graph))),
        lambda graph: ig.Inverse(ig.reversible(graph)),
    ):
        graph = stack(3, ig.nets.MLP(hidden=8), norm=True)
        module = wrap(graph)
        module.initialize(z)
        reached.clear()
        for norm in (module for module in graph.modules() if isinstance(module, ig.ActNorm)):
            whole = norm.inverse

            def watched(ys: Any, cs: Any = (), whole: Any = whole) -> Any:
                result = whole(ys, cs)
                reached.append(moments(result[0][0]))
                return result

            norm.inverse = watched
        module(z)
        assert len(reached) == 3
        assert all(mean < 1e-4 and deviation < 1e-4 for mean, deviation in reached)


def test_runners_and_inverted_layers_are_initialized_by_themselves() -> None:
    batch = noise(256, 8) * 5 + 3
    graph = stack(2, ig.nets.MLP(hidden=8), norm=True)
    ig.reversible(graph).initialize(batch)
    assert max(moments(graph(batch)[0])) < 1e-4
    norm = ig.Inverse(ig.ActNorm((8,)))
    norm.initialize((batch,))
    assert max(moments(norm((batch,))[0][0])) < 1e-4


def test_layers_are_initialized_by_themselves() -> None:
    """Given as in a forward call."""
    batch, given = noise(256, 4) * 5 + 3, noise(256, 3, seed=1)
    block = randomize(ig.AllInOne((4,), ((3,),), subnet=ig.nets.MLP(8), permutation="hard"))
    block.initialize((batch,), (given,), again=True)  # randomize has set it
    assert max(moments(block((batch,), (given,))[0][0])) < 1e-4
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
    graph = ig.Graph([x], ig.chain(x, (ig.Coupling, args), ig.ActNorm, conditions=c), c)
    nested = ig.Graph(outer := ig.InputNode(4), ig.Node(outer, graph, conditions=(d := ig.ConditionNode(3))), d)
    for module, arguments in (
        (nested, (batch, given)),
        (nested["graph_0"], ((batch,), given)),
        (graph, ((batch,), given)),
    ):
        graph["actnorm_0"].shift.data.zero_()
        module.initialize(*arguments, again=True)
        assert max(moments(graph((batch,), given)[0])) < 1e-4


def test_dequantization_is_initialized_by_itself() -> None:
    pixels = torch.randint(8, (32, 4), generator=torch.Generator().manual_seed(0)).float()
    x, c = ig.InputNode(4, name="eps"), ig.ConditionNode(4, name="image")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(8)}
    noisy = ig.Graph(x, ig.chain(x, ig.ActNorm, (ig.Coupling, args), conditions=c), c)
    layer = ig.Dequantize((4,), levels=8, noise=noisy)
    layer.initialize((pixels,))
    assert bool(layer((pixels,))[0][0].isfinite().all())


def test_what_initialize_gets_is_checked_as_in_a_call() -> None:
    block = ig.AllInOne((4,), ((3,),), subnet=ig.nets.MLP(8))
    for arguments, error, words in (
        (((noise(8, 4),),), ig.ShapeError, "condition 0 is missing"),
        (((noise(8, 4),), (noise(8, 3), noise(8, 3))), ig.ShapeError, "surplus condition"),
        (((noise(8, 5),), (noise(8, 3),)), ig.ShapeError, "axis 1 has size 5 instead of 4"),
        (((noise(8, 4),), (noise(7, 3),)), ig.ShapeError, "same batch size"),
        (((noise(8, 4).double(),), (noise(8, 3),)), ig.InputTypeError, "expected torch.float32"),
        ((noise(8, 4), (noise(8, 3),)), ig.InputTypeError, "expected a tuple"),
        (("a", "b"), ig.InputTypeError, "expected a tuple"),
    ):
        with pytest.raises(error) as caught:
            block.initialize(*arguments)
        assert words in str(caught.value)


def test_the_noise_of_dequantization_starts_too() -> None:
    inner, image = ig.InputNode(4, name="noise"), ig.ConditionNode(4, name="image")
    h = ig.Node(ig.chain(inner, ig.ActNorm), ig.Coupling, {"transform": ig.Affine(), "subnet": ig.nets.MLP(8)},
                conditions=image)  # fmt: skip
    x = ig.InputNode(4, name="x")
    graph = ig.Graph(x, ig.Node(x, ig.Dequantize((4,), levels=8, noise=ig.Graph(inner, h, image))))
    pixels = torch.randint(8, (32, 4)).float()
    graph.initialize(pixels)
    assert bool(graph(pixels)[0].isfinite().all())


def test_initialization_happens_at_the_users_word_alone() -> None:
    graph = stack(2, ig.nets.MLP(hidden=8), norm=True)
    graph.initialize(noise(64, 8))
    before = {name: value.clone() for name, value in graph.state_dict().items()}
    graph.train()(noise(64, 8, seed=1) * 100)
    graph.eval()(noise(64, 8, seed=1) * 100)
    assert all(torch.equal(value, before[name]) for name, value in graph.state_dict().items())


def test_a_batch_without_a_scale_is_refused_with_the_node() -> None:
    graph = stack(1, ig.nets.MLP(hidden=8), norm=True)
    with pytest.raises(ig.NumericsError, match=r"(?s)node 'actnorm_0' \(ActNorm\).*at least two numbers"):
        graph.initialize(noise(1, 8))
    with pytest.raises(ig.NumericsError, match="channel 0 is constant"):
        graph.initialize(torch.zeros(16, 8))
    for value in (torch.nan, torch.inf):
        batch = noise(16, 8)
        batch[3, 2] = value
        with pytest.raises(ig.NumericsError, match=r"deviation of channel \d is NaN or infinite"):
            graph.initialize(batch)


@pytest.mark.parametrize("layer", ["norm", "block"])
@pytest.mark.parametrize(
    ("dtype", "unit", "rows"),
    [(torch.float32, 1e30, 64), (torch.float32, 1e-30, 64), (torch.float16, 300.0, 64), (torch.bfloat16, 1.0, 70_000)],
)
def test_a_batch_is_measured_whatever_its_unit(layer: str, dtype: torch.dtype, unit: float, rows: int) -> None:
    made = ig.ActNorm((2,)) if layer == "norm" else ig.AllInOne((2,), subnet=ig.nets.MLP(2), permutation="hard")
    made = made.to(dtype)
    batch = (unit * noise(rows, 2)).to(dtype)
    made.initialize((batch,))
    (y,), _ = made((batch,))
    torch.testing.assert_close(y.float().std(0), torch.ones(2), atol=0.1, rtol=0)


def test_a_loaded_graph_needs_no_second_initialization() -> None:
    graph = stack(2, ig.nets.MLP(hidden=8), norm=True)
    graph.initialize(noise(64, 8))
    other = stack(2, ig.nets.MLP(hidden=8), norm=True)
    other.load_state_dict(graph.state_dict())
    assert torch.equal(other(noise(3, 8))[0], graph(noise(3, 8))[0])


TRAINED: tuple[Callable[[], ig.Invertible], ...] = (
    lambda: stack(2, ig.nets.MLP(hidden=8), norm=True),
    lambda: ig.reversible(stack(2, ig.nets.MLP(hidden=8), norm=True)),
    lambda: ig.Inverse(stack(2, ig.nets.MLP(hidden=8), norm=True)),
    lambda: ig.Graph(x := ig.InputNode(8), ig.Node(x, stack(1, ig.nets.MLP(hidden=8), norm=True))),
    lambda: ig.Graph(x := ig.InputNode(8), ig.Node(x, ig.AllInOne, {"subnet": ig.nets.MLP(8)})),
    lambda: ig.Graph(x := ig.InputNode(8), ig.Node(x, ig.AllInOne, {"subnet": ig.nets.MLP(8), "scale": False})),
)


@pytest.mark.parametrize("build", TRAINED)
def test_a_second_initialization_needs_to_be_asked_for(build: Callable[[], ig.Invertible]) -> None:
    module, fresh, batch = build(), build(), noise(64, 8) * 3 + 1
    module.initialize(batch)
    loaded = copy.deepcopy(fresh)
    loaded.load_state_dict(module.state_dict())
    before = module(batch)[0]
    for one in (module, loaded, copy.deepcopy(module)):
        with pytest.raises(ig.GraphError, match=r"already initialized\n.*again=True"):
            one.initialize(batch * 2)
        assert torch.equal(one(batch)[0], before)
    module.initialize(batch * 2, again=True)
    assert not torch.equal(module(batch)[0], before)
    with pytest.raises(ig.ArgumentError, match="again"):
        fresh.initialize(batch, again="yes")  # type: ignore[arg-type]


def test_a_batch_refused_half_way_initializes_no_layer() -> None:
    x = ig.InputNode(2, name="x")
    far = ig.Elementwise((2,), transform=ig.Affine())
    torch.nn.init.constant_(far.params, 1e30)  # type: ignore[arg-type]
    graph = ig.Graph(x, ig.chain(x, (ig.AllInOne, {"subnet": ig.nets.MLP(8)}), ig.ActNorm, far, ig.ActNorm))
    before = {name: value.clone() for name, value in graph.state_dict().items()}
    with pytest.raises(ig.NumericsError):
        graph.initialize(noise(64, 2))
    assert all(torch.equal(value, before[name]) for name, value in graph.state_dict().items())
    with pytest.raises(ig.GraphError, match="a call before initialize"):
        graph(noise(4, 2))


def test_the_buffer_alone_says_whether_a_layer_is_initialized() -> None:
    """Copies made before, other tensors for one call, weights copied by hand."""
    graph, batch = stack(2, ig.nets.MLP(hidden=8), norm=True), noise(64, 8) * 3 + 1
    average = torch.optim.swa_utils.AveragedModel(graph, use_buffers=True)
    by_hand, fresh = copy.deepcopy(graph), copy.deepcopy(graph)
    graph.initialize(batch)
    expected = graph(batch)[0]
    average.update_parameters(graph)
    assert torch.equal(average(batch)[0], expected)
    with torch.no_grad():
        for name, value in by_hand.state_dict().items():
            value.copy_(graph.state_dict()[name])
    assert torch.equal(by_hand(batch)[0], expected)
    assert torch.equal(copy.deepcopy(by_hand)(batch)[0], expected)
    state = dict(graph.state_dict())
    for _ in range(2):
        assert torch.equal(torch.func.functional_call(fresh, state, (batch,))[0], expected)
        with pytest.raises(ig.GraphError, match="a call before initialize"):
            fresh(batch)
    fresh.load_state_dict(state, assign=True)
    assert torch.equal(fresh(batch)[0], expected)
    compiled = torch.compile(by_hand, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(batch)[0], expected, atol=1e-5)


def test_a_stack_of_initialized_models_runs_under_vmap() -> None:
    models, batch = [stack(1, ig.nets.MLP(hidden=8), norm=True) for _ in range(2)], noise(64, 8) * 3 + 1
    for factor, model in enumerate(models, 1):
        model.initialize(batch * factor)
    state = torch.func.stack_module_state(models)
    base = copy.deepcopy(models[0]).to("meta")
    found = torch.vmap(lambda *both: torch.func.functional_call(base, both, (batch,))[0])(*state)
    assert torch.allclose(found, torch.stack([model(batch)[0] for model in models]), atol=1e-5)
