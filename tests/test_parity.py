"""The same numbers as nflows and zuko on the same parameters, where these are right; runs where they are installed."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from defaults import default_dtype
from torch import Tensor

import invgraph as ig

BINS, BOUND, SIZE, BATCH = 7, 3.0, 5, 64


def library(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what others deprecate is not our affair
        return pytest.importorskip(name)


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def last(params: Tensor) -> Tensor:
    """Parameters as others have them: in the last axis."""
    return params.movedim(1, -1)


DATA = normal(BATCH, SIZE, seed=1, scale=2.0)  # some of it in the tails


def agree(ours: Any, params: Tensor, theirs: Any, close: float = 1e-6) -> None:
    """Values and log-dets in both directions; ``theirs(x, inverse)`` returns them element by element."""
    for call, inverse in ((ours.forward, False), (ours.inverse, True)):
        y, log_det = call(DATA, params)
        z, log_slopes = theirs(DATA.clone(), inverse)
        assert (y - z).abs().max().item() <= close
        assert (log_det - log_slopes.sum(1)).abs().max().item() <= close


def softplus_root(y: Tensor) -> Tensor:
    return y + torch.log(-torch.expm1(-y))


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_rational_quadratic_spline_is_nflows(scale: float) -> None:
    spline = library("nflows.transforms.splines.rational_quadratic").unconstrained_rational_quadratic_spline
    ours = ig.RationalQuadraticSpline(bins=BINS, bound=BOUND)
    params = normal(BATCH, ours.params_per_element, SIZE, seed=2, scale=scale)
    widths, heights, slopes = last(params).split([BINS, BINS, BINS - 1], dim=-1)
    # Ours are 1 for parameters of zero.
    slopes = slopes + math.log(math.expm1(1 - ours.min_slope))
    agree(ours, params, lambda x, inverse: spline(x, widths, heights, slopes, inverse=inverse, tail_bound=BOUND))


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_quadratic_spline_is_nflows(scale: float) -> None:
    spline = library("nflows.transforms.splines.quadratic").quadratic_spline
    ours = ig.QuadraticSpline(bins=BINS, bound=BOUND)
    params = normal(BATCH, ours.params_per_element, SIZE, seed=2, scale=scale)
    widths, heights = last(params).split([BINS, BINS - 1], dim=-1)
    # Where nflows fills in the slopes at both ends, it halves the outer bins twice, and they miss 1: we say them.
    sizes = 1e-3 + (1 - 1e-3 * BINS) * widths.softmax(-1)
    inner = torch.nn.functional.softplus(heights) + 1e-3
    end = ((sizes[..., :-1] + sizes[..., 1:]) / 2 * inner).sum(-1) / (1 - (sizes[..., 0] + sizes[..., -1]) / 2)
    end = softplus_root(end - 1e-3).unsqueeze(-1)
    heights = torch.cat((end, heights, end), dim=-1)
    box = {"left": -BOUND, "right": BOUND, "bottom": -BOUND, "top": BOUND}

    def both(x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        inside = x.abs() <= BOUND
        y, log_slopes = spline(torch.where(inside, x, 0.0), widths, heights, inverse=inverse, **box)
        return torch.where(inside, y, x), torch.where(inside, log_slopes, 0.0)

    agree(ours, params, both)


def test_linear_spline_is_nflows() -> None:
    spline = library("nflows.transforms.splines.linear").unconstrained_linear_spline
    ours = ig.LinearSpline(bins=BINS, bound=BOUND, min_height=1e-12)  # theirs has no least height
    heights = normal(BATCH, BINS, SIZE, seed=2)
    params = torch.cat((torch.zeros_like(heights), heights), dim=1)  # theirs has bins of equal widths

    y, log_det = ours.forward(DATA, params)
    z, log_slopes = spline(DATA.clone(), last(heights), tail_bound=BOUND)
    assert (y - z).abs().max().item() <= 1e-6
    assert (log_det - log_slopes.sum(1)).abs().max().item() <= 1e-6
    x, _ = ours.inverse(DATA, params)
    with default_dtype(torch.float64):  # its inverse makes its knots in the default dtype
        z, _ = spline(DATA.clone(), last(heights), inverse=True, tail_bound=BOUND)
    # ... and lengthens the last bin by 1e-6 on the way, for its search: it is right below it.
    below = 1 - heights.softmax(1)[:, -1]
    right = torch.lt(DATA, (below - 0.5) * 2 * BOUND) | torch.gt(DATA, BOUND)
    assert right.double().mean() > 0.7
    assert (x - z)[right].abs().max().item() <= 1e-6


def zuko_spline(zuko: Any, raw: Tensor) -> Any:
    widths, heights, slopes = raw.split([BINS, BINS, BINS - 1], dim=-1)
    return zuko.transforms.MonotonicRQSTransform(widths, heights, slopes, bound=BOUND)


def our_spline_numbers(raw: Tensor, spline: Any) -> Tensor:
    """Our parameters for what zuko makes of its own, which it bends before use."""
    widths, heights, slopes = raw.split([BINS, BINS, BINS - 1], dim=-1)
    bend = math.log(1e-3)
    widths, heights = (sizes / (1 + abs(2 * sizes / bend)) for sizes in (widths, heights))
    slopes = torch.exp(slopes / (1 + abs(slopes / bend)))
    slopes = softplus_root(slopes - spline.min_slope) - math.log(math.expm1(1 - spline.min_slope))
    return torch.cat((widths, heights, slopes), dim=-1)


FREE = {"min_width": 1e-12, "min_height": 1e-12, "min_slope": 1e-9}  # zuko has no least sizes


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_rational_quadratic_spline_is_zukos(scale: float) -> None:
    zuko = library("zuko")
    ours = ig.RationalQuadraticSpline(bins=BINS, bound=BOUND, **FREE)
    raw = normal(BATCH, SIZE, ours.params_per_element, seed=2, scale=scale)
    theirs = zuko_spline(zuko, raw)

    def both(x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        return (theirs.inv if inverse else theirs).call_and_ladj(x)

    agree(ours, our_spline_numbers(raw, ours).movedim(-1, 1), both)


def test_bernstein_is_zukos() -> None:
    zuko = library("zuko")
    theirs = zuko.transforms.BoundedBernsteinTransform(normal(BATCH, SIZE, 6, seed=3), bound=BOUND, eps=1e-12)
    steps = theirs.theta.diff(dim=-1) / (2 * BOUND)
    ours = ig.Bernstein(degree=steps.shape[-1], bound=BOUND, min_step=1e-12)
    params = steps[..., 1:-1].log().movedim(-1, 1)

    def both(x: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        if not inverse:
            return theirs.call_and_ladj(x)
        with torch.no_grad():  # its root finder keeps to a tolerance of its own
            y = theirs.inv(x)
        return y, -theirs.log_abs_det_jacobian(y, x)

    agree(ours, params, both)


def test_autoregressive_flow_is_zukos() -> None:
    """Our network in zuko's autoregressive scheme: its sequential inverse, its triangular determinant."""
    zuko = library("zuko")
    spline = ig.RationalQuadraticSpline(bins=BINS, bound=BOUND)
    torch.manual_seed(0)
    layer = ig.testing.randomize(ig.Autoregressive((SIZE,), transform=spline, hidden=32, layers=2).double())

    def conditioner(x: Tensor) -> Any:
        numbers = last(layer.subnet(x).unflatten(1, (-1, SIZE)))
        widths, heights, slopes = numbers.split([BINS, BINS, BINS - 1], dim=-1)
        # Undo zuko's bending, and our floors, so that both splines get the same sizes and slopes.
        bend = math.log(1e-3)
        sizes = [torch.log(least + (1 - least * BINS) * raw.softmax(-1)) for raw, least in
                 ((widths, spline.min_width), (heights, spline.min_height))]  # fmt: skip
        sizes = [size - size.mean(-1, keepdim=True) for size in sizes]
        widths, heights = (size / (1 - abs(2 * size / bend)) for size in sizes)
        offset = math.log(math.expm1(1 - spline.min_slope))
        logs = torch.log(spline.min_slope + torch.nn.functional.softplus(slopes + offset))
        slopes = logs / (1 - abs(logs / bend))
        rqs = zuko.transforms.MonotonicRQSTransform(widths, heights, slopes, bound=BOUND)
        return zuko.transforms.DependentTransform(rqs, 1)

    theirs = zuko.transforms.AutoregressiveTransform(conditioner, passes=SIZE)
    with torch.no_grad():
        for call, other in ((layer, theirs), (layer.inverse, theirs.inv)):
            (y,), log_det = call((DATA,))
            z, ladj = other.call_and_ladj(DATA)
            assert (y - z).abs().max().item() <= 1e-6
            assert torch.allclose(log_det, ladj, rtol=0, atol=1e-6)


