"""Weights that ``prune`` and the older ``weight_norm`` and ``spectral_norm`` compute in a forward pre-hook."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from invgraph.torch_internals import hook_stores


def renew_weights(layer: nn.Module) -> None:
    """Compute such weights of a layer's own anew, where no hooks run.

    That is in the inverse, when a graph is bound, and in modules that are read but never called. Without this, samples
    would come from the weights of the last forward call.
    """
    (_, before, *_), _ = hook_stores(layer)  # the layer's own come first
    for hook in before.values():
        if isinstance(hook, (BasePruningMethod, WeightNorm)):
            hook(layer, ())
        elif isinstance(hook, SpectralNorm):  # another power iteration would give other weights than the forward call's
            setattr(layer, hook.name, hook.compute_weight(layer, do_power_iteration=False))
