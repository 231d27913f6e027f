"""Build with setuptools; everything but the README's pictures is said in setup.cfg.

The file also lets `pip install --no-build-isolation -e .` work with any setuptools.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from setuptools import setup

PICTURE = re.compile(r"^\.\. image:: (docs/\S+)\n((?: {3}:.*\n)*)", re.M)


def description(readme: str, environment: Mapping[str, str]) -> str:
    """Return the README for a page that is not beside the repository, such as the one on PyPI.

    In a workflow on GitHub, its pictures get the addresses of the repository's files; elsewhere they are left out,
    because nobody knows where the files will be.
    """
    repository, version = environment.get("GITHUB_REPOSITORY"), environment.get("GITHUB_REF_NAME")
    if not repository or not version:
        return PICTURE.sub("", readme)
    return PICTURE.sub(rf".. image:: https://raw.githubusercontent.com/{repository}/{version}/\1\n\2", readme)


if __name__ == "__main__":
    here = Path(__file__).parent
    setup(long_description=description((here / "README.rst").read_text(encoding="utf-8"), os.environ))
