"""FrEIA's column."""

from __future__ import annotations

from typing import Any

import FrEIA.framework as Ff  # noqa: N812
import FrEIA.modules as Fm  # noqa: N812
import torch
from torch import Tensor, nn

from peers.proof import Proof, absent, fails, lacks

PACKAGE = "FrEIA"


def _dense(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Linear(channels_in, channels_out)


def _convolution(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


def _inverts(graph: Any, x: Tensor, **more: Any) -> None:
    with torch.no_grad():
        z, log_det = graph(x, **more)
        back, _ = graph(z, rev=True, **more)
    assert (back - x).abs().max() < 1e-4
    assert log_det.shape == (len(x),)


def _chain(shape: tuple[int, ...], module: Any, **args: Any) -> Any:
    x = Ff.InputNode(*shape, name="x")
    y = Ff.Node(x, module, args, name="y")
    return Ff.GraphINN([x, y, Ff.OutputNode(y, name="z")])


def _split() -> None:
    x = Ff.InputNode(4, 4, 4, name="x")
    split = Ff.Node(x, Fm.Split, {"section_sizes": (2, 2), "dim": 0}, name="split")
    deep = Ff.Node(split.out1, Fm.GLOWCouplingBlock, {"subnet_constructor": _convolution}, name="deep")
    graph = Ff.GraphINN([x, split, deep, Ff.OutputNode(split.out0, name="a"), Ff.OutputNode(deep, name="b")])
    image = torch.randn(2, 4, 4, 4)
    with torch.no_grad():
        back, _ = graph(graph(image)[0], rev=True)
    assert (back - image).abs().max() < 1e-4


def _inner_condition() -> None:
    """A condition on an inner node runs forward and fails in the inverse."""
    x = Ff.InputNode(4, name="x")
    split = Ff.Node(x, Fm.Split, {"section_sizes": (2, 2), "dim": 0}, name="split")
    a = Ff.Node(split.out1, Fm.GLOWCouplingBlock, {"subnet_constructor": _dense}, name="a")
    b = Ff.Node(split.out0, Fm.GLOWCouplingBlock, {"subnet_constructor": _dense}, conditions=[a], name="b")
    graph = Ff.GraphINN([x, split, a, b, Ff.OutputNode(b, name="p"), Ff.OutputNode(a, name="q")])
    z, _ = graph(torch.randn(3, 4))
    fails(lambda: graph(z, rev=True), KeyError)


def _wrong_shape() -> None:
    fails(lambda: _chain((4,), Fm.Split, section_sizes=(5, 2), dim=0), AssertionError, ValueError)


def _wrong_subnet() -> None:
    graph = _chain((4,), Fm.GLOWCouplingBlock, subnet_constructor=lambda i, o: nn.Linear(i + 1, o))
    fails(lambda: graph(torch.randn(3, 4)), RuntimeError)


def _residual() -> None:
    layer = Fm.IResNetLayer([(4,)])
    _ = layer((torch.randn(3, 4),))


def _keys() -> None:
    """A checkpoint is a plain state_dict, which has no description of its model."""
    state = _chain((4,), Fm.GLOWCouplingBlock, subnet_constructor=_dense).state_dict()
    assert all(isinstance(value, Tensor) for value in state.values())


def _single_transforms() -> None:
    """Each coupling has its transform built in."""
    assert not {"transform", "transformer", "univariate"} & set(Fm.GLOWCouplingBlock.__init__.__code__.co_varnames)


PROOFS: dict[str, Proof] = {
    **lacks(PACKAGE),
    "A model is declared as": ("graph", lambda: _inverts(_chain((4,), Fm.PermuteRandom, seed=0), torch.randn(3, 4))),
    "Several inputs and outputs": ("yes", _split),
    "Splits at several scales": ("yes", _split),
    "Condition on a value inside the network": ("no", _inner_condition),
    "Network for the condition, trained jointly": ("by hand; master", absent(PACKAGE, "embed|condition_?net|feature")),
    "Images": ("yes", _split),
    "Affine couplings": (
        "yes",
        lambda: _inverts(_chain((4,), Fm.GLOWCouplingBlock, subnet_constructor=_dense), torch.randn(3, 4)),
    ),
    "Spline couplings": ("master", absent(PACKAGE, "spline")),
    "Autoregressive": ("no", absent(PACKAGE, "autoregressive|maf|made$")),
    "Residual flows": ("yes", _residual),
    "Haar wavelets": ("yes", lambda: _inverts(_chain((1, 4, 4), Fm.HaarDownsampling), torch.randn(2, 1, 4, 4))),
    "Any transform in any structure": ("no", _single_transforms),
    "Shapes checked when declared": ("yes", _wrong_shape),
    "Subnets tried when declared": ("no", _wrong_subnet),
    "``torch.distributions``": ("master", absent(PACKAGE, "distribution")),
    "Drawing of the network": ("master", absent(PACKAGE, "draw|plot|graphviz|visuali")),
    "Checkpoints that name their model": ("no", _keys),
}
