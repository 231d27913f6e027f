"""Batch of each step, drawn from a seed of its own, so that a run can be resumed at any step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from process_group import Place
from torch import Tensor

Later = Callable[[], tuple[Tensor, ...]]
"""Returns the batch once the background workers have finished it."""

Draw = Callable[[Tensor], tuple[Tensor, ...] | Later]
"""Maps indices of rows of the data to a batch: tensors for the loss, with any noise added.

If it returns a function instead, that function returns the batch later, and the batch of the next step is started
before this step trains."""


class Order:
    """Rows of each step: a new random order in each epoch, full batches only."""

    def __init__(self, rows: int, batch: int, seed: int) -> None:
        self.rows, self.batch, self.seed = rows, batch, seed
        self._epoch, self._order = -1, torch.empty(0)

    def of_step(self, step: int) -> Tensor:
        epoch, place_in_epoch = divmod(step, self.rows // self.batch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(mix_seed(self.seed, epoch, -1))
            self._epoch, self._order = epoch, torch.randperm(self.rows, generator=generator)
        return self._order[place_in_epoch * self.batch :][: self.batch]


class Batches:
    """Batch of each step; if batches are returned later, that of the next step is started first."""

    def __init__(self, draw: Draw, order: Order, seed: int, where: Place, last: int) -> None:
        self.draw, self.order, self.seed, self.where, self.last = draw, order, seed, where, last
        self._begun: dict[int, tuple[tuple[Tensor, ...] | Later, Tensor]] = {}

    def of_step(self, step: int) -> tuple[Tensor, ...]:
        drawn, state = self._begun.pop(step) if step in self._begun else self._begin(step)
        if isinstance(drawn, tuple):
            return drawn
        if step + 1 < self.last:
            self._begun[step + 1] = self._begin(step + 1)
        self._seed(step)
        torch.set_rng_state(state)  # that after drawing this batch
        return drawn()

    def _begin(self, step: int) -> tuple[tuple[Tensor, ...] | Later, Tensor]:
        chosen = self.order.of_step(step)[self.where.rank :: self.where.world]
        self._seed(step)
        return self.draw(chosen), torch.get_rng_state()

    def _seed(self, step: int) -> None:
        torch.manual_seed(mix_seed(self.seed, step, self.where.rank))


def mix_seed(*numbers: int) -> int:
    """Return a different seed for each tuple of numbers, the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=6).digest(), "big")
