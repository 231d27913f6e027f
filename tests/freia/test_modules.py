"""Layers of FrEIA's names: FrEIA's keys and numbers where it is installed, the contract everywhere."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import freia_agreement as agreement
import numpy as np
import pytest
import torch
from freia_agreement import BATCH, CASES, TOLERANCE, Case
from torch import nn

import invgraph as ig

Fm = ig.freia.modules
DTYPES = [pytest.param(dtype, id=str(dtype).removeprefix("torch.")) for dtype in TOLERANCE]


def theirs() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("FrEIA.modules")


def build(case: Case, dtype: torch.dtype = torch.float64) -> nn.Module:
    given: dict[str, Any] = {"dims_c": list(case.dims_c)} if case.dims_c else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: nn.Module = getattr(Fm, case.name)(list(case.dims_in), **given, **case.args).to(dtype)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) * 0.5
    if case.name == "OrthogonalTransform":
        module.weights.data = torch.linalg.qr(module.weights.data).Q
    return module


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_the_numbers_are_freias(case: Case, dtype: torch.dtype) -> None:
    reference, ours = agreement.pair(case, theirs(), dtype)
    allowed = TOLERANCE[dtype] if dtype == torch.float64 else 5e-5  # rounding differs from processor to processor
    for what, difference in agreement.differences(case, reference, ours, dtype).items():
        if what not in case.wrong:
            assert difference <= allowed, what


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_names_and_order_of_parameters_are_freias(case: Case) -> None:
    reference, ours = agreement.pair(case, theirs(), torch.float32)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in reference.named_parameters()]
    trained = [name for name, parameter in reference.named_parameters() if parameter.requires_grad]
    if case.name == "HouseholderPerm" and case.args.get("fixed"):
        trained = []  # FrEIA marks the vectors as trainable, though nothing depends on them
    assert [name for name, parameter in ours.named_parameters() if parameter.requires_grad] == trained
    dims = list(case.dims_in)
    assert [tuple(shape) for shape in ours.output_dims(dims)] == [tuple(s) for s in reference.output_dims(dims)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_fresh_module_is_drawn_as_freias(case: Case) -> None:
    """The same seeds of torch and numpy give the same module, so that programs start from the same numbers."""
    given: dict[str, Any] = {"dims_c": list(case.dims_c)} if case.dims_c else {}
    states = []
    for modules in (theirs(), Fm):
        torch.default_generator.manual_seed(4)
        np.random.seed(4)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            states.append(getattr(modules, case.name)(list(case.dims_in), **given, **case.args).state_dict())
    expected, got = states
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-5, atol=1e-5, check_stride=False)


INVERTIBLE = [case for case in CASES if case.name not in ("InvAutoFC", "InvAutoConv2D", "IResNetLayer")]


@pytest.mark.parametrize("case", INVERTIBLE, ids=lambda case: case.id)
def test_layers_keep_the_contract_in_a_native_graph(case: Case) -> None:
    module = build(case)
    constant = any(value.is_floating_point() and not value.requires_grad for value in module.parameters())
    close = 1e-5 if constant else 1e-8  # as in FrEIA, constants are rounded to float32 when they are drawn
    inputs = [ig.InputNode(*shape) for shape in case.dims_in]
    conditions = [ig.ConditionNode(*shape) for shape in case.dims_c]
    node = ig.Node(inputs, ig.freia.wrap(module, list(case.dims_in)), conditions=conditions)
    graph = ig.Graph(inputs, list(node), conditions)
    xs = tuple(torch.randn(BATCH, *shape, dtype=torch.float64) for shape in case.dims_in)
    cs = tuple(torch.randn(BATCH, *shape, dtype=torch.float64) for shape in case.dims_c)
    before = [value.clone() for value in (*xs, *cs)]
    ys, log_det = graph(xs, cs)
    back, log_det_back = graph.inverse(ys, cs)
    for x, again in zip(xs, back, strict=True):
        torch.testing.assert_close(again, x, rtol=close, atol=close)
    torch.testing.assert_close(log_det_back, -log_det, rtol=close, atol=close)
    assert all(torch.equal(a, b) for a, b in zip(before, (*xs, *cs), strict=True))

    def flat(*rows: torch.Tensor) -> torch.Tensor:
        out, _ = graph(tuple(row.unsqueeze(0) for row in rows), tuple(c[:1] for c in cs))
        return torch.cat([y.flatten() for y in out])

    blocks = torch.autograd.functional.jacobian(flat, tuple(x[0] for x in xs))
    jacobian = torch.cat([block.flatten(1) for block in blocks], dim=1)
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[0].detach(), rtol=close, atol=close)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_layers_can_be_pickled_and_copied(case: Case) -> None:
    module = build(case)
    for other in (pickle.loads(pickle.dumps(module)), copy.deepcopy(module)):
        assert [*other.state_dict()] == [*module.state_dict()]


def test_a_seeded_permutation_leaves_numpys_generator_alone() -> None:
    np.random.seed(7)
    expected = np.random.rand()
    np.random.seed(7)
    Fm.PermuteRandom([(8,)], seed=3)
    assert np.random.rand() == expected


@pytest.mark.parametrize("channels", [9, 65])
def test_a_hard_permutation_follows_its_matrix(channels: int) -> None:
    """Programs write into parameters by p.data, which leaves no trace."""
    first, second = (Fm.AllInOneBlock([(channels,)], subnet_constructor=agreement.mlp) for _ in range(2))
    for target, value in zip(second.parameters(), first.parameters(), strict=True):
        target.data.copy_(value.data)
    x = torch.randn(3, channels)
    assert torch.equal(first.permute_function(x, first.w_perm), x @ first.w_perm.t())
    assert torch.equal(first((x,))[0][0], second((x,))[0][0])


def test_weights_of_a_soft_block_load_into_a_hard_one() -> None:
    soft = Fm.AllInOneBlock([(5,)], subnet_constructor=agreement.mlp, permute_soft=True)
    hard = Fm.AllInOneBlock([(5,)], subnet_constructor=agreement.mlp)
    hard.load_state_dict(soft.state_dict())
    x = torch.randn(3, 5)
    torch.testing.assert_close(hard((x,))[0][0], soft((x,))[0][0])


def test_actnorm_starts_from_the_first_call_in_either_direction() -> None:
    for rev in (False, True):
        reference, ours = theirs().ActNorm([(4, 3, 3)]), Fm.ActNorm([(4, 3, 3)])
        x = torch.randn(6, 4, 3, 3) * 3 + 1
        (expected,), log_jac = reference([x], rev=rev)
        (got,), log_det = ours([x], rev=rev)
        torch.testing.assert_close(got, expected)
        torch.testing.assert_close(log_det, log_jac)
        assert not ours.init_on_next_batch


@pytest.mark.parametrize("x", [torch.randn(1, 3), torch.ones(5, 3)], ids=["one row", "constant"])
def test_actnorm_refuses_what_it_cannot_start_from(x: torch.Tensor) -> None:
    with pytest.raises(ig.NumericsError, match="ActNorm"):
        Fm.ActNorm([(3,)])([x])


@pytest.mark.parametrize("rev", [False, True])
def test_actnorm_of_a_large_batch_is_that_of_small_ones(rev: bool) -> None:
    norm = Fm.ActNorm([(8, 32, 32)], init_data=torch.randn(4, 8, 32, 32) * 2 + 1).double()
    x = torch.randn(9, 8, 32, 32, dtype=torch.float64, requires_grad=True)
    whole = norm([x], rev=rev)
    parts = [norm([part], rev=rev) for part in x.split(3)]
    joined = torch.cat([y for (y,), _ in parts]), torch.cat([log_det for _, log_det in parts])
    leaves, found = [x, *norm.parameters()], []
    for y, log_det in ((whole[0][0], whole[1]), joined):
        found.append((y, *torch.autograd.grad((y**3).sum() + log_det.square().sum(), leaves)))
    torch.testing.assert_close(*found)
    with torch.no_grad():
        before = x.clone()
        torch.testing.assert_close(norm([x], rev=rev)[0][0], joined[0])
        assert torch.equal(x, before)


def test_actnorm_does_not_start_after_loading() -> None:
    norm = Fm.ActNorm([(3,)])
    norm.load_state_dict(Fm.ActNorm([(3,)], init_data=torch.randn(8, 3)).state_dict())
    norm([torch.ones(1, 3)])


def test_a_narrow_subnet_is_refused() -> None:
    def narrow(channels_in: int, channels_out: int) -> nn.Module:
        return nn.Linear(channels_in, channels_out - 1)

    for name in ("GLOWCouplingBlock", "NICECouplingBlock", "RNVPCouplingBlock", "AllInOneBlock"):
        with pytest.raises(ig.ShapeError, match="a subnet returned"):
            getattr(Fm, name)([(4,)], subnet_constructor=narrow)([torch.randn(2, 4)])


def test_a_conditional_householder_permutation() -> None:
    """FrEIA's own fails at every call."""
    module = Fm.HouseholderPerm([(4,)], [(4, 3)], n_reflections=3)
    x, c = torch.randn(5, 4), torch.randn(5, 4, 3)
    (y,), _ = module([x], c=[c])
    fixed = Fm.HouseholderPerm([(4,)], n_reflections=3)
    fixed.Vs.data = c[2].t().clone()
    torch.testing.assert_close(y[2:3], fixed([x[2:3]])[0][0])
    torch.testing.assert_close(module([y], c=[c], rev=True)[0][0], x)


