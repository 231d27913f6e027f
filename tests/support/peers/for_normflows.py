"""The column of normflows."""

from __future__ import annotations

from typing import Any

import normflows as nf
import torch
from torch import Tensor, nn

from peers.proof import REBUILDS, Proof, absent, fails, lacks, takes

PACKAGE = "normflows"
_ONE_VALUE = takes(nf.flows.Flow.forward, "self", "z")


def _inverts(flow: Any, x: Tensor) -> None:
    with torch.no_grad():
        z, log_det = flow.inverse(x)
        back, _ = flow.forward(z)
    assert (back - x).abs().max() < 1e-3
    assert log_det.shape == (len(x),)


def _glow() -> None:
    _inverts(nf.flows.GlowBlock(4, 8), torch.randn(2, 4, 4, 4))


def _multiscale() -> None:
    shapes = [(2, 4, 4), (8, 2, 2)]
    bases = [nf.distributions.DiagGaussian(shape) for shape in ((2, 2, 2), (8, 2, 2))]
    flows = [[nf.flows.GlowBlock(8, 8)], [nf.flows.GlowBlock(4, 8), nf.flows.Squeeze()]]
    merges = [nf.flows.Merge()]
    assert len(shapes) == len(bases)
    assert isinstance(nf.MultiscaleFlow(bases, flows, merges), nn.Module)


def _list() -> None:
    base = nf.distributions.DiagGaussian(2)
    model = nf.NormalizingFlow(base, [nf.flows.AffineCouplingBlock(nf.nets.MLP([1, 8, 2]))])
    assert model.log_prob(torch.randn(3, 2)).shape == (3,)


def _affine() -> None:
    _inverts(nf.flows.AffineCouplingBlock(nf.nets.MLP([1, 8, 2])), torch.randn(3, 2))


def _residual() -> None:
    flow = nf.flows.Residual(nf.nets.LipschitzMLP([2, 8, 2], init_zeros=True, lipschitz_const=0.9))
    assert flow.forward(torch.randn(3, 2))[0].shape == (3, 2)


def _unchecked() -> None:
    layers = [nf.flows.AffineCouplingBlock(nf.nets.MLP([width, 8, 2 * width])) for width in (1, 3)]
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(2), layers)
    fails(lambda: model.log_prob(torch.randn(3, 2)), RuntimeError, ValueError)


def _untried() -> None:
    coupling = nf.flows.AffineCouplingBlock(nn.Linear(7, 3))
    fails(lambda: coupling.inverse(torch.randn(3, 2)), RuntimeError)


def _own_distributions() -> None:
    assert not issubclass(nf.distributions.BaseDistribution, torch.distributions.Distribution)


def _checkpoint() -> None:
    """``save`` writes a plain state_dict, which has no description of its model."""
    state = nf.NormalizingFlow(nf.distributions.DiagGaussian(2), []).state_dict()
    assert all(isinstance(value, Tensor) for value in state.values())


def _flow_test() -> None:
    """A base of unit tests for layers comes with the package; it compares the two directions."""
    from normflows.flows.flow_test import FlowTest

    FlowTest().checkForwardInverse(nf.flows.AffineCouplingBlock(nf.nets.MLP([1, 8, 2])), torch.randn(3, 2))
    assert not [name for name in vars(FlowTest) if "jac" in name.lower()]


PROOFS: dict[str, Proof] = {
    **lacks(PACKAGE),
    "A model is declared as": ("list", _list),
    "Several inputs and outputs": ("no", _ONE_VALUE),
    "Splits at several scales": ("yes", _multiscale),
    "Condition on a value inside the network": ("no", _ONE_VALUE),
    "Network for the condition, trained jointly": ("by hand", absent(PACKAGE, "embed|condition_?net|feature_?net")),
    "Images": ("yes", _glow),
    "Affine couplings": ("yes", _affine),
    "Spline couplings": (
        "yes",
        lambda: _inverts(nf.flows.CoupledRationalQuadraticSpline(2, 1, 8), torch.randn(3, 2)),
    ),
    "Autoregressive": ("yes", lambda: _inverts(nf.flows.MaskedAffineAutoregressive(2, 8), torch.randn(3, 2))),
    "Residual flows": ("yes", _residual),
    "Any transform in any structure": (
        "no",
        takes(nf.flows.MaskedAffineAutoregressive.__init__, "self", "features", "hidden_features",
              "context_features", "num_blocks", "use_residual_blocks", "random_mask", "activation",
              "dropout_probability", "use_batch_norm"),
    ),
    "Shapes checked when declared": ("no", _unchecked),
    "Subnets tried when declared": ("no", _untried),
    "Training in constant memory": ("no", absent(PACKAGE, REBUILDS.replace("memory", "memory_saving"))),
    "``torch.distributions``": ("own", _own_distributions),
    "Checkpoints that name their model": ("no", _checkpoint),
    "Tools to test a layer of your own": ("round trip", _flow_test),
    "Hamiltonian and Metropolis layers": ("yes", lambda: (nf.flows.HamiltonianMonteCarlo, nf.flows.MetropolisHastings)),
}  # fmt: skip
