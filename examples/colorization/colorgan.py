"""ColorGAN (Cao et al. 2017), the adversarial network that the paper compares with on bedrooms (Fig. 9)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from colorization.baselines import adversarial_losses, patch_discriminator
from colorization.metrics import rmse_best
from colorization.pyramid import Widths

NOISY_LAYERS = 3  # first layers that also read the noise
VALIDATED = 8  # samples of which the validation takes the best


class ColorGAN(nn.Module):
    """Generator that keeps the resolution throughout, with gray picture and noise at several layers.

    It differs from the published one in two respects: the layers are as wide as the baselines here, and the
    discriminator judges patches. As published, there is no error to the true colors in its loss, and no conditioning
    network.

    Arguments:
        widths: Widths of the baselines' features; the layers have 4, 4, 2 and 1 times as many channels as the finest.
        side: Side of the colors, in pixels.
        latent: Length of the latent vector, from which a linear layer makes the map of noise. Default: 64.

    References:
        Y. Cao, Z. Zhou, W. Zhang, Y. Yu, "Unsupervised Diverse Colorization via Generative Adversarial Networks", 2017,
        https://arxiv.org/abs/1702.06674
    """

    def __init__(self, widths: Widths, side: int, latent: int = 64) -> None:
        super().__init__()
        self.side, self.latent = side, latent
        self.noise = nn.Linear(latent, side * side)
        channels = [0, 4 * widths[0], 4 * widths[0], 2 * widths[0], widths[0], 2]
        self.layers = nn.ModuleList(
            nn.Conv2d(before + 1 + (k < NOISY_LAYERS), after, 3, padding=1)
            for k, (before, after) in enumerate(pairwise(channels))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in channels[1:-1])
        self.discriminator = patch_discriminator(widths)

    def generate(self, gray: Tensor, z: Tensor) -> Tensor:
        """Return colors (B, 2, s, s) for lightness (B, 1, s, s) and latents (B, latent)."""
        noise = self.noise(z).view(-1, 1, self.side, self.side)
        h = gray[:, :0]
        for k, layer in enumerate(self.layers):
            h = layer(torch.cat((h, gray, noise) if k < NOISY_LAYERS else (h, gray), dim=1))
            if k < len(self.norms):
                h = functional.relu(self.norms[k](h))
        return h

    def _gray(self, c: Tensor) -> Tensor:
        return functional.adaptive_avg_pool2d(c, self.side)

    def loss(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the sum of the losses of generator and discriminator; in evaluation mode, the error of the best of 8.

        The adversarial losses say which of the two is ahead, not how good the colors are, so they are of no use to
        choose the weights to keep.
        """
        if not self.training:
            samples = self.sample(VALIDATED, c)
            return rmse_best(samples, x).mean() * x[0].numel()  # a loss is divided by the number of dimensions
        gray = self._gray(c)
        fake = self.generate(gray, torch.randn(len(x), self.latent, dtype=x.dtype, device=x.device))
        generator, discriminator = adversarial_losses(self.discriminator, gray, x, fake)
        return generator + discriminator

    @torch.no_grad()
    def sample(
        self, n: int, c: Tensor, temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw ``n`` colorizations for each condition, (n, B, 2, h, w)."""
        z = torch.randn(n * len(c), self.latent, generator=generator, dtype=c.dtype, device=c.device)
        gray = self._gray(c).expand(n, -1, -1, -1, -1).flatten(0, 1)
        return self.generate(gray, temperature * z).unflatten(0, (n, len(c)))
