"""Distance of the layers with FrEIA's names from FrEIA's own: ``python -m tests.support.freia_agreement``.

Each case is built in both libraries, the state dict of each is loaded into the other (strict), and outputs and
log-determinants of both directions are compared. Differences are relative to the largest value, or to 1.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import invgraph as ig

BATCH = 5
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}
Shapes = Sequence[tuple[int, ...]]


def mlp(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Linear(channels_in, 16), nn.ReLU(), nn.Linear(16, channels_out))


def conv(channels_in: int, channels_out: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels_in, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, channels_out, 3, padding=1))


@dataclass(frozen=True)
class Case:
    """One module with its arguments; ``wrong`` says which of FrEIA's results are known to be wrong."""

    name: str
    args: dict[str, Any] = field(default_factory=dict)
    dims_in: Shapes = ((6,),)
    dims_c: Shapes = ()
    wrong: frozenset[str] = frozenset()

    @property
    def id(self) -> str:
        args = ",".join(f"{key}={value}" for key, value in self.args.items() if isinstance(value, (int, float, str)))
        shapes = "x".join(map(str, self.dims_in[0])) + ("|" + "x".join(map(str, self.dims_c[0])) if self.dims_c else "")
        return f"{self.name}({args})-{shapes}"


VECTOR, IMAGE = ((6,),), ((4, 8, 8),)


def fixed(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def couplings(name: str) -> list[Case]:
    net = {"subnet_constructor": mlp}
    clamps = [Case(name, {**net, "clamp": 1.3, "clamp_activation": act}) for act in ("ATAN", "TANH", "SIGMOID")]
    return [
        *clamps,
        Case(name, {**net, "clamp_activation": torch.tanh}),
        Case(name, net, ((5,),), ((3,),)),
        Case(name, {**net, "split_len": 0.3}),
        Case(name, {**net, "split_len": 2}),
        Case(name, {"subnet_constructor": conv}, IMAGE, ((2, 8, 8), (1, 8, 8))),
    ]


def all_in_one() -> list[Case]:
    options: list[dict[str, Any]] = [
        {},
        {"permute_soft": True},
        {"gin_block": True},
        {"reverse_permutation": True},
        {"permute_soft": True, "reverse_permutation": True},
        {"learned_householder_permutation": 3},
        {"learned_householder_permutation": 2, "permute_soft": True, "reverse_permutation": True},
        {"global_affine_type": "SIGMOID", "global_affine_init": 0.7},
        {"global_affine_type": "EXP", "global_affine_init": 1.5},
        {"affine_clamping": 0.7, "global_affine_init": 0.5},
    ]
    cases = []
    for option in options:
        cases.append(Case("AllInOneBlock", {"subnet_constructor": mlp, **option}, ((7,),), ((3,),)))
        cases.append(Case("AllInOneBlock", {"subnet_constructor": conv, **option}, IMAGE))
    return cases


COUPLINGS = ("RNVPCouplingBlock", "GLOWCouplingBlock", "GINCouplingBlock", "AffineCouplingOneSided")
HAAR: tuple[dict[str, Any], ...] = (
    {},
    {"order_by_wavelet": True},
    {"rebalance": 0.5, "order_by_wavelet": True},
    {"rebalance": 2.0},
)
RESIDUAL = frozenset({"log-det of the inverse"})
IREVNET: tuple[dict[str, Any], ...] = ({}, {"legacy_backend": True})

CASES = [
    *(case for name in COUPLINGS for case in couplings(name)),
    Case("NICECouplingBlock", {"subnet_constructor": mlp}),
    Case("NICECouplingBlock", {"subnet_constructor": conv, "split_len": 1}, IMAGE, ((2, 8, 8),)),
    Case("ConditionalAffineTransform", {"subnet_constructor": mlp}, VECTOR, ((3,),)),
    Case("ConditionalAffineTransform", {"subnet_constructor": conv, "clamp": 0.9}, IMAGE, ((3, 8, 8), (1, 8, 8))),
    *all_in_one(),
    Case("PermuteRandom", {"seed": 3}),
    Case("PermuteRandom", {}, IMAGE),
    Case("FixedLinearTransform", {"M": fixed(6, 6)}),
    Case("FixedLinearTransform", {"M": fixed(6, 6), "b": fixed(6)}),
    Case("Fixed1x1Conv", {"M": fixed(4, 4)}, IMAGE),
    Case("InvertibleSigmoid"),
    *(Case(name, kwargs, IMAGE) for name in ("IRevNetDownsampling", "IRevNetUpsampling") for kwargs in IREVNET),
    *(Case(name, kwargs, IMAGE) for name in ("HaarDownsampling", "HaarUpsampling") for kwargs in HAAR),
    Case("HaarDownsampling", {"rebalance": 2.0}, ((20, 4, 4),)),
    Case("HaarUpsampling", {"order_by_wavelet": True}, ((80, 2, 2),)),
    Case("Flatten", {}, IMAGE),
    Case("Reshape", {"output_dims": (16, 4, 4)}, IMAGE),
    Case("Split", {}, IMAGE),
    Case("Split", {"section_sizes": [1, 3]}, IMAGE),
    Case("Split", {"n_sections": 4, "dim": 2}, IMAGE),
    Case("Concat", {}, (*IMAGE, (2, 8, 8))),
    Case("Concat", {"dim": 1}, (*IMAGE, (4, 3, 8))),
    Case("ActNorm"),
    Case("ActNorm", {}, IMAGE),
    Case("HouseholderPerm", {"n_reflections": 3}),
    Case("HouseholderPerm", {"n_reflections": 4, "fixed": True}),
    Case("OrthogonalTransform", {"clamp": 2.0}),
    Case("InvAutoAct"),
    Case("InvAutoAct", {"slope_init": 3.0, "learnable": False}, IMAGE),
    Case("InvAutoActTwoSided", {"init_pos": 1.5}, IMAGE),
    Case("LearnedElementwiseScaling", {}, IMAGE, wrong=frozenset({"log-det of the inverse"})),
    Case("IResNetLayer", {}, wrong=RESIDUAL),
    Case("IResNetLayer", {"hutchinson_samples": 2, "internal_size": 5}, ((2, 4, 4),), wrong=RESIDUAL),
    Case("InvAutoFC", {"dims_out": 4}),
    Case("InvAutoConv2D", {"kernel_size": 5, "padding": 2}, IMAGE),
]


def pair(case: Case, theirs: Any, dtype: torch.dtype, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """FrEIA's module and ours with random parameters, each with the state dict of the other."""
    given: dict[str, Any] = {"dims_c": list(case.dims_c)} if case.dims_c else {}
    built = []
    for modules in (theirs, ig.freia.modules):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed)
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):  # some of FrEIA's modules print
            warnings.simplefilter("ignore")
            built.append(getattr(modules, case.name)(list(case.dims_in), **given, **case.args).to(dtype))
    reference, ours = built
    for parameter in reference.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) * (0.1 if case.name == "IResNetLayer" else 0.5)
    ours.load_state_dict(reference.state_dict(), strict=True)
    reference.load_state_dict(ours.state_dict(), strict=True)
    return reference, ours


