"""Ablations of section 3.4: what each variant leaves out, runs that are resumed or diverge, and the figure."""

import json
import math

import ablations
import numpy as np
import pytest
import torch
import training_curves
from ablations import SIZES, VARIANTS, Sizes
from test_example_mnist import valid_png

import invgraph as ig

TINY = {"mnist": Sizes(1, 4, 28, 4), "bedrooms": Sizes(2, 4, 16, 2)}


def built(task, name):
    torch.manual_seed(0)
    make = ablations.digits_task if task == "mnist" else ablations.colors_task
    return make(VARIANTS[name], TINY[task], 0)


def layers(model, kind):
    return [part for part in model.modules() if isinstance(part, kind)]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("task", ["mnist", pytest.param("bedrooms", marks=pytest.mark.slow)])
def test_each_variant_leaves_out_what_its_name_says(task):
    for name in ablations.variants_of(task):
        model, _, _ = built(task, name)
        clamps = {layer.transform.clamp for layer in layers(model, ig.Coupling)}
        assert clamps == ({1e6} if name in ("no clamp", "none of them") else {ablations.CLAMP})
        assert bool(layers(model, ig.Orthogonal)) == (
            name not in ("hard permutations", "no permutations", "none of them")
        )
        assert bool(layers(model, ig.Permute)) == (name == "hard permutations")
        if task == "bedrooms":
            haar = name not in ("squeeze instead of Haar", "none of them")
            assert (len(layers(model, ig.Haar)), len(layers(model, ig.Squeeze))) == ((2, 0) if haar else (0, 2))
            assert model.noise == (0.0 if name in ("no noise", "none of them") else 0.05)


def test_the_noise_is_left_out_of_the_digits():
    losses = [built("mnist", name)[1]().item() for name in ("all details", "no noise")]
    # At the identity a loss is half a mean square, to which noise of 0.15 / 0.3081 adds half its variance.
    assert losses[0] - losses[1] == pytest.approx(0.5 * (0.15 / 0.3081) ** 2, rel=0.1)


def test_default_weights_are_torch_s_and_do_not_start_as_the_identity():
    model, _, _ = built("mnist", "default initialization")
    state = torch.get_rng_state()
    x, c = torch.randn(2, 1, 28, 28), torch.zeros(2, 10)
    torch.set_rng_state(state)
    assert model.graph(x, c)[1].abs().max() == 0
    before = torch.get_rng_state()
    ablations.with_default_weights(model, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.graph(x, c)[1].abs().min() > 0
    for layer in layers(model, torch.nn.Linear):
        assert layer.weight.abs().max() <= 1 / math.sqrt(layer.in_features)


@pytest.mark.parametrize("task", TINY)
def test_a_run_has_a_curve(task, monkeypatch):
    monkeypatch.setattr(ablations.judge, "accuracy", lambda *arguments: 0.5)
    found = ablations.run(task, "all details", 1e-3, 0, 4, TINY[task])
    assert not found["diverged"]
    assert found["step"] == [1, 2, 3, 4]
    assert all(map(math.isfinite, found["loss"]))
    assert ("recognized_1" in found) == (task == "mnist")
    again = ablations.run(task, "all details", 1e-3, 0, 4, TINY[task])
    assert again["loss"] == found["loss"]


@pytest.mark.parametrize("ends", [math.inf, math.nan, 12.0])
def test_a_diverged_run_ends_and_says_so(monkeypatch, ends):
    values = iter([1.0, 0.5, 0.4, ends, 0.1])
    weight = torch.nn.Parameter(torch.zeros(()))
    model = torch.nn.Module()
    model.weight = weight
    task = (model, lambda: weight * 0 + next(values), dict)
    monkeypatch.setattr(ablations, "digits_task", lambda *arguments: task)
    found = ablations.run("mnist", "all details", 1e-3, 0, 5, SIZES["mnist"])
    assert found["diverged"]
    assert (found["steps"], found["step"], found["loss"]) == (4, [1, 2, 3], [1.0, 0.5, 0.4])


def test_runs_are_written_at_once_skipped_and_drawn(tmp_path, monkeypatch, capsys):
    ran = []

    def run(task, name, rate, seed, steps, sizes):
        ran.append((name, rate, seed))
        about = {"variant": name, "rate": rate, "seed": seed, "steps": steps, "seconds": 1.0}
        if name == "no clamp":
            return {**about, "diverged": True, "step": [1] if seed else [], "loss": [1.0] if seed else []}
        return {**about, "diverged": False, "step": [1, 2, 3], "loss": [1.0, 0.5, 0.1 * seed]}

    monkeypatch.setattr(ablations, "run", run)
    common = ["--steps", "3", "--out", str(tmp_path / "out")]
    assert ablations.main(["mnist", "--seeds", "2", "--minutes", "-1", *common]) == 130
    assert "28 of 28 runs are left" in capsys.readouterr().out
    assert ablations.main(["mnist", "--seeds", "1", *common]) == 0
    assert len(ran) == len(set(ran)) == 14
    assert {rate for _, rate, _ in ran} == {1e-3, 1e-4}
    assert "no clamp, rate 0.001, seed 0: diverged after 3 steps" in capsys.readouterr().out
    assert ablations.main(["mnist", "--seeds", "2", *common]) == 0
    assert len(ran) == len(set(ran)) == 28
    content = json.loads((tmp_path / "out" / "mnist.json").read_text())
    assert content["settings"]["steps"] == 3
    assert [(one["variant"], one["rate"], one["seed"]) for one in content["runs"]] == ran
    assert valid_png(tmp_path / "out" / "ablations.png")
    assert ablations.main(["mnist", "--steps", "4", "--out", str(tmp_path / "out")]) == 1
    assert "other settings (steps 3" in capsys.readouterr().err


def test_ctrl_c_keeps_what_is_finished(tmp_path, monkeypatch, capsys):
    def run(task, name, rate, seed, steps, sizes):
        if name == "no clamp":
            raise KeyboardInterrupt
        return {"variant": name, "rate": rate, "seed": seed, "steps": steps, "diverged": False, "step": [1],
                "loss": [1.0], "seconds": 1.0}  # fmt: skip

    monkeypatch.setattr(ablations, "run", run)
    assert ablations.main(["mnist", "--seeds", "1", "--out", str(tmp_path)]) == 130
    assert "run the same command to continue" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "mnist.json").read_text())["runs"]) == 2


def test_without_runs_there_is_nothing_to_draw(tmp_path, capsys):
    assert ablations.main(["draw", "--out", str(tmp_path)]) == 1
    assert "train first" in capsys.readouterr().err


def test_a_curve_is_smoothed_over_neighbors():
    losses = np.arange(8.0)[None] ** 2
    found = training_curves._smooth(losses)
    assert found.shape == losses.shape
    assert found[0, 0] == losses[0, :3].mean()
    assert found[0, 4] == losses[0, 2:7].mean()
    assert found[0, 7] == losses[0, 5:].mean()
