"""Training loop in plain torch: for any model, in one or several processes, with bit-for-bit resumption.

All randomness of a step (rows, noise) is drawn from a seed derived from the seed of the run, the step and the process,
so that resuming needs no generator state. On the CPU, the first steps are timed to find the fastest number of threads,
which a resumed run keeps, because another number adds up in another order.

    torchrun --nproc-per-node 4 examples/mnist_cinn.py     # the same loop in four processes
"""

from __future__ import annotations

import hashlib
import math
import operator
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from progress import Progress, Stop
from threads import Threads, numbers_of_threads
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import invgraph as ig

Later = Callable[[], tuple[Tensor, ...]]
"""Returns the batch once the background workers have finished it."""

Draw = Callable[[Tensor], tuple[Tensor, ...] | Later]
"""Maps indices of rows of the data to a batch: tensors for the loss, with any noise added.

If it returns a function instead, that function returns the batch later, and the batch of the next step is started
before this step trains."""

Loss = Callable[..., Tensor]
"""``loss(model, *batch)``, a scalar to be minimized. The model may be wrapped by DDP: only call it."""


RECORD = 50
"""Maximum number of steps between two records of the history."""

ANNOUNCEMENT = "training; Ctrl-C saves and stops"

SAVE_SECONDS = 120
"""Seconds between two checkpoints, rounded up to a whole step."""


class DivergedError(RuntimeError):
    """The loss or the weights are no longer finite."""


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a training run.

    Arguments:
        steps: Number of steps.
        batch: Batch size, summed over all processes.
        rate: Maximum learning rate of AdamW. Default: 0.001.
        warmup: Number of steps in which the rate rises linearly from 0. Default: 0.
        schedule: Schedule after the warmup: ``"cosine"`` (default) decays to 0, ``"drops"`` divides the rate by ten
            after each third of the steps.
        beta2: Decay rate of the second moment in AdamW. Default: 0.999.
        weight_decay: Weight decay of AdamW. Default: 0.
        clip: Maximum norm of the gradient. Default: 10.
        average: Decay rate of the averaged weights, which are the result; 0 (default) disables averaging.
        autocast: If True, run operations that torch considers safe in bfloat16. Default: False.
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
        """Return the learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        if self.schedule == "drops":
            return self.rate * 0.1 ** int(3 * done)
        return self.rate * 0.5 * (1 + math.cos(math.pi * done))


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


@dataclass(frozen=True)
class Place:
    """Device and rank of a process, the number of processes, and the numbers of threads among which to choose."""

    device: torch.device
    rank: int = 0
    world: int = 1
    threads: tuple[int, ...] = ()


def _device(name: str) -> torch.device:
    """Return a device, on which something was allocated to see whether it is there.

    Raises:
        ValueError: If it is not.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device if "WORLD_SIZE" not in os.environ else "cpu")
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--device {name}: {reason}\nchoose cpu, or cuda for a GPU that torch.cuda finds") from error
    return device


@contextmanager
def place(device: str | None = None, threads: int = 0) -> Iterator[Place]:
    """Set up this process, within a process group if it was started by ``torchrun``.

    Arguments:
        device: Device such as ``"cpu"`` or ``"cuda"``. Default: a GPU if there is one.
        threads: Number of threads of torch. With 0 (default), :func:`train` chooses the fastest up to the number that
            torch would take; with a GPU or several processes it stays as it is.

    Raises:
        ValueError: If there is no such device.
    """
    kind = _device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if threads:
        torch.set_num_threads(threads)
    if "WORLD_SIZE" not in os.environ:
        choose = kind.type == "cpu" and not threads
        yield Place(kind, threads=numbers_of_threads(torch.get_num_threads()) if choose else ())
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
    """Exit if another process of the group is lost, and print the checkpoint from which to resume."""
    try:
        yield
    except DivergedError:
        raise
    except RuntimeError as error:
        if where.world == 1:
            raise
        cause = str(error).strip().split("\n")[0]
        print(f"\nprocess {where.rank} of {where.world} can't continue: {cause}\n{_rescued(checkpoint)}",
              file=sys.stderr, flush=True)  # fmt: skip
        # Exit immediately: torchrun is about to kill this process as well.
        if isinstance(error, distributed.DistError) or "gloo" in str(error) or "peer" in str(error):
            raise SystemExit(1) from error
        raise