def test_autoregressive_network_is_nflows_made() -> None:
    """The same weights in nflows' masked network and ours: the same flow, values and log-dets in both directions."""
    autoregressive = library("nflows.transforms.autoregressive")
    hidden = 6 * (SIZE - 1)  # as many units of each degree there as here
    theirs = autoregressive.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(
        SIZE, hidden, num_bins=BINS, tails="linear", tail_bound=BOUND, num_blocks=1, use_residual_blocks=False
    ).double()
    with torch.no_grad():
        for seed, parameter in enumerate(theirs.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=seed, scale=0.5))
    spline = ig.RationalQuadraticSpline(bins=BINS, bound=BOUND)
    layer = ig.Autoregressive((SIZE,), transform=spline, hidden=hidden, layers=2).double()
    net = theirs.autoregressive_net
    # Their hidden units take turns in degree, ours stand in order of it; their outputs go by number, ours by parameter.
    first, second = (m.degrees.argsort(stable=True) for m in (net.initial_layer, net.blocks[0].linear))
    outputs = torch.arange(SIZE * spline.params_per_element).view(SIZE, -1).t().flatten()
    offset = math.log(math.expm1(1 - spline.min_slope))
    is_slope = torch.arange(spline.params_per_element).repeat_interleave(SIZE) >= 2 * BINS
    with torch.no_grad():
        layers: Any = layer.subnet.layers
        layers[0].weight.copy_(net.initial_layer.weight[first])
        layers[0].bias.copy_(net.initial_layer.bias[first])
        layers[1].weight.copy_(net.blocks[0].linear.weight[second][:, first])
        layers[1].bias.copy_(net.blocks[0].linear.bias[second])
        layers[2].weight.copy_(net.final_layer.weight[outputs][:, second])
        layers[2].bias.copy_(net.final_layer.bias[outputs] - offset * is_slope)
        for call, other in ((layer, theirs.forward), (layer.inverse, theirs.inverse)):
            (y,), log_det = call((DATA,))
            z, logabsdet = other(DATA)
            assert (y - z).abs().max().item() <= 1e-6
            assert torch.allclose(log_det, logabsdet, rtol=0, atol=1e-6)


def test_dct_is_scipys() -> None:
    fft = library("scipy.fft")
    x = normal(2, 3, 6, 5)
    (y,), _ = ig.DCT((3, 6, 5)).double()((x,))
    assert torch.allclose(y, torch.from_numpy(fft.dctn(x.numpy(), axes=(2, 3), norm="ortho")), rtol=0, atol=1e-13)
