"""FrEIA's weights in native graphs: same numbers, or a refusal by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import invgraph as ig
from invgraph.freia.convert import convert, main

Ff, Fm, T = ig.freia.framework, ig.freia.modules, ig.freia.transforms


def mlp(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 8), nn.Tanh(), nn.Linear(8, channels_out))


def conv(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels_in, 6, 1), nn.Tanh(), nn.Conv2d(6, channels_out, 3, padding=1))


def theirs() -> Any:
    x, c = Ff.InputNode(2, 4, 4, name="x"), Ff.ConditionNode(3, name="c")
    nodes: list[Any] = [x]

    def add(module: Any, conditions: Any = None, **kwargs: Any) -> None:
        nodes.append(Ff.Node(nodes[-1], module, kwargs, conditions=conditions))

    add(Fm.ActNorm)
    add(Fm.HaarDownsampling)
    add(Fm.GLOWCouplingBlock, subnet_constructor=conv, clamp=1.2, split_len=3)
    add(Fm.IRevNetUpsampling)
    add(Fm.Flatten)
    add(Fm.PermuteRandom, seed=4)
    add(Fm.RNVPCouplingBlock, c, subnet_constructor=mlp, clamp_activation="TANH")
    add(Fm.NICECouplingBlock, c, subnet_constructor=mlp)
    add(Fm.GINCouplingBlock, subnet_constructor=mlp)
    add(Fm.AffineCouplingOneSided, subnet_constructor=mlp)
    add(Fm.ConditionalAffineTransform, c, subnet_constructor=mlp)
    add(Fm.AllInOneBlock, c, subnet_constructor=mlp, permute_soft=True)
    split = Ff.Node(nodes[-1], Fm.Split, {"section_sizes": [20, 12]})
    small = Ff.Node(split.out1, Fm.Reshape, {"output_dims": (3, 2, 2)})
    return Ff.GraphINN([*nodes, c, split, small, Ff.OutputNode(split.out0), Ff.OutputNode(small)])


def native(coupling: Callable[..., Any] = T.Affine) -> ig.Graph:
    x, c = ig.InputNode(2, 4, 4, name="x"), ig.ConditionNode(3, name="c")
    h: Any = ig.Node(x, ig.ActNorm)
    h = ig.Node(h, ig.Haar)
    h = ig.Node(h, ig.Coupling, {"transform": coupling(clamp=1.2), "subnet": conv, "split": 3}, name="glow")
    h = ig.Node(h, ig.Inverse(ig.Squeeze((2, 4, 4))))
    h = ig.Node(h, ig.Flatten)
    h = ig.Node(h, ig.Permute)
    separate = {"transform": T.Affine(activation="TANH"), "subnet": mlp, "separate": True}
    h = ig.Node(h, ig.Coupling, separate, conditions=c)
    h = ig.Node(h, ig.Coupling, {"transform": ig.Additive(), "subnet": mlp}, conditions=c)
    h = ig.Node(h, ig.Coupling, {"transform": T.VolumePreserving(), "subnet": mlp})
    h = ig.Node(h, ig.Coupling, {"transform": T.Affine(), "subnet": mlp, "sides": 1, "part": 2})
    h = ig.Node(h, ig.Elementwise, {"transform": T.Affine(), "subnet": mlp}, conditions=c)
    h = ig.freia.node(h, Fm.AllInOneBlock, {"subnet_constructor": mlp, "permute_soft": True}, conditions=c)
    big, small = ig.Node(h, ig.Split, {"sizes": (20, 12)})
    small = ig.Node(small, ig.Reshape, {"shape": (3, 2, 2)})[0]
    return ig.Graph(x, (big, small), c)


X, C = torch.randn(5, 2, 4, 4), torch.randn(5, 3)


def trained() -> Any:
    net = theirs()
    net(X, c=C)  # starts the normalization
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return net


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_converted_graph_gives_freias_numbers(dtype: torch.dtype) -> None:
    net, graph = trained().to(dtype), native().to(dtype)
    convert({f"model.cinn.{key}": value for key, value in net.state_dict().items()}, graph)
    x, c = X.to(dtype), C.to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    expected, log_jac = net(x, c=c)
    got, log_det = graph(x, c)
    torch.testing.assert_close((*got, log_det), (*expected, log_jac), rtol=tolerance, atol=tolerance)
    expected, log_jac = net([z.detach() for z in expected], c=c, rev=True)
    got, log_det = graph.inverse(tuple(z.detach() for z in got), c)
    torch.testing.assert_close((got, log_det), (expected, log_jac), rtol=10 * tolerance, atol=10 * tolerance)


def test_one_network_of_several_is_picked_by_its_prefix() -> None:
    nets = [trained(), trained()]
    state = {f"{name}.{key}": value for name, net in zip("ab", nets, strict=True)
             for key, value in net.state_dict().items()}  # fmt: skip
    for name, net in zip("ab", nets, strict=True):
        graph = native()
        convert(state, graph, prefix=f"{name}.")
        torch.testing.assert_close(graph(X, C)[1], net(X, c=C)[1], rtol=1e-5, atol=1e-5)
    for prefix, message in ((None, "networks at 'a.', 'b.'"), ("c.", r"a\.module_list[\s\S]*for prefix='c.'")):
        with pytest.raises(ig.CheckpointError, match=message):
            convert(state, native(), prefix=prefix)


@pytest.mark.parametrize("prefix", ["", "net."])
def test_a_network_is_picked_though_the_prefix_of_another_begins_like_its_own(prefix: str) -> None:
    net, other = trained(), trained()
    state = {f"{prefix}{key}": value for key, value in net.state_dict().items()}
    state.update((f"{prefix}cond.{key}", value) for key, value in other.state_dict().items())
    graph = native()
    convert(state, graph, prefix=prefix)
    torch.testing.assert_close(graph(X, C)[1], net(X, c=C)[1], rtol=1e-5, atol=1e-5)


def build() -> ig.Graph:
    return native()


class Model:
    class Inner:
        @staticmethod
        def build() -> ig.Graph:
            return native()


def test_the_command_writes_a_file_that_load_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "my_model", sys.modules[__name__])
    net = trained()
    source, target = str(tmp_path / "weights.pt"), str(tmp_path / "native.safetensors")
    torch.save({"net": {f"cinn.{key}": value for key, value in net.state_dict().items()}, "epoch": 3}, source)
    call = [source, target, "--graph", "my_model:build"]
    assert main([*call, "--key", "net", "--prefix", "cinn."]) == 0
    assert capsys.readouterr().out.endswith("14 layers, 61 tensors\n")
    dotted = [source, target, "--graph", "my_model:Model.Inner.build", "--key", "net"]
    assert main(dotted) == 0
    assert capsys.readouterr().out.endswith("14 layers, 61 tensors\n")
    graph = native()
    assert ig.load(target, graph).metadata == {"converted from": "weights.pt"}
    torch.testing.assert_close(graph(X, C)[1], net(X, c=C)[1], rtol=1e-5, atol=1e-5)
    for more, message in (
        ([], "--key KEY"),
        (["--key", "other"], "keys net, epoch"),
        (["--key", "net", "--prefix", "flow."], "keys cinn.module_list"),
        (["--key", "net", "--order", "a,b"], "each of these nodes once"),
    ):
        assert main([*call, *more]) == 1
        assert message in capsys.readouterr().err
    assert main([str(tmp_path / "none"), target, "--graph", "my_model:build"]) == 1
    assert main([source, target, "--graph", "my_model"]) == 1
    assert main([source, target, "--graph", "my_model:theirs", "--key", "net"]) == 1
    assert "returns an invgraph.Graph" in capsys.readouterr().err
    for graph_name, message in (
        ("no_module:build", "No module named"),
        ("my_model:none", "has no attribute 'none'"),
        ("my_model:Model.none", "has no attribute 'none'"),
    ):
        assert main([source, target, "--graph", graph_name, "--key", "net"]) == 1
        assert message in capsys.readouterr().err


def test_files_that_are_no_checkpoints_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "my_model", sys.modules[__name__])
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "empty.pt").touch()
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    for name in ("text.pt", "empty.pt", "model.pt"):
        assert main([str(tmp_path / name), str(tmp_path / "out"), "--graph", "my_model:build"]) == 1
        assert "torch.save(model.state_dict(), path)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_layers_that_compute_something_else_are_refused_by_name() -> None:
    state = theirs().state_dict()
    with pytest.raises(ig.CheckpointError, match=r"node 'glow', Coupling\([\s\S]*freia.transforms.Affine"):
        convert(state, native(ig.Affine))
    x = ig.InputNode(4, name="x")
    for layer, args in ((ig.LearnedScaling, {}), (ig.Coupling, {"transform": T.Affine(), "subnet": mlp, "sides": 1})):
        with pytest.raises(ig.CheckpointError, match="keep"):
            convert(state, ig.Graph(x, ig.Node(x, layer, args)))


def test_other_checkpoints_are_refused() -> None:
    state = dict(trained().state_dict())
    for change, message in (
        (lambda: state.pop("module_list.2.subnet1.0.bias"), "module 2 of the checkpoint for node 'glow'"),
        (lambda: state.update({"module_list.40.a": torch.zeros(1)}), "module 40"),
        (lambda: state.update({"b.module_list.4.a": torch.zeros(1)}), "--prefix"),
        (lambda: state.clear(), "weights of one network"),
    ):
        change()
        with pytest.raises(ig.CheckpointError, match=message):
            convert(state, native())


def two_branches(package: Any) -> Any:
    def half(value: Any, name: str) -> Any:
        if package is ig:
            return ig.Node(value, ig.Coupling, {"transform": T.Affine(), "subnet": mlp}, name=name)
        return Ff.Node(value, Fm.GLOWCouplingBlock, {"subnet_constructor": mlp}, name=name)

    if package is ig:
        x = ig.InputNode(8, name="x")
        a, b = ig.Node(x, ig.Split, {"sizes": (4, 4)}, name="split")
        return ig.Graph(x, ig.Node([half(a, "a"), half(b, "b")], ig.Concat, name="join"))
    start = Ff.InputNode(8, name="x")
    split = Ff.Node(start, Fm.Split, {}, name="split")
    left, right = half(split.out0, "a"), half(split.out1, "b")
    join = Ff.Node([left.out0, right.out0], Fm.Concat, {}, name="join")
    return Ff.GraphINN([start, split, left, right, join, Ff.OutputNode(join)])


def test_branches_that_fit_in_two_ways_need_an_order() -> None:
    net, graph = two_branches(ig.freia), two_branches(ig)
    x = torch.randn(3, 8)
    with pytest.raises(ig.CheckpointError, match=r"fits node '.' and node '.'"):
        convert(net.state_dict(), graph)
    convert(net.state_dict(), graph, [node.name for node in net.node_list if node.module is not None])
    expected: Tensor = net(x)[0]
    torch.testing.assert_close(graph(x)[0], expected)
