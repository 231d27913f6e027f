"""Training curves with each detail of the paper's section 3.4 left out in turn (Fig. 10), for MNIST and for bedrooms.

    python examples/ablations.py mnist                        # all variants, two learning rates, three seeds
    python examples/ablations.py bedrooms --seeds 1 --steps 150
    python examples/ablations.py mnist --minutes 5            # starts no run after that; run it again to continue
    python examples/ablations.py draw                         # the figure of all runs so far

Every finished run is written to ``runs/ablations/<task>.json`` at once, and is not repeated. A run counts as diverged
if its loss becomes infinite, not a number, or larger than at the start by ten nats per dimension. Curves are training
losses, as in the paper; without noise they are those of other data, so these two levels can't be compared.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import bedrooms_cinn
import mnist_cinn
import torch
from colorization.colorizer import Colorizer
from colorization.photos import Crops, Drawing, open_folder, statistics
from digits import data, judge, measure
from options import positive, prepare_folder
from progress import clock
from torch import Tensor, nn

import invgraph as ig

RATES = (1e-3, 1e-4)
RISE = 10.0  # nats per dimension above the start at which a run counts as diverged
RECORDS = 50  # points of a curve
NOISE = 0.15  # of the pixel range, for MNIST
CLAMP = 1.0
TASKS = ("mnist", "bedrooms")


@dataclass(frozen=True)
class Details:
    """Details of section 3.4, all as in the paper by default.

    Arguments:
        noise: If False, no noise is added to the pictures.
        clamp: If False, the log scale is not bounded.
        init: If False, subnets start with torch's default weights instead of Xavier's and a last layer of zeros.
        permutation: Mixing of channels between blocks: ``"soft"``, a fixed rotation, ``"hard"``, or ``"none"``.
        haar: If False, checkerboard squeezing instead of Haar wavelets; for bedrooms only.
    """

    noise: bool = True
    clamp: bool = True
    init: bool = True
    permutation: Literal["soft", "hard", "none"] = "soft"
    haar: bool = True

    @property
    def transform(self) -> ig.Affine:
        """Transform of the couplings."""
        return ig.Affine(clamp=CLAMP) if self.clamp else ig.Affine(clamp=1e6, activation="tanh")


VARIANTS = {
    "all details": Details(),
    "no noise": Details(noise=False),
    "no clamp": Details(clamp=False),
    "default initialization": Details(init=False),
    "hard permutations": Details(permutation="hard"),
    "no permutations": Details(permutation="none"),
    "squeeze instead of Haar": Details(haar=False),
    "none of them": Details(noise=False, clamp=False, init=False, permutation="none", haar=False),
}
"""Details by the name of the variant."""


def variants_of(task: str) -> list[str]:
    """Return the names of the variants that differ for a task."""
    return [name for name in VARIANTS if task == "bedrooms" or name != "squeeze instead of Haar"]


def with_default_weights(model: nn.Module, seed: int) -> None:
    """Give linear and convolutional layers of the subnets torch's default weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for coupling in model.modules():
            for part in coupling.modules() if isinstance(coupling, ig.Coupling) else ():
                if isinstance(part, (nn.Linear, nn.Conv2d)):
                    part.reset_parameters()


@dataclass(frozen=True)
class Sizes:
    """Sizes of a task: for MNIST blocks and width of the subnets, for bedrooms side of the colors; batch size."""

    blocks: int
    hidden: int
    side: int
    batch: int


SIZES = {"mnist": Sizes(8, 128, 28, 128), "bedrooms": Sizes(4, 16, 32, 16)}

Task = tuple[nn.Module, Callable[[], Tensor], Callable[[], dict[str, float]]]
"""A model, a function that returns the loss of a new batch, and one that returns further figures after training."""


def digits_task(details: Details, sizes: Sizes, seed: int) -> Task:
    """Return the MNIST model of section 4.1 and its losses."""
    image, digit = ig.InputNode(1, 28, 28, name="image"), ig.ConditionNode(10, name="digit")
    args = {"transform": details.transform, "subnet": ig.nets.MLP(hidden=sizes.hidden)}
    h: Any = ig.Node(image, ig.Flatten, name="flatten")
    for k in range(sizes.blocks):
        h = mix(h, details, k, f"mix{k}")
        h = ig.Node(h, ig.Coupling, args, conditions=digit, name=f"coupling{k}")
    flow = ig.Flow(ig.Graph(image, h, digit))
    train = data.load("train")
    conditions, generator = data.condition(train.labels), torch.Generator().manual_seed(seed)
    noise = NOISE if details.noise else 0.0

    def loss() -> Tensor:
        rows = torch.randint(len(train.labels), (sizes.batch,), generator=generator)
        return mnist_cinn.loss(flow, measure.noisy(train.pixels[rows], noise, generator), conditions[rows])

    def figures() -> dict[str, float]:
        network = judge.load()
        return {
            f"recognized_{temperature:g}": judge.accuracy(network, *measure.generate(flow, 50, temperature, seed))
            for temperature in (1.0, 0.7)
        }

    return flow, loss, figures


def mix(h: Any, details: Details, seed: int, name: str) -> Any:
    """Add the mixing of channels between two blocks."""
    if details.permutation == "none":
        return h
    return ig.Node(h, ig.Orthogonal if details.permutation == "soft" else ig.Permute, {"seed": seed}, name=name)


