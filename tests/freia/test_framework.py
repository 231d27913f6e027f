"""FrEIA's nodes and networks: what a call takes, what is refused, and the native graph below."""

from __future__ import annotations

import copy
import math
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from freia_networks import C, Ff, Fm, X, conditional, sequence, subnet
from torch import Tensor, nn

import invgraph as ig


def test_data_and_conditions_come_as_tensor_tuple_or_list() -> None:
    net = conditional()
    z, log_jac = net(X, c=C)
    for x, c in (((X,), (C,)), ([X], [C])):
        assert torch.equal(net(x, c=c)[0], z)
    assert log_jac.shape == (5,)
    chain = sequence()
    z, _ = chain(X, c=[None, C])
    assert torch.equal(chain([X], c=(None, C, None))[0], z)


def test_a_lone_output_comes_in_a_tuple_by_force() -> None:
    x = Ff.InputNode(4)
    h = Ff.Node(x, Fm.PermuteRandom, {"seed": 0})
    (z,), _ = Ff.GraphINN([x, h, Ff.OutputNode(h)], force_tuple_output=True)(X)
    assert z.shape == X.shape
    chain = Ff.SequenceINN(4, force_tuple_output=True)
    chain.append(Fm.PermuteRandom, seed=0)
    assert torch.equal(chain(X)[0][0], z)


