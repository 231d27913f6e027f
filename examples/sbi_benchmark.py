"""Neural posteriors on the tasks of the benchmark sbibm: our spline flows, zuko's and nflows' in the same loop.

One posterior is trained per task, budget, seed and model. C2ST is the accuracy of a classifier that tells samples of
the posterior from reference samples: 0.5 means that it can't, 1 that it always can; the mean over ten observations.
Each step is written to a JSON file, and what is there with the same settings is not run again. The file does not know
the code: begin with another one (``--out``) after a change of a flow or of the training loop.

    pip install --no-deps sbibm sbi && pip install pyro-ppl pandas zuko nflows
    python examples/sbi_benchmark.py --simulations 1000 --seeds 1 2 3
    python examples/sbi_benchmark.py --table            # only print what is there

Reference: J.-M. Lueckmann, J. Boelts, D. S. Greenberg, P. J. Goncalves, J. H. Macke, "Benchmarking Simulation-Based
Inference", 2021, https://arxiv.org/abs/2101.04653
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import invgraph as ig

TASKS = ("two_moons", "gaussian_mixture", "gaussian_linear_uniform", "slcp", "bernoulli_glm", "lotka_volterra")
INSTALL = "pip install --no-deps sbibm sbi && pip install pyro-ppl pandas zuko nflows"
HELD_OUT = 2000  # pairs for the test log-density
SETTINGS = ("samples", "observations", "lr", "patience", "late_decay")  # the options that a result depends on


def lotka_volterra(parameters: Tensor) -> Tensor:
    """Predator and prey at ten times, with log-normal noise: the task's simulator needs Julia, this one does not."""
    alpha, beta, gamma, delta = parameters.double().T

    def slope(u: Tensor) -> Tensor:
        x, y = u
        return torch.stack((alpha * x - beta * x * y, -gamma * y + delta * x * y))

    u = torch.tensor([30.0, 1.0], dtype=torch.float64)[:, None].expand(2, len(parameters))
    seen, step = [u], 0.01
    for index in range(1, 1891):  # Runge and Kutta's method of order four; times 0, 2.1, ..., 18.9
        a = slope(u)
        b = slope(u + step / 2 * a)
        c = slope(u + step / 2 * b)
        u = (u + step / 6 * (a + 2 * b + 2 * c + slope(u + step * c))).clamp(1e-10, 1e10)
        if index % 210 == 0:
            seen.append(u)
    levels = torch.stack(seen, -1).clamp(1e-10, 1e4).transpose(0, 1).flatten(1)
    return (levels.log() + 0.1 * torch.randn_like(levels)).exp().float()


class Problem:
    """A task of sbibm: its prior, simulator, observations and reference samples."""

    def __init__(self, name: str) -> None:
        if name == "lotka_volterra":
            import sys
            import types

            sys.modules.setdefault("diffeqtorch", types.SimpleNamespace(DiffEq=None))  # its bridge to Julia
        try:
            import sbibm
        except ModuleNotFoundError as error:
            raise SystemExit(f"{error}: {INSTALL}") from error
        self.name, self.task = name, sbibm.get_task(name)
        self.prior = self.task.prior_dist
        self.simulate = lotka_volterra if name == "lotka_volterra" else self.task.get_simulator()

    def pairs(self, count: int, seed: int, cache: Path) -> tuple[Tensor, Tensor]:
        """Parameters from the prior and a simulation of each, kept on disk because some simulators are slow."""
        path = cache / f"{self.name}_{count}_{seed}.pt"
        if not path.exists():
            torch.manual_seed(seed)
            theta = self.prior.sample((count,))
            cache.mkdir(parents=True, exist_ok=True)
            torch.save((theta, self.simulate(theta)), path)
        theta, x = torch.load(path)
        return theta, x.log() if self.name == "lotka_volterra" else x  # counts over many orders of magnitude

    def observation(self, number: int) -> Tensor:
        x = self.task.get_observation(number)
        return x.log() if self.name == "lotka_volterra" else x

    def inside(self, theta: Tensor) -> Tensor:
        """True where the prior is positive."""
        support = self.prior.support.check(theta)
        return support if support.ndim == 1 else support.all(-1)


