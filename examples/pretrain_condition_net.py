r"""Pretraining of the conditioning network: color classification (Zhang, Isola, Efros, 2016; paper, 4.2).

    python examples/pretrain_condition_net.py --data DIR --preset medium
    python examples/imagenet_cinn.py train --data DIR --preset medium \
        --condition-net runs/condition_net/condition_net.safetensors

Classes of color are squares of ten by ten units of a and b. Each pixel is softly assigned to the five nearest
classes, and rare colors have larger weights. The width of the network is that of the preset of the ImageNet model. To
use published weights of the network instead, pass their file to ``--condition-net``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from colorization.commands import ERRORS, STOPPED
from colorization.photos import EMBEDDED, open_folder
from colorization.pretraining import STEPS, pretrain
from imagenet_cinn import PRESETS
from options import count, positive, prepare_folder
from process_group import place


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the condition net, print its error, and write it to a file."""
    parser = argparse.ArgumentParser(
        description="Pretrain the conditioning network of the ImageNet colorization model."
    )
    parser.add_argument("--data", type=Path, default=EMBEDDED, help="folder of photographs")
    parser.add_argument("--preset", choices=PRESETS, default="quick", help="preset of examples/imagenet_cinn.py")
    parser.add_argument("--out", type=Path, default=Path("runs") / "condition_net", help="folder for the run")
    parser.add_argument("--steps", type=positive, help="number of training steps; default: that of the preset")
    parser.add_argument("--resume", action="store_true", help="resume a run that was stopped")
    parser.add_argument("--workers", type=count, default=0, help="number of processes that prepare crops")
    parser.add_argument("--device", help="device, such as cpu or cuda; default: a GPU if there is one")
    parser.add_argument("--threads", type=count, default=0, help="number of CPU threads; default: the fastest")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    options = parser.parse_args(arguments)
    try:
        prepare_folder(options.out)
        with place(options.device, options.threads) as where:
            folder = open_folder(options.data)
            if where.rank == 0:
                print(folder.report())
            ended = pretrain(
                PRESETS[options.preset], options.steps or STEPS[options.preset], folder, options.out, where=where,
                seed=options.seed, resume=options.resume, workers=options.workers,
            )  # fmt: skip
    except KeyboardInterrupt:
        ended = None
    except ERRORS as error:
        print(error, file=sys.stderr)
        return 1
    if ended is None:
        print(STOPPED, file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
