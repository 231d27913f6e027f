"""Every test starts from the same random state and computes on one thread."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Data and first weights that a test draws from the global generators are the same in every run."""
    torch.default_generator.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
