"""Values and nodes, chains, names; and the example of the design, word for word."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import invgraph as ig

AFFINE = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(hidden=4)}

DESIGN_EXAMPLE = """
    import torch
    import invgraph as ig

    x = ig.InputNode(1, 28, 28, name="image")
    digit = ig.ConditionNode(10, name="digit")
    h = ig.Node(x, ig.Flatten)
    for k in range(24):
        h = ig.Node(h, ig.Permute, {"seed": k})
        h = ig.Node(h, ig.Coupling, {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(hidden=512)},
                    conditions=digit, name=f"coupling_{k}")
    cinn = ig.Graph(inputs=x, outputs=h, conditions=digit)

    z, log_det = cinn(images, digits)              # log_det: (B,) nats, of the direction taken
    images, log_det = cinn.inverse(z, digits)
"""


@pytest.mark.parametrize("inverse", [False, True])
def test_a_layer_cast_by_itself_is_refused_by_the_name_of_its_node(inverse: bool) -> None:
    x = ig.InputNode(4, name="x")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}
    graph = ig.Graph(x, ig.chain(x, *[(ig.Coupling, args)] * 2, name="mix"))
    graph["mix_1"].double()
    with pytest.raises(ig.InputTypeError, match=r"node 'mix_1' \(Coupling\)"):
        (graph.inverse if inverse else graph)(torch.zeros(2, 4))


def test_a_node_of_one_output_has_its_shape() -> None:
    x = ig.InputNode(4, name="x")
    split = ig.Node(x, ig.Split, {"sizes": (1, 3)}, name="split")
    assert x.shape == (4,)
    assert ig.Node(split[1], ig.Permute).shape == (3,)
    with pytest.raises(ig.GraphError, match=r"node\[0\].shape"):
        _ = split.shape


def test_the_example_of_the_design_runs_word_for_word() -> None:
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    digits = torch.eye(10)[:2]
    names = {"images": images, "digits": digits}
    exec(compile("if True:" + DESIGN_EXAMPLE, "<design>", "exec"), names)
    assert names["z"].shape == (2, 784)
    assert names["log_det"].shape == (2,)
    assert torch.allclose(names["images"], images, atol=1e-4)
    cinn = names["cinn"]
    assert len(cinn.layers) == 1 + 2 * 24
    assert "coupling_23" in cinn.layers
    assert sum(p.numel() for p in cinn.parameters()) > 24 * 2 * 512 * 402


def test_a_node_with_one_output_is_a_value_and_one_with_several_is_indexed() -> None:
    x = ig.InputNode(4, name="x")
    split = ig.Node(x, ig.Split, {"sizes": (1, 3)}, name="split")
    assert [value.shape for value in split] == [(1,), (3,)]
    assert len(split) == 2
    assert split[1] is split.outputs[1]
    assert repr(split[1]) == "node 'split'[1] (3,)"
    assert repr(split) == "<node 'split': (1,), (3,)>"
    assert repr(x) == "<input 'x': (4,)>"
    first = ig.Node(split[0], ig.Permute)
    assert first.sources == (split[0],)
    assert first.shapes == ((1,),)
    assert repr(first) == "<unnamed node: (1,)>"


def test_declaring_leaves_the_parents_as_they_are() -> None:
    x = ig.InputNode(4, name="x")
    before = dict(vars(x))
    for _ in range(3):  # a cell of a notebook, run again
        h = ig.Node(x, ig.Coupling, AFFINE, name="h")
        graph = ig.Graph(x, h)
    assert vars(x) == before
    assert list(graph.layers) == ["h"]


def test_nodes_and_values_are_frozen() -> None:
    x = ig.InputNode(4, name="x")
    with pytest.raises(FrozenInstanceError):
        x.name = "y"
    with pytest.raises(FrozenInstanceError):
        x[0].shape = (3,)  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        x.new = 1


def test_chain_builds_a_node_for_each_layer() -> None:
    x, c = ig.InputNode(1, 4, 4, name="x"), ig.ConditionNode(3, name="c")
    h = ig.chain(x, ig.Flatten, (ig.Permute, {"seed": 3}), (ig.Coupling, AFFINE), ig.Orthogonal((16,)), conditions=c)
    graph = ig.Graph(x, h, c)
    assert list(graph.layers) == ["flatten_0", "permute_0", "coupling_0", "orthogonal_0"]
    named = ig.chain(x, ig.Flatten, ig.Permute, name="step")
    assert list(ig.Graph(x, named).layers) == ["step_0", "step_1"]
    z, log_det = graph(torch.zeros(2, 1, 4, 4), torch.zeros(2, 3))
    assert z.shape == (2, 16)
    assert log_det.shape == (2,)


def test_inputs_and_conditions_are_no_keys_and_take_any_name() -> None:
    x, c = ig.InputNode(4, name="values"), ig.ConditionNode(3, name="type")
    graph = ig.Graph(x, ig.Node(x, ig.Coupling, AFFINE, conditions=c), c)
    with pytest.raises(ig.ShapeError, match="condition 'type'"):
        graph(torch.zeros(2, 4), torch.zeros(2, 5))
    for declare in (lambda: ig.Node(x, ig.Permute, name="values"), lambda: ig.chain(x, ig.Permute, name="values"),
                    lambda: ig.FeatureNode(c, nn.Linear(3, 2), name="type")):  # fmt: skip
        with pytest.raises(ig.GraphError, match=r"attribute of torch\.nn\.Module"):
            declare()


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "a\x00", "a\x7fb", "a\u2028b", "a\ud800"])
def test_names_are_printed_on_one_line(name: str) -> None:
    x, c = ig.InputNode(4), ig.ConditionNode(3)
    for declare in (lambda: ig.InputNode(4, name=name), lambda: ig.ConditionNode(3, name=name),
                    lambda: ig.Node(x, ig.Permute, name=name), lambda: ig.chain(x, ig.Permute, name=name),
                    lambda: ig.FeatureNode(c, nn.Linear(3, 2), name=name)):  # fmt: skip
        with pytest.raises(ig.GraphError, match="control characters"):
            declare()


def test_sizes_may_be_ints_of_numpy() -> None:
    node = ig.InputNode(np.int64(3), np.prod((2, 4)), name="x")
    assert node.shapes == ((3, 8),)
    assert all(type(size) is int for size in node.shapes[0])
    for size in (np.bool_(True), np.float64(4), True, 4.0):
        with pytest.raises(ig.ArgumentError, match="must be an int"):
            ig.ConditionNode(size)


@pytest.mark.parametrize("layer", [
    (ig.Dequantize, {"levels": 8}), (ig.Elementwise, {"transform": ig.Logit()}), ig.Householder,
    (ig.Householder, {"subnet": None}), (ig.LowRankLinear, {"rank": 1}), ig.Inverse(ig.Permute((4,))), "graph",
])  # fmt: skip
def test_chain_gives_conditions_to_those_that_take_them(layer: Any) -> None:
    """Beside a layer that reads them: unconditional layers of kinds that may read conditions, and built ones."""
    x, c, u = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c"), ig.InputNode(4, name="u")
    layer = ig.Graph(u, ig.Node(u, ig.Permute)) if layer == "graph" else layer
    node = ig.chain(x, (ig.Coupling, AFFINE), layer, conditions=c)
    assert node.conditions == ()
    assert node.sources[0].node.conditions == (c[0],)


@pytest.mark.parametrize("make", [
    lambda: (ig.Elementwise, AFFINE), lambda: (ig.Householder, {"subnet": AFFINE["subnet"]}),
    lambda: (ig.LowRankLinear, {"rank": 1, "subnet": AFFINE["subnet"]}),
    lambda: ig.Inverse(ig.Coupling((4,), ((3,),), **AFFINE)),
    lambda: (ig.Autoregressive, {"hidden": 8, "transform": ig.Affine()}),
    lambda: (ig.Dequantize, {"noise": ig.Elementwise((4,), ((4,), (3,)), **AFFINE)}),
])  # fmt: skip
def test_chain_gives_conditions_to_what_reads_them(make: Any) -> None:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    assert ig.chain(x, make(), conditions=c).conditions == (c[0],)


def test_chain_of_a_pair_starts_with_a_layer_of_two_inputs() -> None:
    a, b = ig.InputNode(2, name="a"), ig.InputNode(3, name="b")
    graph = ig.Graph((a, b), ig.chain((a, b), ig.Concat, ig.Permute))
    z, _ = graph((torch.zeros(1, 2), torch.ones(1, 3)))
    assert z.shape == (1, 5)


def test_the_inverse_of_a_graph_of_one_value_is_a_layer() -> None:
    """Declared alone, its value is a tensor to users; a graph hands it a tuple."""
    inner, x, data = ig.InputNode(4), ig.InputNode(4), torch.arange(8.0).view(2, 4)
    layer = ig.Graph(inner, ig.Node(inner, ig.Permute))
    graph = ig.Graph(x, ig.Node(x, ig.Inverse(layer)))
    z, _ = graph(data)
    assert torch.equal(z, layer.inverse(data)[0])
    assert torch.equal(graph.inverse(z)[0], data)


def test_automatic_names_count_each_class_and_avoid_the_given_ones() -> None:
    x = ig.InputNode(4)
    h = ig.Node(x, ig.Permute, name="permute_1")
    for _ in range(3):
        h = ig.Node(h, ig.Permute)
    h = ig.Node(h, ig.Coupling, AFFINE)
    graph = ig.Graph(x, h)
    assert list(graph.layers) == ["permute_1", "permute_0", "permute_2", "permute_3", "coupling_0"]
    assert all(key.split(".")[1] in graph.layers for key in graph.state_dict())


def test_structure_in_is_structure_out() -> None:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    h = ig.Node(x, ig.Coupling, AFFINE, conditions=c, name="h")
    data, given = torch.zeros(2, 4), torch.zeros(2, 3)
    assert isinstance(ig.Graph(x, h, c)(data, given)[0], torch.Tensor)
    assert isinstance(ig.Graph([x], h, c)((data,), given)[0], torch.Tensor)
    assert isinstance(ig.Graph(x, [h], c)(data, given)[0], tuple)
    assert isinstance(ig.Graph(x, (h,), [c])(data, (given,))[0], tuple)
    assert isinstance(ig.Graph([x], h, c).inverse(data, given)[0], tuple)
    assert isinstance(ig.Graph(x, [h], c).inverse((data,), given)[0], torch.Tensor)


def test_an_input_may_be_an_output_as_it_is() -> None:
    x, y = ig.InputNode(2, name="x"), ig.InputNode(3, name="y")
    graph = ig.Graph((x, y), (y, ig.Node(x, ig.Permute)))
    a, b = torch.randn(2, 2), torch.randn(2, 3)
    (kept, _), log_det = graph((a, b))
    assert torch.equal(kept, b)
    assert torch.equal(log_det, torch.zeros(2))


def test_feature_networks_run_forward_in_both_directions() -> None:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    embed = ig.FeatureNode(c, nn.Linear, {"in_features": 3, "out_features": 2}, name="embed")
    both = ig.FeatureNode((c, embed), nn.Bilinear(3, 2, 2), name="both")
    graph = ig.Graph(x, ig.Node(x, ig.Coupling, AFFINE, conditions=(embed, both), name="h"), c)
    ig.testing.randomize(graph)
    calls: list[str] = []
    for name in ("embed", "both"):
        graph[name].register_forward_hook(lambda *_, name=name: calls.append(name))
    data, given = torch.randn(2, 4), torch.randn(2, 3)
    z, _ = graph(data, given)
    back, _ = graph.inverse(z, given)
    assert torch.allclose(back, data, atol=1e-5)
    assert calls == ["embed", "both"] * 2


def test_hooks_and_surgery_on_a_submodule_are_seen() -> None:
    x = ig.InputNode(4, name="x")
    graph = ig.Graph(x, ig.Node(x, ig.Permute, {"order": (1, 0, 3, 2)}, name="h"))
    seen: list[object] = []
    handle = graph["h"].register_forward_hook(lambda module, args, result: seen.append(module))
    data = torch.arange(4.0).unsqueeze(0)
    graph(data)
    handle.remove()
    assert seen == [graph["h"]]
    graph.layers["h"] = ig.Permute((4,), order=(3, 2, 1, 0))
    assert torch.equal(graph(data)[0], data.flip(1))


def test_graphs_over_the_same_nodes_share_their_layers() -> None:
    x = ig.InputNode(4, name="x")
    first = ig.Node(x, ig.Coupling, AFFINE, name="first")
    second = ig.Node(first, ig.Coupling, AFFINE, name="second")
    short, long = ig.Graph(x, first), ig.Graph(x, second)
    assert short["first"] is long["first"]


def test_layers_given_as_instances_keep_their_weights() -> None:
    layer = ig.testing.randomize(ig.Coupling((4,), **AFFINE))
    x = ig.InputNode(4, name="x")
    graph = ig.Graph(x, ig.Node(x, layer, name="h"))
    assert graph["h"] is layer
    data = torch.randn(3, 4)
    assert torch.equal(graph(data)[0], layer((data,))[0][0])


def test_graphs_pickle_and_copy() -> None:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    graph = ig.Graph(x, ig.chain(x, (ig.Coupling, AFFINE), ig.Permute, (ig.Coupling, AFFINE), conditions=c), c)
    ig.testing.randomize(graph)
    data, given = torch.randn(2, 4), torch.randn(2, 3)
    for twin in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        assert torch.equal(twin(data, given)[0], graph(data, given)[0])
        assert repr(twin) == repr(graph)


def test_initialize_reaches_layers_in_nested_graphs_with_what_reaches_them() -> None:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    u = ig.InputNode(4, name="u")
    inner = ig.Graph(u, ig.Node(u, ig.ActNorm, name="norm"))
    h = ig.Node(ig.Node(x, ig.Coupling, AFFINE, conditions=c, name="first"), inner, name="inner")
    graph = ig.testing.randomize(ig.Graph(x, ig.Node(h, ig.ActNorm, name="outer"), c))
    data = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    given = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    graph.initialize(data, given)
    z, _ = graph(data, given)
    assert torch.allclose(z.mean(0), torch.zeros(4), atol=1e-5)
    assert torch.allclose(z.std(0, correction=0), torch.ones(4), atol=1e-5)


def test_the_printed_table_names_everything() -> None:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    e = ig.FeatureNode(c, nn.Linear(3, 2), name="embed")
    table = repr(ig.Graph(x, ig.Node(x, ig.Coupling, AFFINE, conditions=e, name="h"), c))
    first, *rest = table.splitlines()
    assert first.startswith("Graph of 2 nodes, ")
    for words in (
        "x",
        "input",
        "c",
        "condition",
        "embed",
        "Linear",
        "feature",
        "h",
        "Coupling",
        "(4,) -> (4,)",
        "output",
    ):
        assert any(words in line for line in rest)


def test_a_deep_chain_of_nodes_is_copied_with_what_it_reads() -> None:
    c, x = ig.ConditionNode(2, name="c"), ig.InputNode(4, name="x")
    f = ig.FeatureNode(c, nn.Linear(2, 3), name="f")
    h = ig.Node(x, ig.Elementwise, {"transform": ig.Affine(), "subnet": ig.nets.MLP(4)}, conditions=f)
    shared = ig.Permute((4,), seed=1)
    for _ in range(600):
        h = ig.Node(h, shared)
    a, b = ig.Node(h, ig.Split, {"sizes": (1, 3)})
    x_twin, c_twin, a_twin, b_twin = copy.deepcopy((x, c, a, b))
    assert a_twin.node is b_twin.node is not a.node
    assert a_twin.node.outputs[1] is b_twin
    twin = ig.Graph(x_twin, [a_twin, b_twin], c_twin)
    graph = ig.Graph(x, [a, b], c)
    assert len(list(twin.parameters())) == len(list(graph.parameters()))
    ig.testing.randomize(graph)
    data = torch.randn(3, 4), torch.randn(3, 2)
    assert not torch.equal(twin(*data)[1], graph(*data)[1])  # it has parameters of its own
    twin.load_state_dict(graph.state_dict())
    assert torch.equal(twin(*data)[1], graph(*data)[1])


class FirstInPlace:
    """A subnet that changes what it is called with; dropout before that passes it on in evaluation mode only."""

    def __init__(self, first: nn.Module) -> None:
        self.first = first

    def __call__(self, channels_in: int, channels_out: int) -> nn.Module:
        return nn.Sequential(self.first, nn.ReLU(inplace=True), nn.Linear(channels_in, channels_out))


@pytest.mark.parametrize("layer", [ig.Coupling, ig.AllInOne])
@pytest.mark.parametrize("first", [nn.Identity(), nn.Dropout(0.1)])
def test_a_subnet_that_works_in_place_changes_no_data(first: nn.Module, layer: type[ig.Invertible]) -> None:
    x = ig.InputNode(4, name="x")
    args: dict[str, Any] = {"subnet": FirstInPlace(first)}
    graph = ig.Graph(x, ig.Node(x, layer, args if layer is ig.AllInOne else {**args, "transform": ig.Affine()}))
    ig.testing.randomize(graph).eval()
    data = torch.randn(5, 4)
    before = data.clone()
    for context in (torch.no_grad(), torch.enable_grad()):
        with context:
            y, _ = graph(data)
            assert torch.equal(data, before)
            assert torch.allclose(graph.inverse(y)[0], before, atol=1e-5)


@pytest.mark.parametrize("first", [nn.Identity(), nn.Dropout(0.1)])
def test_a_feature_network_that_works_in_place_is_refused(first: nn.Module) -> None:
    network = nn.Sequential(first, nn.ReLU(inplace=True), nn.Linear(2, 3))
    with pytest.raises(ig.GraphError, match="changes its condition in place"):
        ig.FeatureNode(ig.ConditionNode(2), network)


def exchanged() -> ig.Graph:
    x = ig.InputNode(4, name="x")
    return ig.Graph(
        x, ig.chain(x, (ig.Permute, {"order": (1, 0, 3, 2)}), (ig.LearnedScaling, {}), (ig.Permute, {"seed": 1}))
    )


def test_layers_are_replaced_in_their_place_and_never_removed() -> None:
    """A step of the graph is a place among the layers: without one of them, others would run in its place."""
    graph = exchanged()
    other = ig.Permute((4,), order=(3, 2, 1, 0))
    for remove in (
        lambda: graph.layers.__delitem__("permute_0"),
        lambda: graph.layers.pop("permute_0"),
        lambda: delattr(graph.layers, "permute_0"),
        graph.layers.clear,
    ):
        with pytest.raises(ig.GraphError, match=r"put another in its place"):
            remove()
    graph.layers["permute_0"] = other
    assert list(graph.layers) == ["permute_0", "learnedscaling_0", "permute_1"]
    assert next(iter(graph.layers.values())) is other
    with pytest.raises(ig.GraphError, match=r"node 'permute_0'\n.*\(\(5,\),\) -> .*in place of \(\(4,\),\)"):
        graph.layers["permute_0"] = ig.Permute((5,))
    for place in (
        lambda: graph.layers.__setitem__("permute_0", nn.Identity()),
        lambda: graph.layers.add_module("permute_0", None),
        lambda: setattr(graph.layers, "permute_0", nn.Identity()),
        lambda: graph.set_submodule("layers.permute_0", nn.Identity()),
        lambda: setattr(graph.layers, "permute_0", 3),
    ):
        with pytest.raises(ig.GraphError, match=r"node 'permute_0'\n.*in place of a layer\n.*by an Invertible"):
            place()
    with pytest.raises(ig.GraphError, match="the shapes must stay the same"):
        graph.set_submodule("layers.permute_0", ig.Permute((5,)))
    graph.set_submodule("layers.permute_0", torch.compile(other, backend="eager"))  # passes its attributes on
    x = torch.randn(3, 4)
    assert graph(x)[0].shape == (3, 4)
    torch.testing.assert_close(graph.inverse(graph(x)[0])[0], x)


def test_a_conditioning_network_is_replaced_by_any_other() -> None:
    x, c = ig.InputNode(2, name="x"), ig.ConditionNode(2, name="c")
    args = {"transform": ig.Affine(clamp=1.0), "subnet": ig.nets.MLP(4)}
    f = ig.FeatureNode(c, nn.Linear(2, 2), name="f")
    graph = ig.Graph(x, ig.Node(x, ig.Coupling, args, conditions=f), c)
    graph.layers["f"] = other = nn.Identity()
    assert graph["f"] is other


def test_a_layer_of_a_name_that_no_node_has_is_refused() -> None:
    """It would stand in the state, be trained and saved, and never run."""
    graph = exchanged()
    layer = ig.Permute((4,), order=(3, 2, 1, 0))
    for whole in (graph, copy.copy(graph), copy.deepcopy(graph), pickle.loads(pickle.dumps(graph))):
        for place in (
            lambda: whole.layers.__setitem__("permute_2", layer),  # noqa: B023
            lambda: whole.layers.update({"permute_2": layer}),  # noqa: B023
            lambda: whole.layers.add_module("permute_2", None),  # noqa: B023
            lambda: setattr(whole.layers, "permute_2", layer),  # noqa: B023
        ):
            with pytest.raises(ig.GraphError, match=r"node 'permute_2'\n.*has permute_0, learnedscaling_0, permute_1"):
                place()
        whole.layers.update({"permute_0": layer})
        whole.layers.note = "attributes that are no layers stay free"
        assert whole["permute_0"] is layer
        assert list(whole.layers) == ["permute_0", "learnedscaling_0", "permute_1"]
    image = ig.InputNode(2, 4, 4, name="image")
    with pytest.raises(ig.GraphError, match="no such node"):
        ig.Graph(image, ig.Node(image, ig.Haar)).at(image=(2, 6, 6)).layers["other"] = ig.Haar((2, 6, 6))
    for name in ("_is_complete", "_require_fit", "training"):
        with pytest.raises(ig.GraphError, match="choose another"):
            ig.Node(image, ig.Haar, name=name)


def test_names_are_in_a_graph_and_are_what_it_iterates_over() -> None:
    graph = exchanged()
    assert "permute_0" in graph
    assert "other" not in graph
    assert 0 not in graph
    assert list(graph) == ["permute_0", "learnedscaling_0", "permute_1"]
