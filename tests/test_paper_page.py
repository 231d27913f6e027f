"""The numbers of docs/paper.rst are those of the JSON files that it names, and no figure of the paper is missing."""

import json
import re
from pathlib import Path
from statistics import mean

import bedrooms_cinn
import imagenet_cinn
import mnist_cinn
import pytest
from colorization.metrics import Measured
from colorization.table import as_rst

ROOT = Path(__file__).parent.parent
PAGE = re.sub(r"\s+", " ", (ROOT / "docs" / "paper.rst").read_text(encoding="utf-8"))


def read(path):
    assert f"``{path}``" in PAGE
    return json.loads((ROOT / path).read_text(encoding="utf-8"))


def test_every_figure_and_table_is_there_in_order():
    headings = re.findall(r"^(?:Fig\. \d+|Figs\. \d+ and \d+|Table 1)", (ROOT / "docs" / "paper.rst").read_text(), re.M)
    found = [int(number) for heading in headings if "Table" not in heading for number in re.findall(r"\d+", heading)]
    assert found == list(range(1, 17))
    assert headings.index("Table 1") == headings.index("Fig. 10") + 1


def test_published_sizes():
    """Steps and batch sizes are those of the presets, and the time follows from them."""
    found = {}
    for title, days in (("MNIST", "2 hours"), ("bedrooms", "12 days"), ("ImageNet", "15 months")):
        (text,) = re.findall(rf"\* - {title}: [^*]*batch (\d+) - ([\d.]+) s - ([\d,]+) - {days}", PAGE)
        batch, seconds, steps = int(text[0]), float(text[1]), int(text[2].replace(",", ""))
        found[title] = (steps, batch), seconds * steps / 86400
    recipe = mnist_cinn.PRESETS["paper"].recipe
    assert found["MNIST"][0] == (recipe.steps, recipe.batch)
    for title, presets in (("bedrooms", bedrooms_cinn.PRESETS), ("ImageNet", imagenet_cinn.PRESETS)):
        assert found[title][0] == (presets["paper"].steps, presets["paper"].batch)
    days = {title: days for title, (_, days) in found.items()}
    assert days == {
        "MNIST": pytest.approx(2 / 24, rel=0.05),
        "bedrooms": pytest.approx(12, rel=0.05),
        "ImageNet": pytest.approx(15 * 30.4, rel=0.05),
    }


@pytest.mark.parametrize("name", ["colorization_results", "bedrooms_64_results", "imagenet_results"])
def test_tables_of_the_colorizers_are_those_of_the_json(name):
    rows = json.loads((ROOT / "docs" / f"{name}.json").read_text(encoding="utf-8"))["rows"]
    measured = {kind: {key: Measured(**figure) for key, figure in row.items()} for kind, row in rows.items()}
    assert as_rst(measured) in (ROOT / "docs" / "colorization_results.rst").read_text(encoding="utf-8")


def row(title):
    """Text of the row of a table; that of the first one, if several have a row of this title."""
    rows = (ROOT / "docs" / "paper.rst").read_text(encoding="utf-8").split("   * - ")
    found, *_ = [text.partition("\n\n")[0] for text in rows if text.startswith(f"{title}\n")]
    return found


TABLE = {
    "cINN": "cinn",
    "cINN, temperature 0.7": "cinn 0.7",
    "VAE": "cvae",
    "CNN": "cnn",
    "cGAN": "cgan",
    "gray": "gray",
}


@pytest.mark.parametrize("title", TABLE)
def test_table_1(title):
    figures = read("docs/colorization_results.json")["rows"][TABLE[title]]
    for name in ("rmse_8", "variance", "frechet"):
        assert str(Measured(**figures[name])) in row(title)


@pytest.mark.parametrize("name", ["colorization_results", "bedrooms_64_results"])
def test_the_order_of_the_methods_is_that_of_the_paper(name):
    rows = read(f"docs/{name}.json")["rows"]
    best = [rows[kind]["rmse_8"]["value"] for kind in ("cinn", "cvae", "cnn", "cgan")]
    assert best == sorted(best)
    spread = [rows[kind]["variance"]["value"] for kind in ("cinn", "cvae", "cgan", "cnn")]
    assert spread == sorted(spread, reverse=True)