def differences(case: Case, reference: nn.Module, ours: nn.Module, dtype: torch.dtype) -> dict[str, float]:
    """Relative differences of outputs and log-determinants in both directions."""
    source = torch.Generator().manual_seed(2)

    def draw(shapes: Shapes) -> list[Tensor]:
        return [torch.randn(BATCH, *shape, generator=source, dtype=dtype) for shape in shapes]

    given = {"c": draw(case.dims_c)} if case.dims_c else {}
    found = {}
    xs = draw(case.dims_in)
    for rev, name in ((False, ""), (True, " of the inverse")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.default_generator.manual_seed(3)  # the residual block draws vectors
            expected, log_jac = reference([x.clone() for x in xs], rev=rev, **given)
            torch.default_generator.manual_seed(3)
            got, log_det = ours(tuple(xs), rev=rev, **given)
        assert log_det.shape == (BATCH,)
        assert log_det.dtype == dtype
        found[f"output{name}"] = max(relative(a, b) for a, b in zip(expected, got, strict=True))
        found[f"log-det{name}"] = relative(torch.as_tensor(log_jac).to(log_det).expand(BATCH), log_det)
        xs = draw([tuple(y.shape[1:]) for y in expected])
        if case.name == "InvertibleSigmoid":
            xs = [x.sigmoid() for x in xs]
    return found


def relative(expected: Tensor, got: Tensor) -> float:
    return ((expected - got).abs().max() / expected.abs().max().clamp(min=1)).item()


def table(theirs: Any) -> list[str]:
    """One row of a list-table for each module: the largest difference in both directions, over all its arguments."""
    lines = []
    for name in dict.fromkeys(case.name for case in CASES):
        cases = [case for case in CASES if case.name == name]
        lines.append(f"* - ``{name}``\n  - {len(cases)}")
        for dtype in TOLERANCE:
            found = [(what, value) for case in cases for what, value in right(case, theirs, dtype)]
            for kind in ("output", "log-det"):
                lines.append(f"  - {max(value for what, value in found if what.startswith(kind)):.0e}")
    return lines


def right(case: Case, theirs: Any, dtype: torch.dtype) -> list[tuple[str, float]]:
    """The differences from those of FrEIA's results that are right."""
    found = differences(case, *pair(case, theirs, dtype), dtype)
    return [(what, value) for what, value in found.items() if what not in case.wrong]


if __name__ == "__main__":
    torch.set_num_threads(1)
    from FrEIA import modules

    print("\n".join(table(modules)))
