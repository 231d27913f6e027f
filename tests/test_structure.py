"""Rules for the source: levels, sizes, docstrings; and every example in it runs."""

from __future__ import annotations

import ast
import doctest
import functools
import graphlib
import importlib
import inspect
import pkgutil
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import count_calls
import pytest

import invgraph as ig

PACKAGE = Path(ig.__file__).parent
ROOT = Path(__file__).parent.parent
FILES = sorted(path for path in PACKAGE.rglob("*.py"))

# levels: begin
FLOORS = {
    "__main__": "python -m invgraph: versions and a self-check",
    "freia": "FrEIA's names, keys and numbers on this engine: framework, modules, contract, runner, affine, install",
    "testing": "the checks of the contract and hypothesis strategies: public",
    "sbi": "flows for the packages sbi and lampe",
    "inference": "what is done with a conditional density: training, calibration, pictures",
    "recipes": "whole models in a few lines: splines",
    "export": "programs, ONNX files and compiled packages of a graph",
    "diagnose, init": "what a user does with a graph besides",
    "flow": "densities: log_prob, sample",
    "densities": "latents and their base densities, their support, flows under fixed conditions, chunks",
    "checkpoint": "checkpoint, loading, fingerprint, state, atomic_file, tensor_file, rng_state",
    "reversible": "runner, plan, backward, call_state",
    "layers": "one idea of a layer per file, with its math",
    "graph": "node, wiring, schedule, ranges, run, finite, bound, compiled, resize, trace, shown, graph, holder",
    "distributions": "torch.distributions from flows and graphs: flow_distribution, closed_forms, graph_transform",
    "nets": "subnets: feedforward, masked, residual, attention, unet, vit",
    "core": "contract: invertible, resized, wrappers, ports, ranges, given, constants, subnet, sides, stochastic, vjp",
    "transforms": "one elementwise transform per file",
    "fused": "kernels: switch, affine, affine_gradient, mlp, masked_mlp, rational_quadratic, sequence, in_place",
    "numerics": "linear algebra, root finding, soft clamp, splines, seeding, patches, interval, processes",
    "draw": "layered drawings: picture, ranks, columns, layout, svg, png, fonts, markup, write; tables of text",
    "torch_internals": "everything of torch that has no public name",
    "shapes, arguments": "the vocabulary",
    "errors": "the exceptions",
}
# levels: end
"""Files and folders of the package from the top down: each imports only from lower ones, type-only imports included."""

ORDER = [name for names in FLOORS for name in names.split(", ")][::-1]


def level(name: str) -> int:
    """Return the level of a module; the package itself stands above all."""
    top = name.split(".")[1] if "." in name else ""
    return ORDER.index(top) if top in ORDER else len(ORDER)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """Return all nodes of a file's syntax tree, which several rules look at."""
    return list(ast.walk(ast.parse(path.read_text())))


