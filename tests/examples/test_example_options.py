"""Options of the examples: what is no number of steps is refused, and a folder is tried before anything is computed."""

import argparse

import ablations
import bedrooms_cinn
import mnist_cinn
import mnist_multiscale
import options
import pretrain_condition_net
import pytest
from colorization import commands
from colorization.photos import Statistics

BEDROOMS = commands.Example("bedrooms", "", bedrooms_cinn.PRESETS, bedrooms_cinn.build)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "ten", "", "²"])
def test_numbers_of_steps_are_whole_and_above_zero(text):
    assert options.positive("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match="is not a whole number above zero"):
        options.positive(text)


def test_counts_start_at_zero():
    assert options.count("0") == 0
    assert options.count("2") == 2
    with pytest.raises(argparse.ArgumentTypeError, match="above zero"):
        options.count("-1")


@pytest.mark.parametrize("device", ["nope", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device, capsys):
    with pytest.raises(SystemExit, match=f"--device {device}: .*\nchoose cpu"):
        mnist_cinn.main(["draw", "--device", device])
    assert commands.main(BEDROOMS, ["table", "--device", device]) == 1
    assert f"--device {device}: " in capsys.readouterr().err


def test_an_image_or_a_model_that_is_not_there(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert commands.main(BEDROOMS, ["colorize", "none.jpg"]) == 1
    assert "none.jpg: there is no such file" in capsys.readouterr().err
    assert commands.main(commands.Example("other", "", {}, bedrooms_cinn.build), ["colorize", "none.jpg"]) == 1
    assert "train first, or name a checkpoint before the images" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "ten", ""])
def test_a_number_above_zero_is_finite(text):
    assert options.above_zero("0.02") == 0.02
    with pytest.raises(argparse.ArgumentTypeError, match="is not a finite number above zero"):
        options.above_zero(text)


def test_a_folder_is_created_and_left_empty(tmp_path):
    options.prepare_folder(tmp_path / "a" / "b")
    options.prepare_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def nothing_yet(*args):
    """Photographs, of which nothing is asked before the folder is tried."""


COMMANDS = {
    "mnist_cinn": lambda out: mnist_cinn.main(["--preset", "tiny", "--out", out]),
    "mnist_multiscale": lambda out: mnist_multiscale.main(["train", "--out", out]),
    "ablations": lambda out: ablations.main(["mnist", "--out", out]),
    "bedrooms_cinn": lambda out: commands.main(BEDROOMS, ["--preset", "tiny", "--out", out]),
    "bedrooms_cinn train": lambda out: commands.main(BEDROOMS, ["train", "--preset", "tiny", "--out", out]),
    "pretrain_condition_net": lambda out: pretrain_condition_net.main(["--preset", "tiny", "--out", out]),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_can_not_be_written_to_is_refused_at_once(command, tmp_path, monkeypatch, capsys):
    def nothing(*args, **kwargs):
        pytest.fail("it went on")

    for module, name in ((mnist_cinn.data, "load"), (commands, "fit"), (pretrain_condition_net, "open_folder")):
        monkeypatch.setattr(module, name, nothing)
    monkeypatch.setattr(commands, "_open", nothing_yet)
    monkeypatch.setattr(commands, "Crops", nothing_yet)
    monkeypatch.setattr(commands, "statistics", lambda folder: Statistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    file = tmp_path / "file"
    file.touch()
    try:
        ended, said = COMMANDS[command](str(file / "runs")), ""
    except SystemExit as stopped:
        ended, said = 1, str(stopped)
    assert ended == 1
    said += capsys.readouterr().err
    assert "no files can be written to this folder (Not a directory); choose another --out" in said
