"""The short MNIST example: the model of the full one, a few steps from the command line, and its picture."""

import inspect
import re

import mnist_cinn
import mnist_minimal
import pytest
import torch
from digits import data
from PIL import Image

TINY = ["--blocks", "2", "--hidden", "32", "--device", "cpu"]


def test_its_defaults_are_the_paper_s_model():
    paper = mnist_cinn.PRESETS["paper"]
    defaults = {name: given.default for name, given in inspect.signature(mnist_minimal.build).parameters.items()}
    assert defaults == {"blocks": paper.blocks, "hidden": paper.hidden}
    assert paper.noise == mnist_minimal.NOISE


def test_it_is_the_model_of_the_full_example():
    torch.manual_seed(0)
    short = mnist_minimal.build(2, 8)
    torch.manual_seed(0)
    full = mnist_cinn.build(2, 8, clamp=1.0)
    with torch.no_grad():
        for flow in (short, full):
            generator = torch.Generator().manual_seed(1)
            for weight in flow.parameters():
                weight.add_(torch.randn(weight.shape, generator=generator), alpha=0.05)
    x, c = torch.randn(3, 1, 28, 28), data.condition(torch.arange(3))
    torch.testing.assert_close(short.log_prob(x, c), full.log_prob(x, c))


def test_it_learns_and_draws(tmp_path, capsys):
    losses = {}
    for steps in (1, 40):
        out = tmp_path / str(steps) / "digits.png"
        mnist_minimal.main([*TINY, "--steps", str(steps), "--out", str(out)])
        losses[steps] = float(re.search(r"test loss ([+-]\d\.\d+) nats", capsys.readouterr().out)[1])
        with Image.open(out) as image:
            image.load()
            assert image.size == (1120, 896)  # ten digits across, eight down, four times as large
    assert losses[40] < losses[1] - 0.1


@pytest.mark.parametrize("option", ["--steps", "--blocks", "--hidden"])
def test_an_option_of_zero_is_refused(option, capsys):
    with pytest.raises(SystemExit):
        mnist_minimal.main([option, "0"])
    assert f"argument {option}: '0' is not a whole number above zero" in capsys.readouterr().err
