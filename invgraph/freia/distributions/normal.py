"""FrEIA's name of the standard normal distribution."""

from __future__ import annotations

import torch
from torch.distributions import Independent, Normal

__all__ = ["StandardNormalDistribution"]


class StandardNormalDistribution(Independent[Normal]):
    """The standard normal distribution of tensors.

    Arguments:
        event_shape: Shape of a sample.
        device: Device of the samples.
        dtype: Dtype of the samples. Default: torch's.

    Example:
        >>> import invgraph.freia as FrEIA
        >>> FrEIA.distributions.StandardNormalDistribution(2).sample((3,)).shape
        torch.Size([3, 2])
    """

    def __init__(
        self, *event_shape: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> None:
        mean = torch.zeros(event_shape, device=device, dtype=dtype)
        super().__init__(Normal(mean, torch.ones_like(mean)), len(event_shape))
