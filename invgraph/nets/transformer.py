"""Transformer blocks, for whole sequences at once or for one token at a time with a cache."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu


class LayerNorm(nn.LayerNorm):
    """Layer norm for tokens of any magnitude: squares of values above 1e19 would overflow in float32."""

    def forward(self, input: Tensor) -> Tensor:
        # The result does not depend on a token's scale. Ordinary tokens are divided by 1, which is exact.
        largest = input.detach().abs().amax(-1, keepdim=True)
        normed: Tensor = super().forward(input / torch.where(largest > 1e6, largest, 1.0))
        return normed


class Cache(NamedTuple):
    """Keys and values of the tokens so far, each of shape ``(B, heads, tokens, width / heads)``."""

    keys: Tensor
    values: Tensor


class Attention(nn.Module):
    """Multi-head self-attention.

    It does not use ``scaled_dot_product_attention``, whose fused kernels support neither second derivatives nor
    ``torch.func.vmap``.

    Arguments:
        width: Width of the tokens, a multiple of ``heads``.
        heads: Number of attention heads.
        causal: True if each token attends only to itself and earlier ones.
    """

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        for layer in (self.qkv, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self._split(h)
        scores = q @ k.transpose(-1, -2)
        if self.causal:
            count = h.shape[1]
            later = torch.ones(count, count, dtype=torch.bool, device=h.device).triu(1)
            scores = scores.masked_fill(later, -torch.inf)
        return self._merge(scores.softmax(-1) @ v)

    def step(self, h: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        """Return the output for one more token, ``(B, 1, width)``, and the cache that includes it."""
        q, k, v = self._split(h)
        if cache is not None:
            k, v = torch.cat((cache.keys, k), dim=2), torch.cat((cache.values, v), dim=2)
        return self._merge((q @ k.transpose(-1, -2)).softmax(-1) @ v), Cache(k, v)

    def _split(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = torch.unflatten(self.qkv(h), 2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q * q.shape[-1] ** -0.5, k, v

    def _merge(self, values: Tensor) -> Tensor:
        merged: Tensor = self.out(values.transpose(1, 2).flatten(2))
        return merged

    def extra_repr(self) -> str:
        return f"heads={self.heads}, causal={self.causal}"


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a two-layer network for each token.

    Arguments:
        width: Width of the tokens, a multiple of ``heads``.
        heads: Number of attention heads.
        causal: True if each token attends only to itself and earlier ones.
    """

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.norms = nn.ModuleList((LayerNorm(width), LayerNorm(width)))
        self.attention = Attention(width, heads, causal)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        for layer in (self.widen, self.narrow):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, h: Tensor) -> Tensor:
        return self._feed_forward(h + self.attention(self.norms[0](h)))

    def step(self, h: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        """Return the output for one more token, ``(B, 1, width)``, and the cache that includes it."""
        seen, cache = self.attention.step(self.norms[0](h), cache)
        return self._feed_forward(h + seen), cache

    def _feed_forward(self, h: Tensor) -> Tensor:
        change: Tensor = self.narrow(gelu(self.widen(self.norms[1](h))))
        return h + change
