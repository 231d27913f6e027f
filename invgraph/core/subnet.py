"""What a layer asks its subnets: how data and conditions go in, and the trial that refuses a misfit at build."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, final

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import is_lazy

from invgraph.errors import ArgumentError, GraphError
from invgraph.fused.dispatch import eager
from invgraph.fused.mlp import Dense
from invgraph.shapes import Shape, Tensors, batched, repeat_rows

T = TypeVar("T")


class Subnet(nn.Module, ABC):
    """A feed-forward network that takes data and conditions apart: ``parameters = subnet(x, cs)``.

    Kept apart, the share of the conditions can be computed once and reused for any number of samples.

    Attributes:
        broadcasts: whether :meth:`combine` also takes shares of fewer rows than the data, as :func:`add_share` adds
            them; where not, a bound graph repeats them.
    """

    broadcasts: ClassVar[bool] = False

    if TYPE_CHECKING:
        __call__: Callable[..., Tensor]

    @abstractmethod
    def share(self, cs: Tensors) -> Tensors:
        """What depends on the conditions alone."""

    @abstractmethod
    def combine(self, x: Tensor, shared: Tensors) -> Tensor:
        """The output, from the data and what :meth:`share` returned."""

    @final  # type: ignore[misc]
    def forward(self, x: Tensor, cs: Tensors = ()) -> Tensor:
        """Output of the network, shape ``(B, channels_out, ...)``."""
        return self.combine(x, self.share(cs))

    def dense(self) -> Dense | None:
        """The network as a function of its parameters, if it is fully connected and calls nothing of anybody else's."""
        return None

    def last_parameters(self) -> tuple[nn.Parameter, ...]:
        """Those of the layer that makes the output: the child ``last``, or the last of ``layers``."""
        last = self._modules.get("last")
        layers = self._modules.get("layers")
        if last is None and isinstance(layers, nn.ModuleList):
            last = layers[-1]
        return () if last is None else tuple(last.parameters())

    @final
    def reuse(self, x: Tensor, shared: Tensors) -> Tensor:
        """As :meth:`combine`, for several samples of each row of the conditions, sample by sample."""
        if not self.broadcasts:
            shared = tuple(repeat_rows(share, x.shape[0]) for share in shared)
        return self.combine(x, shared)


class SubnetFactory(ABC):
    """A picklable recipe for subnets: called with channel counts, or asked to build for given shapes."""

    @abstractmethod
    def build(self, x_shape: Shape, cond_shapes: tuple[Shape, ...], channels_out: int) -> Subnet:
        """A subnet for data of ``x_shape`` under conditions of ``cond_shapes``."""

    @abstractmethod
    def __call__(self, channels_in: int, channels_out: int) -> Subnet:
        """A subnet without conditions."""


@final
class Concatenated(Subnet):
    """A plain module as a subnet: it gets data and conditions concatenated along the channels."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def share(self, cs: Tensors) -> Tensors:
        return cs

    def last_parameters(self) -> tuple[nn.Parameter, ...]:
        """Those of the last submodule that has parameters of its own."""
        own = (tuple(m.parameters(recurse=False)) for m in self.module.modules())
        return ([(), *(parameters for parameters in own if parameters)])[-1]

    def combine(self, x: Tensor, shared: Tensors) -> Tensor:
        if not shared:
            return self.module(x)  # type: ignore[no-any-return]
        spread = (spread_vector(c, x.ndim).expand(-1, -1, *x.shape[2:]) for c in shared)
        return self.module(torch.cat((x, *spread), dim=1))  # type: ignore[no-any-return]


def add_share(h: Tensor, share: Tensor) -> Tensor:
    """``h + share``, where the share of each row serves several samples; it is broadcast, never repeated.

    ``h`` is the caller's own, and may be written to.
    """
    samples = h if share.shape[0] in (1, h.shape[0]) else torch.unflatten(h, 0, (-1, share.shape[0]))
    total = samples.add_(share) if eager() and h.dtype == share.dtype else samples + share
    return total if samples is h else total.flatten(0, 1)


def spread_vector(c: Tensor, ndim: int) -> Tensor:
    """A vector per sample with axes of size one appended, so that it broadcasts over positions."""
    return c[(...,) + (None,) * (ndim - c.ndim)]


def leading(cond_shapes: tuple[Shape, ...]) -> int:
    """Which condition a network of conditions alone takes as its data: the first that has positions, or the first."""
    return next((place for place, shape in enumerate(cond_shapes) if len(shape) > 1), 0)


def lead_first(values: Sequence[T], lead: int) -> tuple[T, ...]:
    """The values, the leading one before the others."""
    return (values[lead], *values[:lead], *values[lead + 1 :])


def check_conditions(where: str, x_shape: Shape, cond_shapes: tuple[Shape, ...]) -> None:
    """Refuse a condition that is neither a vector nor of the data's spatial size."""
    for index, shape in enumerate(cond_shapes):
        if len(shape) > 1 and shape[1:] != x_shape[1:]:
            given = f"condition {index} of shape {shape} for data of shape {x_shape}"
            raise GraphError(
                where, given, f"spatial sizes differ: a condition is a vector (C,) or of size (C, {_sizes(x_shape)})"
            )


