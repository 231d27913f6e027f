"""Lab against golden values of the standard and, where it is installed, scikit-image."""

import numpy as np
import pytest
import torch
from colorization.lab import lab_to_rgb, rgb_to_lab

# sRGB and its Lab under D65, as tables of color conversions give them (two decimals).
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


# The formulas below at 50 digits; scikit-image 0.26 gives the same within 1e-13.
EXACT = {
    (0, 0, 0): (0.0, 0.0, 0.0),
    (255, 255, 255): (100.00000000000000, -0.00245493786206, 0.00465342115405),
    (255, 0, 0): (53.24058794374490, 80.09230822569217, 67.20275104442870),
    (0, 255, 0): (87.73509948831895, -86.18302974439500, 83.17970317538451),
    (0, 0, 255): (32.29567256501352, 79.18559091176555, -107.85730020669488),
    (255, 255, 0): (97.13950703971322, -21.55468101695353, 94.47812227647824),
    (0, 255, 255): (91.11330144068015, -48.09059623301666, -14.12632982008225),
    (255, 0, 255): (60.32350652741459, 98.23305386311317, -60.82101524414511),
    (128, 128, 128): (53.58501345216902, -0.00147264555306, 0.00279145149658),
    (12, 200, 77): (70.81574459957645, -66.54354423065127, 48.87317844978326),
    (250, 128, 114): (67.26400711684238, 45.22553668401586, 29.09648882829977),
    (3, 9, 5): (2.03856164663874, -2.12532780368100, 0.96116001763074),
    (10, 11, 12): (2.98461428983728, -0.11720069376322, -0.50551739645672),
    (1, 0, 0): (0.05830875157288, 0.26149931017808, 0.09213852072625),
    (24, 28, 30): (9.94132318839199, -1.30573392593581, -2.01362449487860),
}


def written_out(rgb):
    """Lab of one color by the formulas of IEC 61966-2-1 and CIE 15, in plain floats."""
    r, g, b = (((v + 0.055) / 1.055) ** 2.4 if v > 0.04045 else v / 12.92 for v in rgb)
    x = (0.412453 * r + 0.357580 * g + 0.180423 * b) / 0.95047
    y = 0.212671 * r + 0.715160 * g + 0.072169 * b
    z = (0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.08883
    fx, fy, fz = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_exact_values_there_and_back(dtype, atol):
    rgb = (torch.tensor(list(EXACT), dtype=torch.float64) / 255).to(dtype).T[..., None]
    expected = torch.tensor(list(EXACT.values()), dtype=torch.float64).T[..., None]
    torch.testing.assert_close(rgb_to_lab(rgb).double(), expected, rtol=0, atol=atol)
    back = lab_to_rgb(expected.to(dtype))
    torch.testing.assert_close(back, rgb, rtol=0, atol=1e-6 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_agrees_with_the_formulas_written_out(dtype, atol):
    rgb = np.random.default_rng(0).random((400, 3))
    rgb[:100] *= 0.02  # the line near black
    rgb = torch.from_numpy(rgb).to(dtype)
    expected = torch.tensor([written_out(color) for color in rgb.tolist()], dtype=torch.float64)
    lab = rgb_to_lab(rgb.T[..., None])[..., 0].T
    torch.testing.assert_close(lab.double(), expected, rtol=0, atol=atol)


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


def test_colors_outside_the_gamut_are_clipped_for_display_alone():
    lab = torch.tensor([[50.0, 120.0, 0.0], [10.0, 0.0, 100.0]], dtype=torch.float64).T[..., None]
    clipped, whole = lab_to_rgb(lab), lab_to_rgb(lab, clip=False)
    assert whole.min() < 0 < 1 < whole.max()
    torch.testing.assert_close(clipped, whole.clamp(0, 1), rtol=0, atol=0)


def test_z_is_never_negative():
    most = 200 * (10 + 16) / 116  # b at which Z is zero
    pair = torch.tensor([[10.0, 0.0, most], [10.0, 0.0, 100.0]], dtype=torch.float64).T[..., None]
    one, other = lab_to_rgb(pair, clip=False).unbind(-2)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
