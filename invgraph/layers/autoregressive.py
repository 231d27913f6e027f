"""Autoregressive flow: each element is transformed given the elements before it."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from invgraph.arguments import require_positive
from invgraph.core.given import Precomputed
from invgraph.core.invertible import Invertible, Result
from invgraph.core.ranges import Knowns
from invgraph.errors import GraphError
from invgraph.fused.affine_autoregressive import AffineAutoregressive
from invgraph.fused.autoregressive_inverse import AutoregressiveInverse
from invgraph.fused.switch import fused
from invgraph.nets.masked import Stepwise, _Masked
from invgraph.shapes import Tensors, as_shape, numel
from invgraph.torch_internals import PLAIN, is_plain
from invgraph.transforms.affine import has_kernel
from invgraph.transforms.transform import Transform, require_pointwise


class Autoregressive(Invertible):
    r"""Transform each element given the elements before it and the conditions (MAF); its :class:`Inverse` is IAF.

    .. math:: y_i = T(x_i;\ \theta_i(x_1, \dots, x_{i-1}, c))

    A masked network (MADE) computes the parameters of all elements in one pass, so evaluating densities is fast. The
    inverse is exact and sequential, but a hidden unit is evaluated only once, when the last element that it sees is
    known, so it does the arithmetic of one pass, in many small steps. The elements are ordered as in memory, channels
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
        layers: Number of hidden layers. Default: 1.
        tolerance: Error at which an iterative inverse stops; None (default) for the exact inverse. Where gradients are
            disabled (sampling), the inverse updates all elements at once until ``|forward(x) - y| <= tolerance * max(1,
            |y|)`` everywhere; if half as many passes as there are elements do not suffice, it falls back to the exact
            one. The stopping test reads the data, so the inverse then can't be compiled as one graph or mapped by vmap.
        blocks: Number of blocks in which the iterative inverse processes the elements (requires a tolerance). Each
            block is solved, iteratively or else exactly, before the next one starts (Gauss-Seidel; 1 is Jacobi), so no
            passes are spent on late elements while the early ones are still wrong. Default: 1.

    Raises:
        GraphError: If the transform takes no parameters or is not pointwise; the input has a single element; a size is
            below 1; or the width is so small that some elements would not be seen by any other.
        ArgumentError: If an argument has the wrong type.

    Note:
        An adapter in the place of one of the network's layers (LoRA, quantized weights) is called with unit vectors,
        and the linear map that it stands for is masked. Hooks on the adapter see those vectors. A call raises
        GraphError if the adapter is not linear. With an adapter or a hook on a layer, the inverse calls all layers
        once per element.

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
    fixed_size_reason = "its masks order the elements of one size"
    _fused: tuple[Transform | None, AffineAutoregressive | None] = None, None

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
        self.transform: Any = transform  # only an Affine has a kernel
        self.tolerance = tolerance
        self.size = math.prod(self.in_shapes[0])
        if self.size < 2:
            advice = "a single number has no others before it: use Elementwise"
            raise GraphError("Autoregressive", f"input of shape {self.in_shapes[0]}", advice)
        (blocks,) = as_shape((blocks,), "Autoregressive (blocks)")
        if blocks > (1 if tolerance is None else self.size):
            advice = "give a tolerance too: blocks only apply to the iterative inverse"
            if tolerance is not None:
                advice = f"there are {self.size} numbers: use at most one block per number"
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
        if (kernel := self._kernel(x, given)) is not None:
            y, log_det = kernel.run(x, given)
            return (y if y.ndim == xs[0].ndim else y.view_as(xs[0]),), log_det
        params = torch.unflatten(self.subnet(x, given), 1, (-1, self.size))
        y, log_det = self.transform.forward(x, params.to(x.dtype))
        return (y.view_as(xs[0]),), log_det

    def _kernel(self, x: Tensor, given: Any) -> AffineAutoregressive | None:
        """Return the fused kernel; None if its results could differ, as for a subclass of Affine."""
        if isinstance(given, Precomputed) or not (is_plain(x) and fused.enabled):
            return None
        source, kernel = self._fused
        if kernel is None or source is not self.transform or not kernel.is_current(self.subnet):
            kernel = None
            if has_kernel(self.transform) and type(self.subnet) is _Masked:
                kernel = self.subnet.affine_kernel(self.transform.as_map(inverse=False))
            self._fused = self.transform, kernel
        return kernel if kernel is not None and kernel.takes(x, given) else None

    def _inverse(self, ys: Tensors, given: Any) -> Result:
        y = ys[0].flatten(1)
        given = self._precomputed(given)
        x, log_det = y[:, :0], y.new_zeros(y.shape[0])
        for block in self.blocks:
            exact = self.tolerance is None or torch.is_grad_enabled()
            found = None if exact else self._all_at_once(x, y[:, block], given)
            x, more = found or self._one_by_one(x, y[:, block], given)
            log_det = log_det + more
        return (x.view_as(ys[0]),), log_det

    def _one_by_one(self, before: Tensor, y: Tensor, given: Tensors) -> tuple[Tensor, Tensor]:
        """Invert each element given those already known."""
        tensors = self.subnet.tensors(given)
        if tensors is None:
            return self._by_whole_passes(before, y, given)
        plain = is_plain(y) and fused.enabled and all(type(tensor) in PLAIN for tensor in tensors)
        if plain and y.shape[1] == self.size:
            net = self.subnet
            kernel = AutoregressiveInverse(self.transform.inverse, self._solve, net.edges, net.params_per_element)
            return kernel.run(y, tensors)
        return self._solve(y, *tensors, before=before)

    def _solve(self, y: Tensor, *tensors: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Invert each element given those before it, at the cost of one pass of the network."""
        x = y[:, :0] if before is None else before
        network = Stepwise(self.subnet.edges, self.subnet.params_per_element, tensors)
        log_det = y.new_zeros(y.shape[0])
        for value in y.split(1, dim=1):
            new, more = self.transform.inverse(value, network.params(x).to(y.dtype))
            x = torch.cat((x, new), dim=1)
            log_det = log_det + more
        return x, log_det

    def _by_whole_passes(self, before: Tensor, y: Tensor, given: Tensors) -> tuple[Tensor, Tensor]:
        """Invert each element, calling all layers for each; zeros stand in for what is unknown and hidden by masks."""
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
        params = torch.unflatten(params, 1, (-1, places.stop - places.start))
        return params.to(x.dtype)

    def _follow(self, intervals: Knowns, *, inverse: bool) -> Knowns:
        found = self.transform.follow(intervals[0], inverse=inverse)
        return (found,)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.transform}"
