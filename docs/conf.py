"""Configuration of Sphinx, for ``make docs`` and ``make doctest``."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import reference

import invgraph

project = "invgraph"
author = "invgraph contributors"
copyright = f"2026, {author}"
version = release = invgraph.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "reference",
]
exclude_patterns = ["_build", "*_results.rst"]  # included by other pages
templates_path = ["_templates"]
default_role = "code"
highlight_language = "python"

html_theme = "furo"
html_title = f"invgraph {release}"

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_custom_sections = ["Shape"]

doctest_global_setup = "import torch; import invgraph as ig; torch.manual_seed(0); torch.set_num_threads(1)"
doctest_default_flags = doctest.ELLIPSIS | doctest.DONT_ACCEPT_TRUE_FOR_1
doctest_test_doctest_blocks = "default"

reference.write(Path(__file__).parent / "api" / "generated")
