"""The MNIST example: its reader, its model, its loop and its figures, on sizes that take seconds."""

import gzip
import json
import math
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import mnist_cinn
import numpy as np
import progress
import pytest
import torch
import trainer
from digits import data, judge, measure
from digits.idx import IDXError, read_idx
from PIL import Image
from places import SUPPORT

import invgraph as ig

SCRIPT = Path(mnist_cinn.__file__)
HERE = trainer.Place(torch.device("cpu"))
TINY = mnist_cinn.PRESETS["tiny"]


def idx(array, kind=0x08, shape=None):
    shape = array.shape if shape is None else shape
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + array.tobytes()


PICTURES = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)


class TestReader:
    @pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
    @pytest.mark.parametrize("array", [PICTURES, PICTURES[0, 0], PICTURES[:0]], ids=["pictures", "labels", "empty"])
    def test_gives_back_what_was_written(self, tmp_path, pack, array):
        path = tmp_path / "file"
        path.write_bytes(pack(idx(array)))
        read = read_idx(path, ndim=array.ndim)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, array)
        read[...] = 0  # the caller's own, not a view of the file

    @pytest.mark.parametrize(
        ("content", "found", "advice"),
        [
            (b"", "(none)", "starts with 00 00"),
            (b"\x89PNG\r\n", "89 50 4e 47", "another file"),
            (b"\0\0\x08", "00 00 08", "starts with 00 00"),
            (idx(PICTURES, kind=0x0D), "type 0x0d", "only unsigned bytes"),
            (idx(PICTURES[0, 0]), "1 dimensions", "mixed up"),
            (struct.pack(">BBBB", 0, 0, 8, 0), "0 dimensions", "mixed up"),
            (idx(PICTURES)[:10], "only 10 bytes", "header alone has 16"),
            (idx(PICTURES)[:-1], "23 bytes of data", "24 bytes were expected"),
            (idx(PICTURES) + b"\0", "25 bytes of data", "24 bytes were expected"),
            (idx(PICTURES, shape=(2, 3, 2**31)), "2 x 3 x 2147483648", "damaged"),
            (gzip.compress(idx(PICTURES), mtime=0)[:-9], "doesn't unpack", "cut short"),
            (gzip.compress(idx(PICTURES), mtime=0)[:12], "doesn't unpack", "cut short"),
            (gzip.compress(idx(PICTURES), mtime=0)[:-8] + b"\0" * 8, "doesn't unpack", "damaged"),
            (b"\x1f\x8b\x08" + b"\xff" * 40, "doesn't unpack", "damaged"),
        ],
    )
    def test_tells_what_is_wrong(self, tmp_path, content, found, advice):
        path = tmp_path / "damaged.gz"
        path.write_bytes(content)
        with pytest.raises(IDXError) as caught:
            read_idx(path, ndim=3)
        where, given, told = str(caught.value).split("\n")
        assert where == str(path)
        assert found in given
        assert advice in told

    def test_a_missing_file_is_python_s_own_error(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            read_idx(tmp_path / "none")

    def test_every_cut_of_a_real_file_is_refused(self, tmp_path):
        whole = (data.FOLDER / "t10k-labels-idx1-ubyte.gz").read_bytes()
        path = tmp_path / "cut.gz"
        for size in range(0, len(whole), 97):
            path.write_bytes(whole[:size])
            with pytest.raises(IDXError):
                read_idx(path)


class TestData:
    def test_mnist_is_the_real_one(self):
        train, test = data.load("train"), data.load("test")
        assert train.pixels.shape == (60_000, 28, 28)
        assert test.pixels.shape == (10_000, 28, 28)
        assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
        pixels = train.pixels.float() / 255
        assert pixels.mean().item() == pytest.approx(data.MEAN, abs=1e-4)
        assert pixels.std().item() == pytest.approx(data.STD, abs=1e-4)

    def test_files_that_do_not_belong_together(self, tmp_path):
        (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(idx(np.zeros((3, 28, 28), np.uint8)))
        (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.zeros(4, np.uint8)))
        with pytest.raises(IDXError, match="expected 3 labels"):
            data.load("test", tmp_path)
        (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.full(3, 10, np.uint8)))
        with pytest.raises(IDXError, match="labels up to 10"):
            data.load("test", tmp_path)
        (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(idx(np.zeros((3, 8, 8), np.uint8)))
        with pytest.raises(IDXError, match="another data set"):
            data.load("test", tmp_path)

    def test_units_there_and_back(self):
        pixels = torch.rand(3, 28, 28, dtype=torch.float64)
        torch.testing.assert_close(data.to_pixels(data.standardize(pixels))[:, 0], pixels, rtol=0, atol=1e-15)

    def test_conditions_are_one_hot_with_mean_0_and_deviation_1(self):
        conditions = data.condition(torch.arange(10))
        assert conditions.argmax(1).tolist() == list(range(10))
        assert conditions.dtype == torch.float32
        assert conditions.unique().numel() == 2
        torch.testing.assert_close(conditions.mean(0), torch.zeros(10), rtol=0, atol=1e-6)
        torch.testing.assert_close(conditions.std(0, correction=0), torch.ones(10), rtol=0, atol=1e-6)


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
        flow = mnist_cinn.build(1, 4, 1.0).double()  # the identity: a standard normal of standardised pixels
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


def toy(seed=0):
    """A flow of six numbers given one of three classes."""
    torch.manual_seed(seed)
    x, c = ig.InputNode(6, name="x"), ig.ConditionNode(3, name="c")
    h = ig.Node(x, ig.Coupling, {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}, conditions=c, name="first")
    h = ig.Node(ig.Node(h, ig.Permute, {"seed": 1}, name="permute"), ig.Coupling,
                {"transform": ig.Affine(), "subnet": ig.nets.MLP(hidden=8)}, conditions=c, name="second")  # fmt: skip
    return ig.Flow(ig.Graph(x, h, c))


VALUES = torch.randn(100, 6, generator=torch.Generator().manual_seed(5)) * torch.arange(1.0, 7.0)
CLASSES = torch.eye(3)[torch.arange(100) % 3]


def toy_draw(rows):
    return VALUES[rows] + 0.1 * torch.randn(len(rows), 6), CLASSES[rows]


def toy_loss(model, x, c):
    return -model(x, c).mean() / 6


def fit(path, recipe, *, flow=None, **options):
    flow = toy() if flow is None else flow
    history = trainer.train(flow, toy_loss, toy_draw, 100, recipe, where=HERE, checkpoint=path, **options)
    return flow, history


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


RECIPE = trainer.Recipe(steps=10, batch=16, rate=1e-2, warmup=2, average=0.9)


class TestTraining:
    def test_twenty_steps_lower_the_loss(self, tmp_path):
        _, history = fit(tmp_path / "m", trainer.Recipe(steps=20, batch=32, rate=2e-2))
        assert history.finished
        assert history.step == list(range(1, 21))
        assert history.loss[-1] < history.loss[0] - 0.5

    @pytest.mark.parametrize("average", [0.0, 0.9])
    @pytest.mark.parametrize("stop", [1, 5, 7, 9])
    def test_a_resumed_run_is_bit_for_bit_the_whole_one(self, tmp_path, average, stop):
        recipe = trainer.Recipe(steps=10, batch=16, rate=1e-2, warmup=2, average=average)
        whole, history = fit(tmp_path / "whole", recipe)
        torch.manual_seed(99)
        _, first = fit(tmp_path / "parts", recipe, until=stop)
        torch.manual_seed(7)
        resumed, rest = fit(tmp_path / "parts", recipe, flow=toy(seed=3), resume=True)
        assert same(whole, resumed)
        assert not first.finished
        assert rest.finished
        assert (rest.step, rest.loss, rest.rate) == (history.step, history.loss, history.rate)
        assert ig.load(tmp_path / "whole").training["step"] == 10

    def test_losses_before_a_stop_are_in_the_next_record(self, tmp_path):
        recipe = trainer.Recipe(steps=40, batch=16)  # a record every second step
        _, whole = fit(tmp_path / "whole", recipe)
        fit(tmp_path / "parts", recipe, until=7)
        _, rest = fit(tmp_path / "parts", recipe, resume=True)
        assert rest.loss == whole.loss

    def test_saving_in_between_changes_nothing(self, tmp_path, monkeypatch):
        whole, _ = fit(tmp_path / "whole", RECIPE)
        monkeypatch.setattr(trainer, "SAVE_SECONDS", 0)
        often, _ = fit(tmp_path / "often", RECIPE)
        assert same(whole, often)

    def test_the_checkpoint_holds_the_weights_to_use(self, tmp_path):
        trained, _ = fit(tmp_path / "m", RECIPE, metadata={"some": "thing"})
        loaded = toy(seed=4)
        assert ig.load(tmp_path / "m", loaded).metadata == {"some": "thing"}
        assert same(trained, loaded)

    def test_averaged_weights_are_not_the_last_ones(self, tmp_path):
        averaged, _ = fit(tmp_path / "a", RECIPE)
        last, _ = fit(tmp_path / "b", trainer.Recipe(steps=10, batch=16, rate=1e-2, warmup=2))
        assert not same(averaged, last)

    def test_another_seed_is_another_run(self, tmp_path):
        a, _ = fit(tmp_path / "a", RECIPE, seed=0)
        b, _ = fit(tmp_path / "b", RECIPE, seed=1)
        assert not same(a, b)

    def test_resuming_with_other_settings_is_refused(self, tmp_path):
        fit(tmp_path / "m", RECIPE, until=5)
        other = trainer.Recipe(steps=12, batch=16, rate=1e-2, warmup=2, average=0.9)
        with pytest.raises(ValueError, match="steps 10 -> 12, seed 0 -> 1"):
            fit(tmp_path / "m", other, resume=True, seed=1)

    def test_resuming_what_was_saved_without_training_state_is_refused(self, tmp_path):
        ig.save(tmp_path / "m", toy())
        with pytest.raises(ValueError, match="no training state"):
            fit(tmp_path / "m", RECIPE, resume=True)

    def test_a_loss_that_is_not_finite_stops_the_run(self, tmp_path):
        def lost(model, x, c):
            return toy_loss(model, x, c) * math.nan

        with pytest.raises(RuntimeError, match=r"became nan before step 1: .*nothing was saved"):
            trainer.train(toy(), lost, toy_draw, 100, RECIPE, where=HERE, checkpoint=tmp_path / "m")
        assert not (tmp_path / "m").exists()

    def test_weights_that_are_not_finite_are_not_saved(self, tmp_path):
        fit(tmp_path / "m", RECIPE, until=5)
        before = (tmp_path / "m").read_bytes()

        def spoilt(model, x, c):  # the loss is finite, its gradient is not
            return toy_loss(model, x, c) + (0 * next(model.parameters()).sum()).sqrt()

        with pytest.raises(trainer.DivergedError, match=r"weights became .* before step 6: .*m holds an earlier state"):
            trainer.train(toy(), spoilt, toy_draw, 100, RECIPE, where=HERE, checkpoint=tmp_path / "m",
                          resume=True, until=6)  # fmt: skip
        assert (tmp_path / "m").read_bytes() == before

    def test_a_batch_that_is_given_later_is_begun_before_the_step_that_precedes_it(self, tmp_path):
        events = []

        def later(rows):
            batch = toy_draw(rows)
            events.append("begun")

            def given():
                events.append("given")
                return batch

            return given

        def noisy(model, x, c):
            events.append("trained")
            return toy_loss(model, x + torch.rand_like(x), c)

        runs = []
        for name, draw in (("now", toy_draw), ("later", later)):
            flow, events[:] = toy(), []
            trainer.train(flow, noisy, draw, 100, RECIPE, where=HERE, checkpoint=tmp_path / name)
            runs.append(flow)
        assert events[:8] == ["begun", "begun", "given", "trained", "begun", "given", "trained", "begun"]
        assert events[-4:] == ["given", "trained", "given", "trained"]
        assert events.count("begun") == 10
        assert same(*runs)

    def test_a_batch_larger_than_the_data_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="batch of 101"):
            fit(tmp_path / "m", trainer.Recipe(steps=1, batch=101))

    def test_each_epoch_shows_each_row_once(self):
        order = trainer._Order(100, 20, seed=0)
        epochs = [torch.cat([order.of_step(5 * epoch + step) for step in range(5)]) for epoch in range(2)]
        assert all(sorted(epoch.tolist()) == list(range(100)) for epoch in epochs)
        assert epochs[0].tolist() != epochs[1].tolist()
        assert trainer._Order(100, 20, seed=0).of_step(7).tolist() == order.of_step(7).tolist()

    def test_rates(self):
        cosine = trainer.Recipe(steps=110, batch=1, rate=1.0, warmup=10)
        assert [cosine.rate_at(step) for step in (0, 9, 10, 60)] == pytest.approx([0.1, 1, 1, 0.5])
        assert cosine.rate_at(109) < 1e-3
        drops = trainer.Recipe(steps=60, batch=1, rate=1.0, schedule="drops")
        assert [drops.rate_at(step) for step in (0, 19, 20, 39, 40, 59)] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])

    def test_autocast_trains_in_half_precision(self, tmp_path):
        flow, recipe, seen = toy(), trainer.Recipe(steps=5, batch=16, autocast=True), set()

        def loss(model, x, c):
            seen.add(torch.is_autocast_enabled("cpu"))
            return toy_loss(model, x, c)

        history = trainer.train(flow, loss, toy_draw, 100, recipe, where=HERE, checkpoint=tmp_path / "m")
        assert history.finished
        assert seen == {True}
        assert all(weight.dtype == torch.float32 for weight in flow.parameters())


