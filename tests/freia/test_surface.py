"""The names and signatures of every submodule of FrEIA 0.2, beside ours."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator
from typing import Any

from freia_scripts import imports

import invgraph.freia

INTERNAL = {
    "topological_order", "correct_weights", "orth_correction", "_fast_h", "_deprecated_by",
    "Node.parse_inputs", "InputNode.parse_inputs", "ConditionNode.parse_inputs", "OutputNode.parse_inputs",
    "IResNetLayer._jacobian", "OrthogonalTransform._log_e",
}  # fmt: skip
"""Names that FrEIA's own code calls and no program was found to."""

OTHER = {
    "InvertibleModule.forward",  # subclasses override it with arguments in any order
    "InvertibleSigmoid",  # FrEIA takes any keyword and uses none
}


def submodules() -> list[tuple[Any, Any]]:
    """FrEIA's modules and packages, each with ours of the same name."""
    with imports(ours=False), warnings.catch_warnings():  # an earlier test may have left ours under that name
        warnings.simplefilter("ignore")
        freia = importlib.import_module("FrEIA")
        names = ["FrEIA", *(module.name for module in pkgutil.walk_packages(freia.__path__, "FrEIA."))]
        return [(importlib.import_module(n), importlib.import_module(f"invgraph.freia{n[5:]}")) for n in names]


def is_freias(value: Any) -> bool:
    return str(getattr(value, "__module__", "")).startswith("FrEIA")


def members(module: Any) -> Iterator[tuple[str, Any]]:
    """Names of a module that stand for something of FrEIA's, and the methods of classes that it defines."""
    for name, value in vars(module).items():
        if is_freias(value) and name not in INTERNAL:
            yield name, value
            if inspect.isclass(value) and value.__module__ == module.__name__:
                own = [n for n in dir(value) if not n.startswith("__") and f"{name}.{n}" not in INTERNAL]
                methods = ((f"{name}.{n}", getattr(value, n)) for n in own)
                yield from (pair for pair in methods if is_freias(pair[1]))


def found(module: Any, name: str) -> Any:
    for part in name.split("."):
        module = getattr(module, part)
    return module


def test_every_name_of_freia_is_found() -> None:
    for theirs, ours in submodules():
        for name, _ in members(theirs):
            assert found(ours, name) is not None, f"{theirs.__name__}.{name}"
        assert set(getattr(theirs, "__all__", ())) <= set(getattr(ours, "__all__", ())), theirs.__name__


def test_arguments_have_freias_places_names_and_defaults() -> None:
    differing = []
    for theirs, ours in submodules():
        for name, value in members(theirs):
            if value.__module__ != theirs.__name__ or name in OTHER:
                continue
            expected, got = (list(inspect.signature(v).parameters.values()) for v in (value, found(ours, name)))
            for index, parameter in enumerate(expected):
                same = index < len(got) and got[index].kind == parameter.kind
                same = same and (got[index].name == parameter.name or name.endswith(".output_dims"))
                if not same or not same_default(parameter.default, got[index].default):
                    differing.append(f"{name}({parameter})")
            if any(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in got[len(expected) :]):
                differing.append(f"{name}: more arguments that must be given")
    assert differing == []


def same_default(theirs: Any, ours: Any) -> bool:
    """True if the defaults are equal; ours may have one where FrEIA has none, and a tuple in place of a list."""
    return theirs is inspect.Parameter.empty or theirs == ours or (theirs == [] and ours in ((), None))


def test_the_development_versions_names_are_found_too() -> None:
    for module, names in {
        "framework": "collect_nodes FeedForwardNode",
        "modules": "Inverse LinearSpline RationalQuadraticSpline ElementwiseRationalQuadraticSpline BinnedSpline "
        "BinnedSplineBase rational_quadratic_spline",
        "distributions": "StandardNormalDistribution PushForwardDistribution PullBackDistribution",
        "utils": "output_dims_compatible f_except sum_except sum_except_batch force_to plot_graph",
    }.items():
        assert set(names.split()) <= set(getattr(invgraph.freia, module).__all__)
