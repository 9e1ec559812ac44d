"""The page of a bundle: one self-contained HTML file that opens without a network and without any framework.

A view model (`view`) holds every text and number as it is shown, a Jinja2 template loops over it, and `charts`
describes the figures. The page is a function of the bundle and of the installed plotly: the same bundle gives the same
bytes in any directory.
"""

from pathlib import Path

from harness.evidence.bundle_files import write_page
from harness.evidence.page import RenderedBy, program
from harness.levels.certificate import Certificate
from harness.levels.submission import Submission
from harness.report.page import render_page
from harness.report.view import build_view


def render_report(submission: Submission, certificate: Certificate, plotly: str | None = None) -> str:
    """The whole page of a bundle as HTML, with its level; `plotly` names the file that it shares with other pages."""
    return render_page(build_view(submission, certificate), plotly)


def page_text(submission: Submission, certificate: Certificate) -> str:
    """The page as it lies in its bundle, with a last line that states how it was rendered."""
    stated = RenderedBy(
        at=certificate.at.isoformat(),
        program=program(),
        trust=submission.trust,
        statements=submission.files,
    )
    return render_report(submission, certificate).rstrip("\n") + "\n" + stated.line


def write_report(submission: Submission, certificate: Certificate) -> Path:
    """Writes the page into the bundle and returns its path; a kill leaves the old page or the new one."""
    return write_page(submission.bundle.path, page_text(submission, certificate))
