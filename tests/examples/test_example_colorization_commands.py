"""Training that is stopped and resumed, and every command from its command line to its files."""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import bedrooms_cinn
import imagenet_cinn
import numpy as np
import pretrain_condition_net
import process_group
import pytest
import torch
import weights as weights_file
from colorization import commands, fitting
from colorization.colorizer import load_colorizer
from colorization.commands import Example, main
from colorization.infer import GUIDED, upsample
from colorization.photos import EMBEDDED
from PIL import Image
from safetensors.torch import load_file

BEDROOMS = Example("bedrooms", "", bedrooms_cinn.PRESETS, bedrooms_cinn.build)
IMAGENET = Example(
    "imagenet", "", imagenet_cinn.PRESETS, imagenet_cinn.build, imagenet_cinn.condition_net, imagenet_cinn.STEPS
)


def picture(height, width, seed):
    """A smooth picture in color."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder of a dozen pictures; the working directory is the test's own."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "photos"
    for number in range(16):
        split = "train" if number < 10 else "val" if number < 13 else "test"
        (root / split).mkdir(parents=True, exist_ok=True)
        picture(40, 48, number).save(root / split / f"{number}.png")
    return root


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def run(example, *arguments):
    return main(example, ["--threads", "1", *map(str, arguments)]) if not arguments else main(
        example, [*map(str, arguments), "--threads", "1"])  # fmt: skip


def weights(path):
    return {name: value for name, value in load_file(path).items() if "training" not in name}


def train(data, folder, *more):
    return run(BEDROOMS, "train", "--data", data, "--out", folder, "--preset", "tiny", "--steps", 8, *more)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(data, tmp_path, monkeypatch, capsys):
    assert train(data, tmp_path / "whole") == 0
    calls = []
    draw = fitting.Drawing.__call__

    def interrupted(self, rows):
        calls.append(rows)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return draw(self, rows)

    monkeypatch.setattr(fitting.Drawing, "__call__", interrupted)
    assert train(data, tmp_path / "parts") == 130
    assert "with --resume to continue" in capsys.readouterr().err
    assert len(calls) == 5
    assert train(data, tmp_path / "parts", "--resume") == 0
    assert len(calls) == 8
    one, other = (weights(tmp_path / name / "cinn" / "model.safetensors") for name in ("whole", "parts"))
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert train(data, tmp_path / "parts", "--resume") == 0  # finished: nothing more is drawn
    assert len(calls) == 8


@pytest.mark.slow
def test_worker_processes_draw_the_same_crops(data, tmp_path):
    assert train(data, tmp_path / "none") == 0
    assert train(data, tmp_path / "two", "--workers", 2) == 0
    one, other = (weights(tmp_path / name / "cinn" / "model.safetensors") for name in ("none", "two"))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_one_command_trains_measures_and_draws(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("colorization.commands.find_viewer", lambda *paths: None)
    monkeypatch.setattr("colorization.pictures.SHOWN", 24)
    assert (
        main(
            BEDROOMS,
            ["all", "--data", str(data), "--preset", "tiny", "--steps", "2", "--temperature", "0.5", "--threads", "1"],
        )
        == 0
    )
    folder = tmp_path / "runs" / "bedrooms"
    captured, warned = capsys.readouterr()
    assert "omitted" in warned
    assert "Frechet distance (--viewer), accuracy (--classifier); pip install" in warned
    table = json.loads((folder / "table.json").read_text())
    trained = ["unconditional", "raw", "cnn", "cvae", "cgan", "colorgan"]
    assert list(table["rows"]) == ["truth", "gray", "cinn", "cinn 0.5", *trained]
    assert table["about"]["photographs"] == 3
    assert list(table["about"]["seconds"]) == ["cinn", *trained]
    assert "colorGAN: trained for" in captured
    assert table["about"]["runs"]["cinn"]["preset"]["size"] == 16
    assert table["rows"]["cinn"]["rmse_8"]["value"] <= table["rows"]["cinn"]["rmse_1"]["value"]
    assert table["rows"]["cinn 0.5"]["variance"]["value"] < table["rows"]["cinn"]["variance"]["value"]
    assert table["rows"]["cnn"]["variance"]["value"] == 0
    assert table["rows"]["truth"]["rmse_8"]["value"] == 0
    assert "nll" not in table["rows"]["cvae"]
    assert set(table["about"]["round_trip"]) == {"cinn", "raw"}
    assert 0 < table["about"]["round_trip"]["cinn"] <= 1e-3
    rst = (folder / "table.rst").read_text()
    assert rst.startswith(".. list-table::")
    assert "conditional GAN" in rst
    assert "conditional GAN" in captured
    names = {path.stem for path in (folder / "pictures").glob("*.png")}
    assert names == {"diverse", "scaling", "transfer", "interpolation", "failures", "ablation", "alternatives"}


def test_without_a_command_everything_is_done(monkeypatch):
    seen = {}
    monkeypatch.setattr(
        "colorization.commands.run_train", lambda example, options, where: seen.update(vars(options)) or 0
    )
    for name in ("run_table", "run_pictures"):
        monkeypatch.setattr(f"colorization.commands.{name}", lambda example, options, where: 0)
    assert main(BEDROOMS, []) == 0
    assert seen["preset"] == "quick"
    assert len(seen["kinds"]) == 7
    assert main(BEDROOMS, ["--steps", "7", "--kinds", "cnn"]) == 0
    assert (seen["steps"], seen["kinds"]) == (7, ["cnn"])


def test_colorize_takes_one_s_own_run_or_the_trained_model(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(weights_file, "FOLDER", tmp_path / "trained")
    picture(37, 91, 0).convert("L").save(tmp_path / "gray.png")
    refused(capsys, BEDROOMS, "colorize", tmp_path / "gray.png")  # there is neither
    assert train(data, tmp_path / "run") == 0
    trained = load_colorizer(tmp_path / "run" / "cinn" / "model.safetensors", bedrooms_cinn.build)
    weights_file.save_half(tmp_path / "trained" / "bedrooms_cinn.safetensors", trained, trained.config)
    capsys.readouterr()
    assert run(BEDROOMS, "colorize", tmp_path / "gray.png", "-n", 1) == 0
    assert "using the trained model of the repository" in capsys.readouterr().out
    assert pixels(tmp_path / "colorized" / "gray_0.png").shape == (37, 91, 3)
    own = tmp_path / "runs" / "bedrooms" / "cinn"
    own.parent.mkdir(parents=True)
    (tmp_path / "run" / "cinn").rename(own)
    assert run(BEDROOMS, "colorize", tmp_path / "gray.png", "-n", 1) == 0
    assert "trained model" not in capsys.readouterr().out
    assert run(BEDROOMS, "colorize", own / "model.safetensors") == 2
    assert "no images to colorize" in capsys.readouterr().err


def test_colorize_writes_pictures_of_the_inputs_size(data, tmp_path, capsys):
    assert train(data, tmp_path / "run") == 0
    checkpoint = tmp_path / "run" / "cinn" / "model.safetensors"
    picture(37, 91, 0).convert("L").save(tmp_path / "gray.png")
    picture(50, 20, 1).save(tmp_path / "color.jpg")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    sources = [tmp_path / name for name in ("gray.png", "broken.png", "color.jpg")]
    capsys.readouterr()
    assert run(BEDROOMS, "colorize", checkpoint, *sources, "-n", 2, "--out", tmp_path / "out") == 1
    captured = capsys.readouterr()
    assert "broken.png: can't be read" in captured.err
    shapes = {path.name: pixels(path).shape for path in (tmp_path / "out").iterdir()}
    expected = {"gray": (37, 91, 3), "color": (50, 20, 3)}
    assert shapes == {f"{name}_{k}.png": shape for name, shape in expected.items() for k in range(2)}

    def again(folder, *more):
        run(BEDROOMS, "colorize", checkpoint, tmp_path / "gray.png", "-n", 2, "--out", tmp_path / folder, *more)
        return [pixels(tmp_path / folder / f"gray_{k}.png") for k in range(2)]

    first = [pixels(tmp_path / "out" / f"gray_{k}.png") for k in range(2)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again("same"), strict=True))
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], again("seed", "--seed", 1)[0])
    cold = again("cold", "--temperature", 0)
    assert np.array_equal(cold[0], cold[1])
    assert not np.array_equal(first[0], again("bicubic", "--upsampling", "bicubic")[0])


def test_colorize_refuses_what_is_no_colorizer(data, tmp_path):
    import invgraph as ig

    x = ig.InputNode(4, name="x")
    ig.save(tmp_path / "other.safetensors", ig.Graph(x, ig.Node(x, ig.Permute)))
    with pytest.raises(ValueError, match="not a saved colorizer"):
        load_colorizer(tmp_path / "other.safetensors", bedrooms_cinn.build)


def test_images_of_one_name_get_colorings_of_different_names(data, tmp_path):
    assert train(data, tmp_path / "run") == 0
    sources = [tmp_path / name for name in ("a/1.png", "b/1.png", "c/1-2.png", "b/1.PNG")]
    for seed, source in enumerate(sources):
        source.parent.mkdir(exist_ok=True)
        picture(30, 20 + seed, seed).save(source)
    checkpoint = tmp_path / "run" / "cinn" / "model.safetensors"
    assert run(BEDROOMS, "colorize", checkpoint, *sources, "-n", 1, "--out", tmp_path / "out") == 0
    widths = {path.name: pixels(path).shape[1] for path in (tmp_path / "out").iterdir()}
    assert widths == {"1_0.png": 20, "1-3_0.png": 21, "1-2_0.png": 22, "1-4_0.png": 23}


def refused(capsys, example, *arguments):
    """Output of a command, checked to hold no traceback."""
    capsys.readouterr()
    assert run(example, *arguments) == 1
    captured = capsys.readouterr().err
    assert "Traceback" not in captured
    return captured


def test_a_run_is_not_resumed_with_other_photographs(data, tmp_path, capsys):
    """Their colors would be normalized in another way."""
    tiny = ("--data", data, "--out", tmp_path / "run", "--preset", "tiny", "--steps", 2)
    assert run(BEDROOMS, "train", *tiny) == 0
    options = list(map(str, ("--data", data, "--out", tmp_path / "net", "--preset", "tiny", "--steps", 2)))
    assert pretrain_condition_net.main(options) == 0
    picture(40, 48, 20).save(data / "train" / "more.png")
    assert "was trained otherwise (statistics." in refused(capsys, BEDROOMS, "train", *tiny, "--resume")
    assert pretrain_condition_net.main([*options, "--resume"]) == 1
    assert "was trained otherwise (statistics." in capsys.readouterr().err


def test_mistakes_are_reported_in_words(data, tmp_path, capsys, monkeypatch):
    out, gray = tmp_path / "run", tmp_path / "gray.png"
    picture(30, 30, 0).convert("L").save(gray)
    tiny = ("--data", data, "--out", out, "--preset", "tiny", "--steps", 2)
    assert run(BEDROOMS, "train", *tiny) == 0
    checkpoint = out / "cinn" / "model.safetensors"
    assert "none.safetensors" in refused(capsys, BEDROOMS, "colorize", tmp_path / "none.safetensors", gray)
    assert "take bedrooms_cinn.py" in refused(capsys, IMAGENET, "colorize", checkpoint, gray)
    assert "not a folder of photographs" in refused(capsys, BEDROOMS, "train", "--data", tmp_path / "nowhere")
    other = refused(capsys, BEDROOMS, "train", *tiny[:-1], 3, "--resume")
    assert "was trained otherwise (steps 2 -> 3)" in other
    mixed = refused(capsys, BEDROOMS, "train", *tiny[:4], "--steps", 2, "--kinds", "raw")
    assert "runs of different sizes (cinn 16 of 16 pixels, noise 0.05; raw 32 of 32 pixels" in mixed
    for path in (data / "val").iterdir():
        path.unlink()
    captured = refused(capsys, BEDROOMS, "all", *tiny[:2], "--out", tmp_path / "other", *tiny[4:])
    assert "no photographs in the val split" in captured
    assert "sort them into folders train, val, test" in captured
    assert not (tmp_path / "other").exists()

    def many(device, threads):
        return contextlib.nullcontext(process_group.Place(torch.device("cpu"), 0, 16))

    monkeypatch.setattr("colorization.commands.place", many)
    picture(40, 48, 99).save(data / "val" / "99.png")
    captured = refused(capsys, BEDROOMS, "train", *tiny[:2], "--out", tmp_path / "other", *tiny[4:])
    assert "a batch of 8 does not fit 10 rows and 16 processes" in captured


def test_a_table_of_two_sizes_is_refused(data, tmp_path, capsys):
    for preset, kind in (("tiny", "cinn"), ("quick", "cnn")):
        options = ("--data", data, "--out", tmp_path / preset, "--preset", preset, "--steps", 1, "--kinds", kind)
        assert run(BEDROOMS, "train", *options) == 0
    (tmp_path / "quick" / "cnn").rename(tmp_path / "tiny" / "cnn")
    for command in ("table",):
        captured = refused(capsys, BEDROOMS, command, "--data", data, "--out", tmp_path / "tiny")
        assert "cinn 16 of 16 pixels, noise 0.05; cnn 32 of 32 pixels" in captured


def test_only_the_first_process_measures_and_draws(data, tmp_path, monkeypatch, capsys):
    assert train(data, tmp_path / "run") == 0

    def second(device, threads):
        return contextlib.nullcontext(process_group.Place(torch.device("cpu"), 1, 2))

    monkeypatch.setattr("colorization.commands.place", second)
    before = sorted(tmp_path.rglob("*"))
    capsys.readouterr()
    for command in ("table", "pictures"):
        assert run(BEDROOMS, command, "--data", data, "--out", tmp_path / "run") == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_imagenet_pretrains_first_and_keeps_what_it_learned(data, tmp_path, monkeypatch):
    for name in ("run_table", "run_pictures"):
        monkeypatch.setattr(f"colorization.commands.{name}", lambda example, options, where: 0)
    options = ("--data", data, "--preset", "tiny", "--steps", 2, "--out", tmp_path / "run", "--kinds", "cinn", "raw")
    assert run(IMAGENET, "all", *options) == 0
    path = tmp_path / "run" / "condition_net" / "condition_net.safetensors"
    pretrained, stamp = load_file(path), path.stat().st_mtime_ns
    frozen = load_file(tmp_path / "run" / "cinn" / "frozen.safetensors")
    kept = {
        name: value for name, value in frozen.items() if "layers.features.groups" in name and "training" not in name
    }
    assert len(kept) == len(pretrained)
    assert all(torch.equal(value, pretrained[name.split("features.")[1]]) for name, value in kept.items())
    assert not (tmp_path / "run" / "raw" / "frozen.safetensors").exists()
    assert run(IMAGENET, "all", *options, "--resume") == 0
    assert path.stat().st_mtime_ns == stamp


def test_the_included_condition_net_is_used_where_it_fits(tmp_path, monkeypatch, capsys):
    net = imagenet_cinn.ConditionNet(2)
    monkeypatch.setattr("colorization.commands.INCLUDED_FOLDER", tmp_path)
    included = tmp_path / "condition_net.safetensors"

    def chosen(example=IMAGENET, **given):
        options = {"preset": "tiny", "steps": None, "data": EMBEDDED, "out": tmp_path / "run", "condition_net": None}
        return commands._condition_net_file(
            example, argparse.Namespace(**options | given), process_group.Place(torch.device("cpu"))
        )

    assert chosen() is None  # there is none
    weights_file.save_half(included, net, {"width": 2})
    assert chosen() == included
    assert "--condition-net none" in capsys.readouterr().out
    assert chosen(preset="quick") is None  # another width
    assert chosen(data=tmp_path) is None  # other photographs
    assert chosen(condition_net=Path("none")) is None
    assert chosen(condition_net=Path("own.safetensors")) == Path("own.safetensors")
    assert chosen(BEDROOMS) is None  # its features are trained with the flow
    own = tmp_path / "run" / "condition_net" / included.name
    own.parent.mkdir(parents=True)
    own.touch()
    assert chosen() is None  # pretrained in this run


def test_table_and_pictures_without_runs_say_so(data, tmp_path, capsys):
    assert run(BEDROOMS, "table", "--data", data, "--out", tmp_path / "none") == 1
    assert run(BEDROOMS, "pictures", "--data", data, "--out", tmp_path / "none") == 1
    assert capsys.readouterr().err.count("train first") == 2


def test_imagenet_in_two_phases_on_a_pretrained_condition_net(data, tmp_path, capsys):
    net = tmp_path / "condition_net"
    options = ["--data", str(data), "--preset", "tiny", "--steps", "2", "--threads", "1"]
    assert pretrain_condition_net.main([*options, "--out", str(net)]) == 0
    said = capsys.readouterr().out
    assert "annealed mean: RMSE" in said
    assert "of the best guess that ignores the lightness" in said
    path = net / "condition_net.safetensors"
    assert run(IMAGENET, "train", *options[:-2], "--condition-net", path, "--out", tmp_path / "run") == 0
    frozen = load_file(tmp_path / "run" / "cinn" / "frozen.safetensors")
    pretrained = load_file(path)
    kept = {
        name: value for name, value in frozen.items() if "layers.features.groups" in name and "training" not in name
    }
    assert len(kept) == len(pretrained)
    for name, value in kept.items():
        assert torch.equal(value, pretrained[name.split("features.")[1]]), name
    after = weights(tmp_path / "run" / "cinn" / "model.safetensors")
    moved = [name for name in kept if name.endswith("weight") and not torch.equal(after[name], kept[name])]
    assert moved


def test_upsampling_reaches_large_pictures_in_steps():
    ab = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    lightness = torch.rand(1, 1, 70, 90, generator=torch.Generator().manual_seed(1)) * 100
    assert upsample(ab, lightness).shape == (1, 2, 70, 90)
    assert upsample(ab, lightness[..., :3]).shape == (1, 2, 70, 3)
    wide = torch.full((1, 1, 8, GUIDED + 40), 50.0)
    assert upsample(ab, wide).shape == (1, 2, 8, GUIDED + 40)
    with pytest.raises(ValueError, match="choose 'joint' or 'bicubic'"):
        upsample(ab, lightness, "nearest")


@pytest.mark.slow
def test_two_processes_train_together(data, tmp_path):
    examples = Path(bedrooms_cinn.__file__).parent
    options = f"train --data {data} --out {tmp_path / 'two'} --preset tiny --steps 60 --threads 1 --device cpu"
    command = ["--nproc-per-node", "2", str(examples / "bedrooms_cinn.py"), *options.split()]
    subprocess.run([sys.executable, "-m", "torch.distributed.run", *command], check=True, timeout=300)
    looks = json.loads((tmp_path / "two" / "cinn" / "training.json").read_text())
    assert [step for step, _ in looks] == [50, 60]
    assert looks[1][1] < looks[0][1]
    assert load_colorizer(tmp_path / "two" / "cinn" / "model.safetensors", bedrooms_cinn.build).dims == 512
