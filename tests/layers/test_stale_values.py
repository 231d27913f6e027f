"""Values that a layer derives from its buffers follow them, however they are changed."""

from __future__ import annotations

import copy
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
