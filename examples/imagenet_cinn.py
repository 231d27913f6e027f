"""Diverse colorization with a pretrained VGG-like conditioning network and heads for each block (paper, 4.2, Fig. 8).

    python examples/imagenet_cinn.py                          # all of the following, on the included photographs:
    python examples/pretrain_condition_net.py --data DIR      # pretrain the conditioning network
    python examples/imagenet_cinn.py train --data DIR --condition-net runs/condition_net/condition_net.safetensors
    python examples/imagenet_cinn.py colorize photo.jpg -n 8
    python examples/imagenet_cinn.py table
    python examples/imagenet_cinn.py pictures

Training has two phases: heads and flow, with the pretrained conditioning network frozen; then all weights.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any

from colorization.baselines import BASELINES
from colorization.colorgan import ColorGAN
from colorization.colorizer import Colorizer, Config, Unconditional
from colorization.commands import Example, main
from colorization.condition_net import ConditionNet
from colorization.photos import Statistics
from colorization.presets import Preset
from colorization.pretraining import STEPS
from torch import Tensor, nn

import invgraph as ig

PRESETS = {
    # settings of the paper; about three days on three GTX 1080
    "paper": Preset(
        size=64, lightness=256, width=64, features=(64, 64, 64, 512), hidden=(32, 64, 128, 256, 512),
        blocks=(4, 6, 6, 6, 8), clamp=1.5, noise=0.05, batch=48, rate=1e-4, steps=250_000, first=30_000,
    ),
    # about an hour on one GPU with a few thousand photographs
    "medium": Preset(
        size=64, lightness=256, width=32, features=(32, 32, 32, 256), hidden=(16, 32, 64, 128, 256),
        blocks=(2, 4, 4, 4, 4), clamp=1.5, noise=0.05, batch=48, rate=3e-4, steps=6000, first=1500,
    ),
    # minutes on a CPU
    "quick": Preset(
        size=32, lightness=128, width=8, features=(16, 16, 16, 64), hidden=(16, 16, 32, 64, 64),
        blocks=(2, 2, 2, 2, 2), clamp=1.0, noise=0.05, batch=16, rate=1e-3, steps=200, first=80,
    ),
    # seconds, for tests
    "tiny": Preset(
        size=32, lightness=128, width=2, features=(4, 4, 4, 8), hidden=(4, 4, 4, 8, 8),
        blocks=(1, 1, 1, 1, 1), clamp=1.0, noise=0.05, batch=8, rate=1e-3, steps=100, first=50,
    ),
}  # fmt: skip


class Head(nn.Sequential):
    """Head that converts the features for one block: strided to its resolution, to twice its width, normalized.

    Arguments:
        channels: Channels of the features.
        width: Width of the subnets of the block.
        halvings: Number of halvings from the resolution of the features to that of the block.
    """

    def __init__(self, channels: int, width: int, halvings: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(halvings):
            layers += [nn.Conv2d(channels, width, 3, 2, 1), nn.LeakyReLU()]
            channels = width
        super().__init__(*layers, nn.Conv2d(channels, 2 * width, 3, 1, 1), nn.BatchNorm2d(2 * width))


class GlobalHead(nn.Sequential):
    """Head that returns a vector for the fully connected blocks: four strided convolutions, mean, linear layer."""

    def __init__(self, channels: int, width: int, out: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(4):
            layers += [nn.Conv2d(channels, width, 3, 2, 1), nn.LeakyReLU()]
            channels = width
        pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, out), nn.BatchNorm1d(out)]
        super().__init__(*layers, *pooled)


def imagenet(preset: Preset, conditioning: str = "features") -> ig.Graph:
    """Build the full colorization model of the paper (Fig. 8).

    Arguments:
        preset: Sizes; those of the paper are ``PRESETS["paper"]``.
        conditioning: ``"features"`` (default): conditioning network with a head for each block; ``"raw"``: heads on
            the lightness (Fig. 16); ``"none"``: no condition.
    """
    size, blocks, hidden = preset.size, preset.blocks, preset.hidden
    ab = ig.InputNode(2, size, size, name="ab")
    lightness = ig.ConditionNode(1, preset.seen, preset.seen, name="L")
    features: ig.FeatureNode | None = None
    if conditioning != "none":
        shrink = nn.PixelUnshuffle(preset.seen // size)
        features = ig.FeatureNode(
            lightness, ConditionNet(preset.width) if conditioning == "features" else shrink, name="features"
        )

    def head(stage: int, resolution: int, name: str) -> Any:
        if features is None:
            return ()
        channels = features.shape[0]
        halvings = int(math.log2(size // resolution))
        return ig.FeatureNode(features, Head(channels, hidden[stage], halvings), name=f"{name}_head")

    def couple(h: Any, stage: int, k: int) -> ig.Node:
        """Add a conditional block with a separate head, followed by a mixing of channels."""
        name = f"stage{stage}_coupling{k}"
        args = {"transform": ig.Affine(clamp=preset.clamp), "subnet": ig.nets.ConvNet(hidden[stage])}
        h = ig.Node(h, ig.Coupling, args, conditions=head(stage, h.shape[1], name), name=name)
        return ig.Node(h, ig.Orthogonal, {"seed": 10 * stage + k}, name=f"stage{stage}_mixing{k}")

    def refine(h: Any, stage: int) -> ig.Node:
        """Add two unconditional 1 x 1 blocks, after a reduction of the resolution."""
        args = {"transform": ig.Affine(clamp=preset.clamp), "subnet": ig.nets.ConvNet(hidden[stage], kernel=1)}
        for k in range(2):
            h = ig.Node(h, ig.Coupling, args, name=f"stage{stage}_refine{k}")
            h = ig.Node(h, ig.Orthogonal, {"seed": 100 + 10 * stage + k}, name=f"stage{stage}_refine_mixing{k}")
        return h

    haar = {"rebalance": 0.5}
    h: Any = ab  # 2 x 64 x 64
    for k in range(blocks[0]):
        h = couple(h, 0, k)
    h = refine(ig.Node(h, ig.Squeeze, name="squeeze"), 1)  # 8 x 32 x 32
    for k in range(blocks[1]):
        h = couple(h, 1, k)
    h = refine(ig.Node(h, ig.Haar, haar, name="haar1"), 2)  # 32 x 16 x 16
    h, early = ig.Node(h, ig.Split, {"sizes": (16, 16)}, name="split1")
    for k in range(blocks[2]):
        h = couple(h, 2, k)
    h = ig.Node(h, ig.Haar, haar, name="haar2")  # 64 x 8 x 8
    h, later = ig.Node(h, ig.Split, {"sizes": (32, 32)}, name="split2")
    for k in range(blocks[3]):
        h = couple(h, 3, k)
    h = ig.Node(h, ig.Haar, haar | {"order_by_wavelet": True}, name="haar3")  # 128 x 4 x 4, averages first
    h, late = ig.Node(h, ig.Split, {"sizes": (32, 96)}, name="split3")
    h = ig.Node(h, ig.Flatten, name="flatten")  # 512
    whole: Any = ()
    if features is not None:
        net = GlobalHead(features.shape[0], preset.features[2], preset.features[3])
        whole = ig.FeatureNode(features, net, name="global_head")
    for k in range(blocks[4]):
        args = {"transform": ig.Affine(clamp=preset.clamp), "subnet": ig.nets.MLP(hidden[4])}
        h = ig.Node(h, ig.Coupling, args, conditions=whole, name=f"stage4_coupling{k}")
        h = ig.Node(h, ig.Permute, {"seed": k}, name=f"stage4_permute{k}")
    sides = {"early": early, "later": later, "late": late}
    parts = [ig.Node(part, ig.Flatten, name=name) for name, part in sides.items()]
    z = ig.Node([*parts, h], ig.Concat, name="z")  # 8192
    return ig.Graph(inputs=ab, outputs=z, conditions=[] if features is None else lightness)


class HeadedPyramid(nn.Module):
    """Conditioning network for models that are not graphs: three maps and a vector, each from a head."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.features = ConditionNet(preset.width)
        channels = self.features.channels
        *maps, whole = preset.features
        self.heads = nn.ModuleList(Head(channels, width // 2, k) for k, width in enumerate(maps))
        self.whole = GlobalHead(channels, preset.features[2], whole)

    def forward(self, lightness: Tensor) -> tuple[Tensor, ...]:
        features = self.features(lightness)
        return (*(head(features) for head in self.heads), self.whole(features))


def build(config: Config) -> Colorizer:
    """Build a colorizer of any kind in the table from its config, with new weights."""
    preset, kind = Preset(**config["preset"]), config["kind"]
    measured = Statistics(**config["statistics"])
    # The conditioning network takes lightness in the units of its training.
    units = replace(measured, offset=(50.0, *measured.offset[1:]), scale=(100.0, *measured.scale[1:]))
    model: nn.Module
    if kind == "colorgan":
        model = ColorGAN(preset.features, preset.size)
    elif kind in BASELINES:
        model = BASELINES[kind](HeadedPyramid(preset), preset.features)
    else:
        conditioning = {"cinn": "features", "raw": "raw", "unconditional": "none"}[kind]
        flow = ig.Flow(imagenet(preset, conditioning))
        model = Unconditional(flow) if kind == "unconditional" else flow
    return Colorizer(model, units, preset.size, preset.noise, config)


def condition_net(colorizer: Colorizer) -> ConditionNet | None:
    """Return the conditioning network of a colorizer, or None."""
    return next((module for module in colorizer.modules() if isinstance(module, ConditionNet)), None)


if __name__ == "__main__":
    sys.exit(main(Example("imagenet", str(__doc__), PRESETS, build, condition_net, pretraining=STEPS)))
