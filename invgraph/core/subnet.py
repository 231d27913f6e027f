"""Interface between layers and their subnets, and the trial run that refuses a subnet that does not fit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, final

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from invgraph.core.given import Precomputed
from invgraph.core.known_shape import known_shape
from invgraph.core.trial import changes_inputs, trial, trial_inputs
from invgraph.errors import ArgumentError, GraphError
from invgraph.fused import sequence
from invgraph.shapes import Shape, Tensors, batched, repeat_rows

T = TypeVar("T")


class Subnet(nn.Module, ABC):
    """Feed-forward network that takes data and conditions separately: ``params = subnet(x, cs)``.

    The part that depends on the conditions only can thus be computed once and reused for any number of samples.

    Attributes:
        broadcasts: True if :meth:`combine` also takes a ``given`` of fewer rows than the data, each of which serves
            several samples; if not, a bound graph repeats its rows.
    """

    broadcasts: ClassVar[bool] = False

    if TYPE_CHECKING:
        __call__: Callable[..., Tensor]

    @abstractmethod
    def precompute(self, cs: Tensors) -> Tensors:
        """Compute the part that depends on the conditions only."""

    @abstractmethod
    def combine(self, x: Tensor, given: Tensors) -> Tensor:
        """Return the output, from the data and the result of :meth:`precompute`."""

    @final  # type: ignore[misc]
    def forward(self, x: Tensor, given: Tensors = ()) -> Tensor:
        """Return the output of the network, shape ``(B, channels_out, ...)``.

        Arguments:
            x: The data.
            given: The conditions, or the result of :meth:`prepare` for them.
        """
        if not isinstance(given, Precomputed):
            return self.combine(x, self.precompute(given))
        if not self.broadcasts:
            given = Precomputed(repeat_rows(part, x.shape[0]) for part in given)
        return self.combine(x, given)

    @final
    def prepare(self, cs: Tensors) -> Precomputed:
        """Compute the part that depends on the conditions only, to be passed to a call in place of them."""
        return Precomputed(self.precompute(cs))

    def known_shape(self, x_shape: Shape, cond_shapes: tuple[Shape, ...]) -> Shape | None:
        """Return the shape of the output, without the batch; None if it takes a trial to know. Default: None.

        Arguments:
            x_shape: Shape of the data, without the batch.
            cond_shapes: Shapes of the conditions, without the batch.
        """
        return None

    def last_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the parameters of the output layer: the child ``last``, or the last of ``layers``."""
        children = dict(self.named_children())
        last, layers = children.get("last"), children.get("layers")
        if last is None and isinstance(layers, nn.ModuleList):
            last = layers[-1]
        return () if last is None else tuple(last.parameters())


class SubnetFactory(ABC):
    """Picklable factory of subnets, from the shapes of data and conditions or from numbers of channels."""

    @abstractmethod
    def build(self, x_shape: Shape, cond_shapes: tuple[Shape, ...], channels_out: int) -> Subnet:
        """Build a subnet.

        Arguments:
            x_shape: Shape of the data, without the batch.
            cond_shapes: Shapes of the conditions, without the batch.
            channels_out: Number of output channels.
        """

    @abstractmethod
    def __call__(self, channels_in: int, channels_out: int) -> Subnet:
        """Build a subnet without conditions, from numbers of channels."""


@final
class Concatenated(Subnet):
    """Subnet that passes data and conditions to an ordinary module, concatenated along the channels.

    Attributes:
        copies_input: True if the module changes what it is called with, such as a ReLU in place that comes first: it
            gets a copy, because the data are the caller's.
    """

    copies_input = False

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def precompute(self, cs: Tensors) -> Tensors:
        return cs

    def known_shape(self, x_shape: Shape, cond_shapes: tuple[Shape, ...]) -> Shape | None:
        channels = x_shape[0] + sum(shape[0] for shape in cond_shapes)
        return known_shape(self.module, (channels, *x_shape[1:]))

    def last_parameters(self) -> tuple[nn.Parameter, ...]:
        """Return the parameters of the last submodule that has any itself, or as parametrizations of its tensors."""
        found: dict[nn.Module, tuple[nn.Parameter, ...]] = {}
        inside: set[nn.Module] = set()
        for module in self.module.modules():
            own = tuple(module.parameters(recurse=False))
            if is_parametrized(module):
                made: Any = module.parametrizations
                inside.update(made.modules())
                own += tuple(made.parameters())
            if own and module not in inside:
                found[module] = own
        return [(), *found.values()][-1]

    def combine(self, x: Tensor, given: Tensors) -> Tensor:
        if self.copies_input and not given:
            x = x.clone()
        spread = tuple([spread_vector(c, x.ndim).expand(-1, -1, *x.shape[2:]) for c in given])
        return sequence.run(self.module, x, spread)


