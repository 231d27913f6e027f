"""VGG-like colorization network of Zhang, Isola and Efros, and its training task, color classification."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Self

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

import invgraph as ig
from colorization.lab import rgb_to_lab

# Groups of convolutions: channels in units of the first, stride of the last convolution, dilation.
GROUPS = (
    ((1, 1), 2, 1), ((2, 2), 2, 1), ((4, 4, 4), 2, 1), ((8, 8, 8), 1, 1),
    ((8, 8, 8), 1, 2), ((8, 8, 8), 1, 2), ((8, 8, 8), 1, 1),
)  # fmt: skip
REDUCTION = 4  # factor by which the network reduces the resolution
BIN = 10.0  # side of a class of color, in units of a and b
NEIGHBORS, SPREAD = 5, 5.0  # soft encoding: number of classes, and standard deviation of their weights
TEMPERATURE = 0.38  # of the annealed mean
CHUNK = 2**16  # number of colors compared with all classes at once
UNIFORM = 0.5  # weight of the uniform distribution in the rebalancing


class ConditionNet(nn.Module):
    """Network from lightness to feature maps at a quarter of the resolution.

    It has groups of convolutions, each followed by batch normalization, then a transposed convolution and two more
    convolutions. It is the published network without its last two layers; each group is an ``nn.Sequential`` with the
    layers in the published order, so that published weights fit.

    Arguments:
        width: Channels of the first group; the maps have four times as many. Default: 64, as in the paper.

    Shape:
        ``(B, 1, S, S) -> (B, 4 width, S/4, S/4)``, with lightness as (L - 50) / 100.

    References:
        R. Zhang, P. Isola, A. Efros, "Colorful Image Colorization", 2016, https://arxiv.org/abs/1603.08511
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.channels = 4 * width
        self.frozen = False
        groups, last = [], 1
        for units, stride, dilation in GROUPS:
            layers: list[nn.Module] = []
            for place, unit in enumerate(units):
                step = stride if place == len(units) - 1 else 1
                layers += [nn.Conv2d(last, unit * width, 3, step, dilation, dilation), nn.ReLU()]
                last = unit * width
            groups.append(nn.Sequential(*layers, nn.BatchNorm2d(last)))
        maps = self.channels
        up = nn.ConvTranspose2d(last, maps, 4, 2, 1)
        rest = [nn.ReLU(), nn.Conv2d(maps, maps, 3, 1, 1), nn.ReLU(), nn.Conv2d(maps, maps, 3, 1, 1), nn.ReLU()]
        self.groups = nn.Sequential(*groups, nn.Sequential(up, *rest))

    def forward(self, lightness: Tensor) -> Tensor:
        maps: Tensor = self.groups(lightness)
        return maps

    def freeze(self, frozen: bool = True) -> None:
        """Freeze weights and batch statistics, also in training mode, or unfreeze them."""
        self.frozen = frozen
        self.requires_grad_(not frozen)
        if frozen:
            self.eval()

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; a frozen network stays in evaluation mode."""
        return super().train(mode and not self.frozen)


def load_condition_net(net: ConditionNet, path: Path | str) -> None:
    """Load the weights of a condition net, from our own file or the published one.

    The published state dict names the groups ``model1`` to ``model8``; ``model8.6`` and ``model_out``, the last two
    layers, are ignored. Files other than ``.safetensors`` are read by ``torch.load(weights_only=True)``, which runs no
    code from the file.

    Raises:
        CheckpointError: If the file is ours and damaged.
        ValueError: If the file has another content, or a network of another width.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            own_file = "invgraph" in (file.metadata() or {})
        if own_file:
            ig.load(path)  # verifies the digest
        read = load_file(path)
    else:
        read = torch.load(path, map_location="cpu", weights_only=True)
    if not (isinstance(read, Mapping) and all(isinstance(value, Tensor) for value in read.values())):
        raise ValueError(f"{path} holds no state dict")
    state = {_own_key(key): value for key, value in read.items()}
    own = net.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unlike = [key for key in own if key in state and state[key].shape != own[key].shape]
    if missing or unlike:
        keys = ", ".join([*missing, *unlike][:3])
        raise ValueError(f"{path} does not fit a condition net of {net.channels // 4} channels: {keys}, ...")
    net.load_state_dict({key: state.get(key, value) for key, value in own.items()})


def _own_key(key: str) -> str:
    """Map ``model3.0.weight``, as published, or ``model.`` or ``net.groups.2.0.weight`` to ``groups.2.0.weight``."""
    group, _, rest = key.partition(".")
    if group.startswith("model") and group[5:].isdigit():
        return f"groups.{int(group[5:]) - 1}.{rest}"
    return key.removeprefix("model.").removeprefix("net.")


