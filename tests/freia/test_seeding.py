"""Draws of random numbers in FrEIA's order, where a program asks for them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from freia_agreement import CASES, mlp
from freia_scripts import imports

import invgraph as ig

OURS = (ig.freia.framework, ig.freia.modules)


@pytest.fixture(autouse=True)
def _default() -> Iterator[None]:
    with ig.freia.seeds_like_freia(False):
        yield


def theirs() -> tuple[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("FrEIA.framework"), pytest.importorskip("FrEIA.modules")


def follows(seed: int) -> bool:
    """True if a permutation of that seed leaves numpy's global generator where it leaves FrEIA's."""
    np.random.seed(9)
    module = OURS[1].PermuteRandom([(7,)], seed=seed)
    own = np.random.RandomState(seed)
    assert np.array_equal(module.perm.numpy(), own.permutation(7))
    return bool(np.random.rand() == own.rand())


def test_the_switch_works_as_function_and_as_context() -> None:
    assert not follows(3)
    with ig.freia.seeds_like_freia():
        assert follows(3)
        assert follows(0)
        with ig.freia.seeds_like_freia(False):
            assert not follows(3)
        assert follows(3)
    assert not follows(3)
    ig.freia.seeds_like_freia()
    assert follows(3)
    with imports(ours=True):
        ig.freia.install()
        assert follows(3)  # no argument leaves it as it is
        ig.freia.seeds_like_freia(False)
        assert not follows(3)
        ig.freia.install(seeds_like_freia=True)
    assert follows(3)


def generators() -> tuple[Any, ...]:
    _, keys, place, *rest = np.random.get_state(legacy=True)
    return keys.tobytes(), place, *rest, torch.get_rng_state().tolist()


def test_modules_leave_the_generators_as_freias_do() -> None:
    _, modules = theirs()
    ig.freia.seeds_like_freia()
    for case in CASES:
        given: dict[str, Any] = {"dims_c": list(case.dims_c)} if case.dims_c else {}
        after = []
        for package in (modules, OURS[1]):
            torch.default_generator.manual_seed(4)
            np.random.seed(4)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                getattr(package, case.name)(list(case.dims_in), **given, **case.args)
            after.append(generators())
        assert after[0] == after[1], case.id


def trained(framework: Any, modules: Any) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The parameters of a network from scratch, and its first losses."""
    torch.default_generator.manual_seed(2)
    np.random.seed(2)
    x = framework.InputNode(6, name="x")
    nodes = [x]
    for k, block in enumerate(("AllInOneBlock", "OrthogonalTransform", "AllInOneBlock", "GLOWCouplingBlock")):
        nodes.append(framework.Node(nodes[-1], modules.PermuteRandom, {"seed": k}))
        args: dict[str, Any] = {"correction_interval": 2} if block.startswith("O") else {"subnet_constructor": mlp}
        args.update({"permute_soft": k == 0} if block.startswith("All") else {})
        nodes.append(framework.Node(nodes[-1], getattr(modules, block), args))
    net = framework.GraphINN([*nodes, framework.OutputNode(nodes[-1])])
    state = {key: value.clone() for key, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(6):  # each with data from numpy, which the correction of the rotation draws from as well
        z, log_jac = net(torch.from_numpy(np.random.standard_normal((16, 6))).float())
        loss = (0.5 * z.square().sum(1) - log_jac).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return state, losses


@pytest.mark.filterwarnings("ignore:Using .*non-full backward hooks")
def test_a_program_starts_from_freias_numbers() -> None:
    packages = theirs()
    expected, losses = trained(*packages)
    state, default = trained(*OURS)
    assert losses[0] != pytest.approx(default[0], rel=1e-3)
    ig.freia.seeds_like_freia()
    state, own = trained(*OURS)
    for key, value in expected.items():
        torch.testing.assert_close(state[key], value, rtol=0, atol=0, check_stride=False)
    # FrEIA corrects the rotation within the backward pass, before the step of the optimizer.
    assert own == pytest.approx(losses, rel=1e-2)
    assert own[:2] == pytest.approx(losses[:2], rel=1e-6)
