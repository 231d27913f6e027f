"""The example of simulation-based inference: its simulator, its flow, and a short run from the command line."""

import posterior
import pytest
import torch
from PIL import Image


def test_the_simulator_is_a_damped_spring():
    theta = torch.tensor([[2.0, 0.5, 0.0], [2.0, 0.5, 0.4]]).repeat(500, 1)
    series = posterior.simulate(theta)
    assert series.shape == (1000, 1, 100)
    still, kicked = series[0::2, 0], series[1::2, 0]
    assert still.std(0).mean().item() < 0.06  # the noise of the observation alone
    assert kicked.std(0)[50:].min() > 0.1
    torch.testing.assert_close(kicked.mean(0), still.mean(0), atol=0.1, rtol=0)


@pytest.mark.slow
def test_it_trains_and_draws(tmp_path):
    posterior.main(["--simulations", "300", "--epochs", "1", "--out", str(tmp_path)])
    for name in ("corner", "calibration", "density"):
        with Image.open(tmp_path / f"posterior_{name}.png") as image:
            image.load()
