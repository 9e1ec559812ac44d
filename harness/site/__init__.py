"""The site: the table of levels and a page for each cell, made from bundles and from what is stated.

Its pages open from disk or from any web server, and load nothing from a network. The same bundles on the same day give
the same bytes. A directory that is not valid evidence is listed on the first page and gives no level.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from harness.attestation import Trust
from harness.base.errors import CertifyError, InputError
from harness.base.records import encode_json, read_record
from harness.evidence.bundle_files import MANIFEST
from harness.levels.stated import load_stated
from harness.levels.submission import Submission, read_submission
from harness.power.page import render_power
from harness.power.record import FORMAT as STUDY_FORMAT
from harness.power.record import PowerStudy
from harness.report import render_report
from harness.report.page import plotly_file, render_template
from harness.site.badge import badge
from harness.site.cells import SPARK_HEIGHT, SPARK_WIDTH
from harness.site.feed import feed
from harness.site.index import FEED, INDEX, SCHEMA, index_of, schema
from harness.site.rows import NO_EVIDENCE, TableRow
from harness.site.versions import MODES, implementations, versions_rows
from harness.site.view import STACK, Site, build_site, bundle_directories, related, scope_facts

PAGE, VERSIONS = "index.html", "versions.html"
PLOTLY = "plotly.js"  # every certificate shares one file of it, next to it


@dataclass(frozen=True, kw_only=True)
class WrittenSite:
    """A written site: its view, which lists cells and rejected directories, and the names of its files."""

    site: Site
    files: tuple[str, ...]


def write_site(
    directories: Sequence[Path], out: Path, studies: Sequence[Path], trust: Trust | None, at: datetime
) -> WrittenSite:
    """Writes the site of all bundles under some directories; an existing site is replaced as a whole.

    Raises:
        InputError: there is no bundle, or the destination holds files that are not a site.
        EvidenceError: a study was edited.
    """
    _check_destination(out)
    found = bundle_directories(directories, MANIFEST)
    if not found:
        raise InputError(f"There is no finished bundle in {', '.join(map(str, directories))}. 'certify run' makes one.")
    submissions, unreadable = list[Submission](), list[tuple[str, str]]()
    for path in found:
        try:
            submissions.append(read_submission(path, trust, at))
        except (CertifyError, OSError) as error:
            unreadable.append((path.name, str(error).replace(str(path), path.name)))
    read = {path.stem: read_record(PowerStudy, path, STUDY_FORMAT) for path in studies}
    site, pages = build_site(submissions, unreadable, read, load_stated(), at)
    files: dict[str, str] = {page: render_report(*pair, plotly=PLOTLY) for page, pair in pages.items()}
    files |= {str(Path(page).with_name(PLOTLY)): plotly_file() for page in list(pages)[:1]}
    files |= {row.badge: _badge(row) for row in site.rows}
    files |= {row.page: _cell_page(site, row) for row in site.rows}
    files |= {study.page: render_power(read[study.name]) for study in site.studies}
    files[INDEX] = encode_json(index_of(site).model_dump(mode="json", by_alias=True)).decode()
    files[SCHEMA] = encode_json(schema()).decode()
    files[FEED] = feed(site)
    files[VERSIONS] = _versions_page(site)
    files[PAGE] = render_template("site.html.j2", site=site, stack=STACK)
    _write(files, out)
    return WrittenSite(site=site, files=tuple(sorted(files)))


def _cell_page(site: Site, row: TableRow) -> str:
    return render_template(
        "cell.html.j2",
        site=site,
        row=row,
        facts=scope_facts(row.computed.scope) if row.computed else (),
        related=related(row, site.rows),
        spark=(SPARK_WIDTH, SPARK_HEIGHT),
    )


def _versions_page(site: Site) -> str:
    return render_template(
        "versions.html.j2",
        site=site,
        stack=STACK,
        modes=MODES,
        implementations=implementations(site.rows),
        rows=versions_rows(site.stated.versions, site.rows),
    )


def _badge(row: TableRow) -> str:
    """A badge of the computed level, with the level before if it fell; of a cell that has none, with the stated one."""
    label = f"{row.model} {row.size} · {row.task} · {row.device}"
    if row.computed is None:
        return badge(label, NO_EVIDENCE, f"stated {row.stated.level}" if row.stated else None)
    return badge(label, row.computed.level, f"was {row.computed.fallen.level}" if row.computed.fallen else None)


def _check_destination(out: Path) -> None:
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / INDEX).is_file())):
        raise InputError(f"{out} holds files that are not a site. Choose another directory, or an empty one.")


def _write(files: Mapping[str, str], out: Path) -> None:
    """Writes all files next to the destination first, so that a kill leaves the old site or the new one."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for name, text in files.items():
            path = fresh / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        fresh.chmod(0o755)
        if out.exists():
            old = fresh.with_name(f"{fresh.name}.old")
            out.rename(old)
            fresh.rename(out)
            shutil.rmtree(old)
        else:
            fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
