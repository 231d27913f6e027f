"""Training loop in plain torch: for any model, in one or several processes, with bit-for-bit resumption.

All randomness of a step (rows, noise) is drawn from a seed derived from the seed of the run, the step and the process
(``batches.py``), so that resuming needs no generator state. On the CPU, the first steps are timed to find the fastest
number of threads, which a resumed run keeps, because another number adds up in another order.

    torchrun --nproc-per-node 4 examples/mnist_cinn.py     # the same loop in four processes
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from batches import Batches, Draw, Order
from process_group import DivergedError, Place, together
from progress import Progress, Stop
from recipe import Recipe
from resumption import resumable
from threads import Threads
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import invgraph as ig

Loss = Callable[..., Tensor]
"""``loss(model, *batch)``, a scalar to be minimized. The model may be wrapped by DDP: only call it."""


RECORD = 50
"""Maximum number of steps between two records of the history."""

ANNOUNCEMENT = "training; Ctrl-C saves and stops"

SAVE_SECONDS = 120
"""Seconds between two checkpoints, rounded up to a whole step."""


@dataclass
class History:
    """History of a run, with a record every few steps; ``clock`` has the seconds of training until each."""

    step: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    clock: list[float] = field(default_factory=list)
    seconds: float = 0.0
    reached: int = 0
    finished: bool = False


def train(
    model: nn.Module,
    loss: Loss,
    draw: Draw,
    rows: int,
    recipe: Recipe,
    *,
    where: Place,
    checkpoint: Path,
    seed: int = 0,
    resume: bool = False,
    until: int | None = None,
    metadata: dict[str, Any] | None = None,
    stop: Stop | None = None,
) -> History:
    """Train a model in place; the checkpoint holds its (averaged) weights and the state from which to resume.

    Arguments:
        model: Model, already on its device.
        loss: Loss function; see :data:`Loss`.
        draw: Function that draws a batch, with the global generator of torch; see :data:`batches.Draw`.
        rows: Number of rows of the data.
        recipe: Hyperparameters.
        where: Device and rank of this process.
        checkpoint: Path of the checkpoint, written every two minutes, at the end, and when Ctrl-C or SIGTERM stops the
            run; with several processes also before the first step, because any of them may be lost.
        seed: Seed of all random numbers. Default: 0.
        resume: If True, resume from the checkpoint. Default: False.
        until: Step after which to stop, as Ctrl-C would. Default: the last one.
        metadata: Metadata of the checkpoint. Default: none.
        stop: Handler of Ctrl-C that is active before and after this call as well. Default: a new one.

    Returns:
        History of the run; ``finished`` is False if it was stopped before its last step.

    Raises:
        ValueError: If the recipe does not fit the data, or differs from that of the checkpoint.
        DivergedError: If the loss or the weights are no longer finite; the checkpoint is unchanged.
    """
    check_batch(recipe, rows, where)
    run = _Run(model, recipe, seed, where, checkpoint, metadata or {})
    if resume:
        run.restore()
    wrapped = DistributedDataParallel(model) if where.world > 1 else model
    last = recipe.steps if until is None else min(until, recipe.steps)
    progress = Progress(run.step, recipe.steps, recipe.batch, quiet=where.rank > 0)
    batches = Batches(draw, Order(rows, recipe.batch, seed), seed, where, last)
    threads = Threads(where.threads, progress.write, chosen=run.threads)
    model.train()
    announced = stop is None  # otherwise this is one of several calls, and the caller announced the first
    # In this order: torchrun sends SIGTERM when a process is lost, which must not cut off the words about it.
    with Stop(where.device) if stop is None else nullcontext(stop) as stop, together(where, checkpoint):
        if where.world > 1 and not resume:
            run.save()
        if announced:
            progress.write(ANNOUNCEMENT)
        while run.step < last and not stop.asked():
            batch = tuple(tensor.to(where.device, non_blocking=True) for tensor in batches.of_step(run.step))
            with threads.step():
                run.update(wrapped, loss, batch, progress)
            run.threads = threads.chosen
            run.save_if_due()
        run.save()
        if where.world > 1:
            distributed.barrier()  # from here on, the checkpoint of this run is complete
    run.take_averages()
    progress.close()
    model.eval()
    return run.history


def check_batch(recipe: Recipe, rows: int, where: Place) -> None:
    """Raise ValueError if the batch size exceeds the rows of the data, or is below the number of processes."""
    if not where.world <= recipe.batch <= rows:
        raise ValueError(f"a batch of {recipe.batch} does not fit {rows} rows and {where.world} processes")


class _Run:
    """State of a run, its update in a step, and its checkpoint."""

    def __init__(
        self, model: nn.Module, recipe: Recipe, seed: int, where: Place, path: Path, metadata: dict[str, Any]
    ) -> None:
        self.model, self.recipe, self.seed, self.where = model, recipe, seed, where
        self.path, self.metadata = path, metadata
        self.step, self.history, self.threads = 0, History(), 0
        self.weights: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.averages = [weight.detach().clone() for weight in self.weights] if recipe.average else []
        self.optimizer = torch.optim.AdamW(
            self.weights, recipe.rate, (0.9, recipe.beta2), weight_decay=recipe.weight_decay, fused=True
        )
        self.every = max(1, min(RECORD, recipe.steps // 20))
        self._losses: list[Tensor] = []
        self._began = self._saved = time.monotonic()

    def update(self, model: nn.Module, loss: Loss, batch: tuple[Tensor, ...], progress: Progress) -> None:
        """Take one step."""
        rate = self.recipe.rate_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.where.device.type, torch.bfloat16, enabled=self.recipe.autocast):
            value = loss(model, *batch)
        self.optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(self.weights, self.recipe.clip)
        self.optimizer.step()
        self.step += 1
        if self.averages:
            # A larger weight in early steps, so that the initial weights are soon forgotten.
            weight_of_new = max(1 - self.recipe.average, 10 / (10 + self.step))
            torch._foreach_lerp_(self.averages, [weight.detach() for weight in self.weights], weight_of_new)
        self._losses.append(value.detach())
        if self.step % self.every == 0 or self.step == self.recipe.steps:
            self._record(rate, progress)

    def _record(self, rate: float, progress: Progress) -> None:
        mean = torch.stack(self._losses).mean()
        if self.where.world > 1:
            distributed.all_reduce(mean)
            mean /= self.where.world
        self._losses.clear()
        loss = mean.item()
        if not math.isfinite(loss):
            raise self._diverged(f"the loss became {loss}")
        self.history.step.append(self.step)
        self.history.loss.append(loss)
        self.history.rate.append(rate)
        self.history.clock.append(self.history.seconds + time.monotonic() - self._began)
        progress.show(self.step, loss, rate)

    def _diverged(self, what: str) -> DivergedError:
        kept = f"{self.path} holds an earlier state" if self.path.exists() else "nothing was saved yet"
        return DivergedError(f"{what} before step {self.step}: lower the rate or the clamp; {kept}")

    def save_if_due(self) -> None:
        """Write the checkpoint if the last one is two minutes old."""
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the checkpoint, in one process: the weights to use, and the state from which to resume.

        Raises:
            DivergedError: If weights are no longer finite; the file is unchanged.
        """
        kept = (*self.averages, *self.model.state_dict().values())
        if not all(bool(value.isfinite().all()) for value in kept):
            raise self._diverged("weights became infinite or not a number")
        now = time.monotonic()
        self.history.seconds += now - self._began
        self.history.reached = self.step
        self.history.finished = self.step >= self.recipe.steps
        self._began = self._saved = now
        state: dict[str, Any] = {
            "step": self.step,
            "seed": self.seed,
            "recipe": asdict(self.recipe),
            "history": asdict(self.history),
            "losses": list(self._losses),
            "threads": self.threads,
            "optimizer": self.optimizer.state_dict(),
            "weights": [weight.detach().clone() for weight in self.weights] if self.averages else [],
        }
        raw = state["weights"]
        self.take_averages()
        if self.where.rank == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            ig.save(self.path, self.model, training=state, metadata=self.metadata)
        if raw:
            self._set_weights(raw)

    def take_averages(self) -> None:
        """Copy the averaged weights, which are the result, into the model."""
        if self.averages:
            self._set_weights(self.averages)

    def restore(self) -> None:
        """Restore the state from the checkpoint."""
        state = resumable(self.path, self.recipe, self.seed, self.metadata, self.model)
        if self.averages:
            torch._foreach_copy_(self.averages, [weight.detach() for weight in self.weights])
            self._set_weights([weight.to(self.where.device) for weight in state["weights"]])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.history = state["step"], History(**state["history"])
        self._losses = [value.to(self.where.device) for value in state["losses"]]
        self.threads = state.get("threads", 0)  # missing from files of earlier versions

    @torch.no_grad()
    def _set_weights(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self.weights, values)
