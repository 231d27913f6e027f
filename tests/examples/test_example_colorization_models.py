"""The two colorization graphs and the baselines: sizes, exactness, and what each looks at."""

from dataclasses import asdict

import bedrooms_cinn
import imagenet_cinn
import pytest
import torch
from colorization.baselines import BASELINES, ConditionalGAN, ConditionalVAE
from colorization.photos import Statistics
from colorization.pyramid import Pyramid, pyramid_steps
from torch import nn
from torch.distributions import Normal, kl_divergence

import invgraph as ig

UNITS = asdict(Statistics((50.0, 1.0, 2.0), (25.0, 12.0, 20.0)))
KINDS = ("cinn", "unconditional", "raw", "cnn", "cvae", "cgan", "colorgan")
EXAMPLES = {"bedrooms": bedrooms_cinn, "imagenet": imagenet_cinn}


def colorizer(example, kind, preset="tiny"):
    torch.manual_seed(0)
    config = {"kind": kind, "preset": asdict(EXAMPLES[example].PRESETS[preset]), "statistics": UNITS}
    return EXAMPLES[example].build(config)


def stirred(module):
    """Away from the identity at which training starts, as far as a trained model is."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in module.parameters():
            weight += 0.03 * torch.randn(weight.shape, generator=generator)
    return module.eval()


def photographs(count, side, seed=0):
    """Smooth pictures in Lab."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=generator) * torch.tensor([20.0, 12, 20])[:, None, None]
    smooth = nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return smooth + torch.tensor([50.0, 1, 2])[:, None, None]


def test_bedrooms_has_the_published_sizes():
    graph = bedrooms_cinn.bedrooms(bedrooms_cinn.PRESETS["paper"])
    assert graph.in_shapes == ((2, 64, 64),)
    assert graph.out_shapes == ((8192,),)
    sizes = [graph[f"features{k}"](torch.zeros(1, *shape)).shape[1:] for k, shape in enumerate(
        [(1, 64, 64), (64, 64, 64), (128, 32, 32), (128, 16, 16)])]  # fmt: skip
    assert [tuple(size) for size in sizes] == [(64, 64, 64), (128, 32, 32), (128, 16, 16), (512,)]
    couplings = [name for name in graph.layers if "coupling" in name]
    assert len(couplings) == 2 + 4 + 4 + 4
    assert graph["split0"].out_shapes == ((2, 32, 32), (6, 32, 32))
    assert graph["split1"].out_shapes == ((4, 16, 16), (4, 16, 16))


@pytest.mark.slow
def test_imagenet_has_the_published_sizes():
    graph = imagenet_cinn.imagenet(imagenet_cinn.PRESETS["paper"])
    assert graph.cond_shapes == ((1, 256, 256),)
    assert graph.out_shapes == ((8192,),)
    assert graph["split1"].out_shapes == ((16, 16, 16), (16, 16, 16))
    assert graph["split2"].out_shapes == ((32, 8, 8), (32, 8, 8))
    assert graph["split3"].out_shapes == ((32, 4, 4), (96, 4, 4))
    conditioned = [name for name in graph.layers if "coupling" in name and "head" not in name]
    assert len(conditioned) == 4 + 6 + 6 + 6 + 8
    convolutions = [m for m in graph["stage3_coupling0_head"] if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 4
    assert convolutions[-1].out_channels == 2 * 256


@pytest.mark.parametrize(("example", "preset"), [("bedrooms", "paper"), ("bedrooms", "quick"), ("imagenet", "quick")])
def test_round_trip_of_the_float32_model(example, preset):
    model = stirred(colorizer(example, "cinn", preset))
    side = EXAMPLES[example].PRESETS[preset].seen
    x, c = model.prepare(photographs(2, side))
    graph = model.model.graph
    with torch.no_grad():
        z, log_det = graph(x, c)
        back, log_det_back = graph.inverse(z, c)
    assert (back - x).abs().max() <= 1e-3
    assert (log_det + log_det_back).abs().max() <= 1e-4 * model.dims


@pytest.mark.parametrize(
    "conditioning", ["features", *(pytest.param(c, marks=pytest.mark.slow) for c in ("raw", "none"))]
)
def test_log_det_of_the_small_graph_against_autograd(conditioning):
    graph = stirred(bedrooms_cinn.bedrooms(bedrooms_cinn.PRESETS["tiny"], conditioning)).double()
    x, c = torch.randn(1, 2, 16, 16).double(), torch.randn(1, 1, 16, 16).double()
    given = () if conditioning == "none" else c
    jacobian = torch.autograd.functional.jacobian(lambda x: graph(x, given)[0], x).reshape(512, 512)
    assert graph(x, given)[1].item() == pytest.approx(torch.linalg.slogdet(jacobian)[1].item(), abs=1e-8)


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_and_samples(example, kind):
    model = colorizer(example, kind)
    side = EXAMPLES[example].PRESETS["tiny"].seen
    lab = photographs(3, side)
    loss = model(lab)
    loss.backward()
    missing = [name for name, weight in model.named_parameters() if weight.grad is None]
    assert not missing
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())
    stirred(model)
    drawn = [model.sample(lab[:, :1], 4, generator=model.generator(seed)) for seed in (0, 0, 1)]
    assert drawn[0].shape == (4, 3, 2, model.colors, model.colors)
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2]) == (kind == "cnn")


@pytest.mark.parametrize(("kind", "looks"), [("cinn", True), ("raw", True), ("unconditional", False)])
def test_only_the_unconditional_flow_ignores_the_lightness(kind, looks):
    model = stirred(colorizer("bedrooms", kind))
    lab = photographs(2, 16)
    other = lab.clone()
    other[:, 0] = 100 - other[:, 0]
    assert torch.equal(model.nll(lab), model.nll(other)) != looks


