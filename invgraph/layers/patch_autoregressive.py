"""Autoregressive flow over patches, with a causal transformer (TarFlow)."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from invgraph.arguments import require_count, require_flag
from invgraph.core.invertible import Invertible, Result
from invgraph.core.ranges import Knowns
from invgraph.core.subnet import check_conditions
from invgraph.errors import GraphError
from invgraph.nets.transformer import Block, Cache, LayerNorm
from invgraph.numerics.patches import from_patches, grid, patch_size, to_patches
from invgraph.shapes import Tensors
from invgraph.transforms.transform import Transform, follow_part, require_pointwise


class PatchAutoregressive(Invertible):
    r"""Transform each patch given the patches before it and the conditions, with a causal transformer (TarFlow).

    .. math:: y_t = T(x_t;\ \theta_t(x_1, \dots, x_{t-1}, c))

    Evaluating the density takes one pass over all patches. The inverse is sequential; as in language models, it caches
    the keys and values of earlier patches, so each step processes a single token. Alternate layers with
    ``reverse=False`` and ``reverse=True``, so that every patch can depend on every other one. A vector is cut into
    patches of ``patch`` elements.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``, spatial sizes divisible by ``patch``, at least two patches; conditions
        ``(B, C_c)``, added to every token, or ``(B, C_c, ...)`` of the same spatial size, added patch by patch.

    Log-det:
        Sum of the transform's log-derivatives over all elements, nats per sample; the Jacobian is block triangular with
        diagonal blocks.

    Arguments:
        in_shapes: Shape of the input.
        cond_shapes: Shapes of the conditions.
        transform: Elementwise transform, e.g. ``Affine()``.
        patch: Edge length of the patches. Default: 2.
        width: Width of the tokens, a multiple of ``heads``. Default: 64.
        depth: Number of transformer blocks. Default: 2.
        heads: Number of attention heads. Default: 4.
        reverse: True to process the patches from the last to the first. Default: False.

    Raises:
        GraphError: If the transform takes no parameters or is not pointwise, or a size does not fit.
        ArgumentError: If an argument has the wrong type.

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
    fixed_size_reason = "it has a learned embedding for the place of each patch"

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
        require_pointwise("PatchAutoregressive", transform)
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
            raise GraphError("PatchAutoregressive", given, "needs at least two patches: use smaller patches")
        check_conditions("PatchAutoregressive", shape, self.cond_shapes)
        size = patch_size(shape, patch)
        self.embed = nn.Linear(size, width)
        given_sizes = (c[0] if len(c) == 1 else patch_size(c, patch) for c in self.cond_shapes)
        self.conditions = nn.ModuleList(nn.Linear(n, width, bias=False) for n in given_sizes)
        self.position = nn.Parameter(torch.empty(self.tokens, width))
        self.blocks = nn.ModuleList(Block(width, heads, causal=True) for _ in range(depth))
        self.norm = LayerNorm(width)
        self.last = nn.Linear(width, transform.params_per_element * size)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        nn.init.normal_(self.position, std=0.02)
        for layer in (self.embed, *self.conditions):
            nn.init.xavier_uniform_(cast(nn.Linear, layer).weight)
        nn.init.zeros_(self.embed.bias)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    def _forward(self, xs: Tensors, cs: Tensors) -> Result:
        x = self._to_patches(xs[0])
        # The token of each patch embeds the patch before it; the first one embeds none.
        before = torch.nn.functional.pad(self.embed(x[:, :-1]), (0, 0, 1, 0))
        h = before + self._context(x, cs)
        for block in self.blocks:
            h = block(h)
        y, log_det = self.transform.forward(x.flatten(1), self._params(h, x.dtype))
        return (self._from_patches(y.view_as(x)),), log_det

    def _inverse(self, ys: Tensors, cs: Tensors) -> Result:
        y = self._to_patches(ys[0])
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
            x, more = self.transform.inverse(y[:, t], self._params(h, y.dtype))
            found.append(x)
            log_det = log_det + more
        return (self._from_patches(torch.stack(found, dim=1)),), log_det

    def _to_patches(self, x: Tensor) -> Tensor:
        """Return the patches in autoregressive order, ``(B, patches, elements of a patch)``."""
        patches = to_patches(x, self.patch)
        return patches.flip(1) if self.reverse else patches

    def _from_patches(self, patches: Tensor) -> Tensor:
        """Return the data, from patches in autoregressive order."""
        return from_patches(patches.flip(1) if self.reverse else patches, self.in_shapes[0], self.patch)

    def _context(self, x: Tensor, cs: Tensors) -> Tensor:
        """Return the sum of position embeddings and embedded conditions, which is added to the tokens."""
        total: Tensor = self.position[None]
        for layer, c in zip(self.conditions, cs, strict=True):
            total = total + layer(c[:, None] if c.ndim == 2 else self._to_patches(c))
        return total

    def _params(self, h: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the parameters for all tokens in h, ``(B, params_per_element, tokens * elements of a patch)``."""
        params: Tensor = torch.unflatten(self.last(self.norm(h)).to(dtype), 2, (self.transform.params_per_element, -1))
        return params.transpose(1, 2).flatten(2)

    def _follow(self, intervals: Knowns, *, inverse: bool) -> Knowns:
        return (follow_part((self.transform,), intervals[0], inverse=inverse),)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.transform}, patch={self.patch}, reverse={self.reverse}"