class ColorClassifier(nn.Module):
    """Condition net with a layer that classifies the color of each pixel, and the loss for its training.

    Arguments:
        net: Condition net.
        weights: Weights of the classes, from :func:`rebalancing`. Default: ones.
    """

    bins: Tensor
    weights: Tensor

    def __init__(self, net: ConditionNet, weights: Tensor | None = None) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("bins", color_bins())
        self.register_buffer("weights", torch.ones(len(self.bins)) if weights is None else weights)
        self.head = nn.Conv2d(net.channels, len(self.bins), 1)

    def logits(self, lightness: Tensor) -> Tensor:
        """Return logits, (B, classes, S/4, S/4)."""
        scores: Tensor = self.head(self.net((lightness - 50) / 100))
        return scores

    def forward(self, lab: Tensor) -> Tensor:
        """Rebalanced cross-entropy of photographs (B, 3, S, S) with their softly encoded colors."""
        scores = functional.log_softmax(self.logits(lab[:, :1]), dim=1)
        return self.cross_entropy(scores, functional.adaptive_avg_pool2d(lab[:, 1:], scores.shape[-1]))

    def cross_entropy(self, scores: Tensor, ab: Tensor) -> Tensor:
        """Return the loss of log-probabilities (B, classes, h, w) for colors (B, 2, h, w)."""
        nearest, shares = soft_encode(ab, self.bins)
        loss: Tensor = (-(shares * scores.gather(1, nearest)).sum(1) * self.weights[nearest[:, 0]]).mean()
        return loss

    def best_constant(self, ab: Tensor) -> Tensor:
        """Return the log-probabilities (1, classes, 1, 1) with the lowest loss for colors, if lightness is ignored."""
        nearest, shares = soft_encode(ab, self.bins)
        weighted = (shares * self.weights[nearest[:, :1]]).flatten()
        counts = torch.zeros_like(self.weights).scatter_add_(0, nearest.flatten(), weighted)
        floor = 1e-6 * counts.sum()  # classes that do not occur
        return ((counts + floor) / (counts + floor).sum()).log()[None, :, None, None]

    @torch.no_grad()
    def colors(self, lightness: Tensor, temperature: float = TEMPERATURE) -> Tensor:
        """The annealed mean (B, 2, S/4, S/4): between the mean (1) and the mode (0) of the classes."""
        return annealed_mean(self.logits(lightness), self.bins, temperature)

    @torch.no_grad()
    def expected_colors(self, lightness: Tensor) -> Tensor:
        """The mean (B, 2, S/4, S/4) of the classes with the weights of the loss undone, as for the smallest error.

        The weights make rare colors, which are saturated ones, more probable than they are.
        """
        return annealed_mean(self.logits(lightness) - self.weights.log()[:, None, None], self.bins, 1.0)


def color_bins(step: int = 5) -> Tensor:
    """Centers (classes, 2) of the squares of the ab plane, ten wide, that sRGB colors fall in.

    Arguments:
        step: of the sRGB grid that is tried, a divisor of 255.
    """
    axis = torch.arange(0, 256, step, dtype=torch.float64) / 255
    rgb = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).flatten(2)
    squares: Tensor = (rgb_to_lab(rgb)[1:] / BIN).round().flatten(1).T.unique(dim=0)
    return squares.float() * BIN


def soft_encode(ab: Tensor, bins: Tensor) -> tuple[Tensor, Tensor]:
    """Return the five nearest classes of each color, nearest first, and their weights.

    Arguments:
        ab: Colors, (B, 2, h, w).
        bins: Centers of the classes, (classes, 2).

    Returns:
        Indices of classes, and weights that sum to one, (B, 5, h, w) each.
    """
    flat = ab.movedim(1, -1).flatten(0, -2)
    parts = [torch.cdist(part, bins).topk(NEIGHBORS, dim=1, largest=False) for part in flat.split(CHUNK)]
    distances, nearest = (torch.cat(found) for found in zip(*parts, strict=True))
    shares = torch.softmax(-distances.square() / (2 * SPREAD**2), dim=1)
    shape = (len(ab), *ab.shape[2:], NEIGHBORS)
    return nearest.view(shape).movedim(-1, 1), shares.view(shape).movedim(-1, 1)


def annealed_mean(logits: Tensor, bins: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the mean color (B, 2, h, w) of the class distribution, sharpened by the temperature."""
    mean: Tensor = torch.einsum("bqhw,qc->bchw", torch.softmax(logits / temperature, dim=1), bins)
    return mean


def rebalancing(ab: Tensor, bins: Tensor) -> Tensor:
    r"""Return weights of the classes, inverse to their smoothed frequencies, one on average.

    .. math:: w \propto ((1 - \lambda) \tilde p + \lambda / Q)^{-1}, \qquad \sum_q \tilde p_q w_q = 1

    Arguments:
        ab: Colors (B, 2, h, w) of the training split.
        bins: Centers of the classes, (Q, 2).
    """
    counts = torch.zeros(len(bins), dtype=torch.float64)  # float32 counts of a common class would saturate
    for part in ab.split(64):
        nearest, shares = soft_encode(part, bins)
        counts.scatter_add_(0, nearest.flatten(), shares.flatten().double())
    near = torch.softmax(-torch.cdist(bins, bins).square() / (2 * SPREAD**2), dim=1)
    smooth = (counts / counts.sum()).to(near) @ near
    weights = 1 / ((1 - UNIFORM) * smooth + UNIFORM / len(bins))
    return weights / (smooth * weights).sum()
