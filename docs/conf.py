"""The manual's settings: `make docs` builds it into build/docs. Nothing is fetched, and every warning is an error."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

project = "ctxplan"
author = "the ctxplan authors"
copyright = author
release = re.findall(r'^__version__ = "(.+)"$', (ROOT / "ctxplan" / "__init__.py").read_text(), re.MULTILINE)[0]

extensions = ["myst_parser"]
myst_heading_anchors = 3
highlight_language = "none"

html_theme = "furo"
html_title = f"ctxplan {release}"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "tango"
pygments_dark_style = "monokai"
