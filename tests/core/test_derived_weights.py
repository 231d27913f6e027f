"""Weights that prune and the older weight_norm and spectral_norm compute in a forward pre-hook, in the inverse."""

from __future__ import annotations

import pytest
import torch
from cases import PARTS, Case
from torch import Tensor, nn
from torch.nn.utils import prune

import invgraph as ig
from invgraph.testing import randomize


def own_parameters(module: nn.Module) -> list[tuple[nn.Module, str]]:
    return [(part, name) for part in module.modules() for name, _ in part.named_parameters(recurse=False)]


@pytest.mark.parametrize("case", PARTS, ids=lambda case: case.id)
def test_the_inverse_has_the_pruned_weights_of_now(case: Case) -> None:
    plain, pruned = case.build().double().eval(), case.build().double().eval()
    for part, name in own_parameters(pruned):
        prune.identity(part, name)
    with torch.no_grad():
        for (part, name), (twin, _) in zip(own_parameters(plain), own_parameters(pruned), strict=True):
            for owner, key in ((part, name), (twin, f"{name.removesuffix('_orig')}_orig")):
                getattr(owner, key).mul_(1.1)
    zs, cs = case.latents(plain, torch.float64)
    right, log_det = plain.inverse(zs, cs)
    got, got_log_det = pruned.inverse(zs, cs)
    for a, b in zip((*got, got_log_det), (*right, log_det), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-9)


def normed_by_direction(layer: nn.Module) -> nn.Module:
    with pytest.warns(FutureWarning, match="weight_norm"):
        return nn.utils.weight_norm(layer, "factors")


def normed_by_spectrum(layer: nn.Module) -> nn.Module:
    return nn.utils.spectral_norm(layer, "factors")


def test_a_sample_takes_no_step_of_the_power_iteration() -> None:
    x = ig.InputNode(4, name="x")
    graph = randomize(ig.Graph(x, ig.Node(x, ig.Conv1x1, name="mix"))).double().train()
    normed_by_spectrum(graph["mix"])
    data = torch.randn(3, 4, dtype=torch.float64)
    z, _ = graph(data)
    before = {name: value.clone() for name, value in graph.named_buffers()}
    assert (graph.inverse(z)[0] - data).abs().max() < 1e-12
    assert all(torch.equal(value, before[name]) for name, value in graph.named_buffers())


@pytest.mark.parametrize("norm", [normed_by_direction, normed_by_spectrum])
@pytest.mark.parametrize("training", [False, True])
def test_samples_have_the_normed_weights_of_now(norm: object, training: bool) -> None:
    x = ig.InputNode(4, name="x")
    graph = randomize(ig.Graph(x, ig.Node(x, ig.Conv1x1, name="mix"))).double()
    norm(graph["mix"])  # type: ignore[operator]
    flow = ig.Flow(graph).train(training)
    with torch.no_grad():
        for parameter in graph.parameters():
            parameter.add_(0.1)
    z = torch.randn(3, 4, dtype=torch.float64)
    x_again: Tensor = flow.graph.inverse(z)[0]
    flow.eval()  # another power iteration would change the weights
    assert (flow.graph(x_again)[0] - z).abs().max() < 1e-12


def test_a_bound_graph_has_the_pruned_weights_of_now() -> None:
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    args = {"transform": ig.Affine(), "subnet": ig.nets.MLP(8)}
    turn = ig.Node(x, ig.Householder, {"subnet": ig.nets.MLP(8)}, conditions=c, name="turn")  # bound as unit vectors
    graph = ig.Graph(x, ig.Node(turn, ig.Coupling, args, conditions=c), c)
    graph = randomize(graph).double()
    prune.identity(graph["turn"], "vectors")
    with torch.no_grad():
        next(p for name, p in graph.named_parameters() if name.endswith("_orig")).add_(0.5)
    z, condition = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    bound = graph.bind(condition).inverse(z[None])
    right = graph.inverse(z, condition)
    assert all(torch.allclose(a[0], b, rtol=1e-12, atol=1e-12) for a, b in zip(bound, right, strict=True))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # the compiler's
def test_a_compiled_inverse_has_the_pruned_weights_of_now() -> None:
    x = ig.InputNode(4, name="x")
    graph = randomize(ig.Graph(x, ig.Node(x, ig.Conv1x1, name="mix"))).double()
    prune.identity(graph["mix"], "factors")
    graph.compile(backend="eager")
    z = torch.randn(3, 4, dtype=torch.float64)
    for _ in range(2):
        x_again, _ = graph.inverse(z)
        assert (graph(x_again)[0] - z).abs().max() < 1e-12
        with torch.no_grad():
            for parameter in graph.parameters():
                parameter.add_(0.1)
