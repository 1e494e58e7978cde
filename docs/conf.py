"""Sphinx configuration of the documentation site; `make docs` builds it into build/docs."""

from sphinx.application import Sphinx

import autoreid_fast

project = "autoreid_fast"
author = "The autoreid_fast developers"
version = release = autoreid_fast.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"autoreid_fast {release}"
exclude_patterns = ["figures/*.py"]

myst_heading_anchors = 3
suppress_warnings = ["myst.xref_missing", "ref.python"]  # links to repository files, which tests/docs checks

default_role = "code"  # one backtick in a docstring is code, as in Markdown
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def setup(app: Sphinx) -> None:
    """Show |O|, the number of candidates, as the paper writes it: bars mean a substitution in reST."""

    def escape_bars(
        app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
    ) -> None:
        lines[:] = [line.replace("|O|", r"\|O\|") for line in lines]

    app.connect("autodoc-process-docstring", escape_bars)
