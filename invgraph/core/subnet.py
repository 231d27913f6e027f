"""What a layer asks its subnets: how data and conditions go in, and the trial that refuses a misfit at build."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar, final

import torch
from torch import Tensor, nn

from invgraph.core.given import Precomputed
from invgraph.core.trial import trial, trial_input
from invgraph.errors import ArgumentError, GraphError
from invgraph.shapes import Shape, Tensors, batched, repeat_rows

T = TypeVar("T")


class Subnet(nn.Module, ABC):
    """A feed-forward network that takes data and conditions separately: ``parameters = subnet(x, cs)``.

    What depends on the conditions alone can then be computed once and reused for any number of samples.

    Attributes:
        broadcasts: True if :meth:`combine` also takes a ``given`` of fewer rows than the data, each of which serves
            several samples; if not, a bound graph repeats its rows.
    """

    broadcasts: ClassVar[bool] = False

    if TYPE_CHECKING:
        __call__: Callable[..., Tensor]

    @abstractmethod
    def precompute(self, cs: Tensors) -> Tensors:
        """Return what depends on the conditions alone."""

    @abstractmethod
    def combine(self, x: Tensor, given: Tensors) -> Tensor:
        """Return the output, from the data and what :meth:`precompute` returned."""

    @final  # type: ignore[misc]
    def forward(self, x: Tensor, given: Tensors = ()) -> Tensor:
        """Return the output of the network, shape ``(B, channels_out, ...)``.

        Arguments:
            x: The data.
            given: The conditions, or what :meth:`prepare` returned for them.
        """
        if not isinstance(given, Precomputed):
            return self.combine(x, self.precompute(given))
        if not self.broadcasts:
            given = Precomputed(repeat_rows(part, x.shape[0]) for part in given)
        return self.combine(x, given)

    @final
    def prepare(self, cs: Tensors) -> Precomputed:
        """Return what depends on the conditions alone, to be handed to a call in their place."""
        return Precomputed(self.precompute(cs))

    def last_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return those of the layer that makes the output: the child ``last``, or the last of ``layers``."""
        children = dict(self.named_children())
        last, layers = children.get("last"), children.get("layers")
        if last is None and isinstance(layers, nn.ModuleList):
            last = layers[-1]
        return () if last is None else tuple(last.parameters())


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

    def precompute(self, cs: Tensors) -> Tensors:
        return cs

    def last_parameters(self) -> tuple[nn.Parameter, ...]:
        """Those of the last submodule that has parameters of its own."""
        own = (tuple(m.parameters(recurse=False)) for m in self.module.modules())
        return ([(), *(parameters for parameters in own if parameters)])[-1]

    def combine(self, x: Tensor, given: Tensors) -> Tensor:
        if not given:
            return self.module(x)  # type: ignore[no-any-return]
        spread = (spread_vector(c, x.ndim).expand(-1, -1, *x.shape[2:]) for c in given)
        return self.module(torch.cat((x, *spread), dim=1))  # type: ignore[no-any-return]


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
            sizes = ", ".join(map(str, x_shape[1:]))
            advice = f"spatial sizes differ: a condition is a vector (C,) or of shape (C, {sizes})"
            raise GraphError(where, given, advice if sizes else _ENCODE)


_ENCODE = "a condition of vectors is a vector (C,) too: encode this one as a vector by a network in a FeatureNode"


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
    try:
        return _make_subnet(where, factory, x_shape, cond_shapes, out_shape)
    except GraphError as error:
        if len(out_shape) == 1 < len(x_shape):  # it reads the conditions alone, and the data are vectors
            raise GraphError(error.where, f"a condition of shape {x_shape} for vectors", _ENCODE) from error
        raise


def _make_subnet(
    where: str, factory: object, x_shape: Shape, cond_shapes: tuple[Shape, ...], out_shape: Shape
) -> Subnet:
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
    kind = type(net.module if isinstance(net, Concatenated) else net).__name__
    result = trial(where, net, trial_input(x_shape), tuple(map(trial_input, cond_shapes)), kind=kind)
    if not isinstance(result, Tensor):
        given = f"for {shapes} the subnet returned a {type(result).__name__}"
        raise ArgumentError(where, given, "a subnet returns one tensor")
    if result.shape != (2, *out_shape):
        given = f"for {shapes} the subnet returned {batched(tuple(result.shape[1:]))}"
        raise GraphError(where, given, f"expected {batched(out_shape)}: {out_shape[0]} channels, same spatial size")
    return net
