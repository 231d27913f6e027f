"""Joint bilateral upsampling against the formula written out with loops."""

import math

import numpy as np
import pytest
import torch
from colorization.upsampling import bicubic, joint_bilateral


def written_out(ab, lightness, window, spatial, range_, unit):
    """The sum over the taps, pixel by pixel, in numpy."""
    height, width = lightness.shape
    scaled = lightness / unit
    rows = ((np.arange(height) + 0.5) * ab.shape[1] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * ab.shape[2] / width).astype(int)
    colors = ab[:, rows][:, :, columns]
    out = np.zeros_like(colors)
    for y in range(height):
        for x in range(width):
            total, norm = np.zeros(2), 0.0
            for v in range(y - window // 2, y + window // 2 + 1):
                for u in range(x - window // 2, x + window // 2 + 1):
                    if 0 <= v < height and 0 <= u < width:
                        near = math.exp(-((v - y) ** 2 + (u - x) ** 2) / (2 * spatial**2))
                        alike = math.exp(-((scaled[v, u] - scaled[y, x]) ** 2) / (2 * range_**2))
                        total, norm = total + near * alike * colors[:, v, u], norm + near * alike
            out[:, y, x] = total / norm
    return out


@pytest.mark.parametrize(("height", "width", "window"), [(24, 24, 7), (17, 29, 5), (9, 4, 19), (7, 7, 19)])
def test_equals_the_formula(height, width, window):
    rng = np.random.default_rng(0)
    ab = rng.normal(0, 20, (2, 6, 8))
    lightness = rng.uniform(0, 100, (height, width))
    expected = written_out(ab, lightness, window, 6.0, 0.1, 25.6)
    got = joint_bilateral(torch.from_numpy(ab)[None], torch.from_numpy(lightness)[None, None], window=window)
    assert np.abs(got[0].numpy() - expected).max() < 1e-10


def test_neither_side_is_favored():
    generator = torch.Generator().manual_seed(0)
    ab = torch.randn(1, 2, 8, 8, dtype=torch.float64, generator=generator)
    lightness = 50 + torch.rand(1, 1, 40, 40, dtype=torch.float64, generator=generator)
    expected = joint_bilateral(ab, lightness)
    for axis in (-1, -2):
        mirrored = joint_bilateral(ab.flip(axis), lightness.flip(axis)).flip(axis)
        torch.testing.assert_close(mirrored, expected, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="a window of 18 has no center: use 19"):
        joint_bilateral(ab, lightness, window=18)


def test_a_constant_color_stays_up_to_the_border():
    ab = torch.tensor([12.0, -30.0])[None, :, None, None].expand(1, 2, 8, 8)
    lightness = torch.rand(1, 1, 40, 31, generator=torch.Generator().manual_seed(0)) * 100
    torch.testing.assert_close(
        joint_bilateral(ab, lightness), ab[..., :1, :1].expand(1, 2, 40, 31), rtol=1e-5, atol=1e-5
    )


def test_colors_do_not_cross_an_edge_that_bicubic_blurs():
    lightness = torch.full((1, 1, 64, 64), 20.0)
    lightness[..., 32:] = 80.0
    ab = torch.zeros(1, 2, 8, 8)
    ab[:, 0, :, 4:] = 40.0
    guided, blurred = joint_bilateral(ab, lightness), bicubic(ab, (64, 64))
    assert guided[0, 0, :, 32:].min() > 39.0
    step = guided[0, 0, 32, 32] - guided[0, 0, 32, 31]
    assert step > 2 * (blurred[0, 0, 32, 32] - blurred[0, 0, 32, 31])


def test_one_lightness_serves_many_colors():
    ab = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    lightness = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(1)) * 100
    together = joint_bilateral(ab, lightness)
    apart = torch.cat([joint_bilateral(row[None], lightness) for row in ab])
    torch.testing.assert_close(together, apart, rtol=0, atol=0)


def test_the_denormal_mode_is_put_back():
    joint_bilateral(torch.randn(1, 2, 4, 4), torch.rand(1, 1, 8, 8))
    assert torch.tensor(1e-38).mul(1e-2).item() != 0.0
