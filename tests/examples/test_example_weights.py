"""The trained models that come with the repository: half precision, digests, descriptions, commands that use them."""

import copy
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time

import bedrooms_cinn
import mnist_cinn
import numpy as np
import pytest
import torch
import weights
from colorization.commands import Example, main
from colorization.condition_net import ConditionNet, load_condition_net
from colorization.metrics import Measured
from colorization.photos import EMBEDDED
from digits import judge, measure
from PIL import Image
from test_example_mnist import tiny_flow, valid_png

import invgraph as ig

TRAINED = sorted(weights.FOLDER.glob("*.safetensors"))


def damage(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def test_half_precision_rounds_parameters_and_nothing_else(tmp_path):
    flow = tiny_flow().float()
    before = copy.deepcopy(flow.state_dict())
    weights.save_half(tmp_path / "folder" / "half.safetensors", flow, {"some": "thing"})
    other = tiny_flow(seed=1)
    assert weights.load_weights(tmp_path / "folder" / "half.safetensors", other).metadata["some"] == "thing"
    parameters = dict(other.named_parameters())
    for name, value in other.state_dict().items():
        assert torch.equal(flow.state_dict()[name], before[name])
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name].half().float() if name in parameters else before[name])
    ig.save(tmp_path / "whole.safetensors", flow)
    weights.load_weights(tmp_path / "whole.safetensors", other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_a_file_that_does_not_fit_leaves_a_model_in_float32(tmp_path):
    weights.save_half(tmp_path / "half", tiny_flow(), {})
    other = mnist_cinn.build(1, 4, 1.0)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ig.CheckpointError, match="another graph"):
        weights.load_weights(tmp_path / "half", other)
    assert all(parameter.dtype == torch.float32 for parameter in other.parameters())
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())  # not rounded either


def test_they_are_small():
    assert sum(path.stat().st_size for path in weights.FOLDER.iterdir()) < 40e6


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_each_is_described_with_its_own_digest(path):
    card = path.with_suffix(".rst").read_text(encoding="utf-8")
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card
    for heading in (":Command:", ":Training:", ":Data:", ":License of the data:", "Figures", "Limits:"):
        assert heading in card
    steps = json.loads(path.with_suffix(".json").read_text())["training"]["steps"]
    assert f"{steps:,} steps" in card
    assert ig.load(path).metadata["parameters"] == "float16"


def in_words(card):
    return re.sub(r"\s+", " ", card)


def test_the_figures_of_the_digits_are_those_of_the_json():
    card = in_words((weights.FOLDER / "mnist_cinn.rst").read_text(encoding="utf-8"))
    figures = json.loads((weights.FOLDER / "mnist_cinn.json").read_text())
    assert f"{figures['nll_nats_per_dim']:.4f} nats" in card
    assert f"{figures['bits_per_dim']:.3f} bits" in card
    for kind in ("plain", "denoised"):
        shares = [f"{100 * row[kind]:.2f}" for row in figures["accuracy_on_generated_digits"]]
        assert " / ".join(shares) in card


def test_the_figures_of_the_multiscale_model_are_those_of_the_json():
    card = in_words((weights.FOLDER / "mnist_multiscale.rst").read_text(encoding="utf-8"))
    figures = json.loads((weights.FOLDER / "mnist_multiscale.json").read_text())
    assert f"{figures['bits_per_dim']:.4f} bits per dimension" in card
    assert " / ".join(f"{100 * share:.2f}" for share in figures["recognized"].values()) in card
    assert f"{figures['training']['seconds'] / 60:.0f} minutes of processor time" in card


