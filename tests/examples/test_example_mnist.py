"""The MNIST example: its reader, its model, its loop and its figures, on sizes that take seconds."""

import json
import math
import os
import signal
from pathlib import Path

import mnist_cinn
import pytest
import torch
from digits import data, judge, measure
from PIL import Image
from recipe import Recipe
from test_example_trainer import toy

import invgraph as ig

SCRIPT = Path(mnist_cinn.__file__)
TINY = mnist_cinn.PRESETS["tiny"]


def tiny_flow(seed=0):
    torch.manual_seed(seed)
    return mnist_cinn.build(TINY.blocks, TINY.hidden, TINY.clamp)


def stirred(flow, dtype=torch.float64):
    """Off the identity it starts at."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in flow.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.01)
    return flow.to(dtype)


@pytest.mark.parametrize("preset", ["tiny", "quick"])
def test_the_model_comes_back_in_float64(preset):
    settings = mnist_cinn.PRESETS[preset]
    flow = stirred(mnist_cinn.build(settings.blocks, settings.hidden, settings.clamp))
    x = torch.randn(4, 1, 28, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    c = torch.eye(10, dtype=torch.float64)[:4]
    z, log_det = flow.graph(x, c)
    back, log_det_back = flow.graph.inverse(z, c)
    assert z.shape == (4, 784)
    assert not torch.allclose(z, x.flatten(1))
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(log_det, -log_det_back, rtol=0, atol=1e-10)


def test_the_paper_preset_is_the_paper_s_model():
    paper = mnist_cinn.PRESETS["paper"]
    assert (paper.blocks, paper.hidden) == (24, 512)
    assert paper.recipe.steps * paper.recipe.batch == pytest.approx(60 * 60_000, rel=0.01)
    with torch.device("meta"):
        flow = mnist_cinn.build(paper.blocks, paper.hidden, paper.clamp)
    couplings = [layer for layer in flow.graph.layers.values() if isinstance(layer, ig.Coupling)]
    assert len(couplings) == 24


class TestFigures:
    def test_bits_per_dim_of_a_uniform_density_are_eight(self):
        # Bytes plus uniform noise fill 256 units evenly: density 1 / 256 each, 8 bits, whatever the units.
        nats = math.log(256 / (255 * data.STD))
        assert measure.bits_per_dim(nats) == pytest.approx(8, abs=1e-12)

    def test_bits_per_dim_against_a_normal_density_of_bytes(self):
        flow = mnist_cinn.build(1, 4, 1.0).double()  # the identity: a standard normal of standardized pixels
        pixels = torch.randint(256, (5, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        labels = torch.arange(5)
        x = measure.dequantized(pixels, torch.Generator().manual_seed(3))
        y = pixels.float() + torch.rand(pixels.shape, generator=torch.Generator().manual_seed(3))
        normal = torch.distributions.Normal(0.5 + 255 * data.MEAN, 255 * data.STD)
        expected = -normal.log_prob(y.double()).mean().item() / math.log(2)
        flow = flow.float()
        assert measure.bits_per_dim(measure.nll(flow, x, labels)) == pytest.approx(expected, abs=1e-5)

    def test_the_loss_is_equation_6_and_nll_has_the_constant(self):
        flow = stirred(tiny_flow(), torch.float32)
        x, labels = torch.randn(6, 1, 28, 28, generator=torch.Generator().manual_seed(0)), torch.arange(6)
        c = data.condition(labels)
        z, log_det = flow.graph(x, c)
        by_hand = (0.5 * z.square().sum(1) - log_det).mean().item() / 784
        assert mnist_cinn.loss(flow, x, c).item() == pytest.approx(by_hand, abs=1e-6)
        assert measure.nll(flow, x, labels) == pytest.approx(by_hand + 0.5 * math.log(2 * math.pi), abs=1e-6)

    def test_noise_has_the_stated_deviation(self):
        x = measure.noisy(torch.zeros(200, 28, 28, dtype=torch.uint8), 0.15, torch.Generator().manual_seed(0))
        assert (x.std() * data.STD).item() == pytest.approx(0.15, rel=0.01)
        assert (x.mean() * data.STD + data.MEAN).item() == pytest.approx(0, abs=1e-3)

    def test_the_judge_knows_real_digits_clean_and_noisy(self):
        digits = data.load("test")
        pixels, labels = digits.pixels[:2000], digits.labels[:2000]
        network = judge.load()
        clean = judge.accuracy(network, data.standardize(pixels.float() / 255), labels)
        noisy = judge.accuracy(network, measure.noisy(pixels, 0.15, torch.Generator().manual_seed(0)), labels)
        assert clean > 0.98
        assert noisy > 0.975

    def test_denoising_takes_noise_off(self):
        flow = tiny_flow()  # the identity: the mean of a standard normal behind noise is known
        x = torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        tidy = measure.denoise(flow, x, torch.arange(3), 0.15)
        torch.testing.assert_close(tidy, x * (1 - (0.15 / data.STD) ** 2), rtol=1e-5, atol=1e-6)


def test_the_recipes_of_the_presets():
    quick, paper = (mnist_cinn.PRESETS[name].recipe for name in ("quick", "paper"))
    # The paper's code: Adam at 5e-4 with weight decay 1e-5, gradients clipped at 10, a tenth of the rate after 20 and
    # after 40 of 60 epochs.
    assert paper == Recipe(steps=14_040, batch=256, rate=5e-4, schedule="drops", weight_decay=1e-5, clip=10.0)
    # The one whose figures docs/examples.rst quotes: measure again when it changes.
    assert quick == Recipe(
        steps=1500, batch=128, rate=1.5e-3, warmup=100, schedule="cosine", beta2=0.99, weight_decay=1e-5, clip=10.0
    )


def valid_png(path):
    with Image.open(path) as image:
        image.load()
        return image.format == "PNG" and min(image.size) > 300


@pytest.fixture
def few(monkeypatch):
    """Measure and draw with few digits."""
    from digits import pictures

    whole, axes = measure.evaluate, pictures.axes
    monkeypatch.setattr(measure, "evaluate", lambda *a, **k: whole(*a, **{**k, "each": 2, "count": 50}))
    monkeypatch.setattr(pictures, "axes", lambda *a, **k: axes(*a, **{**k, "count": 100}))


@pytest.mark.usefixtures("few")
def test_train_evaluate_and_draw(tmp_path, capsys):
    out = tmp_path / "run"
    mnist_cinn.main(["--preset", "tiny", "--steps", "4", "--noise", "0.02", "--device", "cpu", "--out", str(out)])
    told = capsys.readouterr().out
    for word in ("nats per dimension", "bits per dimension", "Eq. 6", "denoised", "round trip"):
        assert word in told
    names = {"samples_1.0.png", "samples_0.7.png", "style_transfer.png", "latent_axes.png", "training.png"}
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "metrics.json", *names}
    assert all(valid_png(out / name) for name in names)
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["round_trip"]["float64"] < 1e-10
    assert figures["noise"]["of_the_pixel_range"] == 0.02
    assert ig.load(out / "model.safetensors").metadata["noise"] == 0.02
    assert [row["temperature"] for row in figures["accuracy_on_generated_digits"]] == [1.0, 0.8, 0.7, 0.6]
    assert figures["nll_nats_per_dim"] - figures["loss_nats_per_dim"] == pytest.approx(0.5 * math.log(2 * math.pi))
    assert set(figures["conventions"]) == {"nll", "loss", "bits", "accuracy"}

    checkpoint = str(out / "model.safetensors")
    mnist_cinn.main(["evaluate", "--checkpoint", checkpoint, "--out", str(tmp_path / "again")])
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    for name in ("nll_nats_per_dim", "bits_per_dim", "accuracy_on_generated_digits"):
        assert again[name] == figures[name]
    mnist_cinn.main(["draw", "--checkpoint", checkpoint, "--out", str(tmp_path / "again")])
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.gpu
@pytest.mark.usefixtures("few")
def test_train_measure_draw_and_resume_on_a_gpu(tmp_path):
    common = ["--preset", "tiny", "--steps", "4", "--device", "cuda", "--out", str(tmp_path)]
    mnist_cinn.main(common)
    assert json.loads((tmp_path / "metrics.json").read_text())["training"]["steps"] == 4
    mnist_cinn.main([*common, "--resume"])
    mnist_cinn.main(["evaluate", "--device", "cuda", "--checkpoint", str(tmp_path / "model.safetensors")])


def test_ctrl_c_saves_and_tells_how_to_go_on(tmp_path, capsys, monkeypatch):
    loss, calls = mnist_cinn.loss, []

    def interrupted(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(*arguments)

    monkeypatch.setattr(mnist_cinn, "loss", interrupted)
    with pytest.raises(SystemExit) as stopped:
        mnist_cinn.main(["--preset", "tiny", "--steps", "1000000", "--device", "cpu", "--out", str(tmp_path)])
    assert stopped.value.code == 130
    assert "--resume" in capsys.readouterr().out
    state = ig.load(tmp_path / "model.safetensors").training
    assert state["step"] == 3
    assert not state["history"]["finished"]
    with pytest.raises(SystemExit, match=r"trained otherwise \(noise 0.15 -> 0.02\)"):
        mnist_cinn.main(["--preset", "tiny", "--steps", "1000000", "--noise", "0.02", "--device", "cpu",
                         "--out", str(tmp_path), "--resume"])  # fmt: skip


def test_bad_files_end_with_words_not_a_traceback(tmp_path):
    with pytest.raises(SystemExit, match="nothing to resume"):
        mnist_cinn.main(["--resume", "--out", str(tmp_path)])
    ig.save(tmp_path / "other", toy())
    with pytest.raises(SystemExit, match="not of this example"):
        mnist_cinn.main(["draw", "--checkpoint", str(tmp_path / "other")])
    (tmp_path / "noise").write_bytes(b"noise")
    with pytest.raises(SystemExit, match="noise"):
        mnist_cinn.main(["draw", "--checkpoint", str(tmp_path / "noise")])
    with pytest.raises(SystemExit, match="none"):
        mnist_cinn.main(["draw", "--checkpoint", str(tmp_path / "none")])
