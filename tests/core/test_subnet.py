"""Subnets of a user's own, as a layer tries and calls them."""

from __future__ import annotations

from torch import nn

import invgraph as ig


def twice(channels_in: int, channels_out: int) -> nn.Module:
    """A network in which one layer, one activation with a parameter, and one weight stand twice."""
    inner, act = nn.Linear(5, 5), nn.PReLU()
    net = nn.Sequential(nn.Linear(channels_in, 5), act, inner, act, inner, nn.Linear(5, 5), nn.Linear(5, channels_out))
    net[5].weight = inner.weight
    return net


def test_a_module_may_stand_twice_in_a_subnet() -> None:
    """The layer tries it without data, and puts its parameters back where they were, tied."""
    layer = ig.Coupling((4,), ((3,),), transform=ig.Affine(), subnet=twice).double()
    assert {p.device.type for p in layer.parameters()} == {"cpu"}
    assert len(list(layer.parameters())) == 2 * 8
    ig.testing.randomize(layer)
    net = layer.subnets[0][0].module
    assert net[2] is net[4]
    assert net[1] is net[3]
    assert net[5].weight is net[2].weight
    ig.testing.check_invertible(layer)
