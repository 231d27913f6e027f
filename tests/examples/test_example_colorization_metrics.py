"""Metrics against formulas written out another way."""

import math

import numpy as np
import pytest
import torch
from colorization.features import Exported, find_viewer
from colorization.metrics import Measured, bootstrap, frechet, hits, mean_of, rmse_best, variance
from torch import nn


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_best_of_n_against_loops():
    samples, truth = draw(8, 5, 2, 4, 3), draw(5, 2, 4, 3, seed=1)
    for photo in range(5):
        errors = [math.sqrt(np.mean((sample[photo] - truth[photo]).numpy() ** 2)) for sample in samples]
        assert rmse_best(samples, truth)[photo].item() == pytest.approx(min(errors), abs=1e-14)


def test_variance_against_numpy():
    samples = draw(8, 5, 2, 4, 3)
    expected = np.var(samples.numpy(), axis=0, ddof=1).reshape(5, -1).mean(1)
    np.testing.assert_allclose(variance(samples).numpy(), expected, rtol=0, atol=1e-14)
    assert variance(samples[:1]).tolist() == [0.0] * 5


def test_frechet_of_distributions_with_a_known_distance():
    scale, shift = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64), torch.tensor([1.0, 0.0, -2.0])
    x = draw(400, 3)
    x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T  # covariance exactly 1
    expected = shift.square().sum().item() + (scale - 1).square().sum().item()
    assert frechet(x, x * scale + shift) == pytest.approx(expected, abs=1e-10)
    assert frechet(x, x) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("count", [300, 6])  # the second leaves a singular covariance
def test_frechet_against_the_root_of_the_product_of_the_covariances(count):
    x, y = draw(count, 8), draw(count, 8, seed=1) @ draw(8, 8, seed=2) + 1
    a, b = np.cov(x.numpy().T), np.cov(y.numpy().T)
    root = np.sqrt(np.maximum(np.linalg.eigvals(a @ b).real, 0)).sum()  # eigenvalues of the root of a product
    expected = np.sum((x.mean(0) - y.mean(0)).numpy() ** 2) + np.trace(a) + np.trace(b) - 2 * root
    assert frechet(x, y) == pytest.approx(expected, rel=1e-6)
    assert frechet(x, y) == pytest.approx(frechet(y, x), rel=1e-9)


def test_hits():
    logits = torch.tensor([[5.0, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5]])
    assert hits(logits, torch.tensor([4, 0])).tolist() == [1, 0]
    assert hits(logits, torch.tensor([4, 5]), k=1).tolist() == [0, 1]


def test_bootstrap_error_of_a_mean_is_the_textbooks():
    values = draw(200)
    measured = mean_of(values, rounds=4000)
    assert measured.value == pytest.approx(values.mean().item(), abs=1e-12)
    assert measured.error == pytest.approx(values.std().item() / math.sqrt(200), rel=0.05)
    assert mean_of(values, rounds=50) == mean_of(values, rounds=50)


def test_bootstrap_of_any_figure():
    x, y = draw(50, 3), draw(50, 3, seed=1)
    measured = bootstrap(50, lambda chosen: frechet(x[chosen], y[chosen]), rounds=30)
    assert measured.value == frechet(x, y)
    assert 0 < measured.error < 1


def test_a_figure_is_printed_with_its_error():
    assert str(Measured(3.5312, 0.0432)) == "3.53 ± 0.04"
    assert str(Measured(87.51, 3.26)) == "87.5 ± 3.3"


class Mean(nn.Module):
    """The least network of a user: features."""

    def forward(self, x):
        return x.mean((2, 3))


class Classes(nn.Module):
    """Features, and classes from them."""

    def forward(self, x):
        features = x.mean((2, 3))
        return features, features * 2


def exported(module, path):
    batch = {"x": {0: torch.export.Dim("b")}}
    torch.export.save(torch.export.export(module, (torch.zeros(2, 3, 299, 299),), dynamic_shapes=batch), path)
    return str(path)


def test_a_users_network_from_a_file(tmp_path):
    rgb = torch.full((3, 3, 64, 64), 0.5)
    seen = Exported(exported(Mean(), tmp_path / "mean.pt2"))(rgb)
    assert seen.logits is None
    torch.testing.assert_close(seen.features, torch.full((3, 3), 127.5))
    pair = find_viewer(exported(Mean(), tmp_path / "one.pt2"), exported(Classes(), tmp_path / "other.pt2"))
    assert pair.name == "one, classes by other"
    torch.testing.assert_close(pair(rgb).features, torch.full((3, 3), 127.5))
    torch.testing.assert_close(pair(rgb).logits, torch.full((3, 3), 255.0))


class Asked(nn.Module):
    """Stand-in for the usual file of Inception: scores, unless it is asked for features."""

    def forward(self, x, return_features: bool = False):
        features = x.mean((2, 3))
        if return_features:
            return features
        return torch.softmax(features, 1)


def scripted(module, path):
    torch.jit.script(module).save(path)
    return str(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TorchScript as such
class TestUsersNetworks:
    RGB = torch.full((3, 3, 64, 64), 0.5)

    @pytest.mark.parametrize("made", [exported, scripted])
    def test_from_either_kind_of_file(self, tmp_path, made):
        path = made(Classes(), tmp_path / ("net.pt2" if made is exported else "net.pt"))
        seen = Exported(path)(self.RGB)
        torch.testing.assert_close(seen.features, torch.full((3, 3), 127.5))
        torch.testing.assert_close(seen.logits, torch.full((3, 3), 255.0))

    def test_what_gives_scores_unless_asked_is_asked(self, tmp_path):
        path = scripted(Asked(), tmp_path / "inception.pt")
        torch.testing.assert_close(Exported(path)(self.RGB).features, torch.full((3, 3), 127.5))
        seen = Exported(path, gives="scores")(self.RGB)
        assert seen.features is None
        torch.testing.assert_close(seen.logits, torch.full((3, 3), 1 / 3))

    @pytest.mark.parametrize(
        ("module", "told"),
        [
            (nn.Softmax(dim=1), r"gives \(3, 3, 299, 299\)"),
            (nn.Sequential(Mean(), nn.Softmax(dim=1)), "look like scores of classes"),
            (nn.Sequential(Mean(), nn.Linear(3, 1008)), r"\(3, 1008\), which look like scores of classes"),
            (nn.Sequential(Mean(), nn.Flatten(0)), r"gives \(9,\)"),
        ],
        ids=["maps", "probabilities", "logits", "flat"],
    )
    def test_what_gives_no_features_is_refused(self, tmp_path, module, told):
        viewer = Exported(scripted(module, tmp_path / "other.pt"))
        with pytest.raises(
            ValueError, match=f"other gives.*{told.removeprefix('gives ')}.*: a --viewer gives features"
        ):
            viewer(self.RGB)

    def test_classes_without_features_leave_the_distance_out(self, tmp_path, monkeypatch):
        monkeypatch.setattr("colorization.features._packaged", lambda: None)
        viewer = find_viewer(None, scripted(nn.Sequential(Mean(), nn.Linear(3, 10)), tmp_path / "judge.pt"))
        seen = viewer(self.RGB)
        assert seen.features is None
        assert seen.logits.shape == (3, 10)
        assert find_viewer() is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the package's own
def test_the_packaged_classifier():
    pytest.importorskip("efficientnet_lite_pytorch", reason="an extra of the examples")
    viewer = find_viewer()
    seen = viewer(torch.rand(2, 3, 100, 100, generator=torch.Generator().manual_seed(0)))
    assert seen.features.shape == (2, 112)
    assert seen.logits.shape == (2, 1000)
