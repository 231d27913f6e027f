"""A flow in the form that ``lampe`` expects: a module that makes a distribution from an observation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from invgraph.distributions.flow_distribution import FlowDistribution
from invgraph.errors import ArgumentError
from invgraph.flow import Flow
from invgraph.recipes.splines import spline_flow


class LampeFlow(nn.Module):
    """A flow that is called with conditions and returns a distribution, as zuko's flows do.

    ``lampe.inference.NPE`` and its losses take any such module. With a flow of your own, write
    ``NPE(theta_dim, x_dim, build=lambda *sizes: LampeFlow(flow))``.

    Arguments:
        flow: A flow with one input and one condition.

    Raises:
        ArgumentError: If ``flow`` is not a flow.

    Example:
        >>> import torch, invgraph as ig
        >>> flow = ig.sbi.LampeFlow(ig.recipes.spline_flow(features=2, context=3, blocks=1, hidden=8))
        >>> flow(torch.zeros(5, 3)).sample((7,)).shape
        torch.Size([7, 5, 2])
    """

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        if not isinstance(flow, Flow):
            raise ArgumentError("LampeFlow", type(flow).__name__, "expected a Flow: write Flow(graph)")
        self.flow = flow

    def forward(self, x: Tensor) -> FlowDistribution:
        """Return the distribution under conditions ``batch_shape + shape``."""
        return self.flow.given(x)


def lampe_flow(features: int, context: int, **options: Any) -> LampeFlow:
    """Return a neural spline flow for ``lampe.inference.NPE(theta_dim, x_dim, build=lampe_flow, ...)``.

    Arguments:
        features: Number of parameters.
        context: Number of values of an observation.
        options: Other arguments of :func:`invgraph.recipes.spline_flow`, such as ``data`` and ``conditions`` to
            standardize by, or ``summary``.

    Example:
        >>> import torch, invgraph as ig
        >>> ig.sbi.lampe_flow(2, 3, blocks=1, hidden=8)(torch.zeros(3)).event_shape
        torch.Size([2])
    """
    return LampeFlow(spline_flow(features, context, **options))
