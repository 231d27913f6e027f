"""A flow as the density estimator of the package ``sbi``. The only file that imports it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from invgraph.errors import ArgumentError, DependencyError, GraphError
from invgraph.flow import Flow
from invgraph.recipes.splines import spline_flow

try:
    from sbi.neural_nets.estimators import ConditionalDensityEstimator
except ModuleNotFoundError as _error:
    raise DependencyError("invgraph.sbi", "no package sbi", "pip install sbi") from _error


class SbiEstimator(ConditionalDensityEstimator):
    """A flow as a ``ConditionalDensityEstimator`` of sbi.

    sbi trains it, and its posteriors sample from it and evaluate it. Under a single observation, whatever depends on
    the observation alone, such as a summary network, is computed once for all samples.

    Arguments:
        flow: A flow with one input and one condition.

    Raises:
        ArgumentError: If ``flow`` is not a flow.
        GraphError: If it has several inputs or conditions, or no condition.
    """

    def __init__(self, flow: Flow) -> None:
        if not isinstance(flow, Flow):
            raise ArgumentError("SbiEstimator", type(flow).__name__, "expected a Flow: write Flow(graph)")
        sides = flow.graph.in_shapes, flow.graph.cond_shapes
        if [len(side) for side in sides] != [1, 1]:
            given = f"a flow with {len(sides[0])} inputs and {len(sides[1])} conditions"
            raise GraphError("SbiEstimator", given, "sbi needs a flow with one input and one condition")
        super().__init__(flow, torch.Size(sides[0][0]), torch.Size(sides[1][0]))

    def log_prob(self, input: Tensor, condition: Tensor, **kwargs: Any) -> Tensor:
        """Return log-densities ``(samples, batch)`` of inputs ``(samples, batch, ...)`` or ``(batch, ...)``."""
        self._check_input_shape(input)
        self._check_condition_shape(condition)
        if input.ndim <= len(self.input_shape) + 1:
            input = input.unsqueeze(0)
        if condition.shape[: condition.ndim - len(self.condition_shape)].numel() == 1:
            condition = condition.reshape(self.condition_shape)  # one observation serves all rows
        log_prob: Tensor = self.net.given(condition).log_prob(input)
        return log_prob

    def loss(self, input: Tensor, condition: Tensor, **kwargs: Any) -> Tensor:
        """Return the negative log-density of each row, shape ``(batch,)``."""
        return -self.log_prob(input.unsqueeze(0), condition)[0]

    def sample(self, sample_shape: torch.Size, condition: Tensor, **kwargs: Any) -> Tensor:
        """Return samples ``(*sample_shape, batch, ...)``."""
        self._check_condition_shape(condition)
        samples: Tensor = self.net.given(condition).sample(sample_shape)
        return samples

    def sample_and_log_prob(self, sample_shape: torch.Size, condition: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Return samples and their log-densities from one run of the flow."""
        self._check_condition_shape(condition)
        samples, log_prob = self.net.given(condition).sample_and_log_prob(sample_shape)
        return samples, log_prob


@dataclass(frozen=True)
class _Builder:
    """Function of parameters and simulations that sbi calls with its first batch; it can be pickled.

    Attributes:
        flow: Function that builds the flow.
        options: Other arguments of it.
        of_parameters: True for a density of the parameters, False for one of the simulations.
    """

    flow: Callable[..., Flow]
    options: Mapping[str, Any]
    of_parameters: bool

    def __call__(self, theta: Tensor, x: Tensor) -> SbiEstimator:
        data, conditions = (theta, x) if self.of_parameters else (x, theta)
        if data.ndim != 2:
            given = f"{'parameters' if self.of_parameters else 'simulations'} of shape {tuple(data.shape)}"
            raise GraphError("invgraph.sbi", given, "the flow models vectors: expected (N, D)")
        shape = tuple(conditions.shape[1:])
        context = shape[0] if len(shape) == 1 else shape
        options = deepcopy(dict(self.options))  # each estimator trains a summary network of its own
        return SbiEstimator(self.flow(data.shape[1], context, data=data, conditions=conditions, **options))


def posterior(flow: Callable[..., Flow] = spline_flow, **options: Any) -> _Builder:
    """Return the builder of a neural posterior, for ``NPE(prior, density_estimator=posterior(...))`` of sbi.

    Arguments:
        flow: Function ``flow(features, context, data=..., conditions=..., **options)`` that returns a flow for vectors
            of ``features`` parameters, standardized by training data. ``context`` is the number of values of an
            observation, or its shape if it is not a vector. Default: :func:`invgraph.recipes.spline_flow`.
        options: Other arguments of this function, such as ``summary`` or ``hidden``. Each estimator gets a copy of
            them, so that two never train the same summary network: the trained one is that of the estimator.

    Raises:
        ArgumentError: If ``flow`` is not a function, or does not take these arguments.

    Example:
        >>> import torch, invgraph as ig
        >>> build = ig.sbi.posterior(blocks=1, hidden=8)
        >>> build(torch.randn(50, 2), torch.randn(50, 3)).sample((7,), torch.zeros(1, 3)).shape
        torch.Size([7, 1, 2])
    """
    return _builder("invgraph.sbi.posterior", flow, options, of_parameters=True)


def likelihood(flow: Callable[..., Flow] = spline_flow, **options: Any) -> _Builder:
    """Return the builder of a neural likelihood, for ``NLE(prior, density_estimator=likelihood(...))`` of sbi.

    Arguments:
        flow: Function ``flow(features, context, data=..., conditions=..., **options)`` as for :func:`posterior`; here
            the simulations are its data, and the parameters its conditions.
        options: Other arguments of this function, of which each estimator gets a copy.

    Raises:
        ArgumentError: If ``flow`` is not a function, or does not take these arguments.

    Example:
        >>> import torch, invgraph as ig
        >>> build = ig.sbi.likelihood(blocks=1, hidden=8)
        >>> build(torch.randn(50, 2), torch.randn(50, 3)).input_shape
        torch.Size([3])
    """
    return _builder("invgraph.sbi.likelihood", flow, options, of_parameters=False)


def _builder(where: str, flow: Callable[..., Flow], options: Mapping[str, Any], *, of_parameters: bool) -> _Builder:
    """Return a builder; refuse options that the function does not take now, not only when sbi trains."""
    if not callable(flow):
        raise ArgumentError(where, f"flow: {type(flow).__name__}", "expected a function that returns a Flow")
    try:
        signature = inspect.signature(flow)
    except ValueError:  # a function written in C may have none
        return _Builder(flow, options, of_parameters)
    try:
        signature.bind(1, 1, data=None, conditions=None, **options)
    except TypeError as error:
        names = [name for name in signature.parameters if name not in ("features", "context", "data", "conditions")]
        given = f"{getattr(flow, '__name__', type(flow).__name__)}(features, context, data=..., conditions=..., "
        given += f"{', '.join(f'{name}=...' for name in options)}): {error}"
        raise ArgumentError(where, given, f"options are {', '.join(names)}") from error
    return _Builder(flow, options, of_parameters)