def _sizes(shape: Shape) -> str:
    return ", ".join(map(str, shape[1:])) or "no more"


def make_subnet(
    where: str, factory: object, x_shape: Shape, cond_shapes: tuple[Shape, ...], out_shape: Shape
) -> Subnet:
    """The factory's network, tried once without data.

    Arguments:
        where: the layer, for errors.
        factory: a :class:`SubnetFactory`, or any ``f(channels_in, channels_out) -> nn.Module``.
        x_shape: shape of the data.
        cond_shapes: shapes of the conditions.
        out_shape: the shape that the layer needs; its first size is ``channels_out``.

    Raises:
        ArgumentError: the factory is not callable, or did not make a module.
        GraphError: the network refuses the shapes, or returns another one.
    """
    if not callable(factory):
        given = f"subnet={factory!r}"
        raise ArgumentError(where, given, "subnet must be callable: f(channels_in, channels_out) -> nn.Module")
    if isinstance(factory, nn.Module):
        given = f"subnet={type(factory).__name__}(...), a module"
        raise ArgumentError(where, given, "subnet must be a factory f(channels_in, channels_out) -> nn.Module, so that"
                            " each side gets weights of its own")  # fmt: skip
    check_conditions(where, x_shape, cond_shapes)
    if out_shape[0] == 0:
        advice = "it takes no numbers from a subnet: use it in Elementwise, without one"
        raise GraphError(where, "a transform without parameters", advice)
    net: Subnet
    if isinstance(factory, SubnetFactory):
        net = factory.build(x_shape, cond_shapes, out_shape[0])
    else:
        channels_in = x_shape[0] + sum(shape[0] for shape in cond_shapes)
        try:
            module = factory(channels_in, out_shape[0])
        except TypeError as error:
            given = f"subnet({channels_in}, {out_shape[0]}) fails: {error}"
            raise ArgumentError(where, given, "the factory must take two channel counts: f(in, out)") from error
        if not isinstance(module, nn.Module):
            given = f"subnet({channels_in}, {out_shape[0]}) -> {type(module).__name__}"
            raise ArgumentError(where, given, "the factory must return an nn.Module")
        net = Concatenated(module)
    shapes = ", ".join(batched(shape) for shape in (x_shape, *cond_shapes))
    result = trial(where, net, _meta(x_shape), tuple(_meta(shape) for shape in cond_shapes))
    if not isinstance(result, Tensor):
        given = f"for {shapes} the subnet returned a {type(result).__name__}"
        raise ArgumentError(where, given, "a subnet returns one tensor")
    if result.shape != (2, *out_shape):
        given = f"for {shapes} the subnet returned {batched(tuple(result.shape[1:]))}"
        raise GraphError(where, given, f"expected {batched(out_shape)}: {out_shape[0]} channels, same spatial size")
    return net


def _meta(shape: Shape) -> Tensor:
    return torch.empty(2, *shape, device="meta")


def trial(where: str, module: nn.Module, *arguments: Any) -> Any:
    """What the module returns for meta tensors: shapes without data, random numbers or a change of its state."""
    tensors = _named_tensors(module)
    for name, tensor in tensors:
        if is_lazy(tensor):
            given = f"{_kind(module)} with the lazy {name.removeprefix('module.')}"
            raise GraphError(
                where, given, "lazy modules have no shapes yet: call it once first, or write nn.Linear(in, out)"
            )
    state = {name: tensor.detach().to("meta") for name, tensor in tensors}
    with torch.no_grad(), torch.device("meta"):
        try:
            return functional_call(module, state, arguments)
        except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
            shapes = ", ".join(_told(argument) for argument in arguments)
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            held = _plain_tensors(module) if "meta" in reason else ""
            reason += f" It holds the plain tensor {held}: make it a buffer, by register_buffer" if held else ""
            raise GraphError(where, f"{_kind(module)} tried on {shapes}", f"it fails: {reason}") from error


def _named_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def _kind(module: nn.Module) -> str:
    return type(module.module if isinstance(module, Concatenated) else module).__name__


def _plain_tensors(module: nn.Module) -> str:
    """Tensors that are attributes of a module, and neither its parameters nor its buffers."""
    parts = module.named_modules()
    held = (f"{path}.{name}" for path, part in parts for name, value in vars(part).items() if isinstance(value, Tensor))
    return ", ".join(repr(name.removeprefix("module").removeprefix(".")) for name in held)


def _told(argument: object) -> str:
    if isinstance(argument, Tensor):
        return batched(tuple(argument.shape[1:]))
    if isinstance(argument, tuple):
        return ", ".join(_told(entry) for entry in argument) or "no conditions"
    return repr(argument)
