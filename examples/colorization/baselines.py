"""What the flow is measured against: regression, variational autoencoder, adversarial network.

Each is conditioned by a network like the flow's own, which returns maps at full, half and quarter resolution and a
vector, and has the two methods of :class:`invgraph.Flow` that training and pictures use: ``loss`` and ``sample``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from colorization.pyramid import Widths


class Decoder(nn.Module):
    """Colours from features, coarse to fine, each resolution reading its map.

    Arguments:
        widths: channels of the maps and of the vector.
        extra: length of a latent vector, 0 for none.
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
        colours: Tensor = self.last(h)
        return colours


class Regression(nn.Module):
    """The mean colour, by least squares: the "CNN" of the paper's Table 1. All its samples are the same."""

    def __init__(self, conditioner: nn.Module, widths: Widths) -> None:
        super().__init__()
        self.conditioner, self.decoder = conditioner, Decoder(widths)

    def loss(self, x: Tensor, c: Tensor) -> Tensor:
        """Mean square error, scaled to nats of a normal distribution with deviation one."""
        square: Tensor = (self.decoder(self.conditioner(c)) - x).square().mean()
        return 0.5 * x[0].numel() * square

    @torch.no_grad()
    def sample(
        self, n: int, c: Tensor, temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The guess, ``n`` times."""
        guess: Tensor = self.decoder(self.conditioner(c))
        return guess.expand(n, *guess.shape)


class ConditionalVAE(nn.Module):
    """A conditional variational autoencoder; samples are the decoder's means.

    Arguments:
        conditioner: the conditioning network.
        widths: channels of what it returns.
        latent: length of the latent vector.

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
        """Negative evidence lower bound without the normal's constant, nats per sample."""
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
        """``n`` colorizations of each, (n, B, 2, h, w)."""
        return _sampled(self.decoder, self.conditioner(c), self.latent, n, temperature, generator)


class ConditionalGAN(nn.Module):
    """pix2pix with a latent vector: a patch discriminator beside an absolute error.

    Both players learn from one loss: the generator's part sees the discriminator's weights as constants, the
    discriminator's part sees the generated colours as data.

    Arguments:
        conditioner: the conditioning network.
        widths: channels of what it returns.
        latent: length of the latent vector.
        absolute: weight of the absolute error: pix2pix has 100 for data in -1..1, where colours deviate by about 0.15;
            ours deviate by 1.

    References:
        P. Isola, J. Zhu, T. Zhou, A. Efros, "Image-to-Image Translation with Conditional Adversarial Networks", 2016,
        https://arxiv.org/abs/1611.07004
    """

    def __init__(self, conditioner: nn.Module, widths: Widths, latent: int = 64, absolute: float = 15.0) -> None:
        super().__init__()
        fine, half, quarter, _ = widths
        self.latent, self.absolute = latent, absolute
        self.conditioner, self.decoder = conditioner, Decoder(widths, latent)
        self.discriminator = nn.Sequential(
            nn.Conv2d(3, fine, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(fine, half, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(half, quarter, 4, stride=1, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(quarter, 1, 4, stride=1, padding=1),
        )  # fmt: skip

    def loss(self, x: Tensor, c: Tensor) -> Tensor:
        """The generator's loss and the discriminator's, added; no gradient of either reaches the other."""
        maps = self.conditioner(c)
        fake = self.decoder(maps, torch.randn(len(x), self.latent, dtype=x.dtype, device=x.device))
        below = functional.adaptive_avg_pool2d(c, x.shape[-1])  # lightness at the colours' resolution
        constants = {name: weight.detach() for name, weight in self.discriminator.named_parameters()}
        fooled = functional_call(self.discriminator, constants, (torch.cat((below, fake), dim=1),))
        generator = _cross_entropy(fooled, 1.0) + self.absolute * (fake - x).abs().mean()
        real, seen = self.discriminator(
            torch.cat((torch.cat((below, x), 1), torch.cat((below, fake.detach()), 1)))
        ).chunk(2)
        loss: Tensor = generator + 0.5 * (_cross_entropy(real, 1.0) + _cross_entropy(seen, 0.0))
        return loss

    @torch.no_grad()
    def sample(
        self, n: int, c: Tensor, temperature: float = 1.0, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """``n`` colorizations of each, (n, B, 2, h, w)."""
        return _sampled(self.decoder, self.conditioner(c), self.latent, n, temperature, generator)


def _sampled(
    decoder: Decoder,
    maps: tuple[Tensor, ...],
    latent: int,
    n: int,
    temperature: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Decode ``n`` latent vectors for each row of the features."""
    rows = len(maps[0])
    repeated = tuple(value.expand(n, *value.shape).flatten(0, 1) for value in maps)
    z = torch.randn(n * rows, latent, generator=generator, dtype=maps[0].dtype, device=maps[0].device)
    colours: Tensor = decoder(repeated, temperature * z).unflatten(0, (n, rows))
    return colours


def _cross_entropy(logits: Tensor, label: float) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


def _conv(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1)


def _double(h: Tensor) -> Tensor:
    return functional.interpolate(h, scale_factor=2, mode="nearest")


BASELINES = {"cnn": Regression, "cvae": ConditionalVAE, "cgan": ConditionalGAN}

NORMAL_CONSTANT = 0.5 * math.log(2 * math.pi)  # nats per dimension that the losses leave out
