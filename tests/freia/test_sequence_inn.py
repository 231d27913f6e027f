"""FrEIA's chain of layers: appended to, cut, and its layers replaced at any time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from freia_networks import C, Ff, Fm, X, sequence, subnet
from torch import nn

import invgraph as ig


@pytest.mark.filterwarnings("ignore")  # tracing itself is deprecated, and warns of each look at a shape
def test_a_network_can_be_traced() -> None:
    net = Ff.SequenceINN(6)
    net.append(Fm.AllInOneBlock, subnet_constructor=subnet)
    net.append(Fm.PermuteRandom, seed=1)
    x = torch.randn(3, 6)
    traced = torch.jit.trace(net, x)
    assert "PythonOp" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x), tuple(net(x)))


def test_a_chain_is_cut_and_appended_to_at_any_time() -> None:
    net = Ff.SequenceINN(4)
    assert torch.equal(net(X)[0], X)
    for seed in range(4):
        net.append(Fm.PermuteRandom, seed=seed)
        net(X)
    half, _ = net[:2](X)
    assert torch.equal(net[2:](half)[0], net(X)[0])
    assert net[1] is net.module_list[1]
    assert [len(net), len(net[1:3]), len(list(net)), len(net.shapes)] == [4, 2, 4, 5]


def test_modules_may_be_built_already() -> None:
    norm = Fm.PermuteRandom([(4,)], seed=3)
    net = Ff.SequenceINN(4)
    net.append(norm)
    assert net[0] is norm
    with pytest.raises(ig.ArgumentError, match="pass the class"):
        net.append(norm, seed=3)


def test_a_layer_of_a_chain_is_replaced() -> None:
    net = sequence()
    block = Fm.AllInOneBlock(net.output_dims(), [(2,)], subnet)
    net[0] = block
    net[-1] = Fm.PermuteRandom([(4,)], seed=1)
    assert net[0] is block
    z, _ = net(X, c=[None, C])
    torch.testing.assert_close(net(z, c=[None, C], rev=True)[0], X)
    for module, message in (
        (Fm.PermuteRandom([(5,)]), r"inputs of shapes \(5,\)[\s\S]*here they are \(4,\)"),
        (Fm.AllInOneBlock([(4,)], [(2,)], subnet), r"conditions of shapes \(2,\)[\s\S]*here they are none"),
        (Fm.Reshape([(4,)], output_dims=(2, 2)), r"layer 1 has an output of shape \(4,\)"),
    ):
        with pytest.raises(ig.GraphError, match=message):
            net[1] = module
    with pytest.raises(IndexError):
        net[2] = block


def test_a_built_module_for_other_shapes_is_refused() -> None:
    wrong = Fm.AllInOneBlock([(5,)], subnet_constructor=subnet)
    with pytest.raises(ig.GraphError, match=r"here they are \(4,\)"):
        Ff.SequenceINN(4).append(wrong)
    with pytest.raises(ig.GraphError, match=r"here they are \(4,\)"):
        Ff.Node(Ff.InputNode(4), wrong)
    with pytest.raises(ig.GraphError, match="here they are none"):
        Ff.Node(Ff.InputNode(4), Fm.AllInOneBlock([(4,)], [(2,)], subnet))
    Ff.SequenceINN(4).append(Fm.ActNorm([(4,)]))
    with pytest.raises(ig.GraphError, match=r"shapes \(5,\)"):
        Ff.SequenceINN(4).append(Fm.ActNorm([(5,)]))


def test_a_slice_of_a_chain_keeps_the_conditions_of_its_layers() -> None:
    net = Ff.SequenceINN(4)
    net.append(Fm.PermuteRandom, seed=0)
    net.append(Fm.AllInOneBlock, cond=1, cond_shape=(2,), subnet_constructor=subnet)
    net.append(Fm.AllInOneBlock, cond=0, cond_shape=(2,), subnet_constructor=subnet)
    given = [C + 1, C]
    z, log_jac = net(X, c=given)
    between, first = net[:2](X, c=given)
    again, second = net[2:](between, c=given)
    torch.testing.assert_close((again, first + second), (z, log_jac))


@pytest.mark.parametrize("how", ["hook", "global hook", "instance"])
def test_calls_of_the_layers_are_seen(how: str) -> None:
    net, seen = Ff.SequenceINN(4), list[Any]()
    net.append(Fm.PermuteRandom, seed=0)
    net.append(Fm.ActNorm)
    net(X)

    def note(module: Any, *_: Any) -> None:
        if module is net[0]:
            seen.append(module)

    if how == "hook":
        net[0].register_forward_hook(note)
    elif how == "global hook":
        handle = nn.modules.module.register_module_forward_hook(note)
    else:
        net[0].forward = lambda x, **given: note(net[0]) or Fm.PermuteRandom.forward(net[0], x, **given)
    net(X)
    if how == "global hook":
        handle.remove()
    assert len(seen) == 1
