"""FrEIA's mixture of Gaussians, whose parameters are conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from invgraph.errors import ArgumentError
from invgraph.freia.modules.base import InvertibleModule as InvertibleModule
from invgraph.freia.modules.base import OneInput, require_vector

__all__ = ["GaussianMixtureModel"]


class GaussianMixtureModel(OneInput):
    """Map each component of a mixture, or one of them, to a standard normal.

    The conditions are ``[w, mu, U, i]``: weights ``(B, K)``, means ``(B, K, D)``, entries of the Cholesky factors of
    the precisions ``(B, K, D (D + 1) / 2)`` (first the logarithms of the diagonal, then the rows above it), and the
    numbers of the components ``(B,)``; an int instead is a seed to draw them, and None maps all components at once.

    Arguments:
        dims_in: Shape of the vector, in a list.
        dims_c: Shapes of the conditions.
    """

    free_shapes = True
    """True lets a network take and return all components, ``(B, K, D)``."""

    def __init__(self, dims_in: Any, dims_c: Any) -> None:
        super().__init__(dims_in, dims_c)
        require_vector(self, self.dims_in)
        self.x_dims = self._channels

    def forward(
        self, x: Sequence[Tensor], c: Sequence[Any], rev: bool = False, jac: bool = True
    ) -> tuple[tuple[Tensor], Tensor | None]:
        if len(c) != 4:
            raise ArgumentError("GaussianMixtureModel", f"{len(c)} conditions", "expected four: c=[w, mu, U, i]")
        w, mu, entries, chosen = c
        value = x[0]
        if chosen is None:
            value = value.unsqueeze(1) if value.ndim == 2 else value
        else:
            if not isinstance(chosen, Tensor):
                chosen = self.pick_mixture_component(w, seed=chosen)
            rows = torch.arange(len(w), device=w.device)
            mu, entries = mu[rows, chosen.long()], entries[rows, chosen.long()]
        log_jac = entries[..., : self.x_dims].sum(-1)
        factors = self._factors(entries)
        if rev:
            y = torch.linalg.solve_triangular(factors, value.unsqueeze(-1), upper=True).squeeze(-1) + mu
        else:
            y = (factors @ (value - mu).unsqueeze(-1)).squeeze(-1)
        return (y,), (-log_jac if rev else log_jac) if jac else None

    def _factors(self, entries: Tensor) -> Tensor:
        """Return the upper triangular factors."""
        rows, columns = torch.triu_indices(self.x_dims, self.x_dims, 1, device=entries.device)
        factors = torch.diag_embed(entries[..., : self.x_dims].exp())
        factors[..., rows, columns] = entries[..., self.x_dims :]
        return factors

    @staticmethod
    def pick_mixture_component(w: Tensor, seed: int | None = None) -> Tensor:
        """Draw the number of a component for each row of weights, from a generator of its own."""
        generator = torch.Generator(device=w.device)
        if isinstance(seed, int):
            generator.manual_seed(seed)
        else:
            generator.seed()
        draw = torch.rand(w.shape[0], 1, device=w.device, generator=generator)
        return (draw > w.cumsum(dim=1)).sum(dim=1).int()

    @staticmethod
    def normalize_weights(w: Tensor) -> Tensor:
        """Return positive weights that sum to one."""
        return torch.softmax(w, dim=-1)

    @staticmethod
    def nll_loss(w: Tensor, z: Tensor, log_jacobian: Tensor) -> Tensor:
        """Return the negative log-likelihood, up to a constant, from the latents of all components."""
        return -torch.logsumexp(w.log() - 0.5 * z.square().sum(-1) + log_jacobian, dim=-1)

    @staticmethod
    def nll_upper_bound(w: Tensor, z: Tensor, log_jacobian: Tensor) -> Tensor:
        """Return the sum of the components' negative log-likelihoods."""
        return -(w.log() - 0.5 * z.square().sum(-1) + log_jacobian).sum(-1)
