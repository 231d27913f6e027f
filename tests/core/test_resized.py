"""Layers at other sizes: each case of the table follows, and keeps the contract, or says why it can't."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import Case, each_kind
from flat import Flat
from measures import gap, jacobian

import invgraph as ig
from invgraph.core.resized import resized
from invgraph.shapes import as_shapes

FIXED = {ig.Autoregressive, ig.PatchAutoregressive, ig.Reshape}
FIXED_NETS = (ig.nets.GatedAttention, ig.nets.ViT)


def is_for_one_size(case: Case) -> bool:
    """True for layers that keep something of the size that they were built for."""
    if case.cls is ig.Elementwise:
        return "subnet" not in case.args and case.args["transform"].params_per_element > 0
    return (
        case.cls in (*FIXED, ig.Box)
        or isinstance(case.args.get("subnet"), FIXED_NETS)
        or (case.cls in (ig.Permute, ig.Split) and "dim" in case.args)
        or (case.cls is ig.Standardize and case.in_shapes == (2, 3))
        or (case.cls is ig.LearnedScaling and "per_channel" not in case.args)
        or (case.make is not None and case.make.__name__ == "wide_graph")  # it flattens, and conditions on that
    )


def larger(shapes: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    return tuple((channels, *(2 * size for size in sizes)) for channels, *sizes in shapes)


def spatial(parameters: list[Any]) -> list[Any]:
    def has_positions(case: Case) -> bool:
        if case.make is not None:
            return case.make.__name__ not in ("single_graph", "inverse_of_coupling", "variational_dequantize")
        return any(len(shape) > 1 for shape in as_shapes(case.in_shapes, "a case"))

    return [p for p in parameters if has_positions(p.values[0])]


@pytest.mark.parametrize("case", spatial(each_kind()))
def test_every_layer_follows_or_says_why_not(case: Case) -> None:
    built = case.build()
    module = built.module if isinstance(built, Flat) else built
    shapes = larger(module.in_shapes), larger(module.cond_shapes)
    if is_for_one_size(case):
        with pytest.raises(ig.GraphError, match=r"its size can't change|it fails|!="):
            resized(module, *shapes)
        return
    other = resized(module, *shapes)
    assert (other.in_shapes, other.cond_shapes) == shapes
    assert list(map(id, other.parameters())) == list(map(id, module.parameters()))
    xs, cs = case.data(other, torch.float64, batch=2)
    ys, log_det = other(xs, cs)
    assert [tuple(y.shape[1:]) for y in ys] == list(other.out_shapes)
    if "round_trip" not in case.without:
        back, _ = other.inverse(ys, cs)
        assert gap(back, xs) <= case.tolerance
        exact = torch.linalg.slogdet(jacobian(lambda xs: other(xs, cs), xs)).logabsdet
        assert gap((log_det,), (exact,)) <= 1e-9
    again, log_det = module(*case.data(module, torch.float64))  # and the original is as it was
    assert [tuple(y.shape[1:]) for y in again] == list(module.out_shapes)


def test_the_same_size_is_the_layer_itself() -> None:
    layer = ig.Haar((1, 4, 4))
    assert resized(layer, ((1, 4, 4),), ()) is layer


def test_what_happens_to_one_happens_to_the_other() -> None:
    layer = ig.ActNorm((2, 3, 3))
    other = resized(layer, ((2, 5, 4),), ())
    other.initialize((torch.randn(6, 2, 5, 4, generator=torch.Generator().manual_seed(0)),))
    assert layer._is_initialized()
    layer.double()
    layer((torch.zeros(1, 2, 3, 3, dtype=torch.float64),))
    other((torch.zeros(1, 2, 5, 4, dtype=torch.float64),))


def test_masks_by_name_are_made_anew_and_given_ones_are_refused() -> None:
    args = {"transform": ig.Affine(), "subnet": ig.nets.ConvNet(hidden=4)}
    layer = ig.MaskedCoupling((1, 2, 2), **args)
    other = resized(layer, ((1, 3, 4),), ())
    assert other.mask[0].tolist() == [[(i + j) % 2 == 0 for j in range(4)] for i in range(3)]
    assert layer.mask.shape == (1, 2, 2)
    given = ig.MaskedCoupling((1, 2, 2), mask=layer.mask.bool(), **args)
    with pytest.raises(ig.GraphError, match="'checkerboard' and 'channel' work at any size"):
        resized(given, ((1, 3, 4),), ())


def test_upsampling_follows_by_proportion_or_is_refused() -> None:
    layer = ig.Inverse(ig.Squeeze((1, 3, 6), factor=3))
    assert resized(layer, ((9, 4, 5),), ()).out_shapes == ((1, 12, 15),)
    odd = ig.Inverse(ig.Inverse(ig.Haar((1, 4, 4))))
    with pytest.raises(ig.GraphError, match=r"for inputs \(\(4, 1, 2\),\) the Inverse makes \(\(1, 2, 4\),\)"):
        resized(odd, ((1, 3, 4),), ())


class Mine(ig.Invertible):
    """A layer of a user, which multiplies by two."""

    def _forward(self, xs: Any, given: Any) -> Any:
        return (2 * xs[0],), xs[0].new_full((len(xs[0]),), xs[0][0].numel() * torch.log(torch.tensor(2.0)).item())

    def _inverse(self, ys: Any, given: Any) -> Any:
        raise NotImplementedError


class Mine2(Mine):
    fixed_size_reason = None


def test_layers_of_ones_own_follow_if_they_say_so() -> None:
    with pytest.raises(ig.GraphError, match="set fixed_size_reason = None in the class"):
        resized(Mine((1, 2, 2)), ((1, 4, 4),), ())
    _, log_det = resized(Mine2((1, 2, 2)), ((1, 4, 4),), ())((torch.ones(1, 1, 4, 4),))
    assert log_det.item() == pytest.approx(16 * 0.6931472)