class Peer(nn.Module):
    """A flow of another library between the same standardizations as ours."""

    def __init__(self, theta: Tensor, x: Tensor, log_prob: Callable[..., Tensor], draw: Any, flow: nn.Module) -> None:
        super().__init__()
        self.flow, self._log_prob, self._draw = flow, log_prob, draw
        for name, value in (("mean", theta.mean(0)), ("std", theta.std(0))):
            self.register_buffer(name, value)
        self.read = ig.nets.Standardizer(x.mean(0), x.std(0))

    def forward(self, theta: Tensor, x: Tensor) -> Tensor:
        return self._log_prob(self.flow, (theta - self.mean) / self.std, self.read(x)) - self.std.log().sum()

    def draw(self, count: int, x: Tensor) -> Tensor:
        return self._draw(self.flow, count, self.read(x)) * self.std + self.mean


def zuko_nsf(theta: Tensor, x: Tensor) -> nn.Module:
    """The NSF of zuko with its own defaults: three autoregressive splines of 8 bins on [-5, 5], networks of 2 x 64."""
    import zuko

    flow = zuko.flows.NSF(theta.shape[1], x.shape[1])
    return Peer(theta, x, lambda f, t, x: f(x).log_prob(t), lambda f, n, x: f(x[0]).sample((n,)), flow)


def nflows_nsf(theta: Tensor, x: Tensor) -> nn.Module:
    """The NSF of nflows as the package sbi builds it: five couplings of 10 bins on [-3, 3], ResidualNet of 50."""
    from sbi.neural_nets.net_builders import build_nsf

    flow = build_nsf(theta, x, z_score_x="none", z_score_y="none").net
    return Peer(theta, x, lambda f, t, x: f.log_prob(t, x), lambda f, n, x: f.sample(n, x)[0], flow)


def ours(autoregressive: bool) -> Callable[[Tensor, Tensor], nn.Module]:
    def build(theta: Tensor, x: Tensor) -> nn.Module:
        sizes = theta.shape[1], x.shape[1]
        return ig.recipes.spline_flow(*sizes, data=theta, conditions=x, autoregressive=autoregressive)

    return build


MODELS: dict[str, Callable[[Tensor, Tensor], nn.Module]] = {
    "invgraph coupling": ours(autoregressive=False),
    "invgraph autoregressive": ours(autoregressive=True),
    "zuko NSF": zuko_nsf,
    "nflows NSF": nflows_nsf,
}


@torch.no_grad()
def posterior_samples(model: Any, problem: Problem, x: Tensor, count: int) -> Tensor:
    """Samples inside the prior's support, by rejection."""
    kept, found, tries = [], 0, 0
    while found < count and tries < 100:
        draw = model.given(x[0]).sample((count,)) if isinstance(model, ig.Flow) else model.draw(count, x)
        kept.append(draw[problem.inside(draw)])
        found, tries = found + len(kept[-1]), tries + 1
    if found < count:
        raise RuntimeError(f"{found} of {100 * count} samples lie inside the prior's support")
    return torch.cat(kept)[:count]


def c2st(pairs: list[tuple[Tensor, Tensor]]) -> list[float]:
    """Accuracy of sbibm's classifier for each pair of reference samples and samples.

    It has two hidden layers of ten units per parameter and is trained as scikit-learn's MLPClassifier trains it, on
    standardized data in five folds: Adam, batches of 200, until the loss has not fallen by 1e-4 for ten epochs. The
    classifiers of all pairs and folds are trained together, which is several times as fast.
    """
    generator = torch.Generator().manual_seed(1)
    points = torch.stack([(torch.cat(pair) - pair[0].mean(0)) / pair[0].std(0) for pair in pairs])
    labels = (torch.arange(points.shape[1]) < len(pairs[0][0])).float()
    folds = torch.randperm(len(labels), generator=generator).view(5, -1)
    rest = torch.stack([torch.cat([folds[j] for j in range(5) if j != k]) for k in range(5)])
    x, y = points[:, rest].flatten(0, 1), labels[rest].repeat(len(pairs), 1)
    held, truth = points[:, folds].flatten(0, 1), labels[folds].repeat(len(pairs), 1)
    count, rows, size = x.shape
    sizes, parameters = (size, 10 * size, 10 * size, 1), []
    for a, b in itertools.pairwise(sizes):
        edge = (6 / (a + b)) ** 0.5
        parameters += [edge * (2 * torch.rand(count, *s, generator=generator) - 1) for s in ((a, b), (1, b))]
    parameters = [parameter.requires_grad_() for parameter in parameters]

    def classify(x: Tensor) -> Tensor:
        w1, b1, w2, b2, w3, b3 = parameters
        return torch.baddbmm(b3, torch.baddbmm(b2, torch.baddbmm(b1, x, w1).relu(), w2).relu(), w3)[..., 0]

    optimizer = torch.optim.Adam(parameters, 1e-3, weight_decay=1e-4 / 200)
    best, waited, accuracy = torch.full((count,), torch.inf), torch.zeros(count), torch.full((count,), torch.nan)
    left = torch.arange(count)  # the classifiers that are still being trained
    while len(left):
        total = torch.zeros(len(left))
        for part in torch.randperm(rows, generator=generator).split(200):
            losses = nn.functional.binary_cross_entropy_with_logits(classify(x[:, part]), y[:, part], reduction="none")
            optimizer.zero_grad()
            losses.mean(1).sum().backward()
            optimizer.step()
            total += losses.detach().sum(1) / rows
        waited = torch.where(total > best - 1e-4, waited + 1, 0)
        best, going = torch.minimum(best, total), waited <= 10
        if going.all():
            continue
        with torch.no_grad():
            accuracy[left] = ((classify(held) > 0) == truth.bool()).float().mean(1)
        left, best, waited = left[going], best[going], waited[going]
        x, y, held, truth = x[going], y[going], held[going], truth[going]
        old, parameters = parameters, [parameter.detach()[going].requires_grad_() for parameter in parameters]
        for before, after in zip(old, parameters, strict=True):
            state = optimizer.state.pop(before)
            optimizer.state[after] = {key: value[going] if value.ndim else value for key, value in state.items()}
        optimizer.param_groups[0]["params"] = parameters
    return accuracy.view(len(pairs), 5).mean(1).tolist()


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """Options of a row beside its task, budget, seed and model; rows that differ in them are never mixed."""
    return {name: getattr(args, name) for name in SETTINGS}


