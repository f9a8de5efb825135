"""How the documentation is built: sphinx-build -W --keep-going -b html docs docs/_build."""

import re
from importlib.metadata import version as version_of

from sphinx.application import Sphinx

project = "zapros_websocket"
author = "The zapros_websocket developers"
copyright = "2026, The zapros_websocket developers"
release = version = version_of("zapros-websocket")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
# A longer signature has a line for each parameter.
maximum_signature_line_length = 80
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

myst_heading_anchors = 3

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
pygments_dark_style = "a11y-high-contrast-dark"
html_title = f"zapros_websocket {release}"


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", keep_colons, priority=100)
    app.connect("autodoc-process-signature", name_the_url)


def keep_colons(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    # Napoleon takes what stands in front of a colon in the first line of an attribute for its type: give it an empty
    # comment for a first line.
    if what in ("attribute", "property", "data"):
        lines[:0] = ["..", ""]


def name_the_url(
    app: Sphinx, what: str, name: str, value: object, options: object, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    # Zapros exports its class under another name than the one that the class has.
    return (None if signature is None else re.sub(r"[\w.]*\bURLImpl\b", "zapros.URL", signature)), returned