@functools.cache
def imports(path: Path) -> list[str]:
    """Return the full names of what a file imports, also for types alone."""
    found: list[str] = []
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def ids(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize(
    "path", [path for path in FILES if path.parent != PACKAGE or path.name != "__init__.py"], ids=ids
)
def test_a_folder_imports_only_from_lower_ones(path: Path) -> None:
    own = level(module_name(path))
    assert own < len(ORDER), f"{ids(path)} stands on no level"
    for name in imports(path):
        if name.startswith("invgraph.") and name != "invgraph.__version__" and level(name) != own:
            assert level(name) < own, f"{ids(path)} imports {name}, which stands above it"


def test_no_imports_form_a_cycle() -> None:
    modules = {module_name(path): path for path in FILES}
    graph = {name: {other for used in imports(path) for other in modules if used.startswith(f"{other}.")}
             for name, path in modules.items() if path.name != "__init__.py"}  # fmt: skip
    list(graphlib.TopologicalSorter(graph).static_order())


def test_few_files_lie_outside_the_rooms() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 10


def test_only_the_graph_imports_networkx() -> None:
    users = {ids(path) for path in FILES if any(name.split(".")[0] == "networkx" for name in imports(path))}
    assert users == {"graph/schedule.py"}


def test_layers_do_not_import_each_other() -> None:
    for path in (PACKAGE / "layers").glob("*.py"):
        others = [name for name in imports(path) if name.startswith("invgraph.layers.")]
        assert others == [], ids(path)


PRIVATE = re.compile(
    r"torch\._(?!_version__)|\b_C\.|_hooks\b|nn\.modules\.\w+\._|\._(parameters|buffers|modules|version|base|grad_fn)\b|_call_impl|_NormBase"
    r"|_former_parameters|\._is_replica|_replicate_for_data_parallel|forward_ad\._|_conv_forward"
    r"|\b_apply\b|_load_from_state_dict|_save_to_state_dict|_version_counter"
)
ALLOWED = {
    "_load_from_state_dict": "torch has no public way to read old checkpoints, or to note that tensors were loaded",
    "_apply": "what .double() and .to() end in: matrices that are orthogonal are made anew in a wider dtype",
    "_conv_forward": "the one place in which a convolution's own hooks, padding and parametrizations are done with",
    "_compiled_call_impl": "named in the comment that explains _compiled_inverse_impl",
    "saved_tensors_hooks": "a public name of torch",
    "torch._inductor.aoti_load_package": "named in a docstring: what users call",
}
"""Private names of torch that other files use, each with the reason."""


def test_only_one_file_touches_private_names_of_torch() -> None:
    for path in FILES:
        if path.name == "torch_internals.py":
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.match(r"\s*(from|import) .*torch_internals", line):
                continue
            for name in ALLOWED:
                line = line.replace(name, "")
            own = re.sub(r"\b(has_hooks|has_global_hooks|forward_hooks|backward_hooks|\.hooks)\b", "", line)
            assert not PRIVATE.search(own), f"{ids(path)}:{number}: {own.strip()}"


def test_private_names_that_are_allowed_are_used() -> None:
    source = "".join(path.read_text() for path in FILES)
    assert [name for name in ALLOWED if name not in source] == []


def test_there_are_no_star_imports() -> None:
    assert [ids(path) for path in FILES if any(name.endswith(".*") for name in imports(path))] == []


def test_files_are_small() -> None:
    lengths = {ids(path): len(path.read_text().splitlines()) for path in FILES if path.stat().st_size}
    assert statistics.median(lengths.values()) < 150
    assert max(lengths.values()) <= 300, max(lengths, key=lambda name: lengths[name])
    assert lengths["layers/coupling.py"] < 160
    assert lengths["graph/graph.py"] < 250


def test_no_docstring_begins_with_a_relative_clause() -> None:
    """A docstring begins with a noun phrase or a verb in the third person."""
    texts = [text for folder in ("invgraph", "examples", "tests", "docs") for text in (ROOT / folder).rglob("*.py")]
    begins = re.compile(r'^\s*r?"""(What|Whether|As|Those|Where|How|Which|Who|When|That|If|Why)\b')
    for path in texts:
        found = [line for line in path.read_text().splitlines() if begins.match(line)]
        assert found == [], path


BRITISH = re.compile(
    r"(col|fav|behavi|neighb|hon|lab|harb|hum|flav|vap|rig|endeav)our|grey|chequer|(anal|paral)ys(ed?$|ing)"
    r"|(?<=[a-z]{2})(al|an|ar|as|en|er|et|gn|ic|il|im|it|nt|on|or|rd|rn|tr)is(e|ing|ation|able)"
    r"|centre|^(kilo|centi|milli)?metres?$|litre|theatre|fibre|calibre|ochre|catalogue|analogue|dialogue|licence"
    r"|(cancel|channel|dial|equal|fuel|label|level|model|panel|parallel|signal|total|travel|tunnel)l(ed|er|ing)"
    r"|defence|offence|pretence|practis|programme$|artefact|judgement|acknowledgement|manoeuvre|sceptic"
    r"|^(ageing|amongst|burnt|discs?|fulfil|learnt|maths|moulds?|skilful|spelt|spoilt|tyres?|whilst)$",
    re.IGNORECASE,
)
WRITTEN = {".cff", ".cfg", ".css", ".html", ".inc", ".json", ".md", ".py", ".rst", ".toml", ".txt", ".yml"}
GENERATED = {"_build", "drawings", "gallery_pages", "generated"}
NOT_OURS = {"Greys": "a color map of matplotlib"}


def test_spelling_is_american() -> None:
    """All texts and names have one spelling, torch's, so that a search finds every place."""
    folders = (".github", "docs", "examples", "invgraph", "tests")
    places = [path for folder in folders for path in (ROOT / folder).rglob("*")]
    words: dict[str, Path] = {}
    for path in [*ROOT.iterdir(), *places]:
        # this file lists the stems
        if path.suffix in WRITTEN and not GENERATED & set(path.parts) and path.name != Path(__file__).name:
            words |= dict.fromkeys(re.findall(r"[A-Za-z]+", path.read_text(encoding="utf-8")), path)
    assert [f"{path}: {word}" for word, path in words.items() if BRITISH.search(word) and word not in NOT_OURS] == []


@pytest.mark.parametrize("word", ["drawColours", "grey_0", "Centred", "normalises", "MODELLING", "optimisation"])
def test_british_words_are_found(word: str) -> None:
    assert BRITISH.search(word)


def test_functions_are_short() -> None:
    for path in FILES:
        for node in nodes(path):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[0]
                documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
                start = first.end_lineno if documented else node.lineno
                assert start is not None
                assert node.end_lineno is not None
                assert node.end_lineno - start <= 70, f"{ids(path)}: {node.name}"


def test_axes_are_split_by_the_function() -> None:
    """``torch.compile`` can't trace the method ``Tensor.unflatten`` under a default device."""
    for path in FILES:
        assert not re.search(r"(?<!torch)(?<!self)\.unflatten\(", path.read_text()), f"{ids(path)}: use torch.unflatten"


def test_no_layer_is_asked_with_hasattr_and_no_state_of_torch_is_set() -> None:
    forbidden = re.compile(r"torch\.manual_seed|np\.random\.seed|numpy\.random\.seed|random\.seed\(|set_default_dtype")
    for path in FILES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            asked = ids(path) == "freia/seeding.py"  # for programs that want FrEIA's draws
            assert asked or not forbidden.search(line), f"{ids(path)}:{number}"
            if path.parent.name in ("layers", "transforms", "nets"):
                assert "hasattr(" not in line, f"{ids(path)}:{number}"


def public() -> list[tuple[str, Any]]:
    """Everything that a user reaches from the package, with its name."""
    named = [(f"ig.{name}", value) for name, value in vars(ig).items() if not name.startswith("_")]
    named += [(f"ig.testing.{name}", getattr(ig.testing, name)) for name in
              ("check_invertible", "randomize", "graphs", "layers", "shapes", "Report", "NodeReport")]  # fmt: skip
    named += [(f"ig.nets.{name}", value) for name, value in vars(ig.nets).items() if not name.startswith("_")]
    for room in ("inference", "recipes"):
        named += [(f"ig.{room}.{name}", value) for name, value in vars(getattr(ig, room)).items() if name[0] != "_"]
    own = [(name, value) for name, value in named if inspect.isclass(value) or inspect.isfunction(value)]
    return [(name, value) for name, value in own if value.__module__.startswith("invgraph")]


PUBLIC = public()


@pytest.mark.parametrize(("name", "value"), PUBLIC, ids=[name for name, _ in PUBLIC])
def test_public_things_are_documented(name: str, value: Any) -> None:
    text = inspect.getdoc(value) or ""
    assert value.__doc__, name
    first = text.split("\n\n")[0]
    assert first.rstrip().endswith((".", ":")), first
    if inspect.isclass(value) and issubclass(value, Exception):
        return
    sections = set(re.findall(r"^([A-Z][A-Za-z-]+):$", text, re.M))
    takes = [p for p in inspect.signature(value).parameters.values() if p.name not in ("in_shapes", "cond_shapes")]
    fields = issubclass(value, tuple) or inspect.isabstract(value) if inspect.isclass(value) else False
    if takes and not fields and not issubclass_of(value, (ig.Subnet,)):
        assert sections & {"Arguments", "Attributes"}, f"{name} takes {[p.name for p in takes]}"
    if inspect.isclass(value) and issubclass(value, ig.Transform) and value is not ig.Transform:
        assert {"Log-det", "Example"} <= sections
        assert ".. math::" in text
    if inspect.isclass(value) and issubclass(value, ig.Invertible) and value not in (ig.Invertible, ig.Graph):
        assert {"Shape", "Log-det", "Arguments", "Example"} <= sections, sections
        assert ".. math::" in text
        # What only puts numbers elsewhere, or swaps two directions, is nobody's idea.
        assert "References" in sections or value in (ig.Flatten, ig.Reshape, ig.Split, ig.Concat, ig.Inverse)


def issubclass_of(value: Any, kinds: tuple[type, ...]) -> bool:
    return inspect.isclass(value) and issubclass(value, kinds)


def test_public_things_have_an_example() -> None:
    """Each has one, or is used in that of another."""
    docs = [value.__doc__ or "" for _, value in PUBLIC]
    examples = [line for text in docs for line in text.splitlines() if line.strip().startswith((">>>", "..."))]
    shown = "\n".join(examples)
    without = [name for name, value in PUBLIC if ">>>" not in (value.__doc__ or "") and needs_example(value)]
    assert [name for name in without if f"{name}(" not in shown] == []


def needs_example(value: Any) -> bool:
    """Not exceptions, abstract classes, records, nor what is shown by the example of what uses it."""
    if inspect.isclass(value):
        return issubclass(value, (ig.Invertible, ig.Transform, ig.SubnetFactory)) and not inspect.isabstract(value)
    return True


MODULES = sorted({"invgraph"} | {info.name for info in pkgutil.walk_packages([str(PACKAGE)], "invgraph.")})


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ig.DependencyError:
        pytest.skip("needs a package that is not installed")
    except ModuleNotFoundError as error:
        if str(error.name).startswith("invgraph"):
            raise
        pytest.skip(f"needs {error.name}")
    result = doctest.testmod(module, verbose=False)
    assert result.failed == 0


ALONE = """
import sys
import torch
import invgraph as ig

heavy = {"networkx", "hypothesis", "matplotlib", "invgraph.testing", "PIL", "onnx"}
print(sorted(heavy & set(sys.modules)))


class NoHypothesis:
    def find_spec(self, name, path=None, target=None):
        if name == "hypothesis":
            raise ModuleNotFoundError("No module named 'hypothesis'", name="hypothesis")


sys.meta_path.insert(0, NoHypothesis())
ig.testing.check_invertible
try:
    ig.testing.graphs
except ig.DependencyError as error:
    assert isinstance(error, ImportError)
    assert "pip install hypothesis" in str(error), error
    assert len(str(error).splitlines()) == 3
else:
    raise SystemExit("no error")
for place in (ig, ig.testing):
    assert not hasattr(place, "nothing")


def plain(channels_in, channels_out):
    return torch.nn.Sequential(torch.nn.Linear(channels_in, 8), torch.nn.ReLU(), torch.nn.Linear(8, channels_out))


x, c = ig.InputNode(4), ig.ConditionNode(3)
blocks = [(ig.Coupling, {"transform": ig.Affine(), "subnet": subnet}) for subnet in (ig.nets.MLP(8), plain)]
ig.Graph(x, ig.chain(x, *blocks, conditions=c), c)(torch.zeros(2, 4), torch.zeros(2, 3))
assert "torch._dynamo" not in sys.modules, "importing torch's compiler takes a second"
"""


def test_importing_the_library_stays_light_and_only_strategies_need_hypothesis() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_a_trip_through_a_graph_takes_few_files_and_python_calls() -> None:
    """Files and calls that a reader steps through, and small batches pay for, by support/count_calls.py."""
    trips = count_calls.trips()
    files = {name: len(trip.files) for name, trip in trips.items()}
    calls = {name: trip.files.total() for name, trip in trips.items()}
    assert files == {"graph(x, c)": 8, "bound.inverse(z)": 9, "reversible": 10}
    assert calls["graph(x, c)"] <= 100
    assert calls["bound.inverse(z)"] <= 95
    assert calls["reversible"] <= 222
