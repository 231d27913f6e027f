"""The drawings of graphs on the pages, made by ``graph.draw`` when the pages are built, once for each theme."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from torch import nn

import invgraph as ig

_EXAMPLES = Path(__file__).parent.parent / "examples"
_AFFINE = {"transform": ig.Affine(), "subnet": ig.nets.MLP(64)}
_IMAGES = {"transform": ig.Affine(), "subnet": ig.nets.ConvNet(32)}


def mnist() -> ig.Graph:
    """Build the paper's Fig. 5."""
    image, digit = ig.InputNode(1, 28, 28, name="image"), ig.ConditionNode(10, name="digit")
    h = ig.Node(image, ig.Flatten, name="flatten")
    for k in range(24):
        h = ig.Node(h, ig.Permute, name=f"permute_{k}")
        h = ig.Node(h, ig.Coupling, _AFFINE, conditions=digit, name=f"coupling_{k}")
    return ig.Graph(image, h, digit)


def front() -> ig.Graph:
    """Build the graph of the front page."""
    point, label = ig.InputNode(2, name="point"), ig.ConditionNode(2, name="label")
    block = {"transform": ig.RationalQuadraticSpline(bins=8), "subnet": ig.nets.MLP(64)}
    h: ig.Node | ig.InputNode = point
    for k in range(6):
        h = ig.Node(h, ig.Orthogonal, name=f"rotate_{k}")
        h = ig.Node(h, ig.Coupling, block, conditions=label, name=f"couple_{k}")
    return ig.Graph(point, h, label)


def split() -> ig.Graph:
    """Build a graph with a Haar step and a split whose parts are both outputs, one conditioned on the other."""
    image = ig.InputNode(1, 8, 8, name="image")
    h = ig.Node(image, ig.Haar, name="haar")
    h = ig.Node(h, ig.Coupling, _IMAGES, name="coupling")
    coarse, detail = ig.Node(h, ig.Split, {"sizes": (1, 3)}, name="split")
    prior = ig.Node(detail, ig.Elementwise, _IMAGES, conditions=coarse, name="prior")
    return ig.Graph(image, [coarse, prior])


def features() -> ig.Graph:
    """Build a graph with a conditioning network that several couplings read."""
    x, y = ig.InputNode(3, name="parameters"), ig.ConditionNode(1, 100, name="series")
    net = nn.Sequential(nn.Conv1d(1, 8, 5, stride=2), nn.ReLU(), nn.AdaptiveAvgPool1d(4), nn.Flatten())
    summary = ig.FeatureNode(y, net, name="summary")
    h: ig.Node | ig.InputNode = x
    for k in range(4):
        h = ig.Node(h, ig.Permute, name=f"permute_{k}")
        h = ig.Node(h, ig.Coupling, _AFFINE, conditions=summary, name=f"coupling_{k}")
    return ig.Graph(x, h, y)


def coupling() -> ig.Graph:
    """Build the inside of a one-sided coupling: split, transform one half given the other, concatenate."""
    x, c = ig.InputNode(4, name="x"), ig.ConditionNode(3, name="c")
    left, right = ig.Node(x, ig.Split, {"sizes": (2, 2)}, name="split")
    new = ig.Node(right, ig.Elementwise, _AFFINE, conditions=[left, c], name="transform")
    return ig.Graph(x, ig.Node([left, new], ig.Concat, name="join"), c)


def bedrooms() -> ig.Graph:
    """Build the paper's model for bedrooms."""
    sys.path.insert(0, str(_EXAMPLES))
    import bedrooms_cinn

    return bedrooms_cinn.bedrooms(bedrooms_cinn.PRESETS["paper"])


def imagenet() -> ig.Graph:
    """Build the paper's Fig. 8."""
    sys.path.insert(0, str(_EXAMPLES))
    import imagenet_cinn

    return imagenet_cinn.imagenet(imagenet_cinn.PRESETS["paper"])


DRAWINGS: tuple[Callable[[], ig.Graph], ...] = (front, mnist, split, features, coupling, bedrooms, imagenet)


def write(folder: Path) -> None:
    """Draw what is missing or older than this file, in both themes: ``name-light.svg`` and ``name-dark.svg``."""
    folder.mkdir(exist_ok=True)
    newest = Path(__file__).stat().st_mtime
    for build in DRAWINGS:
        for theme in ("light", "dark"):
            path = folder / f"{build.__name__}-{theme}.svg"
            if not path.exists() or path.stat().st_mtime < newest:
                build().draw(path, theme="light" if theme == "light" else "dark")