def spread_vector(c: Tensor, ndim: int) -> Tensor:
    """Append axes of size one up to ``ndim``, so that a vector per sample broadcasts over positions."""
    return c[(...,) + (None,) * (ndim - c.ndim)]


def leading(cond_shapes: tuple[Shape, ...]) -> int:
    """Return the index of the condition to use as data where there is no other: the first with positions, or 0."""
    return next((place for place, shape in enumerate(cond_shapes) if len(shape) > 1), 0)


def lead_first(values: Sequence[T], lead: int) -> tuple[T, ...]:
    """Move one value, at index ``lead``, before the others."""
    return (values[lead], *values[:lead], *values[lead + 1 :])


def check_conditions(where: str, x_shape: Shape, cond_shapes: tuple[Shape, ...]) -> None:
    """Refuse conditions that are neither vectors nor of the data's spatial size."""
    for index, shape in enumerate(cond_shapes):
        if len(shape) > 1 and shape[1:] != x_shape[1:]:
            given = f"condition {index} of shape {shape} for data of shape {x_shape}"
            sizes = ", ".join(map(str, x_shape[1:]))
            advice = f"spatial sizes differ: a condition is a vector (C,) or of shape (C, {sizes})"
            raise GraphError(where, given, advice if sizes else _ENCODE)


def require_subnet_for_conditions(where: str, subnet: object, cond_shapes: tuple[Shape, ...]) -> None:
    """Refuse conditions without a subnet that reads them, and a subnet without conditions."""
    if (subnet is None) != (not cond_shapes):
        given = f"subnet={subnet!r}, {len(cond_shapes)} conditions"
        raise GraphError(where, given, "conditions need a subnet that reads them, and a subnet needs conditions")


_ENCODE = "a condition of vectors is a vector (C,) too: encode this one as a vector by a network in a FeatureNode"


def make_subnet(
    where: str, factory: object, x_shape: Shape, cond_shapes: tuple[Shape, ...], out_shape: Shape
) -> Subnet:
    """Build a subnet, and check its output shape.

    Arguments:
        where: Name of the layer, for errors.
        factory: A :class:`SubnetFactory`, or any ``f(channels_in, channels_out) -> nn.Module``.
        x_shape: Shape of the data, without the batch.
        cond_shapes: Shapes of the conditions, without the batch.
        out_shape: Output shape that the layer needs, without the batch; its first size is ``channels_out``.

    Raises:
        ArgumentError: If the factory is not callable, or does not return a module.
        GraphError: If the subnet fails on these shapes, or its output has another shape.
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
                            " each side gets its own weights")  # fmt: skip
    check_conditions(where, x_shape, cond_shapes)
    if out_shape[0] == 0:
        advice = "it needs no subnet: use it in Elementwise, without one"
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
    check_subnet(where, net, x_shape, cond_shapes, out_shape)
    return net


def check_subnet(where: str, net: Subnet, x_shape: Shape, cond_shapes: tuple[Shape, ...], out_shape: Shape) -> None:
    """Check the conditions and output shape of a subnet, if need be by a trial run on meta tensors.

    Raises:
        ArgumentError: If it returns something other than a tensor.
        GraphError: If it fails on these shapes, or its output has another shape.
    """
    check_conditions(where, x_shape, cond_shapes)
    if net.known_shape(x_shape, cond_shapes) == out_shape:
        return
    shapes = ", ".join(batched(shape) for shape in (x_shape, *cond_shapes))
    kind = type(net.module if isinstance(net, Concatenated) else net).__name__
    x, *cs = trial_inputs(net, (x_shape, *cond_shapes))
    result = trial(where, net, x, tuple(cs), kind=kind)
    if changes_inputs(where, net, (x, *cs), x, tuple(cs)):
        if not isinstance(net, Concatenated):
            raise GraphError(where, f"subnet {kind}", "it changes its input in place: let it work on a copy")
        net.copies_input = True
    if not isinstance(result, Tensor):
        given = f"for {shapes} the subnet returned a {type(result).__name__}"
        raise ArgumentError(where, given, "a subnet returns one tensor")
    if result.shape != (2, *out_shape):
        given = f"for {shapes} the subnet returned {batched(tuple(result.shape[1:]))}"
        raise GraphError(where, given, f"expected {batched(out_shape)}: {out_shape[0]} channels, same spatial size")
