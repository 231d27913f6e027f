"""The wheel and the source archive, built from a clean copy and installed into a fresh environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CONTENT = ("invgraph", "setup.cfg", "setup.py", "README.rst", "LICENSE")


def run(*command: str | Path, folder: Path) -> str:
    """Run a command that must succeed, without this checkout on Python's path, and return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a wheel and a source archive."""
    source, dist = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in CONTENT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, source)
    run(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", dist, folder=source)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", dist, ".", folder=source)
    return dist


@pytest.mark.slow
def test_the_archives_hold_the_library_alone(built: Path) -> None:
    wheel = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    assert "invgraph/py.typed" in wheel
    assert {name.split("/")[0].split("-")[0] for name in wheel} == {"invgraph"}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "invgraph").rglob("*.py")}
    assert modules <= set(wheel)
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert modules | {"invgraph/py.typed", "LICENSE", "README.rst", "setup.cfg"} <= files


@pytest.mark.nightly
def test_both_install_and_check_themselves_in_a_fresh_environment(built: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pins = ROOT / "constraints.txt"
    run(python, "-m", "pip", "install", "-q", "-c", pins, next(built.glob("*.whl")), folder=tmp_path)
    archive = next(built.glob("*.tar.gz"))
    for again in (False, True):
        if again:
            run(python, "-m", "pip", "install", "-q", "--force-reinstall", "--no-deps", archive, folder=tmp_path)
        report = run(python, "-m", "invgraph", folder=tmp_path)
        assert str(tmp_path / "venv") in report
        assert "4 of 4 checks passed" in report
        assert "matplotlib" not in report  # nothing but what the library needs
    refused = "import invgraph as ig; x = ig.InputNode(2); ig.Graph(x, ig.Node(x, ig.Permute)).draw('graph.{}')"
    run(python, "-c", refused.format("svg"), folder=tmp_path)
    done = subprocess.run([python, "-c", refused.format("png")], cwd=tmp_path, capture_output=True, text=True)
    assert "DependencyError" in done.stderr
    assert "pip install matplotlib" in done.stderr
