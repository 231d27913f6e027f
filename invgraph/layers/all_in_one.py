"""A coupling, a global scale and shift, and a permutation in one block, of which most published INNs are stacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn

from invgraph.arguments import require_choice, require_count, require_flag, require_positive
from invgraph.core.assign import assign
from invgraph.core.given import Precomputed
from invgraph.core.invertible import Invertible, Result
from invgraph.core.orders import load_order
from invgraph.core.subnet import check_subnet, lead_first, leading, make_subnet, spread_vector
from invgraph.errors import GraphError, NumericsError
from invgraph.fused.affine_block import AffineBlockKernel
from invgraph.fused.switch import fused
from invgraph.numerics.channels import (
    channel_moments,
    is_more_precise,
    mix,
    nearest_rotation,
    random_rotation,
    split_sizes,
)
from invgraph.numerics.gains import LARGEST, Gain, GainFunction
from invgraph.numerics.linalg import own_precision, unit_vectors
from invgraph.numerics.seeding import generator, normal, start_seed, to_defaults
from invgraph.shapes import Shape, Tensors, positions, repeat_rows
from invgraph.torch_internals import has_data, is_plain
from invgraph.transforms.affine import Affine, has_kernel
from invgraph.transforms.transform import Transform, require_transform


class AllInOne(Invertible):
    r"""One-sided coupling, global scale and shift per channel, and a permutation: the block of most INNs.

    .. math:: y = R \left( e^{g} \odot f(V x; c) + b \right), \qquad f(u_1, u_2; c) = (T(u_1; u_2, c), u_2)

    T is the transform, g and b are learned per channel. R is a fixed permutation (``"hard"``) or rotation
    (``"soft"``) of the channels, times learned Householder reflections where asked for. V is 1, or with ``reverse``
    the inverse of R, so that a stack of blocks keeps the order of the channels. A hard permutation without reflections
    picks channels by index.

    Shape:
        ``x: (B, C, ...) -> y: (B, C, ...)``; conditions ``(B, C_c)`` or ``(B, C_c, ...)`` of the same spatial size. A
        single channel needs conditions, and is transformed given them alone.

    Log-det:
        Log-determinant of the transform plus the sum of g over channels and positions, nats per sample.

    Arguments:
        in_shapes: Shape of the input.
        cond_shapes: Shapes of the conditions.
        transform: Transform of each element; ``VolumePreserving()`` with ``scale=False`` is the block of GIN. Default:
            ``Affine()``.
        subnet: Factory ``f(channels_in, channels_out) -> nn.Module``.
        split: Channels of the part that is transformed: a fraction (rounded down) or a number. Default: 0.5.
        permutation: ``"soft"``, a random rotation (default), or ``"hard"``, a random permutation.
        householder: Number of learned reflections that R is multiplied with. Default: 0.
        reverse: True to undo R before the coupling. Default: False.
        scale: True to learn g; False keeps it at 0, so that a volume-preserving block preserves volumes. Default: True.
        gain: Start value of :math:`e^g`, the factor of each channel. Default: 1.
        gain_function: Function of a learned parameter a that is the gain: ``"exp"``; ``"softplus"``, which grows
            linearly; or ``"sigmoid"``, 10 times the sigmoid. Each is shifted to give the start value at a = 0, where a
            (``log_scale``) starts. Default: ``"exp"``.
        damping: Factor on the output of the subnet. Subnets of this library start at zero; for others, use a small
            factor, such as FrEIA's 0.1. Default: 1.
        seed: Seed of the permutation and of the reflections at the start. None: a seed from the layer's place in the
            graph, which differs from block to block; 0 outside a graph.

    Raises:
        GraphError: If the channels can't be split in this way, or the subnet does not fit.
        ArgumentError: If an argument has the wrong type.

    References:
        L. Ardizzone et al., "Guided Image Generation with Conditional Invertible Neural Networks", 2019,
        https://arxiv.org/abs/1907.02392; P. Sorrenson, C. Rother, U. Koethe, "Disentanglement by Nonlinear ICA with
        General Incompressible-flow Networks (GIN)", 2020, https://arxiv.org/abs/2001.04872

    Example:
        >>> import torch, invgraph as ig
        >>> block = ig.AllInOne((4,), ((10,),), subnet=ig.nets.MLP(hidden=16), householder=2, reverse=True)
        >>> (y,), log_det = block((torch.ones(2, 4),), (torch.zeros(2, 10),))
        >>> torch.allclose(y, torch.ones(2, 4), atol=1e-5)
        True
    """

    range_kind = "any"
    conditional = True
    fixed_size_reason = None
    rotation: Tensor
    order: Tensor
    inverse_order: Tensor

    def __init__(
        self,
        in_shapes: object,
        cond_shapes: object = (),
        *,
        subnet: object,
        transform: Transform | None = None,
        split: float = 0.5,
        permutation: Literal["soft", "hard"] = "soft",
        householder: int = 0,
        reverse: bool = False,
        scale: bool = True,
        gain: float = 1.0,
        gain_function: GainFunction = "exp",
        damping: float = 1.0,
        seed: int | None = None,
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        where = "AllInOne"
        self.reverse = require_flag(where, "reverse", reverse)
        scale = require_flag(where, "scale", scale)
        self.permutation = require_choice(where, "permutation", permutation, ("soft", "hard"))
        householder = require_count(where, "householder", householder, least=0)
        function = require_choice(where, "gain_function", gain_function, get_args(GainFunction))
        self.gain = Gain(function, require_positive(where, "gain", gain)).check(where)
        if not scale and (self.gain.start != 1 or function != "exp"):
            raise GraphError(
                where, f"scale=False, gain={gain!r}", "scale=False keeps the gain at 1: give one of the two"
            )
        self.damping = require_positive(where, "damping", damping)
        seed = start_seed(where, seed)
        self.transform = Affine() if transform is None else require_transform(where, transform)
        channels, *sizes = self.in_shapes[0]
        # A single channel is transformed under the conditions alone.
        is_alone = channels == 1 and bool(self.cond_shapes)
        self.sizes = [1, 0] if is_alone else split_sizes(where, self.in_shapes[0], split)
        self.lead = leading(self.cond_shapes)
        self.subnet = make_subnet(where, subnet, *self._subnet_shapes())
        per_channel = (channels, *(1 for _ in sizes))
        self.log_scale = nn.Parameter(torch.zeros(per_channel)) if scale else None
        self.shift = nn.Parameter(torch.zeros(per_channel))
        self._draw(channels, householder, seed)

    def _subnet_shapes(self) -> tuple[Shape, tuple[Shape, ...], Shape]:
        """Return the shapes of what the subnet reads, as data and conditions, and of what it returns."""
        (first, second), sizes = self.sizes, self.in_shapes[0][1:]
        count = first * self.transform.params_per_element
        if second:
            return (second, *sizes), self.cond_shapes, (count, *sizes)
        read, *others = lead_first(self.cond_shapes, self.lead)
        return read, tuple(others), (count, *(sizes if len(read) > 1 else ()))

    def _resize(self, before: tuple[Shape, ...]) -> None:
        super()._resize(before)
        check_subnet(self.label, self.subnet, *self._subnet_shapes())

    def _draw(self, channels: int, householder: int, seed: int) -> None:
        source = generator(seed)
        if self.permutation == "soft":
            fixed = random_rotation(channels, seed)
        else:
            order = torch.randperm(channels, generator=source, device="cpu")
            fixed = torch.eye(channels, dtype=torch.float64, device="cpu")[order]
        vectors = normal((householder, channels), source)
        self.reflections = nn.Parameter(to_defaults(vectors)) if householder else None
        self.is_indexed = self.permutation == "hard" and not householder
        if self.is_indexed:
            self.register_buffer("order", to_defaults(order))
            self.register_buffer("inverse_order", to_defaults(order.argsort()))
        else:
            self.register_buffer("rotation", to_defaults(fixed))

    def precompute(self, cs: Tensors) -> Precomputed:
        if self.sizes[1]:
            return self.subnet.prepare(cs)
        first, *others = lead_first(cs, self.lead)
        return Precomputed((self.subnet(first, tuple(others)),))

    def _forward(self, xs: Tensors, given: Any) -> Result:
        x = self._mixed(xs[0], back=True) if self.reverse else xs[0]
        gain = torch.ones_like(self.shift) if self.log_scale is None else self.gain.value(self.log_scale)
        kernel = self._kernel(x)
        first, second = x.split(self.sizes, dim=1)
        run = kernel.run if kernel else self._unmixed
        y, log_det = run(first, second, self._params(second, given), gain, self.shift)
        y = y if kernel and kernel.orders else self._mixed(y)
        return (y,), log_det + self._log_det()

    def _inverse(self, ys: Tensors, given: Any) -> Result:
        y = self._mixed(ys[0], back=True) - self.shift
        y = y if self.log_scale is None else y / self.gain.value(self.log_scale)
        first, second = y.split(self.sizes, dim=1)
        first, log_det = self.transform.inverse(first, self._damped(self._params(second, given)))
        x = torch.cat((first, second), dim=1)
        return (self._mixed(x) if self.reverse else x,), log_det - self._log_det()

    def _params(self, x: Tensor, given: Any) -> Tensor:
        """Return the parameters of the part that is transformed, given the other part, before they are damped."""
        count = self.transform.params_per_element
        if self.sizes[1]:
            params: Tensor = torch.unflatten(self.subnet(x, given).to(x.dtype), 1, (count, self.sizes[0]))
            return params
        (rows,) = self._precomputed(given)
        params = torch.unflatten(repeat_rows(rows, x.shape[0]).to(x.dtype), 1, (count, 1))
        return spread_vector(params, x.ndim + 1).expand(-1, -1, -1, *x.shape[2:])

    def _damped(self, params: Tensor) -> Tensor:
        return params if self.damping == 1 else params * self.damping

    def _kernel(self, x: Tensor) -> AffineBlockKernel | None:
        """Return the kernel for coupling, scale, shift and a hard permutation, or None if there is none for them."""
        transform = self.transform
        if not has_kernel(transform) or not self.sizes[1] or not (is_plain(x) and fused.enabled):
            return None
        assert isinstance(transform, Affine) and not callable(transform.clamp)  # noqa: PT018
        orders = (self.order, self.inverse_order) if self.is_indexed else ()
        return AffineBlockKernel(self._unmixed, transform.clamp, transform.activation, self.damping, self.sizes, orders)

    def _unmixed(
        self, first: Tensor, second: Tensor, params: Tensor, gain: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        first, log_det = self.transform.forward(first, self._damped(params))
        # addcmul takes twice as long where it broadcasts
        return torch.cat((first, second), dim=1) * gain + shift, log_det

    def _log_det(self) -> Tensor | float:
        if self.log_scale is None:
            return 0.0
        return self.gain.log(self.log_scale).sum() * positions(self.in_shapes[0])

    def _mixed(self, x: Tensor, back: bool = False) -> Tensor:
        """Return R x, or with ``back`` its inverse."""
        if self.is_indexed:
            return x.index_select(1, self.inverse_order if back else self.order)
        matrix = self._matrix()
        return mix(x, matrix.t() if back else matrix)

    def _matrix(self) -> Tensor:
        """Return R, the fixed matrix times the learned reflections ``1 - 2 v v^T / v^T v``."""
        matrix: Tensor = self.rotation
        with own_precision(matrix):  # in half precision it would no longer be orthogonal
            if self.reflections is not None:
                for v in unit_vectors(self.reflections, 1).unbind():
                    matrix = torch.addr(matrix, matrix @ v, v, alpha=-2)
        return matrix

    @torch.no_grad()
    def _initialize(self, xs: Tensors, cs: Tensors) -> None:
        """Choose scale and shift so that this batch leaves the coupling with mean 0 and deviation 1 per channel."""
        x = self._mixed(xs[0], back=True) if self.reverse else xs[0]
        first, second = x.split(self.sizes, dim=1)
        first, _ = self.transform.forward(first, self._damped(self._params(second, cs)))
        mean, std = self._moments(torch.cat((first, second), dim=1))
        if self.log_scale is not None:
            self._set_gain(1 / std)
            mean = mean / std
        assign(self, "shift", -mean)

    @torch.no_grad()
    def _initialize_inverse(self, ys: Tensors, cs: Tensors) -> None:
        """Choose them so that this batch enters the inverse coupling with mean 0 and deviation 1 per channel."""
        mean, std = self._moments(self._mixed(ys[0], back=True))
        self._set_gain(std)
        assign(self, "shift", mean)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return channel_moments(self.label, x, scaled=self.log_scale is not None)

    def _set_gain(self, gain: Tensor) -> None:
        if self.log_scale is None:
            return
        if self.gain.function == "sigmoid" and not bool((gain < LARGEST).all()):
            given = f"a batch that needs a gain of {gain.max().item():.3g}"
            raise NumericsError(self.label, given, f"a sigmoid's is below {LARGEST:g}: scale the data, or use exp")
        assign(self, "log_scale", self.gain.raw(gain))

    def _is_initialized(self) -> bool:
        """True if scale or shift, which start as zeros, hold anything else."""
        own = (self.shift,) if self.log_scale is None else (self.shift, self.log_scale)
        return any(has_data(values) and bool(values.any()) for values in own)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.shift.dtype
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._refresh(before)
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if self.is_indexed:
            load_order(self, state_dict, prefix, args[-1])
        if prefix + "rotation" in state_dict:
            self._refresh(state_dict[prefix + "rotation"].dtype)

    def _refresh(self, before: torch.dtype) -> None:
        if not self.is_indexed and is_more_precise(before, self.rotation.dtype) and not self.rotation.is_meta:
            self.rotation = nearest_rotation(self.rotation)

    def extra_repr(self) -> str:
        parts = [super().extra_repr(), str(self.transform), f"reverse={self.reverse}"]
        parts += [f"gain={self.gain.function} from {self.gain.start:g}"] if self.gain != Gain("exp", 1.0) else []
        parts += [f"damping={self.damping:g}"] if self.damping != 1 else []
        return ", ".join(parts)
