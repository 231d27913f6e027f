"""Distributions of what a network makes of another distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution

from invgraph.errors import ShapeError
from invgraph.freia.modules.inverse import Inverse
from invgraph.freia.utils import force_to, output_dims_compatible

__all__ = ["PullBackDistribution", "PushForwardDistribution"]


class _ValueShapeError(ShapeError, RuntimeError):
    """Values of another shape, which raise a RuntimeError in FrEIA."""


class PushForwardDistribution(Distribution):
    """Distribution of ``transform(u)`` for ``u`` from the base distribution.

    Arguments:
        base_distribution: Distribution of the transform's input.
        transform: Layer or network of one input and one output.

    Example:
        >>> import torch, invgraph.freia as FrEIA
        >>> inn = FrEIA.framework.SequenceINN(2)
        >>> inn.append(FrEIA.modules.PermuteRandom, seed=0)
        >>> normal = FrEIA.distributions.StandardNormalDistribution(2)
        >>> FrEIA.distributions.PushForwardDistribution(normal, inn).log_prob(torch.zeros(1, 2))
        tensor([-1.8379])
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self, base_distribution: Distribution, transform: Any) -> None:
        shapes = list(output_dims_compatible(transform))
        if len(shapes) != 1 or len(transform.dims_in) != 1:
            given = f"a transform of {len(transform.dims_in)} inputs and {len(shapes)} outputs"
            raise ShapeError(type(self).__name__, given, "a distribution needs a transform of one input and one output")
        super().__init__(torch.Size(), torch.Size(shapes[0]), validate_args=False)
        self.base_distribution = base_distribution
        self.transform = transform

    def sample(self, sample_shape: Any = (), conditions: Sequence[Tensor] | None = None) -> Tensor:
        """Return samples without gradients.

        Arguments:
            sample_shape: Number of samples, as a shape.
            conditions: The transform's conditions, each with one row per sample, or one row for all.
        """
        with torch.no_grad():
            return self._push(self.base_distribution.sample(torch.Size(sample_shape)), conditions)

    def rsample(self, sample_shape: Any = (), conditions: Sequence[Tensor] | None = None) -> Tensor:
        """Return samples through which gradients reach the transform, and the base where it can be reparametrized."""
        base = self.base_distribution
        draw = base.rsample if base.has_rsample else base.sample
        return self._push(draw(torch.Size(sample_shape)), conditions)

    def log_prob(self, value: Tensor, conditions: Sequence[Tensor] | None = None) -> Tensor:
        """Return the log-density of values in nats.

        Arguments:
            value: Values, of shape ``(..., *event_shape)``.
            conditions: The transform's conditions, each with one row per value, or one row for all.

        Raises:
            ShapeError: If the values have another shape.
        """
        event = tuple(self.event_shape)
        if tuple(value.shape[value.ndim - len(event) :]) != event:
            expected = f"the last axes must be {event}"
            raise _ValueShapeError(type(self).__name__, f"values of shape {tuple(value.shape)}", expected)
        batch = value.shape[: value.ndim - len(event)]
        latent, log_det = self._run(value.reshape(-1, *event), conditions, rev=True)
        density: Tensor = self.base_distribution.log_prob(latent)
        return (density + log_det).reshape(batch)

    def force_to(self, *args: Any, **kwargs: Any) -> None:
        """Move both the base distribution and the transform, with the arguments of ``Tensor.to``."""
        force_to(self.base_distribution, *args, **kwargs)
        self.transform.to(*args, **kwargs)

    def _push(self, samples: Tensor, conditions: Sequence[Tensor] | None) -> Tensor:
        """Transform samples of any number of leading axes."""
        shape: tuple[int, ...] = tuple(self.transform.dims_in[0])
        batch = samples.shape[: samples.ndim - len(shape)]
        pushed, _ = self._run(samples.reshape(-1, *shape), conditions, rev=False)
        return pushed.reshape(*batch, *pushed.shape[1:])

    def _run(self, values: Tensor, conditions: Sequence[Tensor] | None, *, rev: bool) -> tuple[Tensor, Tensor]:
        given = {} if conditions is None else {"c": [_rows(c, len(values)) for c in _listed(conditions)]}
        # Networks take and return a tensor, unless told otherwise; layers take and return tuples.
        outputs, log_det = self.transform((values,), rev=rev, **given)
        log_det = log_det if isinstance(log_det, Tensor) else values.new_tensor(float(log_det))
        return outputs if isinstance(outputs, Tensor) else outputs[0], log_det


class PullBackDistribution(PushForwardDistribution):
    """Distribution of the ``x`` for which ``transform(x)`` has the base distribution: a normalizing flow.

    Arguments:
        base_distribution: Distribution of the transform's output.
        transform: Layer or network of one input and one output.
    """

    def __init__(self, base_distribution: Distribution, transform: Any) -> None:
        super().__init__(base_distribution, Inverse(transform))


def _listed(conditions: Any) -> list[Any]:
    return [conditions] if isinstance(conditions, Tensor) else list(conditions)


def _rows(condition: Any, count: int) -> Any:
    """Return a condition with one row per value."""
    if isinstance(condition, Tensor) and condition.ndim and len(condition) == 1 and count != 1:
        return condition.expand(count, *condition.shape[1:])
    if isinstance(condition, Tensor) and condition.ndim and len(condition) != count:
        given = f"a condition of {len(condition)} rows for {count} values"
        raise ShapeError("conditions", given, "pass one row per value, or one row for all")
    return condition