def test_an_orthogonal_transform_is_corrected_after_its_interval() -> None:
    module = Fm.OrthogonalTransform([(4,)], correction_interval=3)
    module.weights.data += 0.1
    for _ in range(6):
        module([torch.randn(2, 4)])[0][0].sum().backward()
    assert module.weights.grad is not None
    module([torch.randn(2, 4)])
    torch.testing.assert_close(module.weights @ module.weights.t(), torch.eye(4))


def test_no_layer_touches_the_dtype_under_autocast() -> None:
    for permute_soft in (False, True):
        block = Fm.AllInOneBlock([(300,)], subnet_constructor=agreement.mlp, permute_soft=permute_soft)
        x = torch.randn(2, 300)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (y,), log_jac = block([x])
            (again,), _ = block([y], rev=True)
        assert y.dtype == log_jac.dtype == torch.float32
        torch.testing.assert_close(again, x, rtol=1e-4, atol=1e-4)


def test_deprecated_names_warn() -> None:
    with pytest.warns(DeprecationWarning, match="Use Split"):
        assert isinstance(Fm.SplitChannel([(4,)]), Fm.Split)
    with pytest.warns(DeprecationWarning, match="Use Concat"):
        assert isinstance(Fm.Concat1d([(4,), (2,)]), Fm.Concat)


