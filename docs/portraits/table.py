"""The portrait of each layer, transform and subnet."""

from __future__ import annotations

import torch

import invgraph as ig
from portraits import scenes
from portraits.canvas import Portrait
from portraits.kinds import curve, grid, order, response, sight, tiles

_AFFINE, _MLP = ig.Affine(clamp=1.0), ig.nets.MLP(hidden=16)
_SMOOTH = ig.nets.ResidualMLP(hidden=16)
_BAND = (torch.eye(8) - 0.5 * torch.diag(torch.ones(7), 1)).tolist()
_PLANE = "A grid in the plane before and after the layer, "
PORTRAITS: dict[str, Portrait] = {
    "Inverse": Portrait(
        3, "A grid before and after an autoregressive layer, and after ``Inverse`` of it.", scenes.inverse
    ),
    "Coupling": grid(ig.Coupling, _PLANE + "and which output depends on which input.", transform=_AFFINE, subnet=_MLP),
    "MaskedCoupling": Portrait(
        3, "One side of a checkerboard: half of the pixels change, given the others.", scenes.masked
    ),
    "AllInOne": grid(
        ig.AllInOne, _PLANE + "and which output depends on which input.", transform=_AFFINE, subnet=_MLP, seed=3
    ),
    "Elementwise": grid(
        ig.Elementwise,
        _PLANE + "which moves every element by itself.",
        transform=ig.RationalQuadraticSpline(bound=2.0),
        scale=0.6,
    ),
    "Autoregressive": grid(
        ig.Autoregressive,
        _PLANE + "in which each output depends on the inputs before it.",
        transform=_AFFINE,
        hidden=16,
        scale=2.0,
    ),
    "PatchAutoregressive": grid(
        ig.PatchAutoregressive,
        _PLANE + "and for patches of two which output depends on which input.",
        transform=_AFFINE,
        patch=1,
        scale=2.0,
        wide={"patch": 2},
    ),
    "Residual": grid(
        ig.Residual,
        _PLANE + "in which everything depends on everything.",
        hidden=8,
        layers=1,
        lipschitz=0.98,
        scale=2.5,
        seed=1,
    ),
    "ContinuousFlow": grid(
        ig.ContinuousFlow,
        _PLANE + "in which everything depends on everything.",
        subnet=_SMOOTH,
        steps=32,
        scale=1.0,
        seed=3,
    ),
    "Permute": grid(
        ig.Permute, _PLANE + "and the matrix.", title="P", order=(1, 0), wide={"order": (3, 6, 0, 5, 1, 7, 2, 4)}
    ),
    "Orthogonal": grid(ig.Orthogonal, _PLANE + "and the matrix.", title="Q", seed=1),
    "FixedLinear": grid(
        ig.FixedLinear, _PLANE + "and the matrix.", matrix=[[1.0, 0.6], [0.0, 0.8]], title="M", wide={"matrix": _BAND}
    ),
    "Conv1x1": grid(ig.Conv1x1, _PLANE + "and the matrix.", title="P L U", scale=0.7),
    "OrthogonalLinear": grid(ig.OrthogonalLinear, _PLANE + "and the matrix.", title="exp(A)", seed=2, scale=0.7),
    "Householder": grid(ig.Householder, _PLANE + "and the matrix.", title="H", reflections=1, scale=0.3),
    "LowRankLinear": grid(ig.LowRankLinear, _PLANE + "and the matrix.", title="1 + U Qᵀ", rank=1),
    "LearnedScaling": grid(ig.LearnedScaling, _PLANE + "and the matrix.", title="exp(s)"),
    "ActNorm": Portrait(2, "The batch that initializes the layer, before and after it.", scenes.normalized),
    "Standardize": Portrait(2, "Data of known mean and deviation before and after the layer.", scenes.standardized),
    "Box": Portrait(2, "Points in a box, and their places in the whole plane.", scenes.boxed),
    "GaussianMixture": Portrait(2, "Three components, each of which becomes standard normal.", scenes.mixture),
    "Dequantize": Portrait(
        2, "Integers of four values, and the density of the numbers they become.", scenes.dequantized
    ),
    "Squeeze": order(
        lambda: ig.Squeeze(((1, 4, 4),)), "channel of y", "Every block of four pixels becomes four channels."
    ),
    "Haar": tiles(ig.Haar, "Averages, and differences across, down and along the diagonal."),
    "OrthogonalSqueeze": tiles(
        ig.OrthogonalSqueeze, "Channels of blocks of four pixels, as learning starts.", factor=4
    ),
    "DCT": tiles(ig.DCT, "The 16 frequencies of blocks of four pixels.", block=4),
    "Flatten": order(
        lambda: ig.Flatten(((2, 2, 3),)), "channel of x", "The same elements in the same order, as one vector."
    ),
    "Reshape": order(
        lambda: ig.Reshape(((2, 2, 3),), shape=(3, 4)),
        "channel of x",
        "The same elements in the same order, in another shape.",
    ),
    "Split": order(lambda: ig.Split(((3, 2, 3),), sizes=(1, 2)), "value of y", "Channels of one value, as two values."),
    "Concat": order(lambda: ig.Concat(((1, 2, 3), (2, 2, 3))), "value of x", "Channels of two values, as one value."),
    "Additive": curve(ig.Additive()),
    "CircularShift": curve(ig.CircularShift(bound=3.0), -3.0, 3.0),
    "Affine": curve(_AFFINE),
    "VolumePreserving": Portrait(2, "Two of four elements, given the other two: areas do not change.", scenes.areas),
    "LinearSpline": curve(ig.LinearSpline(bins=6), scale=1.0),
    "QuadraticSpline": curve(ig.QuadraticSpline(bins=6)),
    "CubicSpline": curve(ig.CubicSpline(bins=6), scale=1.0),
    "RationalQuadraticSpline": curve(ig.RationalQuadraticSpline(bins=6), scale=0.7),
    "MixtureCDF": curve(ig.MixtureCDF(components=4)),
    "Bernstein": curve(ig.Bernstein(degree=8)),
    "Sigmoid": curve(ig.Sigmoid()),
    "Logit": curve(ig.Logit(), 0.01, 0.99),
    "Softplus": curve(ig.Softplus()),
    "nets.MLP": response(ig.nets.MLP(hidden=16)),
    "nets.ResidualMLP": response(ig.nets.ResidualMLP(hidden=16)),
    "nets.ConvNet": sight(ig.nets.ConvNet(hidden=8)),
    "nets.ResidualConvNet": sight(ig.nets.ResidualConvNet(hidden=8)),
    "nets.UNet": sight(ig.nets.UNet(hidden=8, levels=3)),
    "nets.GatedAttention": sight(ig.nets.GatedAttention(hidden=8, heads=2)),
    "nets.ViT": sight(ig.nets.ViT(width=16, depth=2, heads=2, patch=4)),
}