def test_figure_6_and_16():
    digits = read("examples/trained/mnist_cinn.json")
    shares = {one["temperature"]: one["plain"] for one in digits["accuracy_on_generated_digits"]}
    assert f"{100 * shares[1.0]:.2f} % of the digits at temperature 1.0 and {100 * shares[0.7]:.2f} % at 0.7" in PAGE
    assert f"{digits['nll_nats_per_dim']:.4f} nats per dimension" in PAGE
    assert f"{digits['training']['seconds']:.0f} s on one core" in PAGE
    rows = read("docs/colorization_results.json")["rows"]
    raw, cinn = (Measured(**rows[kind]["rmse_8"]) for kind in ("raw", "cinn"))
    assert f"he best of eight is {raw} instead of {cinn}" in PAGE
    assert f"likelihood {rows['raw']['nll']['value']:.2f} instead of {rows['cinn']['nll']['value']:.2f} nats" in PAGE


def test_mnist_at_the_published_size():
    figures = read("docs/mnist_published_size.json")
    shares = {one["temperature"]: one["plain"] for one in figures["accuracy_on_generated_digits"]}
    small = read("examples/trained/mnist_cinn.json")
    assert figures["nll_nats_per_dim"] < small["nll_nats_per_dim"]
    assert f"likelihood is lower, {figures['nll_nats_per_dim']:.4f} nats per dimension" in PAGE
    assert f"{100 * shares[1.0]:.2f} % of them are recognized at temperature 1.0 and {100 * shares[0.7]:.2f} %" in PAGE
    published, short = mnist_cinn.PRESETS["paper"], mnist_cinn.PRESETS["short"]
    assert (short.blocks, short.hidden, short.noise) == (published.blocks, published.hidden, published.noise)
    settings = figures["settings"]
    assert (settings["blocks"], settings["hidden"], settings["noise"]) == (
        published.blocks, published.hidden, published.noise,
    )  # fmt: skip
    steps, batch = figures["training"]["steps"], published.recipe.batch
    assert steps == published.recipe.steps
    assert "--preset paper --threads 1" in PAGE
    assert f"has had {steps:,} steps of {batch} digits" in PAGE
    assert f"{figures['training']['seconds'] / 60:.0f} minutes on one core" in PAGE


def test_mnist_with_the_noise_of_the_papers_text():
    figures = read("docs/mnist_small_noise.json")
    shares = {one["temperature"]: one["plain"] for one in figures["accuracy_on_generated_digits"]}
    assert figures["noise"]["of_the_pixel_range"] == 0.02
    assert f"is {figures['nll_nats_per_dim']:.4f} nats per dimension at that noise" in PAGE
    assert f"{100 * shares[1.0]:.2f} % are recognized at temperature 1.0 and {100 * shares[0.7]:.2f} % at 0.7" in PAGE
    assert f"--noise 0.02 --steps {figures['training']['steps']}" in PAGE


ABLATED = ("all details", "no noise", "no clamp", "default initialization", "hard permutations", "no permutations")


def summary(runs):
    """Mean of the last losses, with the lowest and the highest, and the number of runs that diverged."""
    losses = [run["loss"][-1] for run in runs if not run["diverged"]]
    if not losses:
        return "diverged"
    spread = f" ({min(losses):.3f} to {max(losses):.3f})" if len(losses) > 1 else ""
    lost = f"; {len(runs) - len(losses)} of {len(runs)} diverged" if len(losses) < len(runs) else ""
    return f"{mean(losses):.3f}{spread}{lost}"


