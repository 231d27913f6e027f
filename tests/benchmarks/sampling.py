"""Samples with their densities from one pass, and the memory of many samples for many observations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import invgraph as ig
from tests.benchmarks import field_models as models
from tests.benchmarks.field import OURS, peak_bytes
from tests.benchmarks.timing import Job, interleave, rows

SIZE, STEPS, HIDDEN, SAMPLES = 128, 5, 256, 256


def iaf_own() -> nn.Module:
    x = ig.InputNode(SIZE, name="x")
    made = [ig.Inverse(ig.Autoregressive((SIZE,), transform=ig.Affine(), hidden=HIDDEN)) for _ in range(STEPS)]
    steps = [step for k, layer in enumerate(made) for step in (layer, (ig.Permute, {"seed": k}))]
    return ig.Flow(ig.Graph(x, ig.chain(x, *steps)))


def iaf_zuko() -> nn.Module:
    import zuko

    orders = [torch.randperm(SIZE, generator=torch.Generator().manual_seed(k)) for k in range(STEPS)]
    layers = [
        zuko.flows.MaskedAutoregressiveTransform(SIZE, order=order, hidden_features=(HIDDEN,)) for order in orders
    ]
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(SIZE), torch.ones(SIZE), buffer=True
    )
    flow: nn.Module = zuko.lazy.Flow([layer.inv for layer in layers], base)
    return flow


def iaf_nflows() -> nn.Module:
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.transforms.autoregressive import MaskedAffineAutoregressiveTransform
    from nflows.transforms.base import CompositeTransform, InverseTransform
    from nflows.transforms.permutations import RandomPermutation

    layers: list[Any] = []
    for _ in range(STEPS):
        made = MaskedAffineAutoregressiveTransform(SIZE, HIDDEN, num_blocks=0, use_residual_blocks=False)
        layers += [InverseTransform(made), RandomPermutation(SIZE)]
    flow: nn.Module = Flow(CompositeTransform(layers), StandardNormal([SIZE]))
    return flow


def _jobs() -> dict[str, Job]:
    own: Any = iaf_own()
    found: dict[str, Job] = {
        f"{OURS}, samples": lambda: own.sample(SAMPLES),
        f"{OURS}, samples with densities": lambda: own.sample_and_log_prob(SAMPLES),
        f"{OURS}, samples, then densities": lambda: own.log_prob(own.sample(SAMPLES)),
    }
    try:
        other: Any = iaf_zuko()
        found["zuko, samples with densities"] = lambda: other().rsample_and_log_prob((SAMPLES,))
    except ImportError:
        pass
    try:
        third: Any = iaf_nflows()
        found["nflows, samples with densities"] = lambda: third.sample_and_log_prob(SAMPLES)
    except ImportError:
        pass
    return found


@torch.no_grad()
def density(seconds: float) -> list[dict[str, Any]]:
    """Time samples of an inverse autoregressive flow of 128 numbers, with and without their densities."""
    return rows(interleave(_jobs(), seconds, least=3), f"{OURS}, samples", work="IAF, 128 numbers", batch=SAMPLES)


CHUNKS = (10_000, 100_000)


def stated_bytes(flow: ig.Flow, samples: int, observations: int, chunk: int) -> int:
    """The bound in docs/density.rst for affine and spline transforms, for a chunk of at least the observations."""
    width = max(value for layer in flow.modules() if isinstance(layer, nn.Linear) for value in layer.weight.shape)
    return 4 * samples * observations * (2 * flow.dims + 3) + 20 * chunk * width


@torch.no_grad()
def memory(samples: int = 10_000, observations: int = 1_000) -> list[dict[str, Any]]:
    """Measure the largest memory of many samples for many observations, in chunks of several sizes."""
    found: list[dict[str, Any]] = []
    flow: Any = models.spline_own(5, 10, 5, (64, 64)).module
    c = torch.randn(observations, 10)
    for chunk in CHUNKS:

        def job(chunk: int = chunk) -> Tensor:
            result: Tensor = flow.sample(samples, c, chunk=chunk)
            return result

        flow.sample(2, c, chunk=chunk)
        peak = peak_bytes(job, "cpu", warm=False)
        stated = stated_bytes(flow, samples, observations, chunk)
        result = 4 * samples * observations * flow.dims
        told = {"work": f"{samples:,} samples of {observations:,}", "contestant": f"chunk={chunk:,}"}
        found.append({**told, "peak_bytes": peak, "stated_bytes": stated, "result_bytes": result})
    return found


def text(row: dict[str, Any]) -> str:
    """A row of :func:`memory` as text."""
    peak, stated, result = (row[key] / 2**20 for key in ("peak_bytes", "stated_bytes", "result_bytes"))
    return f"peak {peak:,.0f} MiB, stated {stated:,.0f}, the samples alone {result:,.0f}"
