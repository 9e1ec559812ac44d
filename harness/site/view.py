"""The view model of a site: the cells of the support table, each with its evidence and its history."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.base.digest import digest_json
from harness.cases.case import Case, load_case, shipped_cases
from harness.evidence.bundle import Bundle
from harness.evidence.judge import Outcome, closest
from harness.levels.cells import LevelCell, cells
from harness.levels.rule import Certificate, Level, certify, started
from harness.levels.scope import scope
from harness.levels.submission import Submission
from harness.power.page import RateRow, build_page
from harness.power.record import PowerStudy
from harness.report.words import number
from harness.site.differences import DifferencesRow, differences
from qwen3_model.configuration_qwen3 import PUBLISHED, SMALL, parameter_shapes

TONES = {
    Level.RELEASED: "pass",
    Level.VALIDATED: "pass",
    Level.PRELIMINARY: "open",
    Level.UNTESTED: "inconclusive",
    Level.COMMUNITY: "inconclusive",
    Level.NONE: "fail",
}
BROKEN = (Level.NONE, Level.UNTESTED)
# The version table of the model guide; CANN and the driver are recorded with the machine.
VERSIONS = ("mindformers", "mindspore", "cann", "driver")
UNITS = ((10**9, "B"), (10**6, "M"), (10**3, "k"))


@dataclass(frozen=True, kw_only=True)
class Past:
    """One run of a cell: its level on its day, and how much of its limit the closest criterion used."""

    day: str
    level: Level
    tone: str
    worst: str
    ratio: float | None
    criterion: str
    digest: str
    revision: str


@dataclass(frozen=True, kw_only=True)
class SiteCell:
    """A row of the support table. `page` and `badge` are paths on the site. `fallen` is the last earlier run that had a
    higher level than the cell has now."""

    id: str
    case: str
    case_digest: str
    model: str
    size: str
    task: str
    architecture: str
    device: str
    layout: str
    precision: str
    level: str
    tone: str
    run: str
    until: str | None
    worst: str
    ratio: float | None
    criterion: str
    passed: int
    criteria: int
    why: tuple[str, ...]
    digest: str
    versions: tuple[str | None, ...]
    page: str
    badge: str
    history: tuple[Past, ...]
    fallen: Past | None
    spark: str
    again: str


@dataclass(frozen=True, kw_only=True)
class Power:
    """A study of detection power."""

    name: str
    page: str
    sentence: str
    rates: tuple[RateRow, ...]


@dataclass(frozen=True, kw_only=True)
class Site:
    """Everything that the first page shows."""

    day: str
    cells: tuple[SiteCell, ...]
    broken: tuple[SiteCell, ...]
    fallen: tuple[SiteCell, ...]
    never_run: tuple[tuple[str, str], ...]
    unreadable: tuple[tuple[str, str], ...]
    any_npu: bool
    differences: tuple[DifferencesRow, ...]
    studies: tuple[Power, ...]


def build_site(
    submissions: Sequence[Submission],
    unreadable: Sequence[tuple[str, str]],
    studies: Mapping[str, PowerStudy],
    at: datetime,
) -> tuple[Site, dict[str, tuple[Submission, Certificate]]]:
    """The site, and the bundle of each certificate by the path of its page."""
    chosen = sorted(((cell, *cell.current(at)) for cell in cells(submissions)), key=lambda one: _order(one[1]))
    pages: dict[str, tuple[Submission, Certificate]] = {}
    rows = list[SiteCell]()
    for group, submission, certificate in chosen:
        cell = _cell(group, submission, certificate)
        pages[cell.page] = (submission, certificate)
        rows.append(cell)
    ran = {submission.bundle.case.name for submission in submissions}
    shipped = [load_case(name) for name in shipped_cases()]
    site = Site(
        day=f"{at:%Y-%m-%d}",
        cells=tuple(rows),
        broken=tuple(cell for cell in rows if cell.level in BROKEN),
        fallen=tuple(cell for cell in rows if cell.fallen),
        never_run=tuple((case.name, case.title) for case in shipped if case.name not in ran),
        unreadable=tuple(unreadable),
        any_npu=any(cell.device == "Ascend" for cell in rows),
        differences=tuple(differences(submission.bundle for _, submission, _ in chosen)),
        studies=tuple(_study(name, study) for name, study in studies.items()),
    )
    return site, pages


def _order(submission: Submission) -> tuple[Any, ...]:
    """The order of the guide's model list: by size, then task, device (NPUs first), layout and precision."""
    bundle, what = submission.bundle, scope(submission.bundle)
    task = what.task != "training"
    return (
        _parameters(bundle.case),
        what.model,
        task,
        what.device != "Ascend",
        what.layout,
        what.precision,
        bundle.case.name,
    )


