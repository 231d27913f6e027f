"""FrEIA's contract of a layer, ``(y,), log_jac = module((x,), c=(c,), rev=False, jac=True)``, as a native layer."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from invgraph.core.invertible import Invertible, Result
from invgraph.errors import ArgumentError, ContractError, ShapeError
from invgraph.shapes import Shape, Tensors, as_shapes
from invgraph.torch_internals import replace_children


@final
class Contract(Invertible):
    """A module with FrEIA's contract as a native layer.

    Its log-determinant may be a number, None, or a tensor of one element or one per sample; here it is always of shape
    ``(B,)`` and of the data's dtype.

    Arguments:
        module: Module with ``forward(x, c=..., rev=False, jac=True)``; without conditions it is called without ``c``.
        in_shapes: Shapes of the inputs.
        cond_shapes: Shapes of the conditions.
        out_shapes: Shapes of the outputs.
        any_size: True if the sizes after the channels may differ from the declared ones, as FrEIA allows.
    """

    conditional = True
    arity = None

    def __init__(
        self, module: nn.Module, in_shapes: object, cond_shapes: object, out_shapes: object, *, any_size: bool = False
    ) -> None:
        super().__init__(in_shapes, cond_shapes)
        self.module = module
        self.jac = True
        self._out_shapes = as_shapes(out_shapes, type(module).__name__)
        self.kind = self.label = type(module).__name__
        if any_size:
            kind = Free if getattr(module, "free_shapes", False) else _Loose
            self.in_shapes, self._out_shapes = _as(kind, self.in_shapes), _as(kind, self._out_shapes)

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        return self._out_shapes

    def with_module(self, module: nn.Module, *, jac: bool) -> Contract:
        """Return the same layer around another module, or without log-determinants that take time."""
        other = copy.copy(self)
        replace_children(other, {"module": module})
        other.jac = jac
        return other

    def _forward(self, xs: Tensors, given: Any) -> Result:
        return self.call(xs, given, rev=False)

    def _inverse(self, ys: Tensors, given: Any) -> Result:
        return self.call(ys, given, rev=True)

    def call(self, xs: Tensors, cs: Tensors, *, rev: bool) -> Result:
        """Call the module, and return what it returns in the native form."""
        arguments = {"c": cs} if self.cond_shapes else {}
        return self.as_native(self.module(tuple(xs), **arguments, rev=rev, jac=self.jac), xs[0])

    def as_native(self, result: Any, data: Tensor | None = None) -> Result:
        """Return what a module returned as a tuple of outputs and a log-determinant of shape ``(B,)``.

        Arguments:
            result: What the module returned.
            data: A tensor of the call. Default: the first output.

        Raises:
            ContractError: If the module returned something else than outputs and a log-determinant.
        """
        if isinstance(result, Tensor) or not isinstance(result, Sequence) or len(result) != 2:
            raise ContractError(self.label, _describe(result), "a layer returns two things: return (y,), log_jac")
        ys, log_det = result
        if isinstance(ys, Tensor):
            raise ContractError(self.label, "returned a tensor, log_jac", "outputs are a tuple: return (y,), log_jac")
        if log_det is None and self.jac:
            raise ContractError(self.label, "returned None as log_jac", "with jac=True it must be a number or a tensor")
        data = ys[0] if data is None else data
        outputs = tuple([y if y.dtype == data.dtype else y.to(data.dtype) for y in ys])
        return outputs, as_log_det(log_det, data, self.label)

    def extra_repr(self) -> str:
        return f"{self.kind}, {super().extra_repr()}"


def _describe(result: object) -> str:
    if isinstance(result, (tuple, list)):
        return f"returned a {type(result).__name__} of {len(result)}"
    return f"returned a {type(result).__name__}"


def as_log_det(log_det: object, data: Tensor, where: str) -> Tensor:
    """Return a log-determinant as a tensor of shape ``(B,)`` and of the data's dtype.

    Arguments:
        log_det: A number, None for zero, or a tensor of one element or one per sample.
        data: A tensor of the call.
        where: Layer named in errors.

    Raises:
        ShapeError: If a tensor has another shape.
    """
    batch = data.shape[0]
    if log_det is None:
        return data.new_zeros(batch)
    if not isinstance(log_det, Tensor):
        return data.new_full((batch,), float(cast(float, log_det)))
    if log_det.ndim != 1 or log_det.shape[0] != batch:
        if log_det.numel() == 1:
            log_det = log_det.reshape(1).expand(batch)
        elif log_det.numel() == batch:
            log_det = log_det.reshape(batch)
        else:
            given = f"returned log_jac of shape {tuple(log_det.shape)} for a batch of {batch}"
            raise ShapeError(where, given, "expected a number, or one number per sample: sum over all other axes")
    return log_det if log_det.dtype == data.dtype and log_det.device == data.device else log_det.to(data)


def wrap(module: nn.Module, dims_in: object = None, dims_c: object = None) -> Contract:
    """A layer of FrEIA's kind as a layer of a native graph.

    Arguments:
        module: A layer of FrEIA, or any module with its ``forward(x, c=..., rev=False, jac=True)`` and ``output_dims``.
        dims_in: Shapes of the inputs. Default: ``module.dims_in``, which ``InvertibleModule`` sets.
        dims_c: Shapes of the conditions. Default: ``module.dims_c``, or none.

    Raises:
        ArgumentError: If something else was given, or a module without shapes.

    Example:
        >>> import invgraph as ig
        >>> x = ig.InputNode(4, name="x")
        >>> h = ig.Node(x, ig.freia.wrap(ig.freia.modules.PermuteRandom([(4,)], seed=1)))
        >>> h.shapes
        ((4,),)
    """
    if not isinstance(module, nn.Module):
        raise ArgumentError("wrap", type(module).__name__, "expected a layer of FrEIA's kind, already built")
    name = type(module).__name__
    dims_in = getattr(module, "dims_in", None) if dims_in is None else dims_in
    dims_c = getattr(module, "dims_c", ()) if dims_c is None else dims_c
    if dims_in is None:
        raise ArgumentError("wrap", f"{name} without dims_in", "pass the shapes of its inputs: wrap(module, [(4,)])")
    inputs = list(as_shapes(as_ints(dims_in), name))
    return Contract(module, inputs, as_ints(dims_c), output_dims(module, inputs))


def output_dims(module: Any, dims_in: list[Shape]) -> list[Shape]:
    """Return the shapes of a module's outputs as a list of tuples, whatever iterables it makes.

    Raises:
        ArgumentError: If the module has no ``output_dims``.
    """
    method = getattr(module, "output_dims", None)
    if method is None:
        name = type(module).__name__
        raise ArgumentError(name, f"{name} without output_dims", "write output_dims(self, input_dims) for the layer")
    return [tuple(as_ints(shape)) for shape in method(dims_in)]


def as_ints(sizes: Any) -> Any:
    """Return lists and tuples, nested or not, with whole floats as ints: FrEIA takes ``ConditionNode(n / 2)``."""
    if isinstance(sizes, torch.Size):
        return tuple(sizes)
    if isinstance(sizes, Iterable) and not isinstance(sizes, (str, Tensor)):
        return [as_ints(size) if not isinstance(size, Sequence) else tuple(as_ints(size)) for size in sizes]
    return int(sizes) if isinstance(sizes, float) and sizes.is_integer() else sizes


class _Loose(Sequence[int]):
    """A declared shape of which only the number of axes and the channels are checked.

    It is not a tuple, because a tuple's own comparison would come first.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    def __eq__(self, other: object) -> bool:
        if isinstance(other, _Loose):
            return self.shape == other.shape
        return isinstance(other, tuple) and len(other) == len(self.shape) and other[:1] == self.shape[:1]

    def __hash__(self) -> int:
        return hash(self.shape[:1])

    def __getitem__(self, index: Any) -> Any:
        return self.shape[index]

    def __len__(self) -> int:
        return len(self.shape)

    def __repr__(self) -> str:
        return repr(self.shape)


class Free(_Loose):
    """A declared shape of which nothing is checked: a mixture of Gaussians may map all its components at once."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = _Loose.__hash__


def _as(kind: type[_Loose], shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
    return cast("tuple[Shape, ...]", tuple(kind(shape) for shape in shapes))
