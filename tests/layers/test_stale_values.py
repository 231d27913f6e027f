"""Values that a layer derives from its buffers follow them, however they are changed."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import invgraph as ig


def fixed(matrix: Tensor) -> ig.Graph:
    x = ig.InputNode(len(matrix), name="x")
    return ig.Graph(x, ig.Node(x, ig.FixedLinear, {"matrix": matrix}, name="m")).double()


def test_a_matrix_that_is_changed_in_place_has_its_inverse_and_determinant() -> None:
    first, second = torch.randn(2, 3, 3, dtype=torch.float64) + 2 * torch.eye(3, dtype=torch.float64)
    graph, other = fixed(first), fixed(second)
    x = torch.randn(5, 3, dtype=torch.float64)
    graph(x)
    for name, value in other.state_dict().items():
        graph.state_dict()[name].copy_(value)
    for twin in (graph, copy.deepcopy(graph)):
        z, log_det = twin(x)
        assert torch.allclose(log_det, torch.linalg.slogdet(second).logabsdet.expand(5), atol=1e-12)
        x_again, back = twin.inverse(z)
        assert torch.allclose(x_again, x, atol=1e-11)
        assert torch.allclose(back, -log_det, atol=1e-12)


def test_compiled_code_has_the_determinant_and_inverse_of_a_matrix_that_is_changed_in_place() -> None:
    graph = fixed(2 * torch.eye(2, dtype=torch.float64)).compile(backend="eager")
    x = torch.ones(1, 2, dtype=torch.float64)
    for factor in (1, 3):
        graph.layers["m"].matrix.mul_(factor)
        z, log_det = graph(x)
        assert torch.allclose(z, 2 * factor * x)
        assert log_det.item() == pytest.approx(2 * math.log(2 * factor))
        assert torch.allclose(graph.inverse(z)[0], x)


def test_what_inference_mode_derives_serves_a_training_step() -> None:
    layer = ig.FixedLinear((2,), matrix=[[2.0, 0.0], [0.0, 4.0]])
    with torch.inference_mode():
        layer.inverse((torch.ones(3, 2),))
    y = torch.ones(3, 2, requires_grad=True)
    (x,), log_det = layer.inverse((y,))
    scale = torch.ones(3, requires_grad=True)
    (x.sum() + (scale * log_det).sum()).backward()
    assert torch.allclose(y.grad, torch.tensor([[0.5, 0.25]]).expand(3, 2))
    assert torch.allclose(scale.grad, torch.full((3,), -math.log(8)))


def test_the_inverse_of_a_1x1_convolution_follows_its_permutation() -> None:
    one, other = (ig.Conv1x1((2,), matrix=m) for m in ([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]))
    y = torch.tensor([[1.0, 2.0]])
    with torch.no_grad():
        assert torch.equal(one.inverse((y,))[0][0], y)
        one.load_state_dict(other.state_dict())  # the same but for the order of the rows
        assert torch.equal(one.inverse((y,))[0][0], y.flip(1))


def test_functional_call_has_the_determinant_of_the_matrix_it_is_given() -> None:
    x = torch.ones(1, 1, dtype=torch.float64)
    graph, other = (fixed(torch.tensor([[k]], dtype=torch.float64)) for k in (2.0, 5.0))
    _, log_det = torch.func.functional_call(graph, other.state_dict(), (x,))
    assert log_det.item() == pytest.approx(torch.tensor(5.0).log().item())
    assert graph(x)[1].item() == pytest.approx(torch.tensor(2.0).log().item())
    many = torch.tensor([[[2.0]], [[3.0]]], dtype=torch.float64)
    found = torch.func.vmap(lambda m: torch.func.functional_call(graph, {"layers.m.matrix": m}, (x,))[1])(many)
    assert torch.allclose(found, torch.tensor([[2.0], [3.0]], dtype=torch.float64).log())
    assert graph(x)[1].item() == pytest.approx(torch.tensor(2.0).log().item())


@pytest.mark.parametrize("layer", [ig.Permute, ig.AllInOne])
def test_an_order_that_is_loaded_brings_its_inverse(layer: type[ig.Invertible]) -> None:
    x = ig.InputNode(4, name="x")
    args: dict[str, Any] = {} if layer is ig.Permute else {"subnet": ig.nets.MLP(4), "permutation": "hard"}
    one, other = (ig.Graph(x, ig.Node(x, layer, {**args, "seed": seed}, name="p")).double() for seed in (1, 5))
    loaded = other.load_state_dict({"layers.p.order": one.state_dict()["layers.p.order"]}, strict=False)
    assert not loaded.unexpected_keys
    values = torch.arange(4.0, dtype=torch.float64)[None]
    assert torch.allclose(other.inverse(other(values)[0])[0], values)
    with pytest.raises(RuntimeError, match=r"\[0, 0, 1, 2\] is not a permutation of 0..3"):
        other.load_state_dict({"layers.p.order": torch.tensor([0, 0, 1, 2])}, strict=False)


class Bounded(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 3 * torch.tanh(w / 3)


class Invertible(Bounded):
    def right_inverse(self, w: Tensor) -> Tensor:
        return 3 * torch.atanh(w / 3)


def test_initialize_goes_through_a_parametrization_or_is_refused() -> None:
    data = torch.randn(1000, 2, dtype=torch.float64) * 4 + 3
    layer = ig.ActNorm((2,)).double()
    parametrize.register_parametrization(layer, "log_scale", Invertible())
    layer.initialize((data,))
    (y,), _ = layer((data,))
    assert torch.allclose(y.mean(0), torch.zeros(2).double(), atol=1e-9)
    assert torch.allclose(y.std(0), torch.ones(2).double(), atol=1e-3)  # of N, not of N - 1

    layer = ig.ActNorm((2,)).double()
    parametrize.register_parametrization(layer, "log_scale", Bounded())
    with pytest.raises(ig.GraphError, match="no right_inverse: call initialize first"):
        layer.initialize((data,))
    assert not layer.initialized

    layer = ig.ActNorm((2,)).double()
    prune.identity(layer, "shift")
    with pytest.raises(ig.GraphError, match="shift, which is computed from other parameters"):
        layer.initialize((data,))
    assert not layer.initialized
