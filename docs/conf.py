"""Configuration of Sphinx, for ``make docs`` and ``make doctest``."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import charts
import drawings
import portraits
import reference
import torch

import invgraph

torch.set_num_threads(1)  # the gallery's networks are too small to share among threads

project = "invgraph"
author = "invgraph contributors"
copyright = f"2026, {author}"
version = release = invgraph.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "mathml",
    "portraits",
    "reference",
]
exclude_patterns = ["_build", "gallery", "*_results.rst"]  # included by other pages, or by the gallery
templates_path = ["_templates"]
default_role = "code"
highlight_language = "python"

html_theme = "furo"
html_title = f"invgraph {release}"
html_math_renderer = "mathml"
html_static_path = ["_static"]
html_css_files = ["site.css"]

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "gallery_pages",
    "filename_pattern": r"\.py",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "min_reported_time": 1000,
    "show_signature": False,
    "ignore_repr_types": r"matplotlib[.]|'(list|tuple)'",  # what plotting calls return
    "copyfile_regex": r".*\.rst",
}

autosummary_generate = True
autodoc_mock_imports = reference.MOCKED
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

drawings.write(Path(__file__).parent / "drawings")
portraits.write(Path(__file__).parent / "drawings" / "portraits")
charts.write(Path(__file__).parent / "performance_results.txt", Path(__file__).parent / "drawings")
reference.write(Path(__file__).parent / "api" / "generated")
