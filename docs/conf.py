"""Settings of Sphinx for the site: ``uv run --group docs sphinx-build -W docs build/site``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers.special import TextLexer
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

import trio_rpc

project = "trio_rpc"
author = "the trio_rpc authors"
version = release = trio_rpc.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinxcontrib.mermaid",
    "sphinxcontrib_trio",
]
html_theme = "furo"
html_title = f"trio_rpc {release}"
html_show_copyright = False
html_show_sphinx = False

autodoc_use_legacy_class_based = True  # sphinxcontrib_trio extends these classes
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_attr_annotations = False
nitpicky = True
nitpick_ignore_regex = [
    ("py:(class|obj)", r"([\w.]+\.)?[A-Z](s|_co)?"),  # type variables
    ("py:class", r"trio_rpc\.services\.item_stream\.Batches"),  # an async iterator
    ("py:class", r"trio_rpc\.wire\.parts\.BufferList"),  # packets that only sessions make
    ("py:class", r"opentelemetry\.[\w.]+"),  # the library has no inventory that may be copied here
    ("py:class", r"trio_rpc\.util\.unsent_budget\.UnsentShare"),  # likewise
    ("py:class", r"trio_rpc\.wire\.coded\.UserCodec"),  # trio_rpc.codecs.Codec, as users call it
]

# The few names of other libraries in our docstrings, so that builds need no network.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", "inventories/python.txt"),
    "trio": ("https://trio.readthedocs.io/en/stable", "inventories/trio.txt"),
}

# Links such as `guarantees.md#order` and blocks of mermaid work on the site as they do on a forge.
myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]


class LinksOutOfTheSite(SphinxTransform):
    """Show a link to a page or folder of the repository that is not on the site as plain text."""

    default_priority = 5  # before MyST looks for the target

    def apply(self, **_: object) -> None:
        """Replace each such link by its text."""
        docs = Path(self.env.srcdir)
        for link in list(self.document.findall(pending_xref)):
            if link["reftype"] == "myst" and link["reftarget"].startswith(("../", "/")):
                page = Path(self.env.doc2path(self.env.docname)).parent
                target = (page / link["reftarget"]).resolve()
                exists = target.exists() or target.with_suffix(".md").exists()
                if exists and not target.is_relative_to(docs):
                    link.replace_self(nodes.inline("", "", *link.children))


def keep_colons(_app: Sphinx, what: str, *rest: Any) -> None:
    """Keep napoleon from reading "Bytes: of one message." as an attribute of the type Bytes."""
    if what in {"attribute", "data", "property"}:
        rest[-1][:0] = ["..", ""]  # an empty comment


def setup(app: Sphinx) -> None:
    """Add the features that the extensions lack."""
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
    app.add_transform(LinksOutOfTheSite)
    for name in ("hex-client", "hex-server"):  # the examples of protocol.md
        app.add_lexer(name, TextLexer)
