"""A matrix in its triangular factors, times the channels, as one step of the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from invgraph.fused.autograd import differentiate, is_first_order, needs_grad
from invgraph.numerics.channels import mix


class FactorsKernel(NamedTuple):
    """``y = P L (U + diag(d)) x`` at every position, with d the exponentials of log scales, times fixed signs.

    Attributes:
        formula: The same, in operations that autograd differentiates to any order.
        order: The rows of the product of the factors that make the matrix.
        signs: The signs of d.
    """

    formula: Callable[[Tensor, Tensor, Tensor], Tensor]
    order: Tensor
    signs: Tensor

    def run(self, x: Tensor, factors: Tensor, log_scale: Tensor) -> Tensor:
        """Return y; one matrix holds L below its diagonal and U above it."""
        if needs_grad(x, factors, log_scale):
            return _Factors.apply(self, x, factors, log_scale)  # type: ignore[no-untyped-call, no-any-return]
        return mix(x, self.matrix(*self.triangles(factors, log_scale)))

    def inverse(self, factors: Tensor, log_scale: Tensor) -> Tensor:
        """Return the inverse of the matrix; not recorded by autograd."""
        lower, upper = self.triangles(factors, log_scale)
        eye = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        half = torch.linalg.solve_triangular(lower, eye, upper=False, unitriangular=True)
        solved: Tensor = torch.linalg.solve_triangular(upper, half, upper=True)
        return solved.index_select(1, self.order)

    def triangles(self, factors: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return L and ``U + diag(d)``."""
        lower, upper = factors.tril(-1), factors.triu()
        lower.diagonal().fill_(1)
        torch.mul(log_scale.exp(), self.signs, out=upper.diagonal())
        return lower, upper

    def matrix(self, lower: Tensor, upper: Tensor) -> Tensor:
        """Return the matrix."""
        return (lower @ upper).index_select(0, self.order)


class Remembered(NamedTuple):
    """A matrix, and the values that it was computed from; a change in place is seen by comparing them."""

    made_of: tuple[Tensor, ...]
    value: Tensor

    @classmethod
    def of(cls, value: Tensor, *made_of: Tensor) -> Self:
        return cls(tuple([tensor.detach().clone() for tensor in made_of]), value)

    def is_of(self, *made_of: Tensor) -> bool:
        """True if the matrix would be computed from equal values."""
        pairs = zip(self.made_of, made_of, strict=True)
        return all(
            a.dtype == b.dtype and a.device == b.device and a.shape == b.shape and torch.equal(a, b) for a, b in pairs
        )


class _Factors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: FactorsKernel, x: Tensor, factors: Tensor, log_scale: Tensor) -> Tensor:
        lower, upper = kernel.triangles(factors, log_scale)
        matrix = kernel.matrix(lower, upper)
        ctx.kernel = kernel
        ctx.save_for_backward(x, factors, log_scale, lower, upper, matrix)
        return mix(x, matrix)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kernel: FactorsKernel = ctx.kernel
        x, factors, log_scale, lower, upper, matrix = ctx.saved_tensors
        if not is_first_order(grad):
            formula = kernel.formula
            return None, *differentiate(lambda *values: (formula(*values),), (x, factors, log_scale), (grad,))
        rows = grad.t() @ x if x.ndim == 2 else torch.bmm(grad.flatten(2), x.flatten(2).mT).sum(0)
        product_grad = torch.empty_like(rows).index_copy_(0, kernel.order, rows)
        upper_grad = lower.t() @ product_grad
        factors_grad = (product_grad @ upper.t()).tril_(-1).add_(upper_grad.triu(1))
        return None, mix(grad, matrix.t()), factors_grad, upper_grad.diagonal() * upper.diagonal()
