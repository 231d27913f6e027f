"""The column of zuko."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import zuko
from torch import nn

from peers.proof import Proof, absent, fails, lacks

PACKAGE = "zuko"


def _trains(flow: Any, size: int = 3) -> None:
    x, c = torch.randn(5, size), torch.randn(5, 2)
    flow(c).log_prob(x).mean().backward()
    assert flow(c).rsample((4,)).shape == (4, 5, size)


def _one_value() -> None:
    """A transform is a function of one tensor, and all transforms of a flow get the same context."""
    assert tuple(inspect.signature(zuko.lazy.Flow.forward).parameters) == ("self", "c")
    assert tuple(inspect.signature(zuko.transforms.ComposedTransform.__init__).parameters)[1:] == (
        "transforms",
        "kwargs",
    )


def _list() -> None:
    flow = zuko.flows.MAF(3, 2, transforms=2)
    assert len(list(flow.transform.transforms)) >= 2


def _any_transform() -> None:
    shapes = [(8,), (8,), (7,)]
    for structure in (zuko.flows.GeneralCouplingTransform, zuko.flows.MaskedAutoregressiveTransform):
        layer = structure(3, 2, univariate=zuko.transforms.MonotonicRQSTransform, shapes=shapes)
        assert layer(torch.randn(2)).inv(torch.randn(3)).shape == (3,)


def _unchecked() -> None:
    layers = [zuko.flows.MaskedAutoregressiveTransform(size, hidden_features=(8,)) for size in (3, 4)]
    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, torch.zeros(3), torch.ones(3), buffer=True
    )
    flow = zuko.lazy.Flow(layers, base)
    fails(lambda: flow().log_prob(torch.randn(5, 3)), RuntimeError, ValueError)


def _untried() -> None:
    layer = zuko.flows.GeneralCouplingTransform(4, 0)
    layer.hyper = nn.Linear(7, 3)
    fails(lambda: layer()(torch.randn(4)), RuntimeError)


def _torch_distributions() -> None:
    flow = zuko.flows.MAF(3)
    assert isinstance(flow(), torch.distributions.Distribution)


def _checkpoint() -> None:
    assert all(isinstance(value, torch.Tensor) for value in zuko.flows.MAF(3).state_dict().values())


def _continuous_only() -> None:
    """The adjoint of ODE solvers keeps no activations; nothing like it is there for other flows."""
    assert zuko.utils.AdaptiveCheckpointAdjoint
    absent(PACKAGE, "memory|rematerial|recompute|revers")()


PROOFS: dict[str, Proof] = {
    **lacks(PACKAGE),
    "A model is declared as": ("list", _list),
    "Several inputs and outputs": ("no", _one_value),
    "Splits at several scales": ("no", absent(PACKAGE, "split|multiscale|merge")),
    "Condition on a value inside the network": ("no", _one_value),
    "Network for the condition, trained jointly": ("by hand", absent(PACKAGE, "embed|condition_?net|feature")),
    "Affine couplings": ("yes", lambda: _trains(zuko.flows.RealNVP(3, 2))),
    "Spline couplings": ("yes", lambda: _trains(zuko.flows.NSF(3, 2, passes=2))),
    "Autoregressive": ("yes", lambda: _trains(zuko.flows.MAF(3, 2))),
    "Residual flows": ("no", absent(PACKAGE, "iresnet|lipschitz|residual_?(flow|transform)")),
    "Continuous flows": ("yes", lambda: _trains(zuko.flows.CNF(3, 2))),
    "Any transform in any structure": ("yes", _any_transform),
    "Shapes checked when declared": ("no", _unchecked),
    "Subnets tried when declared": ("no", _untried),
    "Training in constant memory": ("of ODEs", _continuous_only),
    "``torch.distributions``": ("yes", _torch_distributions),
    "Checkpoints that name their model": ("no", _checkpoint),
    "Neural autoregressive flows": ("yes", lambda: _trains(zuko.flows.NAF(3, 2, transforms=1))),
}
