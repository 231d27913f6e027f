"""Autoregressive flow: each element is transformed given the elements before it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from invgraph.arguments import require_positive
from invgraph.core.given import Precomputed
from invgraph.core.invertible import Invertible, Result
from invgraph.core.subnet import Subnet
from invgraph.errors import GraphError
from invgraph.shapes import Tensors, as_shape, numel, repeat_rows
from invgraph.torch_internals import is_transformed, is_untouched
from invgraph.transforms.transform import Transform, require_pointwise


class Autoregressive(Invertible):
    r"""Transform each element given the elements before it and the conditions (MAF); its :class:`Inverse` is IAF.

    .. math:: y_i = T(x_i;\ \theta_i(x_1, \dots, x_{i-1}, c))

    A masked network (MADE) computes the parameters of all elements in one pass, so evaluating densities is fast. The
    inverse is exact and sequential: it takes one pass per element. The elements are ordered as in memory, channels
    first; put a :class:`~invgraph.Permute` between two layers so that every element can depend on every other one.

    Shape:
        ``x: (B, ...) -> y: (B, ...)``; conditions ``(B, ...)`` of any shape.

    Log-det:
        Sum of the transform's log-derivatives over all elements, nats per sample; the Jacobian is triangular.

    Arguments:
        in_shapes: Shape of the input.
        cond_shapes: Shapes of the conditions.
        transform: Elementwise transform, e.g. ``RationalQuadraticSpline()``.
        hidden: Width of the network's hidden layers, at least 2. With as many units as elements (one fewer suffices
            without conditions), each element can depend on every element before it. With fewer units, every element is
            still seen, but only by some of the later ones.
        layers: Number of hidden layers.
        tolerance: Error at which an iterative inverse stops; None for the exact inverse. Where gradients are disabled
            (sampling), the inverse updates all elements at once until ``|forward(x) - y| <= tolerance * max(1, |y|)``
            everywhere; if half as many passes as there are elements do not suffice, it falls back to the exact one.
            The stopping test reads the data, so the inverse then can't be compiled as one graph or mapped by vmap.
        blocks: Number of blocks in which the iterative inverse processes the elements (requires a tolerance). Each
            block is solved, iteratively or else exactly, before the next one starts (Gauss-Seidel; 1 is Jacobi), so no
            passes are spent on late elements while the early ones are still wrong.

    Raises:
        GraphError: The transform takes no parameters or is not pointwise; the input has a single element; a size is
            below 1; or the width is so small that some elements would not be seen by any other.
        ArgumentError: An argument has the wrong type.

    Note:
        An adapter in the place of one of the network's layers (LoRA, quantised weights) is called with unit vectors,
        and the linear map that it stands for is masked. Hooks on the adapter see those vectors. A call raises
        GraphError if the adapter is not linear.

    References:
        M. Germain et al., "MADE: Masked Autoencoder for Distribution Estimation", 2015,
        https://arxiv.org/abs/1502.03509; G. Papamakarios, T. Pavlakou, I. Murray, "Masked Autoregressive Flow for
        Density Estimation", 2017, https://arxiv.org/abs/1705.07057; D. P. Kingma et al., "Improving Variational
        Inference with Inverse Autoregressive Flow", 2016, https://arxiv.org/abs/1606.04934; Y. Song, C. Meng,
        S. Ermon, "MintNet", 2019 (the fixed-point inverse), https://arxiv.org/abs/1907.07945; Y. Song, C. Meng,
        R. Liao, S. Ermon, "Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving", 2021 (the
        blocks), https://arxiv.org/abs/2002.03629

    Example:
        >>> import torch, invgraph as ig
        >>> layer = ig.Autoregressive((4,), ((10,),), transform=ig.RationalQuadraticSpline(), hidden=16)
        >>> (y,), log_det = layer((torch.zeros(2, 4),), (torch.zeros(2, 10),))
        >>> y.shape, log_det.shape
        (torch.Size([2, 4]), torch.Size([2]))
    """

    conditional = True

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        transform: Transform,
        hidden: int,
        layers: int = 1,
        tolerance: float | None = None,
        blocks: int = 1,
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        require_pointwise("Autoregressive", transform)
        hidden, layers = as_shape((hidden, layers), "Autoregressive (hidden, layers)")
        tolerance = None if tolerance is None else require_positive("Autoregressive", "tolerance", tolerance)
        self.transform = transform
        self.tolerance = tolerance
        self.size = math.prod(self.in_shapes[0])
        if self.size < 2:
            advice = "a single number has no others before it: use Elementwise"
            raise GraphError("Autoregressive", f"input of shape {self.in_shapes[0]}", advice)
        (blocks,) = as_shape((blocks,), "Autoregressive (blocks)")
        if blocks > (1 if tolerance is None else self.size):
            advice = "give a tolerance too: blocks only apply to the iterative inverse"
            if tolerance is not None:
                advice = f"there are {self.size} numbers: use at most as many blocks"
            raise GraphError("Autoregressive", f"blocks={blocks}", advice)
        if hidden == 1 and self.size > (1 if self.cond_shapes else 2):
            given = f"hidden=1 for {self.size} numbers{' under conditions' if self.cond_shapes else ''}"
            advice = "a single unit can't see both the first and the last numbers: use at least 2"
            raise GraphError("Autoregressive", given, advice)
        edges = [self.size * block // blocks for block in range(blocks + 1)]
        self.blocks = tuple(slice(start, stop) for start, stop in pairwise(edges))
        self.subnet = _Masked(self.size, numel(self.cond_shapes), (hidden,) * layers, transform.params_per_element)

    def precompute(self, cs: Tensors) -> Precomputed:
        return self.subnet.prepare(cs)

    def _forward(self, xs: Tensors, given: Any) -> Result:
        x = xs[0].flatten(1)
        params = self.subnet(x, given).unflatten(1, (-1, self.size))
        y, log_det = self.transform.forward(x, params.to(x.dtype))
        return (y.view_as(xs[0]),), log_det

    def _inverse(self, ys: Tensors, given: Any) -> Result:
        y = ys[0].flatten(1)
        rows = tuple(repeat_rows(part, y.shape[0]) for part in self._precomputed(given))
        x, log_det = y[:, :0], y.new_zeros(y.shape[0])
        for block in self.blocks:
            exact = self.tolerance is None or torch.is_grad_enabled()
            found = None if exact else self._all_at_once(x, y[:, block], rows)
            x, more = found or self._one_by_one(x, y[:, block], rows)
            log_det = log_det + more
        return (x.view_as(ys[0]),), log_det

    def _one_by_one(self, before: Tensor, y: Tensor, given: Tensors) -> tuple[Tensor, Tensor]:
        """Invert each element given those already known; zeros stand in for the others, which the masks hide."""
        known = [before]
        log_det = y.new_zeros(y.shape[0])
        for place in range(before.shape[1], before.shape[1] + y.shape[1]):
            params = self._params(torch.cat(known, dim=1), given, slice(place, place + 1))
            x, more = self.transform.inverse(y[:, place - before.shape[1], None], params)
            known.append(x)
            log_det = log_det + more
        return torch.cat(known, dim=1), log_det

    def _all_at_once(self, before: Tensor, y: Tensor, given: Tensors) -> tuple[Tensor, Tensor] | None:
        """Invert all elements given the previous guess of the others (Jacobi); None if that does not converge."""
        assert self.tolerance is not None
        allowed = self.tolerance * y.abs().clamp(min=1)
        places = slice(before.shape[1], before.shape[1] + y.shape[1])
        guess = y
        for _ in range(max(1, y.shape[1] // 2)):
            x = torch.cat((before, guess), dim=1)
            params = self._params(x, given, places)
            image, log_det = self.transform.forward(guess, params)
            if bool(((image - y).abs() <= allowed).all()):
                return x, -log_det
            guess, _ = self.transform.inverse(y, params)
        return None

    def _params(self, x: Tensor, given: Tensors, places: slice) -> Tensor:
        """Return the parameters of some elements; ``x`` may omit trailing elements that none of them sees."""
        rest = x.new_zeros(()).expand(x.shape[0], self.size - x.shape[1])
        params: Tensor = self.subnet.part(torch.cat((x, rest), dim=1), given, places)
        params = params.unflatten(1, (-1, places.stop - places.start))
        return params.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.transform}"


class Linear(nn.Linear):
    """Linear layer with some of its weights masked out."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight * self.mask, self.bias)

    def rows(self, x: Tensor, places: slice, groups: int) -> Tensor:
        """Compute only some outputs, the same ones of each of ``groups`` equal groups."""
        whole = (self.weight, self.mask, self.bias)
        weight, mask, bias = (part.unflatten(0, (groups, -1))[:, places].flatten(0, 1) for part in whole)
        return linear(x, weight * mask, bias)


