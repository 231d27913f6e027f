"""Multi-scale model of digits: pixel after pixel of a coarse picture, then finer and finer grids between its pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

import invgraph as ig

LEVELS = 256
GRAY = 16
"""Number of bins of the gray values 1 to 250, which few pixels have."""

EDGES = (0, *(1 + round(250 * k / GRAY) for k in range(GRAY)), 251, 252, 253, 254, 255, 256)
"""Bytes at which the bins begin: 0, the background of most pixels, and 251 to 255, ink, have a bin each."""


@dataclass(frozen=True)
class Histogram(ig.Transform):
    r"""Turn numbers in [0, 1) with a histogram as their density into standard normal ones.

    .. math:: y = \Phi^{-1}(F(x)), \qquad F' = p_k / w_k \text{ in bin } k, \quad p = \operatorname{softmax}(\theta)

    Bins that begin and end at bytes fit the uniform noise of dequantization exactly: nothing is lost against a model of
    the bytes themselves. Smooth transforms need steep slopes for that, around every value that occurs often.

    Arguments:
        edges: Bytes at which the bins begin, and 256. Default: :data:`EDGES`.
        start: Logits of the bins for parameters of zero, such as the logarithms of their frequencies. Default: 0.
    """

    edges: tuple[int, ...] = EDGES
    start: Sequence[float] = ()

    @property
    def params_per_element(self) -> int:
        return len(self.edges) - 1

    def forward(self, x: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        edges, log_p = self._bins(params)
        index = torch.bucketize(x.detach().contiguous(), edges[1:-1], right=True)
        low, high = edges[index], edges[index + 1]
        chosen = log_p.gather(1, index.unsqueeze(1)).squeeze(1)
        below = log_p.exp().cumsum(1).gather(1, index.unsqueeze(1)).squeeze(1)
        u = below - chosen.exp() * (high - x) / (high - low)
        y = torch.special.ndtri(_into_open_interval(u))
        return y, self._log_det(y, chosen, high - low)

    def inverse(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        edges, log_p = self._bins(params)
        below = log_p.exp().cumsum(1)
        u = torch.special.ndtr(y)
        index = (u.unsqueeze(1) >= below[:, :-1]).sum(1)
        low, high = edges[index], edges[index + 1]
        chosen = log_p.gather(1, index.unsqueeze(1)).squeeze(1)
        missing = below.gather(1, index.unsqueeze(1)).squeeze(1) - u
        x = high - (high - low) * missing * torch.exp(-chosen)
        # Rounding must not move a pixel to the neighboring bin.
        x = torch.minimum(torch.maximum(x, low), torch.nextafter(high, low))
        return x, -self._log_det(y, chosen, high - low)

    def _bins(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Return the edges of the bins, and the logarithms of their probabilities."""
        if self.start:
            params = params + params.new_tensor(self.start).view(-1, *(1 for _ in params.shape[2:]))
        return params.new_tensor(self.edges) / LEVELS, torch.log_softmax(params, dim=1)

    def _log_det(self, y: Tensor, log_p: Tensor, width: Tensor) -> Tensor:
        log_slope = log_p - width.log() + 0.5 * y * y + 0.5 * math.log(2 * math.pi)
        return log_slope.flatten(1).sum(1)


def _into_open_interval(u: Tensor) -> Tensor:
    eps = torch.finfo(u.dtype).eps
    return u.clamp(eps, 1 - eps)


def frequencies(pixels: Tensor, edges: tuple[int, ...] = EDGES) -> tuple[float, ...]:
    """Return the logarithms of the frequencies of bins among bytes, as :class:`Histogram` takes them."""
    counts = torch.bincount(pixels.flatten().long(), minlength=LEVELS).double()
    shares = torch.stack([counts[low:high].sum() for low, high in pairwise(edges)]) / counts.sum()
    return tuple(round(value, 3) for value in shares.clamp(min=1e-6).log().tolist())


def build(width: int, blocks: int, hidden: int, start: Sequence[float] = ()) -> ig.Flow:
    """Return the model, which maps bytes ``(B, 1, 28, 28)`` to standard normal latents, given the digit.

    Every other pixel of every other row makes a picture of 14 x 14, and every other one of those one of 7 x 7. Its 49
    pixels are autoregressive. The pixels between them follow in three groups, those on the diagonals first, then those
    between rows, then those between columns. Each is conditioned on all pixels before it, by a small residual network
    that reads them as channels of one picture, and on the digit. So sampling takes 49 short steps and six whole ones.

    Arguments:
        width: Number of channels of the convolutional networks.
        blocks: Number of their residual blocks.
        hidden: Width of the network for the coarse picture.
        start: Logits of the bins at the start; see :func:`frequencies`.
    """
    transform = Histogram(start=start)
    fine = {"transform": transform, "subnet": ig.nets.ResidualConvNet(width, blocks)}
    image, digit = ig.InputNode(1, 28, 28, name="image"), ig.ConditionNode(10, name="digit")
    h: ig.Value = ig.Node(image, ig.Dequantize, name="dequantize")[0]
    groups: list[tuple[ig.Value, ...]] = []
    for side in (14, 7):
        squeezed = ig.Node(h, ig.Squeeze, name=f"squeeze_{side}")
        split = ig.Node(squeezed, ig.Split, {"sizes": (1, 1, 1, 1)}, name=f"split_{side}")
        h = split[0]
        groups.append((h, split[3], split[1], split[2]))
    coarse = {"transform": transform, "hidden": hidden, "layers": 2}
    flat = ig.Node(h, ig.Flatten, name="flatten")
    latents: list[ig.Value] = [ig.Node(flat, ig.Autoregressive, coarse, conditions=digit, name="coarse")[0]]
    for side, (first, *others) in zip((7, 14), reversed(groups), strict=True):
        known = [first]
        for number, pixels in enumerate(others):
            name = f"pixels_{side}_{number}"
            latents.append(ig.Node(pixels, ig.Elementwise, fine, conditions=(*known, digit), name=name)[0])
            known.append(pixels)
    return ig.Flow(ig.Graph(image, tuple(latents), digit))


def build_paper(blocks: int, hidden: int, clamp: float = 1.0) -> ig.Flow:
    """Return the paper's architecture for bytes: fully connected couplings and fixed permutations, given the digit.

    The pixels go through a logit first. With so little noise, that is better for it than standardizing them.

    Arguments:
        blocks: Number of couplings.
        hidden: Width of their subnets.
        clamp: Bound of the log scales. Default: 1.
    """
    image, digit = ig.InputNode(1, 28, 28, name="image"), ig.ConditionNode(10, name="digit")
    h = ig.Node(image, ig.Dequantize, name="dequantize")
    h = ig.Node(h, ig.Elementwise, {"transform": ig.Logit(alpha=1e-6)}, name="logit")
    h = ig.Node(h, ig.Flatten, name="flatten")
    args = {"transform": ig.Affine(clamp=clamp), "subnet": ig.nets.MLP(hidden=hidden)}
    for k in range(blocks):
        h = ig.Node(h, ig.Permute, {"seed": k}, name=f"permute_{k}")
        h = ig.Node(h, ig.Coupling, args, conditions=digit, name=f"coupling_{k}")
    return ig.Flow(ig.Graph(image, h, digit))
