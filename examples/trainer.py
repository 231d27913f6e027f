"""A training loop in plain torch: any model, one process or several, stopped and resumed bit for bit.

Whatever is random in a step (its rows, its noise) is drawn from a seed made of the run's seed, the step and the
process, so that a run needs no generator's state to go on where it stopped.

    torchrun --nproc-per-node 4 examples/mnist_cinn.py     # the same loop in four processes
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from progress import Progress, Stop
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import invgraph as ig

Later = Callable[[], tuple[Tensor, ...]]
"""Gives a batch that others are at work on."""

Draw = Callable[[Tensor], tuple[Tensor, ...] | Later]
"""From the numbers of some rows of the data to a batch: tensors for the loss, with what noise they need.

Where it returns a function that gives the batch later, the next step's batch is begun before this step trains."""

Loss = Callable[..., Tensor]
"""``loss(model, *batch)``, a number to be minimised. The model may be wrapped: call it, don't look inside."""


RECORD = 50
"""Steps between two records of the history, at most."""

SAVE_SECONDS = 120
"""Seconds between two writings of the checkpoint, at most one step more."""


class DivergedError(RuntimeError):
    """The loss or the weights are no longer finite."""


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Arguments:
        steps: how many.
        batch: rows of a step, over all processes.
        rate: the highest learning rate of AdamW.
        warmup: steps in which the rate rises from 0.
        schedule: after that, ``"cosine"``: down to 0; ``"drops"``: divided by ten after each third of the steps.
        beta2: of AdamW, how slowly its mean of squared gradients moves.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        average: how slowly the averaged weights, which are the result, move; 0: no averaging.
        autocast: run in bfloat16 what torch thinks safe.
    """

    steps: int
    batch: int
    rate: float = 1e-3
    warmup: int = 0
    schedule: Literal["cosine", "drops"] = "cosine"
    beta2: float = 0.999
    weight_decay: float = 0.0
    clip: float = 10.0
    average: float = 0.0
    autocast: bool = False

    def rate_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        if self.schedule == "drops":
            return self.rate * 0.1 ** int(3 * done)
        return self.rate * 0.5 * (1 + math.cos(math.pi * done))


@dataclass
class History:
    """What happened: a record every few steps."""

    step: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    seconds: float = 0.0
    reached: int = 0
    finished: bool = False


@dataclass(frozen=True)
class Place:
    """Where a process works: its device, its number, and how many there are."""

    device: torch.device
    rank: int = 0
    world: int = 1


@contextmanager
def place(device: str | None = None) -> Iterator[Place]:
    """The place of this process, in the group of processes if ``torchrun`` started it.

    Arguments:
        device: such as ``"cpu"`` or ``"cuda"``; None: a GPU where there is one.
    """
    kind = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if "WORLD_SIZE" not in os.environ:
        yield Place(kind)
        return
    if kind.type == "cuda":
        kind = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(kind)
    distributed.init_process_group("nccl" if kind.type == "cuda" else "gloo")
    try:
        yield Place(kind, distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


@contextmanager
def together(where: Place, checkpoint: Path) -> Iterator[None]:
    """When another process of the group is lost, this one says from which file the run goes on, and ends."""
    try:
        yield
    except DivergedError:
        raise
    except RuntimeError as error:
        if where.world == 1:
            raise
        cause = str(error).strip().split("\n")[0]
        print(f"\nprocess {where.rank} of {where.world} can't go on: {cause}\n{_rescued(checkpoint)}",
              file=sys.stderr, flush=True)  # fmt: skip
        # Told at once: torchrun soon ends this process too.
        if isinstance(error, distributed.DistError) or "gloo" in str(error) or "peer" in str(error):
            raise SystemExit(1) from error
        raise


def _rescued(checkpoint: Path) -> str:
    if not checkpoint.exists():
        return "nothing was saved yet"
    age = time.time() - checkpoint.stat().st_mtime
    return f"{checkpoint} holds the run as of {age:.0f} s ago: the same command with --resume goes on from it"


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
    """Train the model in place; the checkpoint holds its (averaged) weights and what it takes to go on.

    Arguments:
        model: already on its device.
        loss: see :data:`Loss`.
        draw: see :data:`Draw`; random numbers come from torch's global generator.
        rows: how many the data have.
        recipe: how to train.
        where: this process's place.
        checkpoint: the file, written every two minutes, at the end, and when Ctrl-C or SIGTERM stops the run; with
            several processes, any of which may be lost, also before the first step.
        seed: of everything random.
        resume: go on from the checkpoint.
        until: stop after this step as Ctrl-C would.
        metadata: what a reader of the checkpoint should know.
        stop: notes Ctrl-C also before and after this call; None: this call's own.

    Returns:
        What happened; ``finished`` is False if the run was stopped before its last step.

    Raises:
        ValueError: the recipe doesn't fit the data, or is not the one that the checkpoint was made with.
        DivergedError: the loss or the weights are no longer finite; the checkpoint keeps what it held.
    """
    check_batch(recipe, rows, where)
    run = _Run(model, recipe, seed, where, checkpoint, metadata or {})
    if resume:
        run.restore()
    wrapped = DistributedDataParallel(model) if where.world > 1 else model
    last = recipe.steps if until is None else min(until, recipe.steps)
    progress = Progress(run.step, recipe.steps, recipe.batch, quiet=where.rank > 0)
    batches = _Batches(draw, _Order(rows, recipe.batch, seed), seed, where, last)
    model.train()
    with together(where, checkpoint), Stop(where.device) if stop is None else nullcontext(stop) as stop:
        if where.world > 1 and not resume:
            run.save()
        progress.tell("training; Ctrl-C saves and stops")
        while run.step < last and not stop.asked():
            batch = tuple(tensor.to(where.device, non_blocking=True) for tensor in batches.of_step(run.step))
            run.update(wrapped, loss, batch, progress)
        run.save()
        if where.world > 1:
            distributed.barrier()  # whoever reads the checkpoint after this finds this run's, whole
    run.take_averages()
    progress.close()
    model.eval()
    return run.history


def check_batch(recipe: Recipe, rows: int, where: Place) -> None:
    """Raises ValueError where a batch has more rows than the data, or fewer than there are processes."""
    if not where.world <= recipe.batch <= rows:
        raise ValueError(f"a batch of {recipe.batch} does not fit {rows} rows and {where.world} processes")


class _Order:
    """Which rows a step takes: a new random order in each epoch, whole batches only."""

    def __init__(self, rows: int, batch: int, seed: int) -> None:
        self.rows, self.batch, self.seed = rows, batch, seed
        self._epoch, self._order = -1, torch.empty(0)

    def of_step(self, step: int) -> Tensor:
        epoch, place_in_epoch = divmod(step, self.rows // self.batch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(_mixed(self.seed, epoch, -1))
            self._epoch, self._order = epoch, torch.randperm(self.rows, generator=generator)
        return self._order[place_in_epoch * self.batch :][: self.batch]


class _Batches:
    """The batch of each step; where it is given later, that of the next step is begun first."""

    def __init__(self, draw: Draw, order: _Order, seed: int, where: Place, last: int) -> None:
        self.draw, self.order, self.seed, self.where, self.last = draw, order, seed, where, last
        self._begun: dict[int, tuple[tuple[Tensor, ...] | Later, Tensor]] = {}

    def of_step(self, step: int) -> tuple[Tensor, ...]:
        drawn, state = self._begun.pop(step) if step in self._begun else self._begin(step)
        if isinstance(drawn, tuple):
            return drawn
        if step + 1 < self.last:
            self._begun[step + 1] = self._begin(step + 1)
        self._seed(step)
        torch.set_rng_state(state)  # as if nothing had been drawn since
        return drawn()

    def _begin(self, step: int) -> tuple[tuple[Tensor, ...] | Later, Tensor]:
        chosen = self.order.of_step(step)[self.where.rank :: self.where.world]
        self._seed(step)
        return self.draw(chosen), torch.get_rng_state()

    def _seed(self, step: int) -> None:
        torch.manual_seed(_mixed(self.seed, step, self.where.rank))


def _mixed(*numbers: int) -> int:
    """A seed of its own for every tuple of numbers, the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=6).digest(), "big")