def test_the_figures_of_the_condition_net_are_those_of_the_json():
    card = in_words((weights.FOLDER / "condition_net.rst").read_text(encoding="utf-8"))
    figures = json.loads((weights.FOLDER / "condition_net.json").read_text())
    errors = {split: {name: Measured(**error) for name, error in found.items()}
              for split, found in figures["rmse_ab"].items()}  # fmt: skip
    ours, undone, gray = errors["val"].values()
    assert f"pictures, is {ours} in units of a and b, that of a gray picture {gray}." in card
    assert f"the error of the mean is {undone}." in card
    for split in ("train", "test"):
        _, undone, gray = errors[split].values()
        assert f"({undone} and {gray})" in card
    for split, photographs in (("val", "validation photographs"), ("test", "test photographs")):
        assert f"{figures['photographs'][split]} {photographs}" in card
    network, constant = figures["loss"]["val"].values()
    assert f"photographs, {network:.3f}, it is better than the best guess" in card
    assert f"ignores the lightness, {constant:.3f}," in card
    assert f"those of step {figures['settings']['steps']}" in card
    assert f"lowest validation loss, {figures['settings']['val']:.3f}" in card
    use = json.loads((weights.FOLDER.parents[1] / "docs" / "condition_net_use.json").read_text())
    losses = [found["training"][-1][1] for found in use["validation_loss"].values()]
    assert f"the {use['steps']} steps of the preset ``{use['preset']}``" in card
    assert f"{use['frozen_steps']} of them with this network frozen" in card
    assert f"validation split is {losses[0]:.3f}; with" in card
    assert f"start, it is {losses[1]:.3f} (" in card
    net = ConditionNet(figures["settings"]["width"])
    load_condition_net(net, weights.FOLDER / "condition_net.safetensors")
    assert all(value.dtype == torch.float32 for value in net.parameters())


def test_digits_are_drawn_at_once(tmp_path, monkeypatch, capsys):
    drawn = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mnist_cinn, "draw_pictures", lambda *arguments: drawn.append(arguments) or [])
    mnist_cinn.main(["draw"])
    assert "using the trained model of the repository" in capsys.readouterr().out
    ((flow, noise, history, figures, out),) = drawn
    assert (noise, out) == (0.15, mnist_cinn.RUN)
    assert history.step[-1] == 1500
    assert figures["accuracy_on_generated_digits"]
    x, labels = measure.generate(flow, 5, 0.7, seed=0)
    assert judge.accuracy(judge.load(), x, labels) > 0.85


def test_one_s_own_run_comes_first(tmp_path):
    own = tmp_path / "model.safetensors"
    assert weights.trained_or_own(own, "mnist_cinn") == weights.FOLDER / "mnist_cinn.safetensors"
    assert weights.trained_or_own(own, "no_such_model") == own
    own.touch()
    assert weights.trained_or_own(own, "mnist_cinn") == own


@pytest.mark.slow
def test_the_command_draws_in_a_fresh_folder(tmp_path):
    began = time.monotonic()
    subprocess.run([sys.executable, mnist_cinn.__file__, "draw"], cwd=tmp_path, check=True)
    assert time.monotonic() - began < 60  # 7 s of work
    names = {"samples_1.0.png", "samples_0.7.png", "style_transfer.png", "latent_axes.png", "training.png"}
    assert {path.name for path in (tmp_path / "runs" / "mnist").iterdir()} == names
    assert all(valid_png(tmp_path / "runs" / "mnist" / name) for name in names)


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "trained")
    shutil.copytree(TRAINED[0].parent, weights.FOLDER)
    damage(weights.FOLDER / "mnist_cinn.safetensors")
    with pytest.raises(SystemExit, match="SHA-256 does not match"):
        mnist_cinn.main(["draw"])


def test_the_figures_of_the_colorizer_are_those_of_the_json():
    card = in_words((weights.FOLDER / "bedrooms_cinn.rst").read_text(encoding="utf-8"))
    rows = json.loads((weights.FOLDER / "bedrooms_cinn.json").read_text())["rows"]
    best, cool, gray = (Measured(**rows[kind]["rmse_8"]) for kind in ("cinn", "cinn 0.7", "gray"))
    assert f"likelihood {Measured(**rows['cinn']['nll'])} nats" in card
    assert f"{best} in units of a and b, at temperature 0.7 {cool}, of a gray picture {gray};" in card
    spread = [Measured(**rows[kind]["variance"]) for kind in ("cinn", "cinn 0.7")]
    assert f"variance of samples {spread[0]}, at temperature 0.7 {spread[1]}." in card


def test_a_photograph_is_colorized_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    photo = next((EMBEDDED / "test").iterdir())
    example = Example("bedrooms", "", bedrooms_cinn.PRESETS, bedrooms_cinn.build)
    assert main(example, ["colorize", str(photo), "-n", "2", "--upsampling", "bicubic"]) == 0
    assert "using the trained model of the repository" in capsys.readouterr().out
    first, second, original = (
        np.asarray(Image.open(path).convert("RGB")).astype(int)
        for path in (*sorted((tmp_path / "colorized").iterdir()), photo)
    )
    assert first.shape == second.shape == original.shape
    assert np.abs(first - second).mean() > 1
    assert (first.max(2) - first.min(2)).mean() > 3  # it is colored
