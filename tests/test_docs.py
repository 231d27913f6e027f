"""The code of the documentation can be pasted from the top of a page, and fits into it."""

from __future__ import annotations

import ast
import builtins
import doctest
import inspect
import math
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

import invgraph as ig

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.rst", *sorted((ROOT / "docs").rglob("*.rst"))]
PAGES = [page for page in PAGES if not {"_build", "generated", "gallery_pages"} & set(page.parts)]
SCRIPTS = sorted((ROOT / "docs" / "gallery").glob("*.py"))
WIDTH = 84
"""A page cuts longer lines of code."""

BLOCK = re.compile(r"^( *)\.\. (?:testcode|code-block)::(?: (\w+))?\n((?:\1 +.*\n|\n)+)", re.M)
PROMPT = re.compile(r"(?:^ *>>> .*\n(?:^ *\S.*\n)*)+", re.M)


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the language and the text of each visible block of code, in the order of the page."""
    text = page.read_text(encoding="utf-8") + "\n"
    found = []
    for match in BLOCK.finditer(text):
        lines = match[3].splitlines()
        if not any(line.strip() == ":hide:" for line in lines):
            code = "\n".join(line for line in lines if not re.match(r" *:\w+:", line))
            found.append((match.start(), match[2] or "python", textwrap.dedent(code)))
    for match in PROMPT.finditer(text):
        code = "".join(example.source for example in doctest.DocTestParser().get_examples(match[0]))
        found.append((match.start(), "python", code))
    return [(language, code) for _, language, code in sorted(found)]


def names(code: str) -> tuple[set[str], set[str]]:
    """Return the names that a block reads, and those that it defines."""
    read, defined = set(), set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else defined).add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.arg):
            defined.add(node.arg)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            defined |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return read, defined


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_visible_code_defines_the_names_it_uses(page: Path) -> None:
    known = set(vars(builtins))
    for language, code in blocks(page):
        if language == "python":
            read, defined = names(code)
            known |= defined
            assert read <= known, f"not defined above: {sorted(read - known)}\n{code}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_code_fit_into_a_page(page: Path) -> None:
    wide = [line for _, code in blocks(page) for line in code.splitlines() if len(line) > WIDTH]
    assert wide == []


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "docs").glob("*.inc"))], ids=lambda page: page.name)
def test_tables_of_many_columns_are_small_or_keep_their_first_column(page: Path) -> None:
    """Seven columns do not fit into the text of a page, nor five into a phone's."""
    for table in re.findall(r"^\.\. list-table::.*\n((?: +.*\n|\n)+)", page.read_text(encoding="utf-8") + "\n", re.M):
        columns = len(re.findall(r"^ +(?:\*| ) -", re.split(r"^ +\* -", table, maxsplit=2, flags=re.M)[1], re.M)) + 1
        shape = re.search(r":class: (.+)", table)
        assert columns < 5 or (shape is not None and {"sticky", "compact"} & set(shape[1].split())), table[:200]


def test_pages_with_code_are_found() -> None:
    assert sum(bool(blocks(page)) for page in PAGES) >= 15


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_scripts_of_the_gallery_fit_into_a_page_and_say_what_they_show(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    code = [line for line in text.partition('"""\n\n')[2].splitlines() if not line.startswith("# ")]
    assert [line for line in code if len(line) > WIDTH] == []
    title, line = text.splitlines()[1:3]
    assert line == "=" * len(title)
    assert text.count("# %%") >= 3


def test_the_code_of_the_readme_runs() -> None:
    """Sphinx runs the code of the other pages: ``make doctest``, and the gallery whenever the pages are built."""
    known: dict[str, object] = {}
    found = [code for language, code in blocks(ROOT / "README.rst") if language == "python"]
    assert found
    for code in found:
        exec(compile(code, "README.rst", "exec"), known)


def test_the_places_on_the_page_for_developers_exist() -> None:
    page = (ROOT / "docs" / "development.rst").read_text(encoding="utf-8")
    places = re.findall(r"^     - ``([\w/]+\.py)``: ``(\w+)``$", page, re.M)
    assert len(places) >= 12
    for name, word in places:
        defined = rf"^ *(?:def|class) {word}\b|^{word}\b.* = "
        assert re.search(defined, (ROOT / name).read_text(encoding="utf-8"), re.M), (name, word)


@pytest.mark.parametrize(
    ("page", "words"),
    [("density", "call ``flow.eval()`` before sampling"), ("habits", "sampling in ``train()`` moves")],
)
def test_pages_say_that_sampling_moves_batch_norm_in_training_mode(page: str, words: str) -> None:
    assert words in (ROOT / "docs" / f"{page}.rst").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_names_and_arguments_in_sentences_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = {name for name in re.findall(r"\bnets\.([A-Z]\w+)", text) if not hasattr(ig.nets, name)}
    missing |= {name for name in re.findall(r"\big\.([a-zA-Z_]\w+)", text) if not hasattr(ig, name)}
    if page.stem not in {"freia", "coming_from"}:  # these write the calls of others
        for name, call in re.findall(r"``(?:ig\.|nets\.|ig\.nets\.)?([A-Z]\w+)\(([^`]*)\)``", text):
            value = getattr(ig, name, None) or getattr(ig.nets, name, None)
            given = set(re.findall(r"(\w+)=(?!=)", call))
            missing |= given - set(inspect.signature(value).parameters) if value is not None else set()
    assert missing <= {"Module"}  # stands for any layer


SHOWN_ONLY = {
    "docs/freia.rst": "FrEIA's side of a comparison, and scripts whose files do not exist",
    "docs/posterior.rst": "packages that are not installed with the documentation's tools",
}
"""Pages with Python code that is not run where the pages are built, each with the reason."""


def test_nearly_all_python_code_is_run() -> None:
    shown = {str(page.relative_to(ROOT)) for page in PAGES if ".. code-block:: python" in page.read_text("utf-8")}
    assert shown - {"README.rst"} <= set(SHOWN_ONLY)


def public() -> dict[str, Any]:
    """Public classes and functions, and the methods of the classes, by name."""
    rooms = {"": ig, **{f"{name}.": getattr(ig, name) for name in ("nets", "init", "testing", "inference", "recipes")}}
    values = {prefix + name: value for prefix, room in rooms.items() for name, value in vars(room).items()}
    own = {name: value for name, value in values.items() if getattr(value, "__module__", "").startswith("invgraph.")}
    methods = {f"{name}.{method}": value for name, owner in own.items() if inspect.isclass(owner)
               for method, value in vars(owner).items() if inspect.isfunction(value)}  # fmt: skip
    everything = {name: value for name, value in {**own, **methods}.items() if "._" not in name and name[0] != "_"}
    return {name: value for name, value in everything.items() if callable(value)}


def test_docstrings_state_the_defaults_of_arguments() -> None:
    wrong = []
    for name, value in public().items():
        section = re.search(r"^Arguments:\n((?: +.*\n|\n)*)", f"{inspect.getdoc(value)}\n", re.M)
        arguments = re.findall(r"^    (\w+): (.*\n(?:     .*\n)*)", section[1], re.M) if section else []
        for argument, about in arguments:
            default = inspect.signature(value).parameters[argument].default
            said = re.search(r"Default:\s+(?:``)?\"?([\w.,+-]*\w)", about)
            if default in (None, (), inspect.Parameter.empty) or "(default)" in about:
                continue
            is_number = isinstance(default, (bool, int, float))
            text = "" if said is None else said[1].replace(",", "_").replace("pi", repr(math.pi))
            if not text or (is_number and ast.literal_eval(text) != default):
                wrong.append((name, argument, default))
    assert wrong == []