@pytest.mark.parametrize("variant", [*ABLATED, "none of them"])
def test_figure_10(variant):
    content = read("docs/ablations_mnist.json")["runs"]
    seeds = {run["seed"] for run in content}
    assert f"ablations.py mnist --steps 200 --seeds {len(seeds)}" in PAGE
    assert f"{len(content)} runs" in PAGE
    runs = [run for run in content if run["variant"] == variant]
    found = row("no noise (loss of other data)" if variant == "no noise" else variant)
    by_rate = [[run for run in runs if run["rate"] == rate] for rate in (1e-3, 1e-4)]
    for same in by_rate:
        assert {run["seed"] for run in same} == seeds
        assert f"- {summary(same)}\n" in found
    if variant in ABLATED:
        shares = [f"{100 * mean(run['recognized_0.7'] for run in same):.0f}" for same in by_rate]
        assert f"{' / '.join(shares)} %" in found


@pytest.mark.parametrize("variant", [*ABLATED, "squeeze instead of Haar", "none of them"])
def test_figure_10_of_bedrooms(variant):
    content = read("docs/ablations_bedrooms.json")
    steps, runs = content["settings"]["steps"], content["runs"]
    seeds = len({run["seed"] for run in runs})
    assert f"ablations.py bedrooms --steps {steps} --seeds {seeds}" in PAGE
    assert f"there are {len(runs)} runs of the small model" in PAGE
    named = {1: "one seed", 2: "two seeds", 3: "three seeds"}[seeds]
    assert f"over the first {steps} steps of {content['settings']['batch']} crops, with {named};" in PAGE
    text = (ROOT / "docs" / "paper.rst").read_text(encoding="utf-8")
    table = text.partition("``docs/ablations_bedrooms.json``")[2].partition("Table 1:")[0]
    (found,) = re.findall(rf"^   \* - {variant}(?: \(.*\))?\n     - (.*)\n     - (.*)$", table, re.M)
    by_rate = [[run for run in runs if run["variant"] == variant and run["rate"] == rate] for rate in (1e-3, 1e-4)]
    assert found == tuple(map(summary, by_rate))
    if variant == "no clamp":
        ends = [max(run["steps"] for run in same) for same in by_rate]
        assert f"within {ends[0]} steps at the paper's rate and within {ends[1]} at a tenth" in PAGE


FIGURE_9 = {"cINN on bedrooms": "cinn", "the same, temperature 0.7": "cinn 0.7", "colorGAN": "colorgan"}


@pytest.mark.parametrize("title", FIGURE_9)
def test_figure_9(title):
    content = read("docs/colorgan_results.json")
    for name in ("rmse_8", "variance", "frechet"):
        assert str(Measured(**content["rows"][FIGURE_9[title]][name])) in row(title)
    looks = content["about"]["validation_of_colorgan"]
    step, lowest = min(looks, key=lambda look: look[1])
    assert f"those of step {step}, after {content['about']['seconds']['colorgan']:.0f} s" in PAGE
    assert f"jumps between {lowest:.2f} and {max(error for _, error in looks):.2f} in units" in PAGE
    cinn, ours, gray = (Measured(**content["rows"][kind]["rmse_1"]) for kind in ("cinn", "colorgan", "gray"))
    assert f"further from the original ({ours}) than one of the cINN ({cinn}) or a gray picture ({gray})." in PAGE
    cinn, ours = (content["rows"][kind]["variance"]["value"] for kind in ("cinn", "colorgan"))
    assert f"Ours is larger as well, {ours:.1f} compared to {cinn:.1f}," in PAGE
    earlier = content["earlier_run_of_colorgan"]
    variance, best = (Measured(**earlier["row"][name]) for name in ("variance", "rmse_8"))
    assert f"An earlier run with fewer steps, {earlier['steps']}, had collapsed" in PAGE
    assert f"a variance of {variance} and a best of eight of {best}." in PAGE
    assert f"3,000 steps, {content['about']['processor_seconds']['colorgan']} s of processor time" in PAGE


def test_colorgan_has_more_variance_and_worse_colors():
    rows = read("docs/colorgan_results.json")["rows"]
    ours, cinn = rows["colorgan"], rows["cinn"]
    assert all(ours[name]["value"] > cinn[name]["value"] for name in ("variance", "rmse_1", "rmse_8", "frechet"))