def _cell(cell: LevelCell, submission: Submission, certificate: Certificate) -> SiteCell:
    bundle, what = submission.bundle, cell.scope
    key = digest_json([what.record(), cell.case_digest])[:8]
    id_ = _slug(f"{bundle.case.name}-{what.device}-{key}", what.model)
    found = closest(bundle.findings)
    history = tuple(map(_past, cell.runs))
    return SiteCell(
        id=id_,
        case=bundle.case.name,
        case_digest=bundle.case.digest(),
        model="Qwen3",
        size=_size(bundle.case),
        task=what.task,
        architecture=_architecture(bundle),
        device=what.device,
        layout=what.layout,
        precision=what.precision,
        level=certificate.level,
        tone=TONES[certificate.level],
        run=f"{certificate.started:%Y-%m-%d}",
        until=f"{certificate.until:%Y-%m-%d}" if certificate.until else None,
        worst=_worst(found[0] if found else None),
        ratio=_finite(found[0] if found else None),
        criterion=f"{found[1].standard}/{found[1].criterion}" if found else "",
        passed=sum(one.outcome is Outcome.PASS for one in bundle.findings),
        criteria=len(bundle.findings),
        why=tuple(f"{one.text}: {one.detail}" for one in certificate.missing),
        digest=bundle.digest,
        versions=tuple(_version(bundle, name) for name in VERSIONS),
        page=f"certificates/{id_}.html",
        badge=f"badges/{id_}.svg",
        history=history,
        fallen=_fallen(history, certificate.level),
        spark=_spark(history),
        again=f"certify run {bundle.case.name}" + (" --device Ascend" if what.device == "Ascend" else ""),
    )


def _fallen(history: Sequence[Past], level: Level) -> Past | None:
    """The last earlier run with a higher level than the newest run and the cell have."""
    lower = (level, history[-1].level)
    return next((one for one in reversed(history[:-1]) if not any(now.reaches(one.level) for now in lower)), None)


def _past(submission: Submission) -> Past:
    """A run with its level on its own day, whether or not it has expired since."""
    bundle = submission.bundle
    day = started(submission)
    level = certify(submission, day).level
    found = closest(bundle.findings)
    revision = bundle.source.revision
    return Past(
        day=f"{day:%Y-%m-%d %H:%M}",
        level=level,
        tone=TONES[level],
        worst=_worst(found[0] if found else None),
        ratio=_finite(found[0] if found else None),
        criterion=f"{found[1].standard}/{found[1].criterion}" if found else "",
        digest=bundle.digest,
        revision=f"{revision[:12]}{' +' * bundle.source.dirty}" if revision else "",
    )


def _worst(ratio: float | None) -> str:
    return "–" if ratio is None else number(ratio)


def _finite(ratio: float | None) -> float | None:
    return ratio if ratio is not None and math.isfinite(ratio) else None


def _parameters(case: Case) -> int:
    return sum(math.prod(shape) for _, shape in parameter_shapes(case.model))


def _size(case: Case) -> str:
    """The name of a published size, or the number of parameters."""
    hf = case.model.to_hf()
    named = next((name for name, size in {**PUBLISHED, **SMALL}.items() if size.to_hf() == hf), None)
    count = _parameters(case)
    unit = next(((value, letter) for value, letter in UNITS if count >= value), (1, ""))
    words = f"{count / unit[0]:.3g}{unit[1]}"
    if named in PUBLISHED:
        return str(named)
    return f"{named} ({words})" if named else words


def _architecture(bundle: Bundle) -> str:
    _, by, whose = scope(bundle).model.rpartition(" by ")
    return whose if by else "qwen3_model"


def _version(bundle: Bundle, name: str) -> str | None:
    if name in bundle.environment.packages:
        return bundle.environment.packages[name]
    ascend = bundle.environment.machine.get("ascend")
    return ascend.get(name) if isinstance(ascend, Mapping) else None


def _slug(*parts: str) -> str:
    """A safe file name: only letters, digits, dots and dashes, for any text of a bundle."""
    own = parts[1].rpartition(" by ")
    words = f"{parts[0]}-{own[2]}" if own[1] else parts[0]
    return re.sub(r"[^a-z0-9.]+", "-", words.lower()).strip("-.")


def _study(name: str, study: PowerStudy) -> Power:
    page = build_page(study)
    return Power(
        name=name, page=f"power/{_slug(name, '')}.html", sentence=f"{page.headline} {page.sentence}", rates=page.rates
    )


SPARK_WIDTH, SPARK_HEIGHT, SPARK_EDGE, SPARK_RUNS = 160, 36, 4, 40


def _spark(history: Sequence[Past]) -> str:
    """The worst ratios of the last runs as points of an SVG line, logarithmic, with the limit at the top."""
    ratios = [one.ratio for one in history[-SPARK_RUNS:]]
    if len(ratios) < 2:
        return ""
    return " ".join(_points(ratios))


def _points(ratios: Sequence[float | None]) -> Iterator[str]:
    step = (SPARK_WIDTH - 2 * SPARK_EDGE) / (len(ratios) - 1)
    for index, ratio in enumerate(ratios):
        decades = min(max(math.log10(ratio), -2.0), 1.0) if ratio else (1.0 if ratio is None else -2.0)
        y = SPARK_EDGE + (1.0 - decades) / 3.0 * (SPARK_HEIGHT - 2 * SPARK_EDGE)
        yield f"{SPARK_EDGE + index * step:.1f},{y:.1f}"


def bundle_directories(directories: Sequence[Path], manifest: str) -> list[Path]:
    """Every bundle at or under some directories, once, sorted by path."""
    found = {
        path.parent.resolve()
        for one in directories
        for path in [one / manifest, *one.glob(f"**/{manifest}")]
        if path.is_file()
    }
    return sorted(found)