@pytest.mark.parametrize("chosen", [None, 5, torch.tensor([0, 2, 1, 1])], ids=["all", "seed", "numbers"])
def test_the_gaussian_mixture_is_freias(chosen: Any) -> None:
    reference, ours = (modules.GaussianMixtureModel([(3,)], [(4,), (4, 3), (4, 6), (1,)]) for modules in (theirs(), Fm))
    w = ours.normalize_weights(torch.randn(4, 4))
    torch.testing.assert_close(w, reference.normalize_weights(w.log()))
    c = [w, torch.randn(4, 4, 3), torch.randn(4, 4, 6), chosen]
    x = torch.randn(4, 3)
    for rev in (False, True):
        (expected,), log_jac = reference([x], c, rev=rev)
        (got,), log_det = ours([x], c, rev=rev)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(log_det, log_jac)
        x = expected
    if chosen is None:
        for name in ("nll_loss", "nll_upper_bound"):
            z, log_det = torch.randn(4, 4, 3), torch.randn(4, 4)
            torch.testing.assert_close(getattr(ours, name)(w, z, log_det), getattr(reference, name)(w, z, log_det))


@pytest.mark.parametrize("shape", [(4,), (2, 4, 4)], ids=["vector", "image"])
def test_a_residual_block_is_a_contraction_after_its_correction(shape: tuple[int, ...]) -> None:
    block = Fm.IResNetLayer([shape], jacobian_iterations=40, fixed_point_iterations=100).double()
    for parameter in block.parameters():
        parameter.data *= 3
    block.lipschitz_correction()
    x = torch.randn(5, *shape, dtype=torch.float64)
    (y,), log_jac = block([x])
    (again,), back = block([y], rev=True)
    torch.testing.assert_close(again, x)
    assert log_jac.shape == back.shape == (5,)
    log_jac.sum().backward()
    assert not x.requires_grad
    assert block.residual[0].weight.grad.abs().sum() > 0
