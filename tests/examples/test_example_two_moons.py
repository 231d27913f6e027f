"""The shortest example: its data, the density it compares with, and a few steps from the command line."""

import math
import re

import torch
import two_moons
from PIL import Image


def test_the_best_log_likelihood_is_that_of_the_data():
    # The density of one moon integrates to 1, and it is the density that the points are drawn from.
    step = 0.05
    line = torch.arange(-1.5, 2.6, step, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    for moon in torch.eye(2, dtype=torch.float64):
        density = two_moons.true_log_prob(grid, moon.expand(len(grid), 2)).exp()
        assert abs(density.sum().item() * step**2 - 1) < 1e-6
    points, moons = two_moons.draw(5_000)
    # Entropy of an arc of length pi with normal noise across it, but for its two ends.
    arc = math.log(math.pi) + 0.5 * math.log(2 * math.pi * math.e * two_moons.NOISE**2)
    assert abs(two_moons.true_log_prob(points, moons).mean().item() + arc) < 0.05


def test_the_model_is_exact():
    flow = two_moons.build().double()
    points, moons = (values.double() for values in two_moons.draw(50))
    z, log_det = flow.graph(points, moons)
    back, log_det_back = flow.graph.inverse(z, moons)
    torch.testing.assert_close(back, points, rtol=0, atol=1e-10)
    torch.testing.assert_close(log_det, -log_det_back, rtol=0, atol=1e-10)


def test_it_learns_and_draws(tmp_path, capsys):
    out = tmp_path / "new" / "moons.png"
    two_moons.main(["--steps", "60", "--out", str(out)])
    reached, best = map(float, re.findall(r"(-?\d\.\d{3}) (?:nats|at best)", capsys.readouterr().out))
    assert -0.2 < reached < best + 0.05
    with Image.open(out) as image:
        image.load()
        assert image.width > 1500
