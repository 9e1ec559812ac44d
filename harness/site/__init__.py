"""The site: pages made from bundles, which open from disk or from any web server and load nothing from a network.

The same bundles on the same day give the same bytes. A directory that is not valid evidence is listed on the first page
and gives no level.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.attestation import Trust
from harness.base.errors import EvidenceError, InputError
from harness.base.records import encode_json, read_record
from harness.evidence.bundle_files import MANIFEST
from harness.levels.submission import Submission, read_submission
from harness.power.page import render_power
from harness.power.record import FORMAT as STUDY_FORMAT
from harness.power.record import PowerStudy
from harness.report import render_report
from harness.report.page import render_template
from harness.site.badge import badge
from harness.site.view import SPARK_HEIGHT, SPARK_WIDTH, VERSIONS, Site, SiteCell, build_site, bundle_directories

SITE_FORMAT = "certify-site/1"
INDEX, PAGE = "index.json", "index.html"


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
        except EvidenceError as error:
            unreadable.append((path.name, str(error).replace(str(path), path.name)))
    read = {path.stem: read_record(PowerStudy, path, STUDY_FORMAT) for path in studies}
    site, pages = build_site(submissions, unreadable, read, at)
    files: dict[str, str] = {page: render_report(*pair) for page, pair in pages.items()}
    files |= {cell.badge: badge(_label(cell), cell.level, _before(cell)) for cell in site.cells}
    files |= {study.page: render_power(read[study.name]) for study in site.studies}
    files[INDEX] = encode_json(_index(site)).decode()
    files[PAGE] = render_template(
        "site.html.j2",
        site=site,
        versions=VERSIONS,
        spark=(SPARK_WIDTH, SPARK_HEIGHT),
    )
    _write(files, out)
    return WrittenSite(site=site, files=tuple(sorted(files)))


def _label(cell: SiteCell) -> str:
    return f"{cell.model} {cell.size} · {cell.task} · {cell.device}"


def _before(cell: SiteCell) -> str | None:
    """The level that a cell had before its newest run."""
    return f"was {cell.fallen.level}" if cell.fallen else None


def _index(site: Site) -> dict[str, Any]:
    """The support table as JSON values."""
    return {
        "format": SITE_FORMAT,
        "as_of": site.day,
        "cells": [_indexed(cell) for cell in site.cells],
        "never_run": [name for name, _ in site.never_run],
        "refused": [{"bundle": name, "reason": why} for name, why in site.unreadable],
    }


def _indexed(cell: SiteCell) -> dict[str, Any]:
    plain = (
        "id",
        "case",
        "case_digest",
        "model",
        "size",
        "task",
        "architecture",
        "device",
        "layout",
        "precision",
        "level",
    )
    return {
        **{name: getattr(cell, name) for name in plain},
        "run": cell.run,
        "valid_until": cell.until,
        "worst_ratio": cell.ratio,
        "worst_criterion": cell.criterion,
        "passed": cell.passed,
        "criteria": cell.criteria,
        "missing": list(cell.why),
        "bundle_digest": cell.digest,
        "versions": dict(zip(VERSIONS, cell.versions, strict=True)),
        "certificate": cell.page,
        "badge": cell.badge,
        "history": [
            {"run": one.day, "level": one.level, "worst_ratio": one.ratio, "bundle_digest": one.digest}
            for one in cell.history
        ],
    }


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
