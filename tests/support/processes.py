"""Processes forked from a server that has imported torch and the package: they start in milliseconds, not in seconds.

The server itself computes nothing, so its children inherit no threads: forking a process that runs tests would be
unsafe.
"""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.context
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NamedTuple

PRELOADED = [
    "torch",
    "torch._dynamo",
    "networkx",
    "torch.distributed",
    "invgraph",
    "training",
    "ddp_worker",
    "colorization_worker",
]


class Ended(NamedTuple):
    """The exit code of a process, negative if a signal killed it, and its standard output and error."""

    code: int
    output: str


@functools.cache
def _server() -> multiprocessing.context.ForkServerContext:
    """Start the server; it sees the same modules as this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    changed = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    return context


def run(
    function: Callable[..., object],
    calls: Sequence[tuple[Any, ...]],
    environments: Sequence[Mapping[str, str]] = (),
    seconds: float = 120,
) -> list[Ended]:
    """Run ``function(*arguments)`` for each call, all at once, each in a process of its own, and wait for all.

    Arguments:
        function: Function of a module that can be imported.
        calls: Arguments of each call.
        environments: Environment variables to set for each call; none by default.
        seconds: Time after which processes that still run are killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder, str(place)) for place in range(len(calls))]
        processes = [
            _server().Process(target=_call, args=(function, call, dict(environment), log))
            for call, environment, log in zip(calls, environments or [{}] * len(calls), logs, strict=True)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(seconds)
            process.kill()
            process.join()
        return [Ended(process.exitcode, log.read_text()) for process, log in zip(processes, logs, strict=True)]


def _call(function: Callable[..., object], arguments: tuple[Any, ...], environment: dict[str, str], log: Path) -> None:
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.update(environment)
    try:
        function(*arguments)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def ranks(world: int) -> list[dict[str, str]]:
    """Return the environments that torchrun would give to so many processes on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": "lo"}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]
