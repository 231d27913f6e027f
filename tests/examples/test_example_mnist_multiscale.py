"""The multi-scale MNIST example: its histogram, its order of pixels, training for a processor time, comparison."""

import json
import math
import re
import signal
from functools import cache
from pathlib import Path

import mnist_multiscale
import pytest
import torch
import weights
from digits import data, multiscale
from digits.timed import Run, as_bytes, bits
from PIL import Image

import invgraph as ig

TINY = {"width": 2, "blocks": 1, "hidden": 4}


def shaken(flow, strength=0.2):
    """Give all weights noise, so that no subnet starts at zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in flow.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=strength)
    return flow.eval()


@cache
def whole(part):
    return data.load(part)


def few(count, part="train"):
    digits = whole(part)
    return data.Digits(digits.pixels[:count], digits.labels[:count])


def test_the_histogram_is_a_layer_of_the_library():
    layer = ig.Elementwise((1, 3, 3), transform=multiscale.Histogram()).double()
    shaken(layer, 1.0)
    x = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (y,), log_det = layer((x,))
    (back,), log_det_back = layer.inverse((y,))
    torch.testing.assert_close(back, x, rtol=0, atol=1e-12)
    torch.testing.assert_close(log_det_back, -log_det)
    jacobian = torch.autograd.functional.jacobian(lambda one: layer((one[None],))[0][0].flatten(), x[0])
    assert torch.linalg.slogdet(jacobian.reshape(9, 9))[1].item() == pytest.approx(log_det[0].item(), abs=1e-9)


def test_the_histogram_loses_nothing_against_a_model_of_the_bytes():
    pixels = few(50).pixels
    transform = multiscale.Histogram(edges=tuple(range(257)), start=())
    log_p = multiscale.frequencies(pixels, transform.edges)
    noisy = (pixels.double() + torch.rand(pixels.shape, dtype=torch.float64)) / 256
    y, log_det = transform.forward(noisy, torch.tensor(log_p).double().view(1, -1, 1, 1).expand(50, -1, 28, 28))
    density = log_det - 0.5 * (y * y + math.log(2 * math.pi)).flatten(1).sum(1)
    found = -density.mean().item() / math.log(2) / 784 + 8
    shares = torch.bincount(pixels.flatten().long(), minlength=256).double() / pixels.numel()
    assert found == pytest.approx(-torch.special.xlogy(shares, shares).sum().item() / math.log(2), abs=1e-3)


def test_pixels_depend_on_coarser_and_earlier_ones_only():
    flow = shaken(multiscale.build(**TINY)).double()
    digits = few(2)
    x, c = as_bytes(digits.pixels).double(), data.condition(digits.labels).double()
    before, _ = flow.graph(x, c)
    changed = x.clone()
    changed[:, :, 14, 13] = 255 - changed[:, :, 14, 13]  # a pixel of the last but one group, between two columns
    after, _ = flow.graph(changed, c)
    same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same == [True, True, True, True, True, False, False]
    assert len(before) == 7
    back, _ = flow.graph.inverse(before, c)
    assert torch.equal(back, x)


def test_samples_are_bytes_and_the_digit_matters():
    flow = shaken(multiscale.build(**TINY))
    x = flow.sample(2, data.condition(torch.arange(10)))
    assert x.shape == (2, 10, 1, 28, 28)
    assert torch.equal(x, x.round())
    assert 0 <= x.min() < x.max() <= 255
    other = flow.log_prob(x[0], data.condition(torch.arange(10).flip(0)))
    assert (flow.log_prob(x[0], data.condition(torch.arange(10))) != other).all()


def test_the_architecture_of_the_paper_sees_the_same_bytes():
    flow = shaken(multiscale.build_paper(2, 8), 0.02)
    digits = few(3)
    x, c = as_bytes(digits.pixels), data.condition(digits.labels)
    z, _ = flow.graph(x, c)
    back, _ = flow.graph.inverse(z, c)
    assert torch.equal(back, x)
    assert bits(flow, digits) > 0


def new_run(path, seconds=3.0):
    torch.manual_seed(0)
    flow = multiscale.build(**TINY, start=multiscale.frequencies(few(100).pixels))
    return Run(flow, 1e-2, 8, seconds, path, {})


def test_a_resumed_run_takes_the_steps_it_would_have_taken(tmp_path):
    digits = few(64)
    conditions = data.condition(digits.labels)
    full, half = new_run(tmp_path / "whole.safetensors"), new_run(tmp_path / "half.safetensors")
    for _ in range(6):
        full._update(digits.pixels, conditions)
    for _ in range(3):
        half._update(digits.pixels, conditions)
    half.save()
    resumed = new_run(tmp_path / "half.safetensors")
    assert resumed.step == 3
    for _ in range(3):
        resumed._update(digits.pixels, conditions)
    for expected, found in zip((*full.weights, *full.averages), (*resumed.weights, *resumed.averages), strict=True):
        assert torch.equal(expected, found)


def test_ctrl_c_saves_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(mnist_multiscale.MODELS, "multiscale", TINY)
    parts = {part: few(64, part) for part in ("train", "test")}
    monkeypatch.setattr(mnist_multiscale.data, "load", lambda part: parts[part])
    update = Run._update

    def update_and_interrupt(run, *batch):
        update(run, *batch)
        if run.step == 3:
            signal.raise_signal(signal.SIGINT)

    command = ["train", "--cpu-minutes", "0.01", "--out", str(tmp_path)]
    monkeypatch.setattr(Run, "_update", update_and_interrupt)
    with pytest.raises(SystemExit) as stopped:
        mnist_multiscale.main(command)
    assert stopped.value.code == 130
    assert "stopped; run the same command to continue" in capsys.readouterr().out
    assert mnist_multiscale.open_checkpoint(tmp_path / "multiscale.safetensors")[1]["steps"] == 3
    monkeypatch.setattr(Run, "_update", update)
    mnist_multiscale.main(command)
    assert mnist_multiscale.open_checkpoint(tmp_path / "multiscale.safetensors")[1]["steps"] > 3


def test_digits_of_the_trained_model_are_drawn_at_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    mnist_multiscale.main(["draw"])
    said = capsys.readouterr().out
    assert "using the trained model of the repository" in said
    with Image.open(tmp_path / mnist_multiscale.RUN / "digits.png") as image:
        image.load()
    flow, metadata = mnist_multiscale.open_checkpoint(weights.FOLDER / "mnist_multiscale.safetensors")
    assert metadata["model"] == "multiscale"
    assert bits(flow, few(100, "test")) < 1.2


def test_the_rate_falls_in_the_last_quarter_of_the_time(tmp_path):
    run = new_run(tmp_path / "run.safetensors", seconds=100.0)
    run.step = 1000
    rates = []
    for run.spent in (0.0, 75.0, 87.5, 100.0):
        rates.append(run._rate() / run.rate)
    assert rates == [1, 1, 0.5, 0]


@pytest.mark.slow
def test_it_trains_goes_on_and_compares(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(mnist_multiscale.MODELS, "multiscale", TINY)
    monkeypatch.setitem(mnist_multiscale.MODELS, "paper", {"blocks": 1, "hidden": 4})
    parts = {part: few(100, part) for part in ("train", "test")}
    monkeypatch.setattr(mnist_multiscale.data, "load", lambda part: parts[part])
    for model in ("multiscale", "multiscale", "paper"):
        mnist_multiscale.main(["train", "--model", model, "--cpu-minutes", "0.003", "--out", str(tmp_path)])
    mnist_multiscale.main(["compare", "--each", "1", "--count", "20", "--out", str(tmp_path)])
    results = json.loads((tmp_path / "comparison.json").read_text())
    assert list(results) == ["multiscale", "paper"]
    for found in results.values():
        assert found["seconds"] >= 0.18
        assert found["curve"]["seconds"][-1] == found["seconds"]
        assert set(found["recognized"]) == {"1", "0.8", "0.7", "0.6"}
    for name in ("curves", "samples"):
        with Image.open(tmp_path / f"{name}.png") as image:
            image.load()
    assert "recognized" in capsys.readouterr().out


def test_it_says_what_is_missing(tmp_path):
    with pytest.raises(SystemExit, match="train first"):
        mnist_multiscale.main(["compare", "--out", str(tmp_path)])
    ig.save(tmp_path / "paper.safetensors", multiscale.build_paper(1, 2))
    with pytest.raises(SystemExit, match="not a checkpoint of this example"):
        mnist_multiscale.main(["compare", "--out", str(tmp_path)])


def test_the_documented_figures_are_those_of_the_json():
    docs = Path(mnist_multiscale.__file__).parent.parent / "docs"
    text = re.sub(r"\s+", " ", (docs / "examples.rst").read_text(encoding="utf-8"))
    results = json.loads((docs / "mnist_multiscale.json").read_text(encoding="utf-8"))
    columns = [results[name] for name in ("multiscale", "paper", "multiscale_longer")]
    assert " - ".join(f"{found['bits_per_dim']:.4f}" for found in columns) in text
    shares = [" / ".join(f"{100 * share:.2f}" for share in found["recognized"].values()) for found in columns]
    assert " - ".join(f"{share} %" for share in shares) in text
    assert " - ".join(f"{found['steps']:,}, {found['batch']}" for found in columns) in text
    titles = ("multi-scale model", "the paper's architecture", "multi-scale model")
    minutes = [f"{title}, {found['seconds'] / 60:.0f}" for title, found in zip(titles, columns, strict=True)]
    assert " - ".join(minutes) in text
    ours, papers, _ = columns
    assert ours["seconds"] == pytest.approx(papers["seconds"], rel=0.01)
    assert ours["bits_per_dim"] < papers["bits_per_dim"]
    assert all(share > papers["recognized"][name] for name, share in ours["recognized"].items())
