"""The argument checks: which values each one accepts, the plain Python value it returns, and what it refuses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import invgraph as ig
from invgraph import arguments
from invgraph.checkpoint.fingerprint import fingerprint
from invgraph.shapes import as_shape, as_shapes

Check = Callable[[object], object]


def count(value: object) -> int:
    return arguments.require_count("here", "n", value)


def seed(value: object) -> int:
    return arguments.require_seed("here", value)


def number(value: object) -> float:
    return arguments.as_number("here", "n", value)


def amount(value: object) -> float:
    return arguments.require_amount("here", "n", value)


def positive(value: object) -> float:
    return arguments.require_positive("here", "n", value)


def flag(value: object) -> bool:
    return arguments.require_flag("here", "n", value)


def side(value: object) -> int:
    return arguments.require_choice("here", "n", value, (1, 2))


def mode(value: object) -> str:
    return arguments.require_choice("here", "n", value, ("exact", "estimate"))


ACCEPTED: list[tuple[Check, object, object]] = [
    (count, 1, 1),
    (count, 2**63 - 1, 2**63 - 1),
    (count, np.int64(3), 3),
    (count, np.uint8(3), 3),
    (seed, -(2**63), -(2**63)),
    (seed, np.uint64(2**64 - 1), 2**64 - 1),
    (number, 2, 2),
    (number, -1.5, -1.5),
    (number, np.int32(2), 2),
    (number, np.float64(0.1), 0.1),
    (number, np.float32(0.5), 0.5),
    (number, np.float16(0.5), 0.5),
    (number, 2**53, 2**53),
    (number, 10**20, 1e20),
    (number, 10**400, math.inf),
    (number, -(10**400), -math.inf),
    (amount, 0, 0),
    (amount, np.float32(2), 2.0),
    (positive, 5e-324, 5e-324),
    (positive, np.int8(2), 2),
    (flag, True, True),
    (flag, np.bool_(False), False),
    (side, np.int64(2), 2),
    (mode, np.str_("exact"), "exact"),
]


@pytest.mark.parametrize(("check", "value", "expected"), ACCEPTED, ids=itertools.count())
def test_a_check_returns_the_plain_python_value(check: Check, value: object, expected: object) -> None:
    found = check(value)
    assert found == expected
    assert type(found) is type(expected)


REFUSED: list[tuple[Check, object, type[ig.InvgraphError], str]] = [
    (count, True, ig.ArgumentError, "n must be an int"),
    (count, np.bool_(True), ig.ArgumentError, "n must be an int"),
    (count, 1.0, ig.ArgumentError, "given: n: float"),
    (count, np.float64(1), ig.ArgumentError, "n must be an int"),
    (count, torch.tensor(1), ig.ArgumentError, "given: n: Tensor"),
    (count, np.array(1), ig.ArgumentError, "given: n: ndarray"),
    (count, 0, ig.GraphError, "n must be at least 1"),
    (count, 2**63, ig.GraphError, f"n must be at most {2**63 - 1}"),
    (count, -(10**9999), ig.GraphError, "n of 33216 bits"),
    (seed, 2**64, ig.GraphError, "seed must be at least -2**63 and below 2**64"),
    (seed, 10**9999, ig.GraphError, "seed of 33216 bits"),
    (seed, None, ig.ArgumentError, "seed must be an int"),
    (number, False, ig.ArgumentError, "n must be a number"),
    (number, "1", ig.ArgumentError, "given: n: str"),
    (number, 1j, ig.ArgumentError, "given: n: complex"),
    (number, torch.ones(2), ig.ArgumentError, "given: n: Tensor"),
    (amount, -1, ig.GraphError, "n must be finite and not negative"),
    (amount, math.nan, ig.GraphError, "n must be finite and not negative"),
    (amount, 10**400, ig.GraphError, "given: n=inf"),
    (positive, 0, ig.GraphError, "n must be positive and finite"),
    (positive, math.inf, ig.GraphError, "n must be positive and finite"),
    (positive, np.float32(math.nan), ig.GraphError, "n must be positive and finite"),
    (flag, 1, ig.ArgumentError, "n must be True or False"),
    (flag, None, ig.ArgumentError, "given: n: NoneType"),
    (side, 3, ig.GraphError, "n must be 1 or 2"),
    (side, True, ig.GraphError, "n must be 1 or 2"),
    (mode, torch.ones(2), ig.GraphError, "n must be 'exact' or 'estimate'"),
]


@pytest.mark.parametrize(("check", "value", "error", "words"), REFUSED, ids=itertools.count())
def test_a_check_refuses_other_values_in_three_lines(
    check: Check, value: object, error: type[ig.InvgraphError], words: str
) -> None:
    with pytest.raises(error) as caught:
        check(value)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


def test_sizes_may_be_ints_of_numpy() -> None:
    assert as_shape((np.int64(3), 8), "here") == (3, 8)
    assert as_shapes((np.int64(3), np.int32(8)), "here") == ((3, 8),)
    assert all(type(size) is int for size in as_shape((np.int64(3), np.uint8(8)), "here"))
    with pytest.raises(ig.ArgumentError, match="not a bool"):
        as_shape((np.bool_(True),), "here")


TRANSFORMS: list[tuple[type[ig.Transform], dict[str, Any]]] = [
    (ig.Affine, {"clamp": 2.0}),
    (ig.VolumePreserving, {"clamp": 1.5}),
    (ig.MixtureCDF, {"components": 2, "clamp": 1.0}),
    (ig.Bernstein, {"degree": 5, "bound": 2.0, "min_step": 0.125}),
    (ig.LinearSpline, {"bins": 3, "bound": 2.0, "learned_bound": True, "circular": False, "min_width": 0.125}),
    (ig.RationalQuadraticSpline, {"bins": 3, "min_height": 0.125, "min_slope": 0.25}),
    (ig.Sigmoid, {"alpha": 0.25, "check_domain": True}),
    (ig.Logit, {"alpha": 0.25, "check_domain": False}),
    (ig.Softplus, {"check_domain": True}),
]


@pytest.mark.parametrize(("kind", "args"), TRANSFORMS, ids=[kind.__name__ for kind, _ in TRANSFORMS])
def test_a_transform_of_numpy_scalars_is_the_same_as_of_python_numbers(
    kind: type[ig.Transform], args: dict[str, Any]
) -> None:
    scalars = {name: np.array(value)[()] for name, value in args.items()}
    assert all(isinstance(value, np.generic) for value in scalars.values())
    assert repr(kind(**scalars)) == repr(kind(**args))
    layers = [ig.Elementwise((4,), transform=kind(**some)) for some in (scalars, args)]
    assert fingerprint(layers[0]) == fingerprint(layers[1])


def test_an_int_stays_an_int_so_that_old_fingerprints_still_match() -> None:
    assert repr(ig.Affine(clamp=2)) == "Affine(clamp=2, activation='atan')"


def test_functions_take_numpy_scalars() -> None:
    x = ig.InputNode(np.int64(4), name="x")
    graph = ig.Graph(x, ig.Node(x, ig.Orthogonal, {"seed": 1}))
    flow = ig.Flow(graph)
    data = torch.zeros(2, 4)
    assert flow.sample(np.int64(3), temperature=np.float32(0.5)).shape == (3, 4)
    assert torch.equal(flow.loss(data, tau=np.float64(0.1)), flow.loss(data, tau=0.1))
    assert flow.denoise(data, sigma=np.float32(0.5)).shape == (2, 4)
    assert ig.diagnose(graph, data, iterations=np.int64(2), seed=np.int64(1)).nodes
    assert ig.testing.check_invertible(graph, batch=np.int64(2), seed=np.int32(1)).nodes
    ig.init.scaled_normal(graph, np.float32(0.1), seed=np.int64(1), zero_last=np.bool_(True))
    ig.init.xavier(graph, np.float32(0.1), seed=np.int64(1), zero_last=np.bool_(True))
    ig.testing.randomize(graph, seed=np.int64(1), scale=np.float32(0.1))
    first, _ = ig.Coupling((4,), transform=ig.Additive(), subnet=ig.nets.MLP(4), split=np.int64(1)).sizes
    assert type(first) is int


LAYERS: list[tuple[type[ig.Invertible], tuple[int, ...], dict[str, Any]]] = [
    (ig.AllInOne, (4,), {"split": 1, "householder": 2, "reverse": True, "scale": False, "permutation": "hard"}),
    (ig.Autoregressive, (4,), {"hidden": 4, "layers": 2, "tolerance": 0.5, "blocks": 2}),
    (
        ig.ContinuousFlow,
        (4,),
        {"steps": 2, "time": 0.5, "trace": "estimate", "solver": "rk4", "seed": 3},
    ),
    (ig.Conv1x1, (4,), {"orthogonal": True, "seed": 3}),
    (ig.Coupling, (4,), {"split": 0.25, "sides": 1, "separate": True}),
    (ig.DCT, (4, 4, 4), {"block": 2}),
    (ig.Dequantize, (4,), {"levels": 8, "seed": 3}),
    (ig.Haar, (4, 4, 4), {"rebalance": 0.5, "order_by_wavelet": True}),
    (ig.OrthogonalSqueeze, (4, 4, 4), {"factor": 2, "shared": True, "chart": "cayley"}),
    (ig.Householder, (4,), {"reflections": 2, "seed": 3}),
    (ig.LearnedScaling, (4, 4, 4), {"per_channel": True}),
    (ig.LowRankLinear, (4,), {"rank": 1, "clamp": 0.5, "seed": 3}),
    (ig.MaskedCoupling, (4,), {"sides": 1}),
    (ig.Orthogonal, (4,), {"seed": 3}),
    (ig.OrthogonalLinear, (4,), {"seed": 3, "chart": "cayley"}),
    (ig.PatchAutoregressive, (4, 4, 4), {"patch": 2, "width": 8, "depth": 1, "heads": 2, "reverse": True}),
    (ig.Permute, (4,), {"seed": 3, "dim": 0}),
    (ig.Residual, (4,), {"hidden": 4, "layers": 1, "kernel": 3, "lipschitz": 0.5, "terms": 2, "iterations": 20}),
    (ig.Squeeze, (4, 4, 4), {"factor": 2}),
    (ig.Standardize, (4,), {"mean": 0.5, "std": 2.0, "learned": True}),
]
NEEDED: dict[type[ig.Invertible], dict[str, Any]] = {
    ig.AllInOne: {"subnet": ig.nets.MLP(4)},
    ig.Autoregressive: {"transform": ig.Affine()},
    ig.ContinuousFlow: {"subnet": ig.nets.ResidualMLP(4)},
    ig.Coupling: {"transform": ig.Affine(), "subnet": ig.nets.MLP(4)},
    ig.MaskedCoupling: {"transform": ig.Affine(), "subnet": ig.nets.MLP(4)},
    ig.PatchAutoregressive: {"transform": ig.Affine()},
}


def scalars(args: dict[str, Any]) -> dict[str, Any]:
    return {name: np.array(value)[()] for name, value in args.items()}


@pytest.mark.parametrize(("kind", "shape", "args"), LAYERS, ids=[kind.__name__ for kind, _, _ in LAYERS])
def test_a_layer_of_numpy_scalars_is_the_same_as_of_python_numbers(
    kind: type[ig.Invertible], shape: tuple[int, ...], args: dict[str, Any]
) -> None:
    layers = []
    for some in (scalars(args), args):
        torch.default_generator.manual_seed(0)
        layers.append(kind(shape, **NEEDED.get(kind, {}), **some))
    assert fingerprint(layers[0]) == fingerprint(layers[1])
    assert all(torch.equal(*pair) for pair in zip(*(layer.state_dict().values() for layer in layers), strict=True))
    assert not [name for name, value in vars(layers[0]).items() if isinstance(value, np.generic)]


def test_sizes_and_orders_are_plain_ints() -> None:
    one, two, four = np.array([1, 2, 4])
    split = ig.Split((3, 4), sizes=(one, two), dim=np.int64(0))
    assert fingerprint(split) == fingerprint(ig.Split((3, 4), sizes=(1, 2)))
    assert fingerprint(ig.Reshape((4,), shape=(one, four))) == fingerprint(ig.Reshape((4,), shape=(1, 4)))
    assert ig.Permute((3,), order=tuple(np.array([2, 0, 1]))).order.tolist() == [2, 0, 1]
    assert ig.Concat(((3, 4), (3, 4)), dim=one).out_shapes == ((3, 8),)
    mixture = ig.GaussianMixture((2,), ((3,),), clamp=np.float32(0.5), spread=np.float64(2), seed=one)
    assert fingerprint(mixture) == fingerprint(ig.GaussianMixture((2,), ((3,),), clamp=0.5, spread=2.0, seed=1))


FACTORIES: list[tuple[type[ig.SubnetFactory], dict[str, Any]]] = [
    (ig.nets.MLP, {"hidden": 4, "layers": 2}),
    (ig.nets.ConvNet, {"hidden": 4, "layers": 2, "kernel": 3}),
    (ig.nets.ResidualMLP, {"hidden": 4, "blocks": 2}),
    (ig.nets.ResidualConvNet, {"hidden": 4, "blocks": 2, "kernel": 3}),
    (ig.nets.UNet, {"hidden": 4, "levels": 2, "kernel": 3}),
    (ig.nets.GatedAttention, {"hidden": 4, "blocks": 2, "heads": 2, "kernel": 3}),
    (ig.nets.ViT, {"width": 8, "depth": 2, "heads": 2, "patch": 2}),
]


@pytest.mark.parametrize(("kind", "args"), FACTORIES, ids=[kind.__name__ for kind, _ in FACTORIES])
def test_a_factory_of_numpy_scalars_is_the_same_as_of_python_numbers(
    kind: type[ig.SubnetFactory], args: dict[str, Any]
) -> None:
    assert repr(kind(**scalars(args))) == repr(kind(**args))
    for name in args:
        with pytest.raises(ig.ArgumentError, match=f"{name} must be an int"):
            kind(**{**args, name: 1.5})
        with pytest.raises(ig.GraphError, match=f"{name} must be at least 1"):
            kind(**{**args, name: np.int64(0)})


def test_nodes_and_runners_take_numpy_scalars() -> None:
    x = ig.InputNode(np.int64(4), name="x")
    assert x.shape == (4,)
    split = ig.Node(x, ig.Split, {"sizes": (1, 3)})
    assert split[np.int64(1)] is split[1]
    with pytest.raises(ig.ArgumentError, match="picked by an int"):
        split[np.bool_(True)]
    graph = ig.Graph(x, list(split), check_finite=np.bool_(True))
    assert type(graph.check_finite) is bool
    assert ig.reversible(graph, anchors=np.int64(1), tolerance=np.float32(0.5)).tolerance == 0.5


def test_an_error_has_three_lines_or_a_message_as_a_whole() -> None:
    """Other packages catch an error and raise it again as ``type(error)(message)``."""
    error = ig.ShapeError("node 'a'", "3 values", "expected 4")
    assert str(error) == "node 'a'\n  given: 3 values\n  expected 4"
    assert str(ig.ShapeError(str(error))) == str(error)