def _rescued(checkpoint: Path) -> str:
    if not checkpoint.exists():
        return "nothing was saved yet"
    age = time.time() - checkpoint.stat().st_mtime
    return f"{checkpoint} holds the run as of {age:.0f} s ago: run the same command with --resume to continue from it"


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
        draw: Function that draws a batch, with the global generator of torch; see :data:`Draw`.
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
    batches = _Batches(draw, _Order(rows, recipe.batch, seed), seed, where, last)
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


class _Order:
    """Rows of each step: a new random order in each epoch, full batches only."""

    def __init__(self, rows: int, batch: int, seed: int) -> None:
        self.rows, self.batch, self.seed = rows, batch, seed
        self._epoch, self._order = -1, torch.empty(0)

    def of_step(self, step: int) -> Tensor:
        epoch, place_in_epoch = divmod(step, self.rows // self.batch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(_mix_seed(self.seed, epoch, -1))
            self._epoch, self._order = epoch, torch.randperm(self.rows, generator=generator)
        return self._order[place_in_epoch * self.batch :][: self.batch]


class _Batches:
    """Batch of each step; if batches are returned later, that of the next step is started first."""

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
        torch.set_rng_state(state)  # that after drawing this batch
        return drawn()

    def _begin(self, step: int) -> tuple[tuple[Tensor, ...] | Later, Tensor]:
        chosen = self.order.of_step(step)[self.where.rank :: self.where.world]
        self._seed(step)
        return self.draw(chosen), torch.get_rng_state()

    def _seed(self, step: int) -> None:
        torch.manual_seed(_mix_seed(self.seed, step, self.where.rank))


def _mix_seed(*numbers: int) -> int:
    """Return a different seed for each tuple of numbers, the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=6).digest(), "big")


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


def resumable(
    path: Path, recipe: Recipe, seed: int, metadata: Mapping[str, Any], model: nn.Module | None = None
) -> dict[str, Any]:
    """Load the training state of a checkpoint.

    Arguments:
        path: Path of the checkpoint.
        recipe: Hyperparameters of the resumed run, which must equal those of the checkpoint.
        seed: Seed of the resumed run, which must equal that of the checkpoint.
        metadata: Metadata of the resumed run, such as sizes, noise and statistics, which the checkpoint must contain;
            others are ignored. Numbers may differ by 1e-5, as statistics do on another processor.
        model: Model that receives the weights of the checkpoint. Default: none.

    Raises:
        ValueError: If there is no training state, or the recipe, seed or metadata differ.
    """
    saved = ig.load(path)
    state = saved.training
    if state is None:
        raise ValueError(f"{path} holds no training state: it can be used, but not resumed")
    before = state["recipe"] | {"seed": state["seed"]}
    changed = _differences(before, asdict(recipe) | {"seed": seed}, operator.eq)
    changed = changed or _differences(saved.metadata, metadata, _is_close)
    if changed:
        raise ValueError(f"{path} was trained otherwise ({', '.join(changed)}): resume with the same settings")
    if model is not None:
        ig.load(path, model)
    return dict(state)


def _differences(
    before: Mapping[str, Any], now: Mapping[str, Any], is_same: Callable[[Any, Any], bool], prefix: str = ""
) -> list[str]:
    """Return the values that differ from those of a checkpoint, which stores tuples as lists."""
    found: list[str] = []
    for name, value in now.items():
        old = before.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            found += _differences(old, value, is_same, f"{prefix}{name}.")
        elif not is_same(old, value):
            found.append(f"{prefix}{name} {old} -> {value}")
    return found


def _is_close(old: Any, value: Any) -> bool:
    if isinstance(value, tuple | list):
        return isinstance(old, tuple | list) and len(old) == len(value) and all(map(_is_close, old, value))
    if isinstance(value, float) and isinstance(old, float):
        return math.isclose(old, value, rel_tol=1e-5, abs_tol=1e-6)
    return bool(old == value)
