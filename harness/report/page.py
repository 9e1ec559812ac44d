"""The view model as HTML: template, style, script and plotly.js in one string.

Everything that comes from a bundle is escaped by the template; what is embedded as JSON is escaped for a script
element. plotly.js is embedded compressed (2 MB instead of 4.8) and unpacked by the browser.
"""

import base64
import functools
import gzip
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import plotly
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from harness.report.languages import both, chinese, column, label
from harness.report.view import Page

LONG = 2_000_000  # with more characters of data, a page embeds them packed, as it does plotly.js
# `<` would let `</script>` in a title end the element; the separators are line ends to older script engines.
SCRIPT_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def render_page(page: Page, shared: str | None = None) -> str:
    """The page of a bundle as HTML. plotly.js is in it, or in a file next to it that pages share: see `plotly_file`."""
    data = embed_json(page.data)
    packed = len(data) > LONG
    return render_template(
        "page.html.j2",
        page=page,
        script=own_file("report.js"),
        packed=packed,
        data=pack(data.encode()) if packed else data,
        plotly="" if shared else _plotly(),
        shared=shared,
    )


def render_template(name: str, **values: Any) -> str:
    """A template as HTML, with the style of all pages. A name that the view model does not have is an error."""
    return (
        _templates()
        .get_template(name)
        .render(
            style=own_file("report.css"), settings=own_file("settings.js"), site_script=own_file("site.js"), **values
        )
    )


@functools.cache
def _templates() -> Environment:
    """The templates, each compiled once in a process."""
    environment = Environment(
        loader=PackageLoader("harness.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"t": both, "chinese": chinese, "column": column, "label": label, "glyph": glyph}
    return environment


# Fonts of a minimal machine have neither sign, so both are drawn.
SIGNS = {"✓": "M2 6.5 4.8 9.3 10 3", "✕": "M2.5 2.5 9.5 9.5M9.5 2.5 2.5 9.5"}


def glyph(sign: str) -> Markup:
    """A glyph as it is drawn, without a font where fonts may lack it. The word next to it states the same."""
    if sign not in SIGNS:
        return escape(sign)
    return Markup('<svg class="sign" viewBox="0 0 12 12" aria-hidden="true"><path d="{}"/></svg>').format(SIGNS[sign])


def plotly_file() -> str:
    """The content of the file in which pages share plotly.js."""
    return f'"use strict";\nwindow.packedPlotly = "{_plotly()}";\n'


def embed_json(value: Any) -> Markup:
    """JSON that is safe inside a script element, with any strings.

    Raises:
        ValueError: a non-finite float; the view model must replace it by a name.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.translate(SCRIPT_ESCAPES))


def own_file(name: str) -> Markup:
    """A style or script of the pages, unchanged from the package."""
    return Markup((files("harness.report") / "templates" / name).read_text(encoding="utf-8"))


def pack(data: bytes) -> str:
    """gzip in base64, without a time, so that the same bytes give the same text."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


@functools.cache
def _plotly() -> str:
    """plotly.min.js, packed."""
    return pack((Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_bytes())
