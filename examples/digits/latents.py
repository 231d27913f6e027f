"""Principal components of the latents of digits (paper, Fig. 4), named after properties of the digits' shape."""

from __future__ import annotations

import torch
from torch import Tensor

import invgraph as ig
from digits import data


def _shape_of(pixels: Tensor) -> dict[str, Tensor]:
    """Return width, slant and thickness of digits ``(B, 28, 28)``, from the moments of their ink."""
    ink = pixels.double() / pixels.double().sum((1, 2), keepdim=True)
    along = torch.arange(28, dtype=torch.float64)
    mean_x, mean_y = (ink.sum(dim) @ along for dim in (1, 2))
    dx, dy = along - mean_x[:, None], along - mean_y[:, None]
    variance_x = (ink.sum(1) * dx.square()).sum(1)
    variance_y = (ink.sum(2) * dy.square()).sum(1)
    covariance = torch.einsum("byx,by,bx->b", ink, dy, dx)
    edge = (pixels[:, 1:] - pixels[:, :-1]).abs().sum((1, 2)) + (pixels[:, :, 1:] - pixels[:, :, :-1]).abs().sum((1, 2))
    return {
        "width": variance_x.sqrt(),
        "slant": -covariance / variance_y,
        "thickness": pixels.sum((1, 2)).double() / edge.double(),
    }


@torch.no_grad()
def components_of(flow: ig.Flow, count: int, batch: int = 500) -> tuple[Tensor, Tensor, list[str]]:
    """Return mean, scaled principal components and their names, for the latents of the test set.

    A component is named after the property of the digit's shape with which it correlates most.
    """
    device = next(flow.parameters()).device
    test = data.load("test")
    pixels = test.pixels[:count].float() / 255
    pairs = zip(data.standardize(pixels).split(batch), data.condition(test.labels[:count]).split(batch), strict=True)
    z = torch.cat([flow.graph(x.to(device), c.to(device))[0].cpu() for x, c in pairs]).double()
    centered = z - z.mean(0)
    values, vectors = torch.linalg.eigh(centered.T @ centered / len(z))
    axes, deviations = vectors.flip(1)[:, :4].T, values.flip(0)[:4].clamp(min=0).sqrt()
    scores, shape = centered @ axes.T, _shape_of(pixels)
    names = []
    for score in scores.T:
        found = {name: torch.corrcoef(torch.stack((score, value)))[0, 1].item() for name, value in shape.items()}
        best = max(found, key=lambda name: abs(found[name]))
        names.append(f"{best}, r = {found[best]:+.2f}" if abs(found[best]) >= 0.3 else "no single property")
    return z.mean(0), axes * deviations[:, None], names
