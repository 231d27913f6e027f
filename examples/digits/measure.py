"""Measurements of a flow of digits: likelihoods in two conventions, recognizable digits, exactness."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor

import invgraph as ig
from digits import data, judge

DIMS = 28 * 28
CONSTANT = 0.5 * math.log(2 * math.pi)
"""Constant of the standard normal per dimension, which the loss of the paper omits."""

TEMPERATURES = (1.0, 0.8, 0.7, 0.6)

CONVENTIONS = {
    "nll": "mean over the test digits of -log p(x | c) / 784, nats per dimension, constant log(2 pi) / 2 included; x: "
    "pixels in 0..1 plus Gaussian noise of the stated standard deviation, minus 0.1307, divided by 0.3081",
    "loss": "the same without the constant log(2 pi) / 2: the paper's Eq. 6 for each dimension",
    "bits": "-log2 p(y | c) / 784 for y = byte + u, u uniform in [0, 1): an upper bound on the bits needed for each "
    "byte; the model sees ((y - 0.5) / 255 - 0.1307) / 0.3081, so log2(255 * 0.3081) bits are added for the units; the "
    "model is trained with far more noise than that, so this is no figure to set beside models trained for it",
    "accuracy": "share of generated digits that the judge, a classifier of real MNIST digits, takes for the digit that "
    "was asked for; plain: as the flow generates them; denoised: after one step of Tweedie's formula",
}


def noisy(pixels: Tensor, noise: float, generator: torch.Generator | None = None) -> Tensor:
    """Convert bytes ``(B, 28, 28)`` to inputs of the model, with Gaussian noise in units of the pixel range."""
    added = torch.randn(pixels.shape, generator=generator) * noise
    return data.standardize(pixels.float() / 255 + added)


def dequantized(pixels: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Convert bytes to inputs of the model, with uniform noise of the width of a byte."""
    y = pixels.float() + torch.rand(pixels.shape, generator=generator)
    return data.standardize((y - 0.5) / 255)


def bits_per_dim(nats_per_dim: float) -> float:
    """Convert nats per dimension of standardized, dequantized pixels to bits per byte.

    Standardizing divides by 255 * STD, so the density of bytes is that of the model inputs divided by 255 * STD.
    """
    return (nats_per_dim + math.log(255 * data.STD)) / math.log(2)


@torch.no_grad()
def nll(flow: ig.Flow, x: Tensor, labels: Tensor, batch: int = 500) -> float:
    """Return the mean negative log-likelihood, in nats per dimension."""
    device = next(flow.parameters()).device
    pairs = zip(x.split(batch), data.condition(labels).split(batch), strict=True)
    log_probs = [flow.log_prob(a.to(device), c.to(device)).cpu() for a, c in pairs]
    return -torch.cat(log_probs).double().mean().item() / DIMS


def generate(flow: ig.Flow, each: int, temperature: float, seed: int) -> tuple[Tensor, Tensor]:
    """Draw ``each`` digits of every class, ``(each * 10, 1, 28, 28)``; return them and their labels."""
    device = next(flow.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    x = flow.sample(each, data.condition(torch.arange(10, device=device)), temperature, generator=generator)
    return x.flatten(0, 1), torch.arange(10, device=device).repeat(each)


def denoise(flow: ig.Flow, x: Tensor, labels: Tensor, noise: float, batch: int = 500) -> Tensor:
    """Remove the training noise, in units of the pixel range, from digits."""
    pairs = zip(x.split(batch), data.condition(labels).to(x.device).split(batch), strict=True)
    return torch.cat([flow.denoise(a, c, sigma=noise / data.STD) for a, c in pairs])


def round_trip(flow: ig.Flow, x: Tensor, labels: Tensor) -> dict[str, float]:
    """Return the largest absolute round trip error of pictures, in float32 and in float64."""
    device = next(flow.parameters()).device
    errors = {}
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        graph = copy.deepcopy(flow.graph).to(dtype)
        a, c = x.to(device, dtype), data.condition(labels).to(device, dtype)
        with torch.no_grad():
            back, _ = graph.inverse(graph(a, c)[0], c)
        errors[name] = (back - a).abs().max().item()
    return errors


def evaluate(flow: ig.Flow, noise: float, *, each: int = 200, count: int = 10_000, seed: int = 0) -> dict[str, Any]:
    """Return all figures, in types that JSON supports.

    Arguments:
        flow: Trained model.
        noise: Standard deviation of its training noise, in units of the pixel range.
        each: Number of digits to generate for each class and temperature. Default: 200.
        count: Number of real test digits to use. Default: 10,000.
        seed: Seed of noise and samples. Default: 0.
    """
    digits = data.load("test")
    pixels, labels = digits.pixels[:count], digits.labels[:count]
    generator = torch.Generator().manual_seed(seed)
    real = noisy(pixels, noise, generator)
    measured = nll(flow, real, labels)
    device = next(flow.parameters()).device
    network = judge.load(device)
    generated = []
    for temperature in TEMPERATURES:
        x, asked = generate(flow, each, temperature, seed)
        tidy = denoise(flow, x, asked, noise)
        plain, denoised = (judge.accuracy(network, pictures, asked) for pictures in (x, tidy))
        generated.append({"temperature": temperature, "digits": len(x), "plain": plain, "denoised": denoised})
    clean = data.standardize(pixels.float() / 255)
    on_real = {
        name: judge.accuracy(network, pictures.to(device), labels.to(device))
        for name, pictures in (("clean", clean), ("noisy", real))
    }
    return {
        "noise": {"of_the_pixel_range": noise, "of_the_standard_deviation": noise / data.STD},
        "test_digits": len(labels),
        "nll_nats_per_dim": measured,
        "loss_nats_per_dim": measured - CONSTANT,
        "bits_per_dim": bits_per_dim(nll(flow, dequantized(pixels, generator), labels)),
        "accuracy_on_real_digits": on_real,
        "accuracy_on_generated_digits": generated,
        "round_trip": round_trip(flow, real[:500], labels[:500]),
        "conventions": CONVENTIONS,
    }


def as_text(figures: dict[str, Any]) -> str:
    """Format the figures as text."""
    noise, real = figures["noise"]["of_the_pixel_range"], figures["accuracy_on_real_digits"]
    lines = [
        f"test NLL       {figures['nll_nats_per_dim']:+.4f} nats per dimension of standardized pixels, noise {noise:g} "
        "of the pixel range",
        f"               {figures['loss_nats_per_dim']:+.4f} without log(2 pi) / 2, as in the paper's Eq. 6",
        f"               {figures['bits_per_dim']:.3f} bits per dimension of bytes, dequantized uniformly",
        f"round trip     {figures['round_trip']['float32']:.1e} in float32, {figures['round_trip']['float64']:.1e} in "
        "float64 (largest difference, standardized pixels)",
        f"judge          recognizes {real['clean']:.2%} of real test digits, {real['noisy']:.2%} with the noise above",
        "               of generated digits, by temperature:",
        "               T     plain    denoised",
    ]
    for row in figures["accuracy_on_generated_digits"]:
        lines.append(f"               {row['temperature']:.1f}   {row['plain']:6.1%}   {row['denoised']:6.1%}")
    return "\n".join(lines)
