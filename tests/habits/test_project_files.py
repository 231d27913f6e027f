"""Files that people expect of a project agree with each other."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import pytest

import invgraph as ig

ROOT = Path(__file__).parent.parent.parent


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_version_is_the_same_everywhere() -> None:
    assert f"version: {ig.__version__}\n" in text("CITATION.cff")
    assert re.search(rf"\b{re.escape(ig.__version__)}\b", text("CHANGELOG.rst"))


def test_contributing_is_short_and_names_commands_that_exist() -> None:
    page = text("CONTRIBUTING.rst")
    assert len(page.splitlines()) <= 60
    targets = set(re.findall(r"^(\w+):", text("Makefile"), re.M))
    assert {word for command in re.findall(r"``make ([\w ]+)``", page) for word in command.split()} <= targets
    for name in re.findall(r"``((?:docs|tests|invgraph|\.ci)/[\w/.]+)``", page):
        assert (ROOT / name).exists(), name


def test_the_changelog_keeps_to_its_headings() -> None:
    allowed = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    found = re.findall(r"^(\w+)\n~+$", text("CHANGELOG.rst"), re.M)
    assert found
    assert set(found) <= allowed
    assert re.search(r"^Unreleased\n-+$", text("CHANGELOG.rst"), re.M)


def test_hooks_run_tools_that_the_development_environment_has() -> None:
    hooks = re.findall(r"^ +entry: (\w+)", text(".pre-commit-config.yaml"), re.M)
    assert set(hooks) <= {"ruff", "mypy", "pytest"}
    dev = text("setup.cfg").partition("\ndev =")[2].partition("\nbench =")[0]
    assert {"ruff", "mypy"} <= set(re.findall(r"^ +([\w-]+)", dev, re.M))
    assert tomllib.loads(text("ruff.toml"))["line-length"] == 120


def test_workflows_run_on_changes_and_publish_only_by_choice() -> None:
    ci = text(".github/workflows/ci.yml")
    assert "pull_request:" in ci
    assert "push:" in ci
    assert "vars.PUBLISH == 'true'" in text(".github/workflows/release.yml")
    assert "vars.PUBLISH_DOCS == 'true'" in text(".github/workflows/docs.yml")
    claimed = set(re.findall(r"Python :: (3\.\d+)", text("setup.cfg")))
    assert claimed <= set(re.findall(r'python: "(3\.\d+)"', ci))


@pytest.mark.parametrize("hosted", [True, False])
def test_the_readme_needs_no_file_beside_it_where_it_is_published(hosted: bool) -> None:
    """The pictures of the page on PyPI have full addresses; built elsewhere, it has none."""
    given = {"GITHUB_REPOSITORY": "somebody/invgraph", "GITHUB_REF_NAME": "v0.1.0"} if hosted else {}
    page = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["description"](text("README.rst"), given)
    here = re.findall(r"^\.\. (?:image|figure):: (\S+)$", text("README.rst"), re.M)
    there = re.findall(r"^\.\. (?:image|figure):: (\S+)$", page, re.M)
    assert len(here) >= 3
    assert there == [f"https://raw.githubusercontent.com/somebody/invgraph/v0.1.0/{name}" for name in here if hosted]
    assert all((ROOT / name).exists() for name in here)
    assert "long_description" not in text("setup.cfg").replace("long_description_content_type", "")


def test_the_readme_is_plain_restructuredtext() -> None:
    """Directives and roles of Sphinx would be errors on PyPI."""
    core = pytest.importorskip("docutils.core")
    errors = core.publish_doctree(text("README.rst"), settings_overrides={"report_level": 5})
    assert [node.astext() for node in errors.findall() if node.tagname == "system_message"] == []
