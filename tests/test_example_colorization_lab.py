"""Lab against golden values of the standard and, where it is installed, scikit-image."""

import numpy as np
import pytest
import torch
from colorization.lab import lab_to_rgb, rgb_to_lab

# sRGB and its Lab under D65, as tables of colour conversions give them (two decimals).
GOLDEN = {
    (255, 255, 255): (100.0, 0.0, 0.0),
    (0, 0, 0): (0.0, 0.0, 0.0),
    (255, 0, 0): (53.24, 80.09, 67.20),
    (0, 255, 0): (87.73, -86.18, 83.18),
    (0, 0, 255): (32.30, 79.19, -107.86),
    (128, 128, 128): (53.59, 0.0, 0.0),
}


@pytest.mark.parametrize("rgb", GOLDEN)
def test_golden_values(rgb):
    lab = rgb_to_lab(torch.tensor(rgb, dtype=torch.float64).view(3, 1, 1) / 255).flatten()
    assert lab.tolist() == pytest.approx(GOLDEN[rgb], abs=0.02)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_agrees_with_scikit_image(dtype, atol):
    color = pytest.importorskip("skimage.color", reason="scikit-image is no dependency of the examples")
    rgb = np.random.default_rng(0).random((64, 64, 3))
    rgb[:8] *= 0.02  # the line near black
    lab = rgb_to_lab(torch.from_numpy(rgb).to(dtype).permute(2, 0, 1)).permute(1, 2, 0)
    assert np.abs(lab.double().numpy() - color.rgb2lab(rgb)).max() < atol


@pytest.mark.filterwarnings("ignore:.*negative Z values")
def test_back_agrees_with_scikit_image_outside_the_gamut_too():
    color = pytest.importorskip("skimage.color", reason="scikit-image is no dependency of the examples")
    rng = np.random.default_rng(0)
    lab = np.stack((rng.uniform(0, 100, (64, 64)), *rng.normal(0, 50, (2, 64, 64))), axis=-1)
    rgb = lab_to_rgb(torch.from_numpy(lab).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    assert np.abs(rgb - color.lab2rgb(lab)).max() < 1e-12


def test_there_and_back_with_gradients():
    rgb = torch.rand(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    back = lab_to_rgb(rgb_to_lab(rgb))
    torch.testing.assert_close(back, rgb, rtol=0, atol=1e-6)
    back.sum().backward()
    assert torch.isfinite(rgb.grad).all()


def test_gradients_are_finite_at_black():
    rgb = torch.zeros(1, 3, 2, 2, requires_grad=True)
    lab_to_rgb(rgb_to_lab(rgb), clip=False).sum().backward()
    assert torch.isfinite(rgb.grad).all()