def adamw_by_hand(recipe):
    """Weights and averaged weights after the recipe's steps on the toy, by the formulas of AdamW."""
    flow = toy().double()
    weights = list(flow.parameters())
    first, second, averages = ([torch.zeros_like(w) for w in weights] for _ in range(3))
    averages = [w.detach().clone() for w in weights]
    order, norms = trainer._Order(100, recipe.batch, 0), []
    for step in range(recipe.steps):
        torch.manual_seed(trainer._mix_seed(0, step, 0))
        grads = torch.autograd.grad(double_loss(flow, *toy_draw(order.of_step(step))), weights)
        norms.append(torch.cat([grad.flatten() for grad in grads]).norm().item())
        factor = min(1.0, recipe.clip / (norms[-1] + 1e-6))
        rate, t = recipe.rate_at(step), step + 1
        with torch.no_grad():
            for w, grad, m, v, average in zip(weights, grads, first, second, averages, strict=True):
                grad = grad * factor
                m += 0.1 * (grad - m)
                v += (1 - recipe.beta2) * (grad.square() - v)
                w *= 1 - rate * recipe.weight_decay
                w -= rate * (m / (1 - 0.9**t)) / ((v / (1 - recipe.beta2**t)).sqrt() + 1e-8)
                average += max(1 - recipe.average, 10 / (10 + t)) * (w - average)
    return weights, averages, norms