def test_likelihood_is_that_of_the_flow_with_its_constant():
    model = stirred(colorizer("bedrooms", "cinn"))
    model.noise = 0.0
    lab = photographs(3, 16)
    x, c = model.prepare(lab)
    expected = -model.model.log_prob(x, c) / model.dims
    torch.testing.assert_close(model.nll(lab), expected.detach(), rtol=0, atol=1e-5)


def test_the_ablation_without_features_has_none_to_train():
    graph = bedrooms_cinn.bedrooms(bedrooms_cinn.PRESETS["tiny"], "raw")
    assert not [name for name, _ in graph.named_parameters() if "raw" in name or "features" in name]


def baseline(kind):
    torch.manual_seed(0)
    widths = (4, 4, 4, 8)
    return kind(Pyramid(pyramid_steps(16, widths), widths), widths, latent=3)


def test_divergence_of_the_autoencoder_is_that_of_normal_distributions():
    vae = baseline(ConditionalVAE)
    x, c = torch.randn(5, 2, 16, 16), torch.randn(5, 1, 16, 16)
    maps = vae.conditioner(c)
    mean, log_variance = vae._encode(x, maps).chunk(2, dim=1)
    torch.manual_seed(1)
    loss = vae.loss(x, c)
    torch.manual_seed(1)
    z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
    likelihood = Normal(vae.decoder(maps, z), vae.log_deviation.exp()[:, None, None]).log_prob(x).flatten(1).sum(1)
    divergence = kl_divergence(Normal(mean, torch.exp(0.5 * log_variance)), Normal(0.0, 1.0)).sum(1)
    constant = 0.5 * 512 * torch.log(torch.tensor(2 * torch.pi))
    torch.testing.assert_close(loss, (divergence - likelihood).mean() - constant)


def test_neither_player_of_the_adversarial_network_moves_the_others_weights():
    gan = baseline(ConditionalGAN)
    x, c = torch.randn(5, 2, 16, 16), torch.randn(5, 1, 16, 16)
    torch.manual_seed(1)
    gan.loss(x, c).backward()
    torch.manual_seed(1)
    with torch.no_grad():
        fake = gan.decoder(gan.conditioner(c), torch.randn(5, 3))
    score = nn.functional.binary_cross_entropy_with_logits
    real, seen = (gan.discriminator(torch.cat((c, ab), 1)) for ab in (x, fake))
    alone = 0.5 * (score(real, torch.ones_like(real)) + score(seen, torch.zeros_like(seen)))
    expected = torch.autograd.grad(alone, list(gan.discriminator.parameters()))
    for weight, gradient in zip(gan.discriminator.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-4, atol=1e-7)


def test_colorgan_reads_the_gray_picture_in_every_layer_and_the_noise_in_three():
    gan = colorizer("bedrooms", "colorgan").model
    assert [layer.in_channels for layer in gan.layers] == [2, 18, 18, 9, 5]
    stirred(gan)
    gray, z = torch.randn(2, 1, 16, 16), torch.randn(2, 64)
    colors = gan.generate(gray, z)
    assert colors.shape == (2, 2, 16, 16)
    assert not torch.allclose(gan.generate(gray, -z), colors)
    assert not torch.allclose(gan.generate(-gray, z), colors)
    for k, layer in enumerate(gan.layers):  # the last channels of a layer are those of the condition and the noise
        weight = layer.weight[:, -(1 + (k < 3)) :]
        before = weight.detach().clone()
        with torch.no_grad():
            weight.zero_()
            assert not torch.allclose(gan.generate(gray, z), colors)
            weight.copy_(before)


def test_colorgan_is_validated_by_the_best_of_eight_and_trained_without_the_true_colors():
    model = colorizer("bedrooms", "colorgan")
    lab = photographs(3, 16)
    model.eval()
    torch.manual_seed(5)
    x, c = model.prepare(lab)
    samples = model.model.sample(8, c)
    expected = (samples - x).square().mean((2, 3, 4)).amin(0).sqrt().mean()
    torch.manual_seed(5)
    torch.testing.assert_close(model.model.loss(x, c) / model.dims, expected)
    gan = model.train().model
    torch.manual_seed(1)
    gan.loss(x, c).backward()
    score = nn.functional.binary_cross_entropy_with_logits
    torch.manual_seed(1)
    fooled = gan.discriminator(torch.cat((c, gan.generate(c, torch.randn(3, 64))), 1))
    expected = torch.autograd.grad(score(fooled, torch.ones_like(fooled)), list(gan.layers.parameters()))
    for weight, gradient in zip(gan.layers.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-3, atol=1e-6)


def test_regression_learns_the_mean():
    torch.manual_seed(0)
    widths = (4, 4, 4, 8)
    net = BASELINES["cnn"](Pyramid(pyramid_steps(16, widths), widths), widths)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    c = torch.randn(4, 1, 16, 16)
    for _ in range(200):
        optimizer.zero_grad()
        net.loss(1.5 + 0.1 * torch.randn(4, 2, 16, 16), c).backward()
        optimizer.step()
    assert net.sample(2, c).mean().item() == pytest.approx(1.5, abs=0.05)


def test_frozen_the_condition_net_keeps_weights_and_statistics():
    model = colorizer("imagenet", "cinn")
    net = imagenet_cinn.condition_net(model)
    net.freeze()
    model.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.Adam([weight for weight in model.parameters() if weight.requires_grad], 1e-2)
    model(photographs(2, 128)).backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    net.freeze(False)
    model.train()
    assert net.training
    assert all(weight.requires_grad for weight in net.parameters())


def test_a_flow_is_what_the_pictures_get():
    assert isinstance(colorizer("bedrooms", "cinn").model, ig.Flow)
