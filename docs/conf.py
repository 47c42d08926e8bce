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


def _fit_groups(app: Any, name: str, source: list[str]) -> None:
    """Drop patterns of the index that match nothing, and group the pages that none matches."""
    if name != "index":
        return
    pages, lines = _pages(), []
    rest = set(pages)
    for line in source[0].splitlines():
        found = {page for page in pages if line and fnmatch(page, line)}
        rest -= found
        if found or "*" not in line or " " in line:
            lines.append(line)
    more = "\n".join(sorted(rest))
    group = f"```{{toctree}}\n:caption: More\n:maxdepth: 1\n\n{more}\n```" if rest else ""
    source[0] = "\n".join(lines).replace(_REST, group)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _fit_groups)
