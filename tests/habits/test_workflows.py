"""The commands of the workflows, the hooks, the Makefile and the pages for developers name things that exist.

The workflows only run where the repository is hosted, so a target, a file or an extra that was renamed would be noticed
there first.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SETUP = ConfigParser(interpolation=None)
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
TOOLS = {"bash", "make", "python", "python3.11", "pip", "pytest", "ruff", "mypy", "sphinx-build", "torchrun"}
"""Programs that come with Python, with the runner of a workflow, or with the extra ``dev``."""

OTHERS = {"test", "grep", "rm", "find", "git", "twine", "pre-commit", "."}


def text(path: Path | str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def recipes() -> Iterator[str]:
    """Yield the commands of the Makefile, with its variables replaced."""
    for line in re.findall(r"^\t(.+)$", text("Makefile"), re.M):
        line = re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line)  # variables of the environment
        yield line.replace("$(CUDA_PYTHON)", "python").replace(".venv-cuda/bin/", "")


def shown(page: str) -> Iterator[str]:
    """Yield the commands in the blocks of a page, without their comments."""
    for block in re.findall(r"^\.\. code-block:: bash\n\n((?: {4}.*\n|\n)+)", text(page), re.M):
        for line in re.sub(r"\\\n", " ", block).splitlines():
            if line.strip() and not line.strip().startswith("#") and "<" not in line:
                yield line.strip()


def commands() -> Iterator[tuple[str, str]]:
    """Yield where each command stands, and the command."""
    for path in WORKFLOWS:
        for line in re.findall(r"^ +(?:- )?run: (.+)$", text(path), re.M):
            yield path.name, line
    for line in re.findall(r"^ +entry: (.+)$", text(".pre-commit-config.yaml"), re.M):
        yield ".pre-commit-config.yaml", line
    for line in re.findall(r"^run \"[^\"]+\" (?:'([^'\n]+)'|\"([^\"\n]+)\")$", text(".ci/run"), re.M):
        yield ".ci/run", "".join(line).replace("$temporary", "/tmp/x")
    yield from (("Makefile", line) for line in recipes())
    for page in ("README.rst", "CONTRIBUTING.rst", "docs/development.rst"):
        yield from ((page, line) for line in shown(page))


def words(line: str) -> list[list[str]]:
    """Return the words of each command of a line, which ``&&`` or ``;`` joins."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("&|;"):
            found.append([])
        else:
            found[-1].append(word)
    return [part for part in found if part]


def check_pytest(options: list[str]) -> None:
    markers = {line.partition(":")[0] for line in SETUP["tool:pytest"]["markers"].split("\n") if line}
    for place, word in enumerate(options):
        before = options[place - 1] if place else ""
        if before == "-m":
            assert set(re.findall(r"\w+", word)) - {"not", "and", "or"} <= markers, word
        elif before not in {"-k", "-n", "-p"} and not word.startswith("-"):
            assert (ROOT / word).exists(), word


def check_pip(options: list[str]) -> None:
    extras = set(SETUP["options.extras_require"])
    for place, word in enumerate(options):
        match = re.fullmatch(r"(?:\.|path/to/invgraph|invgraph)\[([\w,]+)\]", word)
        if match:
            assert set(match[1].split(",")) <= extras, word
        if place and options[place - 1] == "-c":
            assert (ROOT / word).exists(), word


def check_python(options: list[str]) -> None:
    if options[0] == "-m":
        name = options[1].replace(".", "/")
        if name.split("/")[0] in {"invgraph", "tests"}:
            assert (ROOT / f"{name}.py").exists() or (ROOT / name / "__main__.py").exists(), options[1]
    elif not options[0].startswith("-"):
        assert (ROOT / options[0]).exists(), options[0]


@pytest.mark.parametrize(("place", "line"), [pytest.param(*pair, id=f"{pair[0]}: {pair[1]}") for pair in commands()])
def test_a_command_names_what_exists(place: str, line: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", text("Makefile"), re.M))
    for program, *options in words(line):
        assert program in TOOLS | OTHERS, program
        if program == "twine":
            assert re.search(r"pip install .*\btwine\b", text(Path(".github/workflows") / place))
        elif program == "bash":
            assert (ROOT / options[0]).exists(), options[0]
        elif program == "make":
            assert set(options) <= targets, options
        elif program == "pytest":
            check_pytest(options)
        elif program == "pip":
            check_pip(options)
        elif program.startswith("python") and options:
            check_python(options)


def test_many_commands_are_found() -> None:
    places = [place for place, _ in commands()]
    assert {place: places.count(place) >= 3 for place in places} == dict.fromkeys(places, True)
    assert len(places) >= 60


def test_versions_of_python_agree() -> None:
    claimed = re.findall(r"Python :: (3\.\d+)", SETUP["metadata"]["classifiers"])
    assert SETUP["options"]["python_requires"] == f">={claimed[0]}"
    assert SETUP["mypy"]["python_version"] == claimed[0]
    assert f'target-version = "py{claimed[0].replace(".", "")}"' in text("ruff.toml")
    for path in WORKFLOWS:
        for version in re.findall(r'python-version: "([\d.]+)"', text(path)):
            assert version == claimed[0], path.name
    matrix = re.findall(r'python: "([\d.]+)", torch: "([\d.]+)\.\*"', text(".github/workflows/ci.yml"))
    assert set(claimed) <= {python for python, _ in matrix}
    tolerated = re.findall(r"matrix\.python == '([\d.]+)'", text(".github/workflows/ci.yml"))
    assert {python for python, _ in matrix} == set(claimed) | set(tolerated)


def test_versions_of_torch_agree() -> None:
    least = re.search(r"torch>=([\d.]+)", SETUP["options"]["install_requires"])
    assert least is not None
    assert f"``torch>={least[1]}``" in text("README.rst")
    assert f'torch: "{least[1]}.*"' in text(".github/workflows/ci.yml")
    pages = ("README.rst", "CONTRIBUTING.rst", "docs/development.rst", ".github/workflows/docs.yml")
    pinned = {version for page in pages for version in re.findall(r"torch==([\d.]+)", text(page))}
    assert len(pinned) == 1
    assert f'torch: "{pinned.pop().rpartition(".")[0]}.*"' in text(".github/workflows/ci.yml")


def test_the_patterns_of_hooks_match_files() -> None:
    files = [str(path.relative_to(ROOT)) for path in (*ROOT.glob("invgraph/*.py"), *ROOT.glob("tests/*.py"))]
    patterns = re.findall(r"^ +files: (.+)$", text(".pre-commit-config.yaml"), re.M)
    assert patterns
    for pattern in patterns:
        assert any(re.search(pattern, name) for name in files), pattern
    for left_out in re.findall(r"not (\w+)", " ".join(re.findall(r'-k "([^"]+)"', text(".pre-commit-config.yaml")))):
        assert re.search(rf"def test_\w*{left_out}", text("tests/test_structure.py")), left_out


def test_every_target_of_the_makefile_is_described_and_phony() -> None:
    targets = set(re.findall(r"^(?!\.)([\w-]+):", text("Makefile"), re.M))
    phony = re.search(r"^\.PHONY: (.+)$", text("Makefile"), re.M)
    assert phony is not None
    assert set(phony[1].split()) == targets


def test_actions_are_pinned_to_a_version() -> None:
    for path in WORKFLOWS:
        for action in re.findall(r"uses: (\S+)", text(path)):
            assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v1)", action), action