def has(row: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """True if a row has these values."""
    return all(row.get(key) == value for key, value in wanted.items())


def train(problem: Problem, simulations: int, seed: int, name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train one posterior, and keep its samples for each observation on disk."""
    theta, x = problem.pairs(simulations, seed, args.out / "data")
    torch.manual_seed(seed)
    model: Any = MODELS[name](theta, x)
    start, used = time.perf_counter(), time.process_time()
    options = {"lr": args.lr, "patience": args.patience, "late_decay": args.late_decay}
    history = ig.inference.fit(model, theta, x, seed=seed, **options)
    wall, cpu = time.perf_counter() - start, time.process_time() - used
    with torch.no_grad():
        test = model(*problem.pairs(HELD_OUT, 10_000, args.out / "data")).mean().item()
    numbers = range(1, args.observations + 1)
    samples = [posterior_samples(model, problem, problem.observation(k), args.samples) for k in numbers]
    row = {
        "task": problem.name, "simulations": simulations, "seed": seed, "model": name, **settings(args),
        "c2st_each": [], "test_log_prob": test, "seconds": wall, "cpu_seconds": cpu, "epochs": len(history.train),
        "best_epoch": history.best, "parameters": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip
    torch.save(samples, samples_file(row, args))
    return row


def samples_file(row: dict[str, Any], args: argparse.Namespace) -> Path:
    """File of the samples of a row, in a folder that is there."""
    folder: Path = args.out / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    keys = ("task", "simulations", "seed", "model", *SETTINGS)
    return folder / ("_".join(str(row[key]).replace(" ", "_") for key in keys) + ".pt")


def score(problem: Problem, row: dict[str, Any], args: argparse.Namespace) -> None:
    """Compare the samples for the next observation with the reference; the last one completes the row."""
    number = len(row["c2st_each"])
    reference = problem.task.get_reference_posterior_samples(number + 1)[: args.samples]
    row["c2st_each"] += c2st([(reference, torch.load(samples_file(row, args))[number])])
    if len(row["c2st_each"]) == args.observations:
        row["c2st"] = statistics.mean(row["c2st_each"])
        samples_file(row, args).unlink()


def fill(rows: list[dict[str, Any]], args: argparse.Namespace) -> None:
    """Train and measure what is missing until the time is up, and write the file after each step."""
    path, start = args.out / "results.json", time.monotonic()
    wanted = itertools.product(args.simulations, args.seeds, args.tasks, args.models)
    for simulations, seed, task, name in wanted:
        key = {"task": task, "simulations": simulations, "seed": seed, "model": name, **settings(args)}
        row = next((row for row in rows if has(row, key)), None)
        problem = Problem(task) if row is None or not (args.train or "c2st" in row) else None
        while problem is not None and (row is None or not (args.train or "c2st" in row)):
            if time.monotonic() - start > 60 * args.minutes:
                return
            if row is None:
                row = train(problem, simulations, seed, name, args)
                rows.append(row)
            else:
                score(problem, row, args)
            path.with_suffix(".new").write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
            path.with_suffix(".new").replace(path)
            if "c2st" in row:
                print(f"{task} {simulations} seed {seed} {name}: C2ST {row['c2st']:.3f}", flush=True)


def means(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the seeds, one row per task, budget, settings and model, in the order of the lists above."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        options = tuple(row[name] for name in SETTINGS)
        key = TASKS.index(row["task"]), row["simulations"], options, list(MODELS).index(row["model"])
        groups.setdefault(key, []).append(row)
    keys = ("test_log_prob", "cpu_seconds", "parameters")
    found = []
    for _, mine in sorted(groups.items()):
        measured = [row["c2st"] for row in mine if "c2st" in row]
        score = statistics.mean(measured) if len(measured) == len(mine) else None
        mean = {key: statistics.mean(row[key] for row in mine) for key in keys}
        found.append({**mine[0], **mean, "c2st": score, "seeds": sorted(row["seed"] for row in mine)})
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The means as text."""
    head = f"{'task':<24} {'sims':>6} {'decay':>5} {'model':<24} {'seeds':<8} {'C2ST':>6} {'test log-density':>17}"
    lines = [f"{head} {'CPU s':>6}"]
    for row in means(rows):
        score = "" if row["c2st"] is None else f"{row['c2st']:.3f}"
        line = f"{row['task']:<24} {row['simulations']:>6} {row['late_decay']:>5} {row['model']:<24}"
        line += f" {' '.join(map(str, row['seeds'])):<8} {score:>6}"
        lines.append(f"{line} {row['test_log_prob']:>17.3f} {row['cpu_seconds']:>6.0f}")
    return "\n".join(lines)


def page(rows: list[dict[str, Any]]) -> str:
    """The means as tables of the documentation, one for each task, budget and settings, with the best in bold."""
    lines: list[str] = []
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in means(rows):
        groups.setdefault(tuple(row[name] for name in ("task", "simulations", *SETTINGS)), []).append(row)
    for group in groups.values():
        first, scores = group[0], [row["c2st"] for row in group if row["c2st"] is not None]
        seeds = ", ".join(map(str, first["seeds"]))
        title = f"{first['task'].replace('_', ' ')}: {first['simulations']:,} simulations"
        title += f", seed{'' if len(first['seeds']) == 1 else 's'} {seeds}"
        title += f", late decay {first['late_decay']:g}" if first["late_decay"] else ""
        lines += [f".. list-table:: {title}", "   :class: compact full", "   :header-rows: 1"]
        lines += ["   :widths: 30 14 20 18 18", ""]
        cells = [("model", "C2ST", "test log-density", "CPU seconds", "parameters")]
        for row in group:
            score = "" if row["c2st"] is None else f"{row['c2st']:.3f}"
            score = f"**{score}**" if scores and row["c2st"] == min(scores) else score
            density = f"{row['test_log_prob']:.2f}"
            if row["test_log_prob"] == max(other["test_log_prob"] for other in group):
                density = f"**{density}**"
            cells.append((row["model"], score, density, f"{row['cpu_seconds']:.0f}", f"{row['parameters']:,.0f}"))
        for line in cells:
            lines += [f"   {'  ' if place else '* '}- {cell}".rstrip() for place, cell in enumerate(line)]
        lines.append("")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--simulations", nargs="+", type=int, default=[1000])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3], help="seeds of the data and of training")
    parser.add_argument(
        "--observations",
        type=int,
        default=10,
        choices=range(1, 11),
        metavar="N",
        help="number of observations, at most 10",
    )
    parser.add_argument("--samples", type=int, default=10_000, help="number of samples per observation for C2ST")
    parser.add_argument("--lr", type=float, default=3e-3, help="learning rate")
    parser.add_argument(
        "--patience", type=int, default=20, help="number of epochs without improvement that end a part of training"
    )
    parser.add_argument(
        "--late-decay", type=float, default=0.05, help="weight decay per epoch of training's second part"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no new step after this time")
    parser.add_argument("--train", action="store_true", help="only train; a later run measures C2ST")
    parser.add_argument("--out", type=Path, default=Path("runs/sbi_benchmark"), help="folder for results and data")
    parser.add_argument("--table", action="store_true", help="print the results so far, and stop")
    parser.add_argument("--page", type=Path, help="file to write the table to, as reStructuredText")
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore")  # the peers' deprecations
    path = args.out / "results.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    if not args.table:
        fill(rows, args)
    print(table(rows))
    if args.page is not None:
        args.page.write_text(page(rows))


if __name__ == "__main__":
    main()
