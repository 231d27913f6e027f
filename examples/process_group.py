"""One process of a run, or several that torchrun started: where each computes, and what it says if another is lost."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from threads import numbers_of_threads
from torch import distributed


class DivergedError(RuntimeError):
    """The loss or the weights are no longer finite."""


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
