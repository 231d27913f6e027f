"""Diverse colorization with a jointly trained feature pyramid (paper, 4.3), from photographs to pictures and tables.

python examples/bedrooms_cinn.py                          # train on the included photographs, then table and pictures
python examples/bedrooms_cinn.py train --data DIR         # on your own folder
python examples/bedrooms_cinn.py colorize photo.jpg -n 8   # with your run, or else the included model
python examples/bedrooms_cinn.py table                    # metrics, with those of the baselines
python examples/bedrooms_cinn.py pictures                 # galleries
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from colorization.baselines import BASELINES
from colorization.colorgan import ColorGAN
from colorization.colorizer import Colorizer, Config, Unconditional
from colorization.commands import Example, main
from colorization.photos import Statistics
from colorization.presets import Preset
from colorization.pyramid import Pyramid, pyramid_steps
from torch import nn

import invgraph as ig

PRESETS = {
    # published settings of the paper; 3 epochs of the 3 million bedrooms of LSUN, the rate divided by 10 after each
    "paper": Preset(
        size=64, features=(64, 128, 128, 512), hidden=(32, 64, 128, 512), blocks=(2, 4, 4, 4), clamp=1.0,
        noise=0.005, batch=128, rate=1e-3, steps=70_000, schedule="drops",
    ),
    # a few minutes on a CPU; more noise, because a few hundred photographs repeat their flat parts exactly
    "quick": Preset(
        size=32, features=(16, 32, 32, 64), hidden=(16, 32, 64, 128), blocks=(2, 4, 4, 4), clamp=0.8,
        noise=0.05, batch=32, rate=1e-3, steps=1000, average=0.99,
    ),
    # the same at the published resolution: an hour or two on a CPU
    "small": Preset(
        size=64, features=(16, 32, 32, 64), hidden=(16, 32, 64, 128), blocks=(2, 4, 4, 4), clamp=0.8,
        noise=0.05, batch=32, rate=1e-3, steps=4000, average=0.99,
    ),
    # seconds, for tests
    "tiny": Preset(
        size=16, features=(4, 4, 4, 8), hidden=(4, 4, 4, 8), blocks=(1, 2, 2, 1), clamp=0.8,
        noise=0.05, batch=8, rate=1e-3, steps=50,
    ),
}  # fmt: skip


Mixing = Callable[[Any, int, str], Any]
"""Adds the mixing of channels after block k, under a name."""


def permute(h: Any, k: int, name: str) -> ig.Node:
    """Add the permutation after a block."""
    return ig.Node(h, ig.Permute, {"seed": k}, name=name)


def bedrooms(
    preset: Preset,
    conditioning: str = "features",
    *,
    mix: Mixing = permute,
    transform: ig.Affine | None = None,
    down: tuple[type[ig.Invertible], dict[str, Any]] = (ig.Haar, {"rebalance": 0.5}),
) -> ig.Graph:
    """Build the small colorization model of the paper.

    Arguments:
        preset: Sizes; those of the paper are ``PRESETS["paper"]``.
        conditioning: ``"features"`` (default): pyramid of features; ``"raw"``: reshaped lightness (Fig. 16);
            ``"none"``: no condition.
        mix: Function that adds the mixing of channels after a block. Default: fixed permutations.
        transform: Transform of the couplings. Default: affine, with the clamp of the preset.
        down: Layer that halves the resolution, and its arguments. Default: Haar wavelets.
    """
    size, transform = preset.size, transform or ig.Affine(clamp=preset.clamp)
    ab = ig.InputNode(2, size, size, name="ab")
    lightness = ig.ConditionNode(1, size, size, name="L")
    fine, half, quarter, whole = conditions(lightness, preset, conditioning)

    def block(h: ig.node.Source, stage: int, k: int, subnet: object, condition: Any) -> ig.Node:
        args = {"transform": transform, "subnet": subnet}
        return ig.Node(h, ig.Coupling, args, conditions=condition, name=f"stage{stage}_coupling{k}")

    h: ig.node.Source = ab  # 2 x 64 x 64
    for k in range(preset.blocks[0]):
        h = block(h, 0, k, ig.nets.ConvNet(preset.hidden[0]), fine)
    h = ig.Node(h, *down, name="haar0")  # 8 x 32 x 32
    for k in range(preset.blocks[1]):
        h = block(h, 1, k, ig.nets.ConvNet(preset.hidden[1], kernel=1 + 2 * (k % 2)), half)
        h = mix(h, k, f"stage1_permute{k}")
    h, early = ig.Node(h, ig.Split, {"sizes": (2, 6)}, name="split0")
    h = ig.Node(h, *down, name="haar1")  # 8 x 16 x 16
    for k in range(preset.blocks[2]):
        h = block(h, 2, k, ig.nets.ConvNet(preset.hidden[2]), quarter)
        h = mix(h, k, f"stage2_permute{k}")
    h, later = ig.Node(h, ig.Split, {"sizes": (4, 4)}, name="split1")
    h = ig.Node(h, ig.Flatten, name="flatten")  # 1024
    for k in range(preset.blocks[3]):
        h = block(h, 3, k, ig.nets.MLP(preset.hidden[3]), whole)
        h = mix(h, k, f"stage3_permute{k}")
    parts = [ig.Node(part, ig.Flatten, name=name) for part, name in ((early, "early"), (later, "later"))]
    z = ig.Node([*parts, h], ig.Concat, name="z")  # 8192
    return ig.Graph(inputs=ab, outputs=z, conditions=[] if conditioning == "none" else lightness)


def conditions(lightness: ig.ConditionNode, preset: Preset, conditioning: str) -> list[Any]:
    """Return the condition of the blocks in each of the four stages."""
    if conditioning == "none":
        return [(), (), (), ()]
    if conditioning == "raw":
        half, quarter = (ig.FeatureNode(lightness, nn.PixelUnshuffle(k), name=f"raw{k}") for k in (2, 4))
        pooled = nn.Sequential(nn.AvgPool2d(preset.size // 8), nn.Flatten())
        return [lightness, half, quarter, ig.FeatureNode(lightness, pooled, name="raw_pooled")]
    found: list[Any] = []
    for k, step in enumerate(pyramid_steps(preset.size, preset.features)):
        found.append(ig.FeatureNode(found[-1] if found else lightness, step, name=f"features{k}"))
    return found


def build(config: Config) -> Colorizer:
    """Build a colorizer of any kind in the table from its config, with new weights."""
    preset = Preset(**config["preset"])
    kind = config["kind"]
    model: nn.Module
    if kind == "colorgan":
        model = ColorGAN(preset.features, preset.size)
    elif kind in BASELINES:
        conditioner = Pyramid(pyramid_steps(preset.size, preset.features), preset.features)
        model = BASELINES[kind](conditioner, preset.features)
    else:
        conditioning = {"cinn": "features", "raw": "raw", "unconditional": "none"}[kind]
        flow = ig.Flow(bedrooms(preset, conditioning))
        model = Unconditional(flow) if kind == "unconditional" else flow
    return Colorizer(model, Statistics(**config["statistics"]), preset.size, preset.noise, config)


if __name__ == "__main__":
    sys.exit(main(Example("bedrooms", str(__doc__), PRESETS, build)))
