"""The column of flowjax."""

from __future__ import annotations

import inspect
from typing import Any

import jax.numpy as jnp
import jax.random as jr
from equinox import nn
from flowjax import bijections, flows
from flowjax.distributions import Normal

from peers.proof import Proof, absent, fails, lacks, takes

PACKAGE = "flowjax"
KEY = jr.key(0)
_BASE = Normal(jnp.zeros(3))
_ONE_VALUE = takes(bijections.AbstractBijection.transform_and_log_det, "self", "x", "condition")


def _density(make: Any, **args: Any) -> None:
    flow = make(KEY, base_dist=_BASE, flow_layers=2, **args)
    x = flow.sample(KEY, (4,), condition=jnp.zeros(2)) if "cond_dim" in args else flow.sample(KEY, (4,))
    condition = {"condition": jnp.zeros((4, 2))} if "cond_dim" in args else {}
    assert flow.log_prob(x, **condition).shape == (4,)


def _list() -> None:
    chain = bijections.Chain([bijections.Flip((3,)), bijections.Permute(jnp.array([2, 0, 1]))])
    assert len(chain) == 2


def _embedding() -> None:
    inner = bijections.AdditiveCondition(nn.Linear(2, 3, key=KEY), (3,), (2,))
    wrapped = bijections.EmbedCondition(inner, nn.Linear(5, 2, key=KEY), (5,))
    y, _ = wrapped.transform_and_log_det(jnp.zeros(3), jnp.ones(5))
    assert y.shape == (3,)


def _any_transform() -> None:
    for transformer in (bijections.Affine(), bijections.RationalQuadraticSpline(knots=4, interval=4)):
        for flow in (flows.coupling_flow, flows.masked_autoregressive_flow):
            _density(flow, transformer=transformer)


def _checked() -> None:
    fails(lambda: bijections.Chain([bijections.Flip((3,)), bijections.Flip((4,))]), ValueError)


def _untried() -> None:
    """A network of the wrong width is noticed at the first call."""
    layer = bijections.AdditiveCondition(nn.Linear(7, 3, key=KEY), (3,), (2,))
    fails(lambda: layer.transform(jnp.zeros(3), jnp.zeros(2)), TypeError, ValueError)


def _own_distributions() -> None:
    assert "torch" not in {base.__module__.partition(".")[0] for base in type(_BASE).__mro__}


def _jax() -> None:
    assert "jax" in inspect.getsource(inspect.getmodule(bijections.Coupling))  # type: ignore[arg-type]


PROOFS: dict[str, Proof] = {
    **lacks(PACKAGE),
    "A model is declared as": ("list", _list),
    "Several inputs and outputs": ("no", _ONE_VALUE),
    "Splits at several scales": ("no", absent(PACKAGE, r"(?<!val_)split|multiscale|squeeze")),
    "Condition on a value inside the network": ("no", _ONE_VALUE),
    "Network for the condition, trained jointly": ("yes", _embedding),
    "Affine couplings": ("yes", lambda: _density(flows.coupling_flow, cond_dim=2)),
    "Spline couplings": ("yes", _any_transform),
    "Autoregressive": ("yes", lambda: _density(flows.masked_autoregressive_flow, cond_dim=2)),
    "Residual flows": ("no", absent(PACKAGE, "resid|lipschitz")),
    "Any transform in any structure": ("yes", _any_transform),
    "Shapes checked when declared": ("yes", _checked),
    "Subnets tried when declared": ("no", _untried),
    "``torch.distributions``": ("own", _own_distributions),
    "Neural autoregressive flows": (
        "yes",
        lambda: _density(flows.block_neural_autoregressive_flow, nn_depth=1, nn_block_dim=2),
    ),
    "JAX": ("yes", _jax),
}
