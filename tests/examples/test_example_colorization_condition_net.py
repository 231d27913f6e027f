"""Classes of color against their formulas, and whose weights the condition net takes."""

import pickle

import numpy as np
import pytest
import torch
from colorization.condition_net import (
    ColorClassifier,
    ConditionNet,
    annealed_mean,
    color_bins,
    load_condition_net,
    rebalancing,
    soft_encode,
)
from safetensors.torch import save_file


def test_bins_are_a_grid_of_tens_that_the_screen_can_show():
    bins = color_bins()
    assert 250 <= len(bins) <= 320  # 313 as published, with another rule for the rim
    assert torch.equal(bins, (bins / 10).round() * 10)
    assert len(bins.unique(dim=0)) == len(bins)
    assert bins.abs().max() <= 110
    assert [0.0, 0.0] in bins.tolist()


def test_soft_encoding_against_numpy():
    bins = color_bins().double()
    ab = torch.randn(2, 2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 30
    nearest, shares = soft_encode(ab, bins)
    assert nearest.shape == shares.shape == (2, 5, 3, 4)
    for b, y, x in np.ndindex(2, 3, 4):
        squares = ((bins.numpy() - ab[b, :, y, x].numpy()) ** 2).sum(1)
        expected = np.argsort(squares)[:5]
        weights = np.exp(-squares[expected] / 50)
        assert nearest[b, :, y, x].tolist() == expected.tolist()
        np.testing.assert_allclose(shares[b, :, y, x].numpy(), weights / weights.sum(), rtol=0, atol=1e-9)


def test_annealed_mean_goes_from_the_mean_to_the_mode():
    bins = color_bins()
    logits = torch.zeros(1, len(bins), 1, 1)
    logits[0, 7], logits[0, 9] = 5.0, 4.5
    mean = torch.softmax(logits, 1)[0, :, 0, 0] @ bins
    torch.testing.assert_close(annealed_mean(logits, bins, 1.0).flatten(), mean)
    torch.testing.assert_close(annealed_mean(logits, bins, 1e-3).flatten(), bins[7])


def test_rebalancing_is_one_on_average_and_favors_what_is_rare():
    bins = color_bins()
    common = int((bins.square().sum(1)).argmin())
    ab = bins[common].view(1, 2, 1, 1) + torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    weights = rebalancing(ab, bins)
    assert weights.argmin() == common
    assert weights.max() / weights.min() > 10
    nearest, shares = soft_encode(ab, bins)
    share = torch.zeros(len(bins)).scatter_add_(0, nearest.flatten(), shares.flatten()) / shares.sum()
    assert (share * weights).sum().item() < 1  # below one before smoothing, which moves mass to rarer classes


def test_colors_are_encoded_in_parts(monkeypatch):
    bins = color_bins()
    ab = torch.randn(3, 2, 20, 20, generator=torch.Generator().manual_seed(0)) * 30
    whole, weights = soft_encode(ab, bins), rebalancing(ab, bins)
    rows = []
    cdist = torch.cdist
    monkeypatch.setattr(torch, "cdist", lambda a, b: rows.append(len(a)) or cdist(a, b))
    monkeypatch.setattr("colorization.condition_net.CHUNK", 500)
    nearest, shares = soft_encode(ab, bins)
    assert rows == [500, 500, 200]
    assert torch.equal(nearest, whole[0])
    torch.testing.assert_close(shares, whole[1])
    torch.testing.assert_close(rebalancing(ab, bins), weights)


def test_no_constant_guess_has_a_lower_loss_than_the_best_one():
    generator = torch.Generator().manual_seed(0)
    classifier = ColorClassifier(ConditionNet(2), torch.rand(len(color_bins()), generator=generator) + 0.1)
    ab = torch.randn(2, 2, 8, 8, generator=generator) * 30
    best = classifier.best_constant(ab)
    assert best.exp().sum().item() == pytest.approx(1, abs=1e-5)
    lowest = classifier.cross_entropy(best.expand(2, -1, 8, 8), ab)
    for _ in range(5):
        other = torch.log_softmax(best + 0.3 * torch.randn(best.shape, generator=generator), 1)
        assert classifier.cross_entropy(other.expand(2, -1, 8, 8), ab) > lowest


def test_expected_colors_undo_the_weights(monkeypatch):
    weights = torch.rand(len(color_bins())) + 0.1
    classifier = ColorClassifier(ConditionNet(2), weights)
    true = torch.softmax(torch.randn(len(weights)), 0)
    weighted = (true * weights).log()[None, :, None, None]  # what the loss makes of it
    monkeypatch.setattr(classifier, "logits", lambda lightness: weighted)
    found = classifier.expected_colors(torch.zeros(1, 1, 4, 4)).flatten()
    torch.testing.assert_close(found, true @ classifier.bins, rtol=0, atol=1e-3)


def test_loss_is_the_weighted_cross_entropy():
    torch.manual_seed(0)
    classifier = ColorClassifier(ConditionNet(2), torch.rand(len(color_bins())))
    lab = torch.randn(2, 3, 32, 32) * 20 + torch.tensor([50.0, 0, 0])[:, None, None]
    classifier.eval()
    logits = classifier.logits(lab[:, :1])
    nearest, shares = soft_encode(torch.nn.functional.adaptive_avg_pool2d(lab[:, 1:], 8), classifier.bins)
    target = torch.zeros_like(logits).scatter_(1, nearest, shares)
    weights = classifier.weights[target.argmax(1)]
    expected = (torch.nn.functional.cross_entropy(logits, target, reduction="none") * weights).mean()
    torch.testing.assert_close(classifier(lab), expected)


def published(width=2):
    """A state dict with the names of the published network, the layers after the cut included."""
    torch.manual_seed(1)
    own = ConditionNet(width).state_dict()
    state = {}
    for key, value in own.items():
        _, group, rest = key.split(".", 2)
        if not key.endswith("num_batches_tracked"):  # the file is older than this entry
            state[f"model{int(group) + 1}.{rest}"] = value
    return state | {"model8.6.weight": torch.zeros(313, 8, 1, 1), "model_out.weight": torch.zeros(2, 313, 1, 1)}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_published_weights_fit(tmp_path, suffix):
    path = tmp_path / f"published{suffix}"
    (torch.save if suffix == ".pth" else save_file)(*((published(), path)))
    net = ConditionNet(2).eval()
    load_condition_net(net, path)
    torch.manual_seed(1)
    expected = ConditionNet(2).eval()
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(net(x), expected(x), rtol=0, atol=0)


def test_layers_have_the_published_order_and_strides():
    net = ConditionNet(64)
    assert net(torch.zeros(1, 1, 32, 32)).shape == (1, 256, 8, 8)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert shapes["groups.0.0.weight"] == (64, 1, 3, 3)
    assert shapes["groups.0.4.weight"] == (64,)
    assert shapes["groups.3.4.weight"] == (512, 512, 3, 3)
    assert shapes["groups.7.0.weight"] == (512, 256, 4, 4)
    assert shapes["groups.7.4.weight"] == (256, 256, 3, 3)
    assert [group[0].dilation[0] for group in list(net.groups)[:7]] == [1, 1, 1, 1, 2, 2, 1]


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(published(4), tmp_path / "wide.pth")
    with pytest.raises(ValueError, match="does not fit a condition net of 2 channels"):
        load_condition_net(ConditionNet(2), tmp_path / "wide.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="no state dict"):
        load_condition_net(ConditionNet(2), tmp_path / "list.pth")


class Harmful:
    """Would make a file when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_no_code_of_a_file_runs(tmp_path):
    torch.save({"model1.0.weight": Harmful(tmp_path / "ran")}, tmp_path / "harmful.pth")
    with pytest.raises(pickle.UnpicklingError):
        load_condition_net(ConditionNet(2), tmp_path / "harmful.pth")
    assert not (tmp_path / "ran").exists()