class _Masked(Subnet):
    """MADE: fully connected layers with ReLU, masked so that the outputs for element i see only the inputs before i.

    A hidden unit of degree d sees the first d inputs; degree 0 sees only the conditions. The degrees are spread evenly.
    However few units there are, the last one sees every input that any output may see.
    """

    def __init__(self, size: int, cond_size: int, hidden: tuple[int, ...], params_per_element: int) -> None:
        super().__init__()
        self.size, self.params_per_element = size, params_per_element
        lowest = 0 if cond_size else 1
        degrees = [torch.arange(1, size + 1)]
        degrees += [_degrees(lowest, size, width) for width in hidden]
        degrees += [torch.arange(size).repeat(params_per_element)]
        masks = [after[:, None] >= before for before, after in pairwise(degrees)]
        self.layers = nn.ModuleList(Linear(mask) for mask in masks)
        self.condition = nn.Linear(cond_size, hidden[0], bias=False) if cond_size else None
        for index, mask in enumerate(masks):  # needed where an adapter wraps a layer, see _call
            self.register_buffer(f"mask_{index}", mask, persistent=False)
        for layer in (*self.layers, *([self.condition] if self.condition else [])):
            nn.init.xavier_uniform_(cast(nn.Linear, layer).weight)
        for layer in self.layers:
            nn.init.zeros_(cast(nn.Linear, layer).bias)
        nn.init.zeros_(cast(nn.Linear, self.layers[-1]).weight)  # start at the identity

    def precompute(self, cs: Tensors) -> Tensors:
        return () if self.condition is None else (self.condition(torch.cat([c.flatten(1) for c in cs], dim=1)),)

    def combine(self, x: Tensor, given: Tensors) -> Tensor:
        return self._call(len(self.layers) - 1, self._hidden(x, given))

    def part(self, x: Tensor, given: Tensors, places: slice) -> Tensor:
        """Return the outputs of :meth:`combine` for some elements, ``(B, params_per_element * len(places))``."""
        h, last = self._hidden(x, given), self.layers[-1]
        if type(last) is Linear and is_untouched(last, _masked_forward):
            return last.rows(h, places, self.params_per_element)
        outputs: Tensor = self._call(len(self.layers) - 1, h)
        part: Tensor = outputs.unflatten(1, (self.params_per_element, -1))[:, :, places].flatten(1)
        return part

    def _hidden(self, x: Tensor, given: Tensors) -> Tensor:
        h = self._call(0, x)
        h = h + given[0] if given else h
        for index in range(1, len(self.layers) - 1):
            h = self._call(index, torch.relu(h))
        return torch.relu(h)

    def _call(self, index: int, x: Tensor) -> Tensor:
        """Call a layer; mask the linear map of whatever has taken its place, such as a LoRA adapter."""
        layer = self.layers[index]
        if type(layer).forward is _masked_forward and "forward" not in vars(layer):
            return layer(x)  # type: ignore[no-any-return]
        mask = self.get_buffer(f"mask_{index}")
        inputs = mask.shape[1]
        columns = layer(torch.eye(inputs + 1, inputs, dtype=x.dtype, device=x.device))  # the last row is zero
        weight, bias = (columns[:-1] - columns[-1]).t(), columns[-1]
        if not (torch.compiler.is_compiling() or is_transformed() or x.is_meta):
            _require_linear(layer, weight, bias, x)
        return linear(x, weight * mask, bias)


_masked_forward = Linear.forward


@torch.no_grad()
def _require_linear(layer: nn.Module, weight: Tensor, bias: Tensor, like: Tensor) -> None:
    """Refuse a layer that is not the linear map with this weight and bias: there is no weight to be masked."""
    signs = 1 - 2 * (torch.arange(weight.shape[1], device=like.device) % 2)
    probe = torch.stack((8 * signs, -8 * signs)).to(like.dtype)  # large, so that activations bend
    exact = probe @ weight.to(probe).t() + bias.to(probe)
    error = (layer(probe).to(probe) - exact).abs().max()
    if bool(error > 0.05 * exact.abs().max() + 1e-3):
        advice = "it must be linear in its input, to be masked: give it no activation, and set dropout to 0 or .eval()"
        raise GraphError("Autoregressive", f"a {type(layer).__name__} in place of a linear layer", advice)


def _degrees(lowest: int, size: int, width: int) -> Tensor:
    """Return the degrees of a layer's units, from ``lowest`` to ``size - 1`` inclusive."""
    units = torch.arange(width)
    if width >= size - lowest:
        return lowest + units * (size - lowest) // width
    return lowest + units * (size - 1 - lowest) // (width - 1)
