"""The page of a bundle: one self-contained HTML file that opens without a network and without any framework.

A view model (`view`) holds every word and number as it is shown, a Jinja2 template loops over it, and `charts`
describes the figures. The page is a function of the bundle and of the plotly that is installed: the same bundle
gives the same bytes wherever it lies.
"""

from pathlib import Path

from harness.evidence import Bundle
from harness.report.page import render_page
from harness.report.view import build_view

REPORT = "report.html"


def render_report(bundle: Bundle) -> str:
    """The whole page of a bundle as HTML."""
    return render_page(build_view(bundle))


def write_report(bundle: Bundle) -> Path:
    """Writes `report.html` into the bundle, outside its digested part, and returns its path.

    A kill leaves the old page or the new one, never a part.
    """
    path = bundle.path / REPORT
    temporary = path.with_name(REPORT + ".part")
    temporary.write_text(render_report(bundle), encoding="utf-8")
    temporary.replace(path)
    return path
