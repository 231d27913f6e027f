"""PatchAutoregressive: each patch sees the ones before it alone, and the cached inverse equals a pass per patch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import invgraph as ig
from invgraph.numerics.patches import from_patches, to_patches
from invgraph.testing import randomize

D = torch.float64
ARGS: dict[str, Any] = {"transform": ig.Affine(clamp=1.0), "patch": 2, "width": 8, "depth": 2, "heads": 2}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def layer(**args: Any) -> ig.PatchAutoregressive:
    return randomize(ig.PatchAutoregressive((2, 4, 4), ((3,), (1, 4, 4)), **{**ARGS, **args}), scale=0.6).double()


@pytest.mark.parametrize("reverse", [False, True])
def test_a_patch_depends_on_itself_and_earlier_ones_alone(reverse: bool) -> None:
    module, cs = layer(reverse=reverse), (noise(1, 3), noise(1, 1, 4, 4))

    def patches(flat: torch.Tensor) -> torch.Tensor:
        return to_patches(module((from_patches(flat, (2, 4, 4), 2),), cs)[0][0], 2)

    jacobian = torch.func.jacrev(patches)(to_patches(noise(1, 2, 4, 4), 2))[0, :, :, 0]  # (T, P, T, P)
    for t in range(4):
        for s in range(4):
            block = jacobian[t, :, s]
            if s == t:
                assert torch.equal(block, torch.diag(block.diagonal()))
            else:
                assert bool(block.any()) == ((s > t) if reverse else (s < t))


def test_the_cached_inverse_equals_a_pass_for_each_patch() -> None:
    module, y, cs = layer(), noise(3, 2, 4, 4), (noise(3, 3), noise(3, 1, 4, 4))
    (fast,), log_det = module.inverse((y,), cs)
    x = torch.zeros_like(y)
    for _ in range(4):  # each pass makes one more patch right
        tokens = module._to_patches(x)
        h = torch.nn.functional.pad(module.embed(tokens[:, :-1]), (0, 0, 1, 0)) + module._context(x, cs)
        for block in module.blocks:
            h = block(h)
        flat, undone = module.transform.inverse(module._to_patches(y).flatten(1), module._params(h, D))
        x = module._from_patches(flat.view_as(tokens))
    assert torch.allclose(fast, x, atol=1e-12)
    assert torch.allclose(log_det, undone, atol=1e-12)


def test_it_starts_as_the_identity() -> None:
    module, x = ig.PatchAutoregressive((2, 4, 4), **ARGS).double(), noise(2, 2, 4, 4)
    (y,), log_det = module((x,))
    assert torch.equal(x, y)
    assert not log_det.any()


def test_a_stack_in_both_orders_round_trips() -> None:
    x, c = ig.InputNode(3, 8, 8, name="x"), ig.ConditionNode(10, name="c")
    blocks = [(ig.PatchAutoregressive, {**ARGS, "patch": 4, "reverse": bool(k % 2)}) for k in range(4)]
    graph = randomize(ig.Graph(x, ig.chain(x, *blocks, conditions=c), c), scale=0.5).double()
    data, label = noise(2, 3, 8, 8), noise(2, 10)
    z, log_det = graph(data, label)
    back, undone = graph.inverse(z, label)
    assert (back - data).abs().max() < 1e-11
    assert (log_det + undone).abs().max() < 1e-10


@pytest.mark.parametrize(
    ("shape", "args", "error", "words"),
    [
        ((2, 5, 4), {}, ig.GraphError, "5 is not divisible by patch=2"),
        ((2, 2, 2), {}, ig.GraphError, "use smaller patches"),
        ((2, 4, 4), {"heads": 3}, ig.GraphError, "multiple of heads"),
        ((2, 4, 4), {"depth": 0}, ig.GraphError, "depth must be at least 1"),
        ((2, 4, 4), {"width": 8.0}, ig.ArgumentError, "width must be an int"),
        ((2, 4, 4), {"transform": "affine"}, ig.ArgumentError, "expected a transform"),
        ((2, 4, 4), {"transform": ig.VolumePreserving()}, ig.GraphError, "couples the elements"),
        ((2, 4, 4), {"transform": ig.Sigmoid()}, ig.GraphError, "takes no parameters"),
    ],
)
def test_wrong_arguments_are_refused(shape: Any, args: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        ig.PatchAutoregressive(shape, **{**ARGS, **args})
