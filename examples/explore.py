"""Web page to play with the trained models: digits in all ten classes, colorizations of photographs.

    python examples/explore.py                 # opens http://127.0.0.1:8000/ in the browser
    python examples/explore.py --no-browser --port 9000

It uses your own runs, ``runs/mnist`` and ``runs/bedrooms``, or else the trained models that come with the repository.
Only this machine can open the page.
"""

from __future__ import annotations

import argparse
import errno
import sys
import webbrowser
from pathlib import Path

import bedrooms_cinn
import mnist_cinn
import torch
from colorization.colorizer import load_colorizer
from exploring.digits import REACH, DigitExplorer
from exploring.photos import PhotoExplorer
from exploring.server import Server
from weights import trained_or_own

import invgraph as ig

COLORIZER = Path("runs/bedrooms/cinn/model.safetensors")


def start(digits: Path, colorizer: Path, port: int) -> Server:
    """Load the models and return the server, which does not serve yet.

    Arguments:
        digits: Checkpoint of ``mnist_cinn.py``.
        colorizer: Checkpoint of the cINN of ``bedrooms_cinn.py``.
        port: Port, or 0 for any free one.
    """
    flow, metadata, _ = mnist_cinn.open_checkpoint(digits, "cpu")
    tens = DigitExplorer(flow, metadata["noise"])
    photos = PhotoExplorer(load_colorizer(colorizer, bedrooms_cinn.build, "bedrooms"))
    facts = {"axes": tens.names, "reach": REACH, "test_digits": len(tens.test.labels)}
    questions = {
        "pick": tens.pick, "digits": tens.move, "colorize": photos.colorize, "transfer": photos.transfer,
    }  # fmt: skip
    return Server(port, facts, questions, {"drawing": tens.recognize, "photo": photos.upload})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--digits", type=Path, help="checkpoint of mnist_cinn.py; default: your run, or else the included model"
    )
    parser.add_argument("--colorizer", type=Path, help="checkpoint of bedrooms_cinn.py; default: likewise")
    parser.add_argument("--port", type=int, default=8000, help="port of the page; 0 for any free one")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    args = parser.parse_args(arguments)
    if not 0 <= args.port < 65536:
        parser.error(f"--port {args.port}: choose a port from 1024 to 65535, or 0 for any free one")
    torch.set_num_threads(1)  # every answer is short, and a second thread makes it wait on a busy machine
    try:
        server = start(
            args.digits or trained_or_own(mnist_cinn.RUN / "model.safetensors", "mnist_cinn"),
            args.colorizer or trained_or_own(COLORIZER, "bedrooms_cinn"),
            args.port,
        )
    except (ig.CheckpointError, OSError, ValueError) as error:
        busy = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)
        advice = f"\nport {args.port} can't be used: choose another --port" if busy else ""
        raise SystemExit(f"{error}{advice}") from error
    print(f"open {server.url} in a browser; Ctrl-C ends it", flush=True)
    if not args.no_browser:
        webbrowser.open(server.url)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(file=sys.stderr)


if __name__ == "__main__":
    main()