def double_loss(model, x, c):
    return toy_loss(model, x.double(), c.double())


@pytest.mark.parametrize("average", [0.0, 0.8])
@pytest.mark.parametrize("clip", [0.5, 10.0])
def test_a_run_is_adamw_with_the_recipe_s_numbers(tmp_path, clip, average):
    recipe = trainer.Recipe(
        steps=40, batch=16, rate=2e-2, warmup=5, beta2=0.95, weight_decay=0.3, clip=clip, average=average
    )
    flow = toy().double()
    trainer.train(flow, double_loss, toy_draw, 100, recipe, where=HERE, checkpoint=tmp_path / "m")
    weights, averages, norms = adamw_by_hand(recipe)
    if clip < 1:
        assert min(norms) < clip < max(norms)  # some steps are clipped, others are not
    for found, expected in zip(flow.parameters(), averages if average else weights, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_the_recipes_of_the_presets():
    quick, paper = (mnist_cinn.PRESETS[name].recipe for name in ("quick", "paper"))
    # The paper's code: Adam at 5e-4 with weight decay 1e-5, gradients clipped at 10, a tenth of the rate after 20 and
    # after 40 of 60 epochs.
    assert paper == trainer.Recipe(steps=14_040, batch=256, rate=5e-4, schedule="drops", weight_decay=1e-5, clip=10.0)
    # The one whose figures docs/examples.rst quotes: measure again when it changes.
    assert quick == trainer.Recipe(
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
    mnist_cinn.main(["--preset", "tiny", "--steps", "4", "--device", "cpu", "--out", str(out)])
    told = capsys.readouterr().out
    for word in ("nats per dimension", "bits per dimension", "Eq. 6", "denoised", "round trip"):
        assert word in told
    names = {"samples_1.0.png", "samples_0.7.png", "style_transfer.png", "latent_axes.png", "training.png"}
    assert {path.name for path in out.iterdir()} == {"model.safetensors", "metrics.json", *names}
    assert all(valid_png(out / name) for name in names)
    figures = json.loads((out / "metrics.json").read_text())
    assert figures["round_trip"]["float64"] < 1e-10
    assert figures["noise"]["of_the_pixel_range"] == 0.15
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


def test_ctrl_c_saves_and_tells_how_to_go_on(tmp_path):
    command = [sys.executable, str(SCRIPT), "--preset", "tiny", "--steps", "1000000", "--device", "cpu"]
    command += ["--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    assert "Ctrl-C" in process.stderr.readline()  # from here on it trains
    process.send_signal(signal.SIGINT)
    told, complaints = process.communicate(timeout=60)
    assert process.returncode == 130, complaints
    assert "--resume" in told
    state = ig.load(tmp_path / "model.safetensors").training
    assert state["step"] < 1_000_000
    assert not state["history"]["finished"]


def test_one_ctrl_c_that_arrives_twice_stops_after_the_step(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.Stop(HERE.device) as stop:
        assert not stop.asked()
        os.kill(os.getpid(), signal.SIGINT)
        now[0] = 0.1
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked()
        now[0] = 3.0
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def torchrun(world, script, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment["PYTHONPATH"] = os.pathsep.join((str(SCRIPT.parent), str(SCRIPT.parent.parent), *sys.path[:1]))
    return subprocess.Popen([*command, str(script), *map(str, arguments)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=environment)  # fmt: skip


def finished(process):
    told, complaints = process.communicate(timeout=300)
    assert process.returncode == 0, complaints
    return told


def weights(path):
    flow = mnist_cinn.build(TINY.blocks, TINY.hidden, TINY.clamp)
    checkpoint = ig.load(path, flow)
    return list(flow.state_dict().values()), checkpoint.training


@pytest.mark.slow
def test_two_processes_stopped_and_resumed_by_two_one_and_three(tmp_path):
    steps = 1500
    options = ("--preset", "tiny", "--steps", steps, "--device", "cpu", "--out")
    finished(torchrun(2, SCRIPT, *options, tmp_path / "whole"))
    run = torchrun(2, SCRIPT, *options, tmp_path / "stopped")
    assert any("Ctrl-C" in line for line in run.stderr)  # from here on it trains
    time.sleep(1)
    run.send_signal(signal.SIGTERM)  # torchrun hands it to its processes
    run.communicate(timeout=120)
    _, state = weights(tmp_path / "stopped" / "model.safetensors")
    assert 0 < state["step"] < steps
    wanted, whole = weights(tmp_path / "whole" / "model.safetensors")
    for world in (2, 1, 3):
        shutil.copytree(tmp_path / "stopped", tmp_path / str(world))
        told = finished(torchrun(world, SCRIPT, *options, tmp_path / str(world), "--resume"))
        assert f"processes: {world}" in told
        found, training = weights(tmp_path / str(world) / "model.safetensors")
        assert training["step"] == steps
        assert training["history"]["step"] == whole["history"]["step"]
        if world == 2:
            assert all(map(torch.equal, found, wanted))
        losses = [torch.tensor(record["history"]["loss"][-5:]).mean() for record in (training, whole)]
        print(
            f"stopped after {state['step']} of {steps}, resumed by {world}: loss {losses[0]:.4f}; whole {losses[1]:.4f}"
        )
        assert abs(losses[0] - losses[1]) < 0.02


OFTEN_SAVED = """
import sys
import mnist_cinn, trainer

trainer.SAVE_SECONDS = 0.5
mnist_cinn.main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_killed_process_ends_the_job_with_words_and_a_checkpoint_to_go_on_from(tmp_path, lost):
    options = ("--preset", "tiny", "--steps", 1500, "--device", "cpu", "--out")
    (tmp_path / "often.py").write_text(OFTEN_SAVED)
    run = torchrun(2, tmp_path / "often.py", *options, tmp_path / "lost")
    assert any("Ctrl-C" in line for line in run.stderr)  # from here on it trains
    checkpoint = tmp_path / "lost" / "model.safetensors"
    while ig.load(checkpoint).training["step"] == 0:
        time.sleep(0.1)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    ranks = {int(Path(f"/proc/{pid}/environ").read_text().split("\0RANK=")[1].split("\0")[0]): pid for pid in children}
    os.kill(int(ranks[lost]), signal.SIGKILL)
    _, complaints = run.communicate(timeout=60)
    assert run.returncode != 0
    assert f"process {1 - lost} of 2 can't go on" in complaints
    assert f"{checkpoint} holds the run as of" in complaints
    assert "--resume" in complaints
    assert 0 < ig.load(checkpoint).training["step"] < 1500
    finished(torchrun(2, SCRIPT, *options, tmp_path / "lost", "--resume"))
    finished(torchrun(2, SCRIPT, *options, tmp_path / "whole"))
    found, wanted = (weights(tmp_path / name / "model.safetensors")[0] for name in ("lost", "whole"))
    assert all(map(torch.equal, found, wanted))


@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 3])
def test_a_run_resumed_in_the_same_job_reads_what_was_just_written(world, tmp_path):
    finished(torchrun(world, SUPPORT / "resume_worker.py", tmp_path / "many"))
    finished(torchrun(1, SUPPORT / "resume_worker.py", tmp_path / "one"))
    flows = [toy().double() for _ in range(2)]
    for flow, name in zip(flows, ("many", "one"), strict=True):
        assert ig.load(tmp_path / name, flow).training["step"] == 6
    gaps = [float((a - b).abs().max()) for a, b in zip(*(flow.state_dict().values() for flow in flows), strict=True)]
    print(f"{world} processes, stopped after each second step: {max(gaps):.1e} from one")
    assert max(gaps) <= 1e-12


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(SCRIPT)]
    command += ["--preset", "tiny", "--steps", "6", "--device", "cpu", "--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "processes: 2" in done.stdout
    figures = json.loads((tmp_path / "metrics.json").read_text())
    assert figures["training"]["steps"] == 6
    assert done.stdout.count("test NLL") == 1
