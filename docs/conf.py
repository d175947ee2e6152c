"""Settings of Sphinx for the documentation as a site: ``make docs``.

Sphinx, because it and the extensions here are maintained; MkDocs 1 no longer is, and its theme Material ended in 2026.
"""

from __future__ import annotations

import re
from pathlib import Path

import click
from sphinx.application import Sphinx

from segcore import __version__

ROOT = Path(__file__).parents[1]

project = "segcore"
author = "the authors of segcore"
copyright = author  # noqa: A001  # Sphinx' name
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["images"]

html_theme = "furo"
html_title = f"segcore {release}"
html_copy_source = html_show_sourcelink = False

myst_heading_anchors = 4  # as on code hosts: links may name them
default_role = "literal"  # what docstrings have in single backticks is code
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

OUTSIDE = re.compile(r"(\]\()(?:\.\./)?((?:README|CONTRIBUTING|CHANGELOG)\.md|examples/README\.md|LICENSE)(#[^)]*)?\)")
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
    "LICENSE": "../LICENSE",
}
"""Pages of the site by the files beside ``docs/`` that they include."""
NO_DEFAULT = {f":default: ``{text}``" for text in ("False", "True", "()", "", "Sentinel.UNSET")}
"""What sphinx-click writes for flags, and for options without a default."""


def _links(app: Sphinx, docname: str, source: list[str]) -> None:
    """Let links to files beside ``docs/`` lead to the pages that include them."""
    source[0] = OUTSIDE.sub(lambda found: f"{found[1]}{PAGES[found[2]]}{found[3] or ''})", source[0])


_kept: list[str] = []


def _keep(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Hide the docstring of an attribute from napoleon, which takes what is before a colon for its type."""
    _kept[:] = lines
    if what in ("attribute", "property"):
        lines[:] = []


def _restore(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    if what in ("attribute", "property"):
        lines[:] = _kept


def _description(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Let the stars of patterns in the help of a command stand for themselves; ask for defaults, as ``--help`` has."""
    lines[:] = [line.replace("*", r"\*") for line in lines]
    context.show_default = True


def _defaults(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Show defaults as they are typed, and none of flags."""
    typed = [re.sub(r"``(?:PosixPath\()?'(.*)'\)?``", r"``\1``", line) for line in lines]
    lines[:] = [line for line in typed if line.strip() not in NO_DEFAULT]


def setup(app: Sphinx) -> None:
    """Connect the hooks."""
    app.connect("sphinx-click-process-description", _description)
    app.connect("sphinx-click-process-options", _defaults)
    app.connect("sphinx-click-process-arguments", _defaults)
    app.connect("source-read", _links)
    app.connect("include-read", lambda app, path, docname, source: _links(app, docname, source))
    app.connect("autodoc-process-docstring", _keep, priority=400)  # napoleon has 500
    app.connect("autodoc-process-docstring", _restore, priority=600)
