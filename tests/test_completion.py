"""Completion offers what a user can use, and nothing else."""

from __future__ import annotations

import inspect

import invgraph as ig


def test_the_package_offers_its_public_names_and_no_module_of_its_own() -> None:
    offered = dir(ig)
    assert {"testing", "nets", "init", "errors", "Graph", "export", "fused", "__version__"} <= set(offered)
    modules = {name for name in offered if inspect.ismodule(getattr(ig, name))}
    assert modules == {"errors", "freia", "inference", "init", "nets", "recipes", "sbi", "testing"}
    assert not {"Any", "TYPE_CHECKING", "core", "graph", "layers", "numerics", "shapes"} & set(offered)
    public = {name for name, value in vars(ig).items() if getattr(value, "__module__", "").startswith("invgraph")}
    assert {name for name in public if not name.startswith("_")} <= set(offered)


def test_the_testing_package_offers_its_strategies() -> None:
    assert {"check_invertible", "randomize", "layers", "graphs", "shapes"} <= set(dir(ig.testing))
    assert all(hasattr(ig.testing, name) for name in dir(ig.testing))
    assert not {"Any", "TYPE_CHECKING", "DependencyError", "strategies", "recipes"} & set(dir(ig.testing))


def test_a_graph_offers_the_names_of_its_nodes() -> None:
    x = ig.InputNode(4, name="x")
    graph = ig.Graph(x, ig.chain(x, ig.Permute, ig.Permute, name="mix"))
    assert graph._ipython_key_completions_() == ["mix_0", "mix_1"]
