"""Baselines for the flow: regression, variational autoencoder, adversarial network.

Each has a conditioning network like that of the flow, which returns maps at full, half and quarter resolution and a
vector, and the two methods of :class:`invgraph.Flow` that training and pictures use: ``loss`` and ``sample``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from colorization.pyramid import Widths


class Decoder(nn.Module):
    """Decoder from features to colors, from coarse to fine; each resolution reads its map.

    Arguments:
        widths: Channels of the maps and of the vector.
        extra: Length of a latent vector. Default: 0, for none.
    """

    def __init__(self, widths: Widths, extra: int = 0) -> None:
        super().__init__()
        fine, half, quarter, whole = widths
        self.whole = nn.Linear(whole + extra, quarter)
        self.coarse = _conv(quarter, quarter)
        self.middle = _conv(quarter + half, half)
        self.fine = _conv(half + fine, fine)
        self.last = nn.Conv2d(fine, 2, 1)

    def forward(self, maps: tuple[Tensor, ...], latent: Tensor | None = None) -> Tensor:
        fine, half, quarter, whole = maps
        vector = whole if latent is None else torch.cat((whole, latent), dim=1)
        h = functional.relu(quarter + self.whole(vector)[:, :, None, None])
        h = functional.relu(self.coarse(h))
        h = functional.relu(self.middle(torch.cat((_double(h), half), dim=1)))
        h = functional.relu(self.fine(torch.cat((_double(h), fine), dim=1)))
        colors: Tensor = self.last(h)
        return colors


class Regression(nn.Module):
    """Least-squares regression of the mean color, the "CNN" of Table 1 of the paper; all its samples are equal."""

    def __init__(self, conditioner: nn.Module, widths: Widths) -> None:
        super().__init__()
        self.conditioner, self.decoder = conditioner, Decoder(widths)

    def loss(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the mean squared error, scaled to nats of a normal distribution with standard deviation one."""
        square: Tensor = (self.decoder(self.conditioner(c)) - x).square().mean()
        return 0.5 * x[0].numel() * square

    @torch.no_grad()
    def sample(
        self, n: int, c: Tensor, temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the prediction ``n`` times."""
        guess: Tensor = self.decoder(self.conditioner(c))
        return guess.expand(n, *guess.shape)


class ConditionalVAE(nn.Module):
    """Conditional variational autoencoder, which samples the means of the decoder.

    Arguments:
        conditioner: Conditioning network.
        widths: Channels of its maps and its vector.
        latent: Length of the latent vector. Default: 64.

    References:
        K. Sohn, H. Lee, X. Yan, "Learning Structured Output Representation using Deep Conditional Generative Models",
        2015, https://papers.nips.cc/paper/5775
    """

    def __init__(self, conditioner: nn.Module, widths: Widths, latent: int = 64) -> None:
        super().__init__()
        fine, half, quarter, whole = widths
        self.latent = latent
        self.conditioner, self.decoder = conditioner, Decoder(widths, latent)
        self.first = _conv(2 + fine, fine, stride=2)
        self.second = _conv(fine + half, half, stride=2)
        self.third = _conv(half + quarter, quarter, stride=2)
        self.posterior = nn.Linear(quarter + whole, 2 * latent)
        self.log_deviation = nn.Parameter(torch.zeros(2))  # of a and b, learned

    def loss(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the negative evidence lower bound without the constant of the normal, in nats per sample."""
        maps = self.conditioner(c)
        mean, log_variance = self._encode(x, maps).chunk(2, dim=1)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        deviation = self.log_deviation[:, None, None]
        misfit = 0.5 * ((x - self.decoder(maps, z)) * torch.exp(-deviation)).square() + deviation
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        bound: Tensor = (misfit.flatten(1).sum(1) + divergence).mean()
        return bound

    def _encode(self, x: Tensor, maps: tuple[Tensor, ...]) -> Tensor:
        fine, half, quarter, whole = maps
        h = functional.relu(self.first(torch.cat((x, fine), dim=1)))
        h = functional.relu(self.second(torch.cat((h, half), dim=1)))
        h = functional.relu(self.third(torch.cat((h, quarter), dim=1)))
        parameters: Tensor = self.posterior(torch.cat((h.mean((2, 3)), whole), dim=1))
        return parameters

    @torch.no_grad()
    def sample(
        self, n: int, c: Tensor, temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw ``n`` colorizations for each condition, (n, B, 2, h, w)."""
        return _decode_samples(self.decoder, self.conditioner(c), self.latent, n, temperature, generator)


class ConditionalGAN(nn.Module):
    """pix2pix with a latent vector: a patch discriminator and an absolute error.

    One loss trains both networks: the generator's part treats the weights of the discriminator as constants, and the
    discriminator's part treats the generated colors as data.

    Arguments:
        conditioner: Conditioning network.
        widths: Channels of its maps and its vector.
        latent: Length of the latent vector. Default: 64.
        absolute: Weight of the absolute error. Default: 15, which matches the 100 of pix2pix: its colors, in -1..1,
            have a standard deviation of about 0.15, ours of 1.

    References:
        P. Isola, J. Zhu, T. Zhou, A. Efros, "Image-to-Image Translation with Conditional Adversarial Networks", 2016,
        https://arxiv.org/abs/1611.07004
    """

    def __init__(self, conditioner: nn.Module, widths: Widths, latent: int = 64, absolute: float = 15.0) -> None:
        super().__init__()
        self.latent, self.absolute = latent, absolute
        self.conditioner, self.decoder = conditioner, Decoder(widths, latent)
        self.discriminator = patch_discriminator(widths)

    def loss(self, x: Tensor, c: Tensor) -> Tensor:
        """Return the sum of the losses of generator and discriminator; neither has a gradient for the other network."""
        maps = self.conditioner(c)
        fake = self.decoder(maps, torch.randn(len(x), self.latent, dtype=x.dtype, device=x.device))
        below = functional.adaptive_avg_pool2d(c, x.shape[-1])  # lightness at the resolution of the colors
        generator, discriminator = adversarial_losses(self.discriminator, below, x, fake)
        loss: Tensor = generator + self.absolute * (fake - x).abs().mean() + discriminator
        return loss

    @torch.no_grad()
    def sample(
        self, n: int, c: Tensor, temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw ``n`` colorizations for each condition, (n, B, 2, h, w)."""
        return _decode_samples(self.decoder, self.conditioner(c), self.latent, n, temperature, generator)


def patch_discriminator(widths: Widths) -> nn.Sequential:
    """Return a network from lightness and colors (B, 3, s, s) to logits of patches that are true."""
    fine, half, quarter, _ = widths
    return nn.Sequential(
        nn.Conv2d(3, fine, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(fine, half, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(half, quarter, 4, stride=1, padding=1), nn.LeakyReLU(0.2),
        nn.Conv2d(quarter, 1, 4, stride=1, padding=1),
    )  # fmt: skip


def adversarial_losses(discriminator: nn.Module, gray: Tensor, true: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """Return the losses of generator and discriminator; neither has a gradient for the weights of the other.

    Arguments:
        discriminator: Network from lightness and colors to logits.
        gray: Lightness at the resolution of the colors.
        true: True colors.
        fake: Generated colors.
    """
    constants = {name: weight.detach() for name, weight in discriminator.named_parameters()}
    fooled = functional_call(discriminator, constants, (torch.cat((gray, fake), dim=1),))
    both = torch.cat((torch.cat((gray, true), 1), torch.cat((gray, fake.detach()), 1)))
    real, seen = discriminator(both).chunk(2)
    return _cross_entropy(fooled, 1.0), 0.5 * (_cross_entropy(real, 1.0) + _cross_entropy(seen, 0.0))


def _decode_samples(
    decoder: Decoder,
    maps: tuple[Tensor, ...],
    latent: int,
    n: int,
    temperature: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Decode ``n`` random latent vectors for each sample of the features."""
    rows = len(maps[0])
    repeated = tuple(value.expand(n, *value.shape).flatten(0, 1) for value in maps)
    z = torch.randn(n * rows, latent, generator=generator, dtype=maps[0].dtype, device=maps[0].device)
    colors: Tensor = decoder(repeated, temperature * z).unflatten(0, (n, rows))
    return colors


def _cross_entropy(logits: Tensor, label: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1)


def _double(h: Tensor) -> Tensor:
    return functional.interpolate(h, scale_factor=2, mode="nearest")


BASELINES = {"cnn": Regression, "cvae": ConditionalVAE, "cgan": ConditionalGAN}

NORMAL_CONSTANT = 0.5 * math.log(2 * math.pi)  # nats per dimension, omitted by the losses