class _Run:
    """The state of a run: what a checkpoint holds, and how a step changes it."""

    def __init__(
        self, model: nn.Module, recipe: Recipe, seed: int, where: Place, path: Path, metadata: dict[str, Any]
    ) -> None:
        self.model, self.recipe, self.seed, self.where = model, recipe, seed, where
        self.path, self.metadata = path, metadata
        self.step, self.history = 0, History()
        self.weights: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.averages = [weight.detach().clone() for weight in self.weights] if recipe.average else []
        self.optimizer = torch.optim.AdamW(
            self.weights, recipe.rate, (0.9, recipe.beta2), weight_decay=recipe.weight_decay, fused=True
        )
        self.every = max(1, min(RECORD, recipe.steps // 20))
        self._losses: list[Tensor] = []
        self._began = self._saved = time.monotonic()

    def update(self, model: nn.Module, loss: Loss, batch: tuple[Tensor, ...], progress: Progress) -> None:
        """One step."""
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
            # The average looks back over at most a share of the steps so far: its start soon counts for nothing.
            share = max(1 - self.recipe.average, 10 / (10 + self.step))
            torch._foreach_lerp_(self.averages, [weight.detach() for weight in self.weights], share)
        self._losses.append(value.detach())
        if self.step % self.every == 0 or self.step == self.recipe.steps:
            self._record(rate, progress)
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

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
        progress.show(self.step, loss, rate)

    def _diverged(self, what: str) -> DivergedError:
        kept = f"{self.path} holds an earlier state" if self.path.exists() else "nothing was saved yet"
        return DivergedError(f"{what} before step {self.step}: lower the rate or the clamp; {kept}")

    def save(self) -> None:
        """Write the checkpoint (one process does): the weights to use, and what it takes to go on.

        Raises:
            DivergedError: weights are no longer finite; the file keeps what it held.
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
        """Put the averaged weights into the model: they are the result."""
        if self.averages:
            self._set_weights(self.averages)

    def restore(self) -> None:
        """Go on from the checkpoint."""
        state = resumable(self.path, self.recipe, self.seed, self.model)
        if self.averages:
            torch._foreach_copy_(self.averages, [weight.detach() for weight in self.weights])
            self._set_weights([weight.to(self.where.device) for weight in state["weights"]])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.history = state["step"], History(**state["history"])
        self._losses = [value.to(self.where.device) for value in state["losses"]]

    @torch.no_grad()
    def _set_weights(self, values: list[Tensor]) -> None:
        torch._foreach_copy_(self.weights, values)


def resumable(path: Path, recipe: Recipe, seed: int, model: nn.Module | None = None) -> dict[str, Any]:
    """What a checkpoint holds to go on from.

    Arguments:
        path: the checkpoint.
        recipe: how the run is to go on.
        seed: the same.
        model: gets the checkpoint's weights.

    Raises:
        ValueError: it holds nothing to go on from, or was trained with another recipe or seed.
    """
    state = ig.load(path, model).training
    if state is None:
        raise ValueError(f"{path} holds no training state: it can be used, but not resumed")
    changed = [f"{name} {state['recipe'].get(name)} -> {value}" for name, value in asdict(recipe).items()
               if state["recipe"].get(name) != value]  # fmt: skip
    changed += [f"seed {state['seed']} -> {seed}"] if state["seed"] != seed else []
    if changed:
        raise ValueError(f"{path} was trained otherwise ({', '.join(changed)}): resume with the same settings")
    return dict(state)
