"""Autoregressive over patches, by a causal transformer: TarFlow's layer."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from invgraph.arguments import require_count, require_flag
from invgraph.core.invertible import Invertible, Result
from invgraph.core.subnet import check_conditions
from invgraph.errors import ArgumentError, GraphError
from invgraph.nets.transformer import Block, Cache, LayerNorm
from invgraph.numerics.patches import from_patches, grid, patch_size, to_patches
from invgraph.shapes import Tensors
from invgraph.transforms.transform import Transform


class PatchAutoregressive(Invertible):
    r"""Transform each patch given the patches before it and the conditions, by a causal transformer (TarFlow).

    .. math:: y_t = T(x_t;\ \theta_t(x_1, \dots, x_{t-1}, c))

    The density takes one pass over all patches. The inverse finds one patch after the other; it keeps the keys and
    values of the patches found (as language models do), so that each step costs one token, not a pass. Alternate
    ``reverse=False`` and ``True`` so that each patch can depend on each other. A vector is cut into pieces of
    ``patch`` numbers.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``, sizes divisible by ``patch``, at least two patches; conditions
        ``(B, C_c)``, added to every token, or ``(B, C_c, ...)`` of the same spatial size, patch by patch.

    Log-det:
        The sum of the transform's, nats per sample: the Jacobian is block triangular, its blocks diagonal.

    Arguments:
        in_shapes: shape of the input.
        cond_shapes: shapes of the conditions.
        transform: what is done to each number.
        patch: edge of the patches.
        width: of the tokens, a multiple of ``heads``.
        depth: how many transformer blocks.
        heads: of the attention.
        reverse: take the patches from the last to the first.

    Raises:
        GraphError: a transform that takes no parameters or ties numbers to each other, a size that does not fit.
        ArgumentError: an argument has the wrong type.

    References:
        S. Zhai et al., "Normalizing Flows are Capable Generative Models" (TarFlow), 2024,
        https://arxiv.org/abs/2412.06329

    Example:
        >>> import torch, invgraph as ig
        >>> args = {"transform": ig.Affine(), "patch": 4, "width": 32, "depth": 2}
        >>> layer = ig.PatchAutoregressive((3, 8, 8), ((10,),), **args)
        >>> (y,), log_det = layer((torch.zeros(2, 3, 8, 8),), (torch.zeros(2, 10),))
        >>> y.shape, log_det.shape
        (torch.Size([2, 3, 8, 8]), torch.Size([2]))
    """

    conditional = True

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        transform: Transform,
        patch: int = 2,
        width: int = 64,
        depth: int = 2,
        heads: int = 4,
        reverse: bool = False,
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        reverse = require_flag("PatchAutoregressive", "reverse", reverse)
        _require_transform(transform)
        sizes = {"patch": patch, "width": width, "depth": depth, "heads": heads}
        patch, width, depth, heads = (require_count("PatchAutoregressive", *size) for size in sizes.items())
        if width % heads:
            given = f"width={width}, heads={heads}"
            raise GraphError("PatchAutoregressive", given, "width must be a multiple of heads")
        shape = self.in_shapes[0]
        self.transform, self.patch, self.reverse = transform, patch, reverse
        self.tokens = math.prod(grid("PatchAutoregressive", shape, patch))
        if self.tokens < 2:
            given = f"input of shape {shape}, patch={patch}"
            raise GraphError("PatchAutoregressive", given, "one patch has none before it: take smaller patches")
        check_conditions("PatchAutoregressive", shape, self.cond_shapes)
        size = patch_size(shape, patch)
        self.embed = nn.Linear(size, width)
        given_sizes = (c[0] if len(c) == 1 else patch_size(c, patch) for c in self.cond_shapes)
        self.conditions = nn.ModuleList(nn.Linear(n, width, bias=False) for n in given_sizes)
        self.position = nn.Parameter(torch.empty(self.tokens, width))
        self.blocks = nn.ModuleList(Block(width, heads, causal=True) for _ in range(depth))
        self.norm = LayerNorm(width)
        self.last = nn.Linear(width, transform.params_per_element * size)
        self._start()

    def _start(self) -> None:
        nn.init.normal_(self.position, std=0.02)
        for layer in (self.embed, *self.conditions):
            nn.init.xavier_uniform_(cast(nn.Linear, layer).weight)
        nn.init.zeros_(self.embed.bias)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        x = self._cut(xs[0])
        # Each place sees the patch before it; the first sees none.
        before = torch.nn.functional.pad(self.embed(x[:, :-1]), (0, 0, 1, 0))
        h = before + self._context(x, cs)
        for block in self.blocks:
            h = block(h)
        y, log_det = self.transform.forward(x.flatten(1), self._numbers(h, x.dtype))
        return (self._joined(y.view_as(x)),), log_det

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        y = self._cut(ys[0])
        context = self._context(y, cs).expand(y.shape[0], -1, -1)
        caches: list[Cache | None] = [None] * len(self.blocks)
        found: list[Tensor] = []
        log_det = y.new_zeros(y.shape[0])
        for t in range(self.tokens):
            h = context[:, t : t + 1]
            if found:
                h = h + self.embed(found[-1][:, None])
            for index, block in enumerate(self.blocks):
                h, caches[index] = cast(Block, block).step(h, caches[index])
            x, share = self.transform.inverse(y[:, t], self._numbers(h, y.dtype))
            found.append(x)
            log_det = log_det + share
        return (self._joined(torch.stack(found, dim=1)),), log_det

    def _cut(self, x: Tensor) -> Tensor:
        """The patches in the order in which they depend on each other, ``(B, T, numbers in a patch)``."""
        patches = to_patches(x, self.patch)
        return patches.flip(1) if self.reverse else patches

    def _joined(self, patches: Tensor) -> Tensor:
        return from_patches(patches.flip(1) if self.reverse else patches, self.in_shapes[0], self.patch)

    def _context(self, x: Tensor, cs: Tensors) -> Tensor:
        """What the tokens get besides the patches: their places, and the conditions."""
        total: Tensor = self.position[None]
        for layer, c in zip(self.conditions, cs, strict=True):
            total = total + layer(c[:, None] if c.ndim == 2 else self._cut(c))
        return total

    def _numbers(self, h: Tensor, dtype: torch.dtype) -> Tensor:
        """Parameters for the numbers of all tokens in h, ``(B, numbers, tokens * numbers in a patch)``."""
        params: Tensor = self.last(self.norm(h)).to(dtype).unflatten(2, (self.transform.params_per_element, -1))
        return params.transpose(1, 2).flatten(2)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.transform}, patch={self.patch}, reverse={self.reverse}"


def _require_transform(transform: object) -> None:
    where = "PatchAutoregressive"
    if not isinstance(transform, Transform):
        raise ArgumentError(where, f"transform={transform!r}", "expected a transform such as Affine()")
    if not (transform.params_per_element and transform.pointwise):
        problem = (
            "ties the numbers of a sample to each other" if transform.params_per_element else "takes no parameters"
        )
        raise GraphError(where, f"transform={transform!r}", f"this transform {problem}: take another")