def test_the_native_graph_gives_the_same_numbers() -> None:
    net = conditional()
    z, log_jac = net(X, c=C)
    y, log_det = net.graph(X, C)
    assert torch.equal(y, z)
    torch.testing.assert_close(log_det, log_jac)
    bound = net.graph.bind(C)
    torch.testing.assert_close(bound.inverse(z.unsqueeze(0))[0][0], X)
    ig.reversible(net.graph)(X, C)[0].sum().backward()
    grads = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    net.zero_grad()
    net(X, c=C)[0].sum().backward()
    for expected, got in zip((p.grad for p in net.parameters() if p.grad is not None), grads, strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("make", [conditional, sequence], ids=["graph", "sequence"])
def test_keys_and_modules_are_those_of_module_list(make: Any) -> None:
    net = make()
    assert all(key.startswith("module_list.") for key in net.state_dict())
    assert [name for name, _ in net.named_children()] == ["module_list"]
    layers = list(net.graph.layers.values())
    assert [layer.module for layer in layers] == list(net.module_list)


@pytest.mark.parametrize("make", [conditional, sequence], ids=["graph", "sequence"])
def test_copies_and_pickles_run_on_their_own_modules(make: Any) -> None:
    net = make()
    z, _ = net(X, c=[C, C][: len(net.dims_c) or 2])
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        c = [C, C][: len(net.dims_c) or 2]
        assert torch.equal(other(X, c=c)[0], z)
        assert other.graph is not net.graph
        layers = other.graph.layers.values()
        assert all(layer.module is own for layer, own in zip(layers, other.module_list, strict=True))
        for parameter in other.parameters():
            if parameter.requires_grad:
                parameter.data += 0.5
        assert not torch.equal(other(X, c=c)[0], z)
        assert torch.equal(net(X, c=c)[0], z)


def test_modules_may_be_exchanged() -> None:
    net = conditional(1)
    other = Fm.PermuteRandom([(4,)], seed=9)
    before = net(X, c=C)[0]
    permuted = before[:, net.module_list[1].perm_inv][:, other.perm]
    net.module_list[1] = other
    assert torch.equal(net(X, c=C)[0], permuted)


def test_a_replica_runs_its_own_modules() -> None:
    """nn.DataParallel copies modules, and assigns the copies to shallow copies of their parents."""
    net = conditional(1)
    z, _ = net(X, c=C)
    replica = net._replicate_for_data_parallel()
    replica.module_list = copy.deepcopy(net.module_list)
    for parameter in replica.module_list.parameters():
        parameter.data *= 2 if parameter.requires_grad else 1
    assert not torch.equal(replica(X, c=C)[0], z)
    assert torch.equal(net(X, c=C)[0], z)


@pytest.mark.slow
@pytest.mark.parametrize("make", [conditional, sequence], ids=["graph", "sequence"])
def test_both_directions_compile(make: Any) -> None:
    net = make()
    c = [C, C][: len(net.dims_c) or 2]
    z, log_jac = net(X, c=c)
    compiled = torch.compile(net, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(X, c=c), (z, log_jac))
    torch.testing.assert_close(compiled(z.detach(), c=c, rev=True)[0], X)


def test_the_order_of_modules_is_the_same_for_any_order_of_nodes() -> None:
    a = Ff.InputNode(6, name="a")
    split = Ff.Node(a, Fm.Split, {"n_sections": 3}, name="split")
    ends = [Ff.Node((split, k), Fm.ActNorm, {}, name=f"norm_{k}") for k in range(3)]
    joined = Ff.Node([end.out0 for end in ends], Fm.Concat, {}, name="join")
    nodes = [a, split, *ends, joined, Ff.OutputNode(joined, name="z")]
    orders = [[node.name for node in Ff.GraphINN(order).node_list] for order in (nodes, nodes[::-1])]
    assert orders[0] == orders[1]


def test_an_inner_node_can_be_a_condition() -> None:
    a, b = Ff.InputNode(4, name="a"), Ff.InputNode(2, name="b")
    first = Ff.Node(b, Fm.PermuteRandom, {"seed": 1})
    second = Ff.Node(a, Fm.GLOWCouplingBlock, {"subnet_constructor": subnet}, conditions=first)
    net = Ff.GraphINN([a, b, second, first, Ff.OutputNode(second), Ff.OutputNode(first)])
    z, log_jac = net([X, C])
    (x, c), log_jac_back = net(z, rev=True)
    torch.testing.assert_close((x, c, -log_jac_back), (X, C, log_jac))


def with_features() -> Any:
    torch.default_generator.manual_seed(0)
    x, c = Ff.InputNode(4, name="x"), Ff.ConditionNode(3, name="c")
    features = Ff.FeedForwardNode(c, (2,), nn.Linear, {"in_features": 3, "out_features": 2}, name="features")
    more = Ff.FeedForwardNode([features.out0, c], (2,), nn.Bilinear(2, 3, 2), name="more")
    block = Fm.GLOWCouplingBlock([(4,)], [(2,), (2,)], subnet_constructor=subnet)
    h = Ff.Node(x, block, conditions=[features, more.out0])
    return Ff.GraphINN([x, c, more, features, h, Ff.OutputNode(h)])


def test_a_network_of_conditions_runs_forward_in_both_directions() -> None:
    net, c = with_features(), torch.randn(5, 3)
    z, log_jac = net(X, c=c)
    linear, bilinear, block = (net.get_module_by_name(name) for name in ("features", "more", net.node_list[-2].name))
    assert list(net.module_list) == [linear, bilinear, block]
    h = linear(c)
    (expected,), _ = block((X,), c=(h, bilinear(h, c)))
    torch.testing.assert_close(z, expected)
    for jac in (True, False):
        torch.testing.assert_close(net(z, c=c, rev=True, jac=jac)[0], X)
    values, log_jacs = net(X, c=c, intermediate_outputs=True)
    assert [node.name for node in log_jacs][:2] == ["features", "more"]
    torch.testing.assert_close(sum(log_jacs.values()), log_jac)
    names = {node.name: value for (node, _), value in values.items()}
    torch.testing.assert_close(names["more"], bilinear(h, c))
    z.sum().backward()
    assert linear.weight.grad is not None
    assert torch.equal(copy.deepcopy(net)(X, c=c)[0], z)


@pytest.mark.parametrize("chosen", [12345, torch.tensor([0, 2, 1, 1, 0])], ids=["seed", "numbers"])
def test_a_condition_may_be_a_seed_or_numbers(chosen: Any) -> None:
    x = Ff.InputNode(3)
    given = [Ff.ConditionNode(*shape) for shape in ((4,), (4, 3), (4, 6), (0,))]
    mixture = Ff.Node(x, Fm.GaussianMixtureModel, {}, conditions=given)
    net = Ff.GraphINN([x, *given, mixture, Ff.OutputNode(mixture)])
    c = [torch.full((5, 4), 0.25), torch.randn(5, 4, 3), torch.randn(5, 4, 6), chosen]
    data = torch.randn(5, 3)
    z, log_jac = net(data, c=c)
    back, log_jac_back = net(z, c=c, rev=True)
    torch.testing.assert_close((back, -log_jac_back), (data, log_jac), rtol=1e-4, atol=1e-4)


def test_wrong_networks_of_conditions_are_refused() -> None:
    x, c = Ff.InputNode(4), Ff.ConditionNode(4)

    def build(node: Any) -> None:
        h = Ff.Node(x, Fm.GLOWCouplingBlock, {"subnet_constructor": subnet}, conditions=node)
        Ff.GraphINN([x, c, node, h, Ff.OutputNode(h)])

    for node, message in (
        (Ff.FeedForwardNode(c, (3,), nn.Linear(4, 2)), "declare the shape"),
        (Ff.FeedForwardNode(c, (4,), Fm.PermuteRandom([(4,)])), "use Node for layers"),
    ):
        with pytest.raises(ig.GraphError, match=message):
            build(node)


def test_calls_of_old_versions_are_refused_with_the_line_to_write() -> None:
    net = conditional()
    z = net(X, c=C)
    line = r"write z, log_jac = net\(x, c=c\)"
    with pytest.raises(AttributeError, match=line):
        z.mean()
    for use in (lambda: z**2, lambda: z - X, lambda: z / 2, lambda: net.log_jacobian(run_forward=False),
                lambda: net.jacobian(run_forward=False)):  # fmt: skip
        with pytest.raises(ig.ArgumentError, match=line):
            use()
    with pytest.raises(ig.ArgumentError, match="write InputNodes"), pytest.warns(DeprecationWarning, match="GraphINN"):
        Ff.ReversibleGraphNet([], ind_in=0)


def test_deprecated_names_are_not_reported_to_users() -> None:
    """FrEIA attributes these warnings to itself, so the default filters hide them."""
    x = Ff.InputNode(4)
    h = Ff.Node(x, Fm.PermuteRandom, {"seed": 0})
    calls = [
        lambda: Ff.ReversibleGraphNet([x, h, Ff.OutputNode(h)], verbose=False),
        lambda: Ff.ReversibleSequential(4),
        *(lambda name=name: getattr(Fm, name)([(4,)]) for name in ("Split1D", "SplitChannel")),
    ]
    for call in calls:
        with pytest.warns(DeprecationWarning, match="deprecated") as caught:
            call()
        assert [Path(warning.filename).is_relative_to(Path(ig.__file__).parent) for warning in caught] == [True]


def test_numerical_log_determinants() -> None:
    net = conditional(1).double()
    x, c = X.double(), C.double()
    z, log_jac = net(x, c=c)
    torch.testing.assert_close(net.log_jacobian_numerical(x, c=c), log_jac.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net.log_jacobian_numerical(z, c=c, rev=True), -log_jac.detach(), rtol=1e-5, atol=1e-5)


class Returns(nn.Module):
    """A layer that returns something else than FrEIA's layers do."""

    def __init__(self, dims_in: Any, result: Any) -> None:
        super().__init__()
        self.result = result

    def forward(self, x: Any, rev: bool = False, jac: bool = True) -> Any:
        return self.result(x[0])

    @staticmethod
    def output_dims(dims: Any) -> Any:
        return (list(shape) for shape in dims)


def identity(log_jac: Any) -> Any:
    return lambda x: ([x], log_jac(x))


@pytest.mark.parametrize(
    "log_jac",
    [lambda x: 0, lambda x: 0.0, lambda x: torch.zeros(()), lambda x: torch.zeros(1), lambda x: x.new_zeros(len(x)),
     lambda x: torch.zeros(len(x), 1), lambda x: torch.zeros((), dtype=torch.float64)],
    ids=["int", "float", "0-d", "one", "batch", "column", "float64"],
)  # fmt: skip
def test_log_determinants_of_any_form_become_one_per_sample(log_jac: Any) -> None:
    net = Ff.SequenceINN(4)
    net.append(Returns, result=identity(log_jac))
    for rev in (False, True):
        _, total = net(X, rev=rev)
        assert torch.equal(total, torch.zeros(5))
    native = ig.freia.wrap(Returns([(4,)], identity(log_jac)), [(4,)])
    assert native((X,))[1].shape == (5,)


@pytest.mark.parametrize(
    ("result", "message"),
    [(lambda x: x, r"return \(y,\), log_jac"), (lambda x: (x, 0.0), r"return \(y,\), log_jac"),
     (lambda x: ([x], 0, 0), "two things"), (lambda x: ([x], None), "with jac=True"),
     (lambda x: ([x], torch.zeros(3)), "one number per sample"), (lambda x: ([x, x], 0), "2 values")],
    ids=["tensor", "bare", "three", "none", "shape", "outputs"],
)  # fmt: skip
def test_layers_that_return_something_else_are_refused(result: Any, message: str) -> None:
    x = Ff.InputNode(4)
    h = Ff.Node(x, Returns, {"result": result}, name="odd one")
    with pytest.raises(ig.InvgraphError, match=message) as caught:
        Ff.GraphINN([x, h, Ff.OutputNode(h)])(X)
    assert "node 'odd one' (Returns)" in str(caught.value)


def test_log_determinants_are_not_needed_without_jac() -> None:
    net = Ff.SequenceINN(4)
    net.append(Returns, result=lambda x: ([x], None))
    assert torch.equal(net(X, jac=False)[0], X)
    graph = conditional()
    assert torch.equal(graph(X, c=C, jac=False)[0], graph(X, c=C)[0])


def test_wrong_calls_are_refused() -> None:
    net = conditional()
    for call, message in (
        (lambda: net(X), "expected 1: 'c'"),
        (lambda: net([X, X], c=C), "expected 1"),
        (lambda: net("x", c=C), "expected a tensor"),
        (lambda: net(X, c=3), "c: int"),
        (lambda: sequence()(X, c=[C]), "up to number 1"),
    ):
        with pytest.raises((ig.InvgraphError, RuntimeError), match=message):
            call()


def test_wrong_declarations_are_refused() -> None:
    x, y = Ff.InputNode(4, name="x"), Ff.InputNode(4, name="y")
    h = Ff.Node(x, Fm.PermuteRandom, {}, name="h")
    split = Ff.Node(y, Fm.Split, {}, name="split")
    for make, error, message in (
        (lambda: Ff.Node(3, Fm.Flatten, {}), ig.ArgumentError, "expected a node"),
        (lambda: Ff.Node([x, h, 3], Fm.Flatten, {}), ig.ArgumentError, "a list with a int"),
        (lambda: Ff.Node((x, 1), Fm.Flatten, {}), ig.GraphError, "the node has 1 outputs"),
        (lambda: Ff.Node(x, Fm.Flatten, {}, conditions=3), ig.ArgumentError, "conditions: int"),
        (lambda: Ff.Node(x, nn.Identity, {}), ig.ArgumentError, "output_dims"),
        (lambda: h.out1, AttributeError, "no out1"),
        (lambda: Ff.OutputNode([split.out0, split.out1]), ig.GraphError, "one OutputNode for each"),
        (lambda: Ff.GraphINN([h, Ff.OutputNode(h)]), ig.GraphError, "not in the list"),
        (lambda: Ff.GraphINN([x, y, h, Ff.OutputNode(h)]), ig.GraphError, "not connected"),
        (lambda: Ff.GraphINN([y, split, Ff.OutputNode(split)]), ig.GraphError, "output 1"),
        (lambda: Ff.SequenceINN(4).append(Fm.Split), ig.GraphError, "2 outputs"),
        (lambda: Ff.SequenceINN(4).append(Fm.ActNorm, cond=0), ig.ArgumentError, "cond_shape"),
        (lambda: ig.freia.wrap(3), ig.ArgumentError, "already built"),
        (lambda: ig.freia.wrap(nn.ReLU()), ig.ArgumentError, "dims_in"),
    ):
        with pytest.raises(error, match=message):
            make()


def test_a_deep_chain_can_be_pickled_and_copied() -> None:
    nodes: list[Any] = [Ff.InputNode(4)]
    for _ in range(400):
        nodes.append(Ff.Node(nodes[-1], Fm.PermuteRandom, {"seed": 0}))
    net = Ff.GraphINN([*nodes, Ff.OutputNode(nodes[-1])])
    z: Tensor = net(X)[0]
    assert torch.equal(pickle.loads(pickle.dumps(net))(X)[0], z)
    assert torch.equal(copy.deepcopy(net)(X)[0], z)


def test_wrapped_layers_are_native_layers() -> None:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(2, name="c")
    block = Fm.AllInOneBlock([(4,)], [(2,)], subnet_constructor=subnet, permute_soft=True)
    h = ig.Node(x, ig.freia.wrap(block), conditions=c, name="block")
    graph = ig.Graph(x, ig.Node(h, ig.freia.wrap(Fm.ActNorm([(4,)], init_data=X)), name="norm"), c)
    assert "layers.block.module.global_scale" in graph.state_dict()
    ig.testing.check_invertible(graph)


def test_nodes_are_collected_from_the_inputs() -> None:
    x, c = Ff.InputNode(4, name="x"), Ff.ConditionNode(2, name="c")
    feature = Ff.FeedForwardNode(c, (3,), nn.Linear, {"in_features": 2, "out_features": 3}, name="feature")
    split = Ff.Node(x, Fm.Split, {}, name="split")
    a = Ff.Node(split.out1, Fm.GLOWCouplingBlock, {"subnet_constructor": subnet}, conditions=feature, name="a")
    join = Ff.Node([split.out0, a.out0], Fm.Concat, {}, name="join")
    end = Ff.OutputNode(join, name="z")
    assert set(Ff.collect_nodes(x)) == {x, c, feature, split, a, join, end}
    assert len(Ff.collect_nodes(x, x)) == 7
    assert split.outputs == [(join, 0), (a, 0)]  # by the output's number, whichever is read first
    assert a.outputs == [(join, 1)]
    assert end.outputs == []
    net = Ff.GraphINN(Ff.collect_nodes(x))
    assert net(X, c=C)[0].shape == X.shape


class OwnLoop(Ff.GraphINN):  # type: ignore[misc, name-defined]
    """A network whose forward goes through the nodes by itself, as programs do that add to every layer."""

    def forward(self, x: Any, rev: bool = False, jac: bool = True) -> Any:  # type: ignore[override]
        starts, ends = (self.out_nodes, self.in_nodes) if rev else (self.in_nodes, self.out_nodes)
        values = {(node, 0): value for node, value in zip(starts, x, strict=True)}
        total: Any = 0
        for node in self.node_list[:: -1 if rev else 1]:
            if node in (*self.in_nodes, *self.out_nodes):
                continue
            inputs = tuple(values[source] for source in (node.outputs if rev else node.inputs))
            outputs, log_jac = self._check_output(node, node.module(inputs, rev=rev, jac=jac), jac, rev)
            values.update({(node, place): value for place, value in enumerate(outputs)})
            total = total + log_jac
        return [values[(end.outputs if rev else end.inputs)[0]] for end in ends], total


def branched(kind: Any) -> Any:
    torch.default_generator.manual_seed(0)
    x, y = Ff.InputNode(4, name="x"), Ff.InputNode(2, name="y")
    split = Ff.Node(x, Fm.Split, {}, name="split")
    second = Ff.Node([split.out1, y.out0], Fm.Concat, {}, name="second")
    block = Ff.Node(second, Fm.AllInOneBlock, {"subnet_constructor": subnet, "permute_soft": True}, name="block")
    act = Ff.Node(split.out0, Fm.InvAutoActTwoSided, {}, name="act")
    return kind([x, y, act, split, second, block, Ff.OutputNode(act, name="a"), Ff.OutputNode(block, name="b")])


@pytest.mark.parametrize("copied", [False, True])
def test_a_network_may_go_through_its_nodes_by_itself(copied: bool) -> None:
    plain, own = branched(Ff.GraphINN), branched(OwnLoop)
    own.load_state_dict(plain.state_dict())
    own = pickle.loads(pickle.dumps(own)) if copied else own
    for rev in (False, True):
        data = [C, X] if rev else [X, C]
        expected, got = plain(data, rev=rev), own(data, rev=rev)
        assert all(torch.equal(a, b) for a, b in zip(expected[0], got[0], strict=True))
        torch.testing.assert_close(got[1], expected[1])


def test_what_a_module_returned_is_checked_for_such_a_loop() -> None:
    net = branched(OwnLoop)
    act = net.get_node_by_name("act")
    assert net._check_output(act, ((X,), 0), True, False)[1].shape == (5,)
    assert net._check_output(act, ((X,), None), False, False)[1].shape == (5,)
    refused = [(X, "returns two things"), ((X, 0.0), "outputs are a tuple"), (((X, X), 0.0), "2 values")]
    for result, words in refused:
        with pytest.raises(ig.ContractError, match=words):
            net._check_output(act, result, True, False)
    with pytest.raises(ig.ContractError, match="must be a number or a tensor"):
        net._check_output(act, ((X,), None), True, False)


def test_a_network_is_plotted_by_graphviz(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = conditional()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ig.DependencyError, match=r"no program dot[\s\S]*inn\.graph\.draw"):
        net.plot(tmp_path, "net")
    assert (tmp_path / "net").read_text().startswith("digraph")
    program = tmp_path / "dot"
    program.write_text('#!/bin/sh\necho "$1" > "$4"\n')
    program.chmod(0o755)
    ig.freia.utils.plot_graph(net.node_list + net.condition_nodes, path=tmp_path, filename="other")
    assert (tmp_path / "other.pdf").read_text() == "-Tpdf\n"
    program.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    with pytest.raises(ig.DependencyError, match="dot failed: broken"):
        net.plot(tmp_path, "net")
    with pytest.raises(ig.GraphError, match="folder does not exist"):
        net.plot(tmp_path / "none", "net")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ig.CheckpointError, match="a named pipe, not a regular file"):
        net.plot(tmp_path, "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_a_mixture_maps_all_components_in_a_network() -> None:
    x = Ff.InputNode(3)
    cs = [Ff.ConditionNode(*shape) for shape in ((2,), (2, 3), (2, 6), (0,))]
    h = Ff.Node(x, Fm.GaussianMixtureModel, {}, conditions=cs)
    net = Ff.GraphINN([x, *cs, h, Ff.OutputNode(h)])
    w, mu, entries = torch.rand(5, 2).softmax(1), torch.randn(5, 2, 3), torch.randn(5, 2, 6)
    data = torch.randn(5, 3)
    z, _ = net(data, c=[w, mu, entries, None], jac=False)
    assert z.shape == (5, 2, 3)
    back, _ = net(z, c=[w, mu, entries, None], rev=True, jac=False)
    torch.testing.assert_close(back, data.unsqueeze(1).expand(5, 2, 3), rtol=1e-4, atol=1e-4)
    with pytest.raises(ig.ShapeError, match=r"log_jac of shape \(5, 2\)"):
        net(data, c=[w, mu, entries, None])


def test_a_subclass_of_a_layer_without_log_determinant_is_asked_for_its_own() -> None:
    class Doubled(Fm.PermuteRandom):  # type: ignore[name-defined,misc]
        def forward(self, x: Any, rev: bool = False, jac: bool = True, c: Any = None) -> Any:
            (y,), log_jac = super().forward(x, rev, jac)
            factor = 0.5 if rev else 2.0
            return (y * factor,), log_jac + 4 * math.log(factor) if jac else 0.0

    net = Ff.SequenceINN(4)
    net.append(Fm.PermuteRandom, seed=0)
    net.append(Doubled, seed=1)
    net.append(Fm.NICECouplingBlock, subnet_constructor=subnet)
    z, log_jac = net(X)
    torch.testing.assert_close(log_jac, torch.full((5,), 4 * math.log(2.0)))
    torch.testing.assert_close(net(z, rev=True)[1], -log_jac)
    for kind in (Fm.PermuteRandom, Fm.GINCouplingBlock):
        args = {"subnet_constructor": subnet} if kind is Fm.GINCouplingBlock else {}
        layer = kind([(4,)], **args)
        assert layer((X,))[1].shape == (5,)
        assert layer((X,), jac=False)[1] == 0.0


def test_data_of_another_dtype_and_outputs_of_other_channels_are_refused() -> None:
    class Wider(Fm.InvertibleModule):  # type: ignore[name-defined,misc]
        def forward(self, x: Any, rev: bool = False, jac: bool = True) -> Any:
            return (torch.cat((x[0], x[0]), dim=1),), 0.0

        def output_dims(self, input_dims: Any) -> Any:
            return input_dims

    net = Ff.SequenceINN(4)
    net.append(Fm.LearnedElementwiseScaling)
    with pytest.raises(ig.InputTypeError, match="float64"):
        net(X.double())
    net.append(Wider)
    with pytest.raises(ig.ShapeError, match=r"returned output 0 of shape \(5, 8\)"):
        net(X)
