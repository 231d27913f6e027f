"""The column of nflows."""

from __future__ import annotations

from typing import Any

import torch
from nflows import transforms
from nflows.distributions import Distribution, StandardNormal
from nflows.flows import Flow
from nflows.nn.nets import ConvResidualNet, ResidualNet
from torch import Tensor, nn

from peers.proof import Proof, absent, fails, lacks, takes

PACKAGE = "nflows"
_ONE_VALUE = takes(transforms.Transform.forward, "self", "inputs", "context")


def _inverts(transform: Any, x: Tensor) -> None:
    with torch.no_grad():
        z, log_det = transform(x)
        back, _ = transform.inverse(z)
    assert (back - x).abs().max() < 1e-3
    assert log_det.shape == (len(x),)


def _net(features_in: int, features_out: int) -> nn.Module:
    return ResidualNet(features_in, features_out, hidden_features=8)


def _coupling(cls: Any, **args: Any) -> Any:
    return cls(mask=torch.tensor([1, 0, 1, 0]), transform_net_create_fn=_net, **args)


def _multiscale() -> None:
    parts = transforms.MultiscaleCompositeTransform(num_transforms=2, split_dim=1)
    shape = parts.add_transform(transforms.OneByOneConvolution(4), (4, 4, 4))
    parts.add_transform(transforms.OneByOneConvolution(shape[0]), shape)
    z, _ = parts(torch.randn(2, 4, 4, 4))
    assert z.shape == (2, 64)


def _image_coupling() -> None:
    def net(channels_in: int, channels_out: int) -> nn.Module:
        return ConvResidualNet(channels_in, channels_out, hidden_channels=8)

    mask = torch.tensor([1, 0])
    coupling = transforms.AffineCouplingTransform(mask=mask, transform_net_create_fn=net)
    _inverts(coupling, torch.randn(2, 2, 4, 4))


def _embedding() -> None:
    inner = transforms.MaskedAffineAutoregressiveTransform(features=2, hidden_features=8, context_features=3)
    flow = Flow(inner, StandardNormal([2]), embedding_net=nn.Linear(5, 3))
    flow.log_prob(torch.randn(4, 2), torch.randn(4, 5)).sum().backward()
    assert flow._embedding_net.weight.grad is not None


def _unchecked() -> None:
    chain = transforms.CompositeTransform([transforms.RandomPermutation(4), transforms.RandomPermutation(5)])
    fails(lambda: chain(torch.randn(3, 4)), ValueError, RuntimeError, IndexError)


def _untried() -> None:
    coupling = transforms.AffineCouplingTransform(
        mask=torch.tensor([1, 0]), transform_net_create_fn=lambda i, o: nn.Linear(i + 1, o)
    )
    fails(lambda: coupling(torch.randn(3, 2)), RuntimeError, TypeError)


def _own_distributions() -> None:
    assert issubclass(Flow, Distribution)
    assert not issubclass(Distribution, torch.distributions.Distribution)


def _spline() -> None:
    cls = transforms.PiecewiseRationalQuadraticCouplingTransform
    _inverts(_coupling(cls, tails="linear", tail_bound=5.0), torch.randn(3, 4))


PROOFS: dict[str, Proof] = {
    **lacks(PACKAGE),
    "A model is declared as": (
        "list",
        lambda: _inverts(transforms.CompositeTransform([transforms.RandomPermutation(4)]), torch.randn(3, 4)),
    ),
    "Several inputs and outputs": ("no", _ONE_VALUE),
    "Splits at several scales": ("yes", _multiscale),
    "Condition on a value inside the network": ("no", _ONE_VALUE),
    "Network for the condition, trained jointly": ("yes", _embedding),
    "Images": ("yes", _image_coupling),
    "Affine couplings": ("yes", lambda: _inverts(_coupling(transforms.AffineCouplingTransform), torch.randn(3, 4))),
    "Spline couplings": ("yes", _spline),
    "Autoregressive": (
        "yes",
        lambda: _inverts(transforms.MaskedAffineAutoregressiveTransform(4, hidden_features=8), torch.randn(3, 4)),
    ),
    "Residual flows": ("no", absent(PACKAGE, "iresnet|lipschitz|residual_?(flow|transform)")),
    "Any transform in any structure": (
        "no",
        takes(transforms.MaskedAffineAutoregressiveTransform.__init__, "self", "features", "hidden_features",
              "context_features", "num_blocks", "use_residual_blocks", "random_mask", "activation",
              "dropout_probability", "use_batch_norm"),
    ),
    "Shapes checked when declared": ("no", _unchecked),
    "Subnets tried when declared": ("no", _untried),
    "``torch.distributions``": ("own", _own_distributions),
}  # fmt: skip
