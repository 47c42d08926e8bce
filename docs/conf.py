"""The documentation site: the Markdown of this folder and the docstrings of the packages.

``make docs`` builds it with every warning an error. Pages are grouped in ``index.md``; a page that
no group names joins the last one by itself.
"""

import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from hios import __version__  # noqa: E402

project = "hios-tvm"
author = "the hios-tvm authors"
project_copyright = "the hios-tvm authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_*"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
# A group may name pages that are not there yet.
suppress_warnings = ["toc.empty_glob"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "hios-tvm"
html_copy_source = False
html_show_sphinx = False
# Console sessions here show what people type and read; no lexer has to understand all of it.
highlight_language = "none"

_REST = "<!-- the rest -->"


def _pages() -> list[str]:
    return sorted(
        str(path.relative_to(HERE).with_suffix(""))
        for path in HERE.rglob("*.md")
        if path.name != "index.md" and not path.name.startswith("_")
    )


def _add_the_rest(app: Any, name: str, source: list[str]) -> None:
    """Put pages that no group of the index matches into a last group."""
    if name != "index":
        return
    patterns = [line.strip() for line in source[0].splitlines()]
    rest = [page for page in _pages() if not any(fnmatch(page, one) for one in patterns if one)]
    if rest:
        lines = "\n".join(rest)
        group = f"```{{toctree}}\n:caption: More\n:maxdepth: 1\n\n{lines}\n```"
        source[0] = source[0].replace(_REST, group)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _add_the_rest)