def colors_task(details: Details, sizes: Sizes, seed: int) -> Task:
    """Return the bedrooms model of section 4.3 and its losses, on the photographs that come with the repository."""
    quick = bedrooms_cinn.PRESETS["quick"]
    preset = replace(quick, size=sizes.side, noise=quick.noise if details.noise else 0.0)
    folder = open_folder()
    graph = bedrooms_cinn.bedrooms(
        preset, mix=lambda h, k, name: mix(h, details, k, name), transform=details.transform,
        down=(ig.Haar, {"rebalance": 0.5}) if details.haar else (ig.Squeeze, {}),
    )  # fmt: skip
    colorizer = Colorizer(ig.Flow(graph), statistics(folder), preset.size, preset.noise)
    drawing = Drawing(Crops(folder, "train", preset.size))
    generator = torch.Generator().manual_seed(seed)

    def loss() -> Tensor:
        value: Tensor = colorizer(*drawing(torch.randint(len(drawing.crops), (sizes.batch,), generator=generator)))
        return value

    return colorizer, loss, dict


def run(task: str, name: str, rate: float, seed: int, steps: int, sizes: Sizes) -> dict[str, Any]:
    """Train a variant; return its curve, and whether it diverged."""
    began = time.monotonic()
    torch.manual_seed(seed)
    model, loss, figures = (digits_task if task == "mnist" else colors_task)(VARIANTS[name], sizes, seed)
    if not VARIANTS[name].init:
        with_default_weights(model, seed)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, rate, weight_decay=1e-5, fused=True)
    every, found, seen, diverged = max(1, steps // RECORDS), dict[str, list[float]](step=[], loss=[]), [], False
    for step in range(1, steps + 1):
        value = loss()
        seen.append(value.item())
        diverged = not math.isfinite(seen[-1]) or seen[-1] > (found["loss"] or seen)[0] + RISE
        if step % every == 0 and not diverged:
            found["step"].append(step)
            found["loss"].append(round(sum(seen[-every:]) / every, 5))
        if diverged:
            break
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(weights, 10.0)
        optimizer.step()
    more = {} if diverged else figures()
    about = {"variant": name, "rate": rate, "seed": seed, "diverged": diverged, "steps": step}
    return {**about, **found, **more, "seconds": round(time.monotonic() - began, 1)}


def runs_of(task: str, seeds: int) -> Iterator[tuple[str, float, int]]:
    """Iterate over all runs; every variant has its first seed before one has its second."""
    for seed in range(seeds):
        for rate in RATES:
            for name in variants_of(task):
                yield name, rate, seed


class Record:
    """Finished runs in a JSON file, which is replaced after each of them.

    Raises:
        ValueError: If the file is of runs with other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {"settings": settings, "runs": []}
        if path.exists():
            self.content = json.loads(path.read_text(encoding="utf-8"))
            if self.content["settings"] != settings:
                old = ", ".join(f"{key} {value}" for key, value in self.content["settings"].items())
                raise ValueError(f"{path} has runs with other settings ({old}): use them, or another --out")

    def has(self, name: str, rate: float, seed: int) -> bool:
        return any((run["variant"], run["rate"], run["seed"]) == (name, rate, seed) for run in self.content["runs"])

    def add(self, finished: dict[str, Any]) -> None:
        self.content["runs"].append(finished)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        lines = ",\n".join(f"  {json.dumps(one)}" for one in self.content["runs"])
        settings = json.dumps(self.content["settings"])
        partial.write_text(f'{{"settings": {settings},\n "runs": [\n{lines}\n ]}}\n', encoding="utf-8")
        partial.replace(self.path)


def train_missing(args: argparse.Namespace) -> int:
    """Train the runs that are not in the file yet; return 0 if all are, 130 if some are left."""
    record = Record(args.out / f"{args.task}.json", {"steps": args.steps, **asdict(SIZES[args.task])})
    began, wanted = time.monotonic(), list(runs_of(args.task, args.seeds))
    left = [one for one in wanted if not record.has(*one)]
    print(f"{len(left)} of {len(wanted)} runs of {args.steps} steps are left; Ctrl-C stops, and loses the current one",
          flush=True)  # fmt: skip
    try:
        for number, (name, rate, seed) in enumerate(left):
            spent = time.monotonic() - began
            if spent > 60 * args.minutes:
                print(f"{len(left) - number} of {len(wanted)} runs are left: run the same command to continue")
                return 130
            finished = run(args.task, name, rate, seed, args.steps, SIZES[args.task])
            record.add(finished)
            ended = "diverged" if finished["diverged"] else f"loss {finished['loss'][-1]:+.4f}"
            remaining = (time.monotonic() - began) / (number + 1) * (len(left) - number - 1)
            print(f"{name}, rate {rate:g}, seed {seed}: {ended} after {finished['steps']} steps; "
                  f"about {clock(remaining)} left", flush=True)  # fmt: skip
    except KeyboardInterrupt:
        print("stopped; run the same command to continue", file=sys.stderr)
        return 130
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Train what is missing, then draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=(*TASKS, "draw"))
    parser.add_argument("--steps", type=positive, default=300, help="number of training steps of each run")
    parser.add_argument("--seeds", type=positive, default=3, help="number of runs of each variant")
    parser.add_argument("--minutes", type=float, default=math.inf, help="time after which no further run is started")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"), help="folder for the JSON and the figure")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        prepare_folder(args.out)
        ended = 0 if args.task == "draw" else train_missing(args)
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    if ended:
        return ended
    found = {task: json.loads(path.read_text()) for task in TASKS if (path := args.out / f"{task}.json").exists()}
    if not found:
        print(f"no runs in {args.out}: train first, for instance with the task mnist", file=sys.stderr)
        return 1
    from training_curves import draw  # needs matplotlib

    print(draw(found, RATES, list(VARIANTS), args.out / "ablations.png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
