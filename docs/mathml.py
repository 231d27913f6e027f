"""Formulas as MathML, made when the pages are built: a reader needs neither a script nor a network."""

from __future__ import annotations

import re
from html import escape

import latex2mathml.converter
import sphinx.application
from docutils import nodes
from sphinx.errors import SphinxError

_THIN = '<mspace width="0.17em"/>'


class FormulaError(SphinxError):
    """A formula has a command that the converter does not know."""

    category = "formula"


def mathml(latex: str, *, block: bool) -> str:
    """Return a formula in LaTeX as MathML, with its source for those who copy it.

    Raises:
        FormulaError: A command is left as it was written, so that a reader would see it.
    """
    prepared = re.sub(r"\\texttt\{([^{}]*)\}", lambda match: "\\text{" + match[1].replace("\\_", "_") + "}", latex)
    found = latex2mathml.converter.convert(prepared, display="block" if block else "inline")
    left = re.search(r">\\[a-zA-Z]+<", found)
    if left is not None:
        raise FormulaError(f"{left[0][1:-1]} in {latex!r} has no MathML")
    found = re.sub(r'<mo movablelimits="true">det</mo>', "<mi>det</mi>", found)
    found = re.sub(r"(<mi>[a-z]{2,}</mi>)(?=<m(?!o))", rf"\1{_THIN}", found)  # log p, not logp
    found = re.sub(r"(</(?:mi|mn|msub|msup|msubsup|mtext)>)(?=<mi>[a-z]{2,}</mi>)", rf"\1{_THIN}", found)
    return found.replace("<math ", f'<math alttext="{escape(latex, quote=True)}" ', 1)


def _visit_inline(self: object, node: nodes.Element) -> None:
    self.body.append(mathml(node.astext(), block=False))  # type: ignore[attr-defined]
    raise nodes.SkipNode


def _visit_block(self: object, node: nodes.Element) -> None:
    self.body.append(f'<div class="formula">{mathml(node.astext(), block=True)}</div>\n')  # type: ignore[attr-defined]
    raise nodes.SkipNode


def setup(app: sphinx.application.Sphinx) -> dict[str, bool]:
    """Register the renderer; Sphinx calls this, and ``html_math_renderer = "mathml"`` chooses it."""
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
