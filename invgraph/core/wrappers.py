"""A layer or graph with its two directions swapped."""

from __future__ import annotations

from typing import Any, final

from invgraph.core.call import Ports, call_checked
from invgraph.core.invertible import Invertible, Result, require_invertible
from invgraph.core.ranges import Ends, Knowns
from invgraph.core.resized import resized
from invgraph.errors import GraphError
from invgraph.shapes import Shape, Tensors
from invgraph.torch_internals import replace_children


@final
class Inverse(Invertible):
    """A module with its two directions swapped.

    It is a module with the parameters of the wrapped one: pass it to ``DistributedDataParallel``, ``torch.compile`` or
    ``torch.export`` to train or export the inverse.

    .. math:: y = f^{-1}(x; c)

    Shape:
        Those of the module, from its outputs to its inputs.

    Log-det:
        Log-determinant of the module's inverse, nats per sample.

    Arguments:
        module: A layer or a graph.

    Example:
        >>> import torch, invgraph as ig
        >>> upsample = ig.Inverse(ig.Haar((3, 8, 8)))
        >>> (x,), log_det = upsample((torch.zeros(2, 12, 4, 4),))
        >>> x.shape
        torch.Size([2, 3, 8, 8])
    """

    conditional = True
    arity = None
    call_name = "module"
    fixed_size_reason = None

    def __init__(self, module: Invertible) -> None:
        module = require_invertible(module, "Inverse")
        super().__init__(module.out_shapes, module.cond_shapes)
        self.module = module

    @property
    def out_shapes(self) -> tuple[Shape, ...]:
        return self.module.in_shapes

    def _resize(self, before: tuple[Shape, ...]) -> None:
        """Find the inputs of the module for these outputs, whose sizes are in proportion, and resize it to them."""
        inside = tuple(self._scaled(shape, before) for shape in self.module.in_shapes)
        module = resized(self.module, inside, self.cond_shapes)
        if module.out_shapes != self.in_shapes:
            given = f"outputs of shapes {self.in_shapes} instead of {before}"
            advice = f"for inputs {inside} the {type(self.module).__name__} makes {module.out_shapes}"
            raise GraphError(self.label, given, f"its size can't change: {advice}")
        replace_children(self, {"module": module})

    def _scaled(self, shape: Shape, before: tuple[Shape, ...]) -> Shape:
        """Return a shape, scaled like the first output that has the same number of axes."""
        for old, new in zip(before, self.in_shapes, strict=True):
            if len(old) == len(new) == len(shape):
                pairs = zip(shape[1:], new[1:], old[1:], strict=True)
                return shape[0], *(max(size * after // former, 1) for size, after, former in pairs)
        return shape

    def precompute(self, cs: Tensors) -> Any:
        return self.module.precompute(cs)

    def _forward(self, xs: Tensors, given: Any) -> Result:
        return call_checked(self.module, xs, given, inverse=True)

    def _inverse(self, ys: Tensors, given: Any) -> Result:
        return call_checked(self.module, ys, given, inverse=False)

    def _follow(self, intervals: Knowns, *, inverse: bool) -> Knowns:
        return self.module._follow(intervals, inverse=not inverse)

    def _follow_ends(self, ends: Ends, *, inverse: bool) -> Ends:
        return self.module._follow_ends(ends, inverse=not inverse)

    def _initialize(self, xs: Tensors, cs: Tensors) -> None:
        """Set what depends on data that enter here, at the module's outputs."""
        self.module._initialize_inverse(xs, cs)

    def _initialize_inverse(self, ys: Tensors, cs: Tensors) -> None:
        self.module._initialize(ys, cs)

    def _inputs(self) -> Ports:
        return self.module._outputs().named("input")

    def _outputs(self) -> Ports:
        return self.module._inputs().named("output")

    def _conditions(self) -> Ports:
        return self.module._conditions()
