"""Shapes that are known without a trial are those that the networks return, and only where nothing can differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import invgraph as ig
from invgraph.core.known_shape import known_shape

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@st.composite
def convolutions(draw: st.DrawFn, rank: int, channels: int) -> Any:
    def each(low: int, high: int) -> Any:
        return draw(st.integers(low, high) | st.tuples(*[st.integers(low, high)] * rank))

    padding = draw(st.sampled_from(["valid", "same", None]))
    groups = draw(st.sampled_from([1, channels]))
    stride = 1 if padding == "same" else each(1, 3)
    args = {"stride": stride, "dilation": each(1, 2), "padding": padding or each(0, 2), "groups": groups}
    return CONVOLUTIONS[rank - 1](channels, groups * draw(st.integers(1, 3)), each(1, 3), **args)


@st.composite
def networks(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    """A sequence of layers, most of which fit, and the shape of its input."""
    shape = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    layers: list[nn.Module] = []
    channels, width = shape[0], shape[-1]
    for _ in range(draw(st.integers(1, 3))):
        if len(shape) == 1 or draw(st.booleans()):
            layers.append(nn.Linear(width if draw(st.integers(0, 9)) else 7, width := draw(st.integers(1, 4))))
        else:
            layers.append(draw(convolutions(len(shape) - 1, channels if draw(st.integers(0, 9)) else 7)))
            channels = layers[-1].out_channels  # type: ignore[assignment]
        layers.append(draw(st.sampled_from([nn.ReLU(), nn.Tanh(), nn.Dropout(0.5), nn.Sequential(nn.GELU())])))
    return nn.Sequential(*layers), shape


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=150, deadline=None)
@given(networks())
def test_it_is_what_the_network_returns(drawn: tuple[nn.Module, tuple[int, ...]]) -> None:
    network, shape = drawn
    try:
        found: Any = tuple(network(torch.zeros(2, *shape)).shape[1:])
    except RuntimeError:
        found = None
    assert known_shape(network, shape) == found


def change(network: nn.Sequential, place: int, layer: nn.Module) -> None:
    network[place] = layer


class Other(nn.Linear):
    """A subclass may return anything."""


TRIED: dict[str, Callable[[Any], object]] = {
    "a hook": lambda net: net[0].register_forward_hook(lambda *args: None),
    "a hook on the whole": lambda net: net.register_forward_pre_hook(lambda *args: None),
    "a patch": lambda net: setattr(net[0], "forward", lambda x: x),
    "a subclass": lambda net: change(net, 0, Other(4, 6)),
    "a lazy layer": lambda net: change(net, 0, nn.LazyLinear(6)),
    "a layer that works in place": lambda net: change(net, 1, nn.ReLU(inplace=True)),
    "a layer that nobody has looked at": lambda net: change(net, 1, nn.BatchNorm1d(6)),
    "a parametrization": lambda net: torch.nn.utils.parametrizations.weight_norm(net[0]),
    "another precision": lambda net: net[2].double(),
    "integers": lambda net: [setattr(part, "weight", None) for part in (net[0], net[2])],
    "a bias of another size": lambda net: setattr(net[2], "bias", nn.Parameter(torch.zeros(1))),
    "another width": lambda net: change(net, 2, nn.Linear(5, 3)),
}


@pytest.mark.parametrize("what", TRIED)
def test_a_trial_is_left_to_tell(what: str) -> None:
    network = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    assert known_shape(network, (4,)) == (3,)
    TRIED[what](network)
    assert known_shape(network, (4,)) is None


@pytest.mark.parametrize("mode", ["reflect", "circular"])
def test_other_paddings_are_tried(mode: str) -> None:
    """Torch refuses to reflect more than there is."""
    assert known_shape(nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode), (3, 1, 1)) is None


@pytest.mark.parametrize("factory", [ig.nets.MLP(hidden=6, layers=2), ig.nets.ResidualMLP(hidden=6)], ids=str)
def test_own_networks_of_vectors_are_known(factory: Any) -> None:
    net = factory.build((4,), ((3,), (2,)), 5)
    assert net.known_shape((4,), ((3,), (2,))) == (5,)
    assert net.known_shape((4,), ((3,), (7,))) is None
    assert net.known_shape((4,), ((3,),)) is None


@pytest.mark.parametrize("factory", [ig.nets.ConvNet(hidden=6), ig.nets.ResidualConvNet(hidden=6)], ids=str)
def test_own_networks_of_images_are_known(factory: Any) -> None:
    net = factory.build((4, 8, 9), ((3,), (2, 8, 9)), 5)
    assert net.known_shape((4, 8, 9), ((3,), (2, 8, 9))) == (5, 8, 9)
    assert net.known_shape((4, 8, 9), ((3,), (2, 8, 8))) is None
    assert net.known_shape((4, 7, 7), ((3,), (2, 7, 7))) == (5, 7, 7)


@pytest.mark.parametrize("factory", [ig.nets.MLP(hidden=6), ig.nets.ResidualMLP(hidden=6)], ids=str)
def test_own_networks_with_a_hook_are_tried(factory: Any) -> None:
    for place in range(sum(1 for _ in factory.build((4,), ((3,),), 5).modules())):
        net = factory.build((4,), ((3,),), 5)
        part = list(net.modules())[place]
        part.register_forward_hook(lambda *args: None)
        assert isinstance(part, nn.ModuleList) or net.known_shape((4,), ((3,),)) is None, part


def test_a_feature_of_ordinary_layers_is_known() -> None:
    c = ig.ConditionNode(3, 8, 8, name="c")
    feature = ig.FeatureNode(c, nn.Conv2d, {"in_channels": 3, "out_channels": 5, "kernel_size": 3}, name="f")
    assert feature.outputs[0].shape == (5, 6, 6)
