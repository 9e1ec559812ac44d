"""The view model of a site: the rows of the table of levels, and what every page shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from harness.cases.case import load_case, shipped_cases
from harness.levels.cells import cells
from harness.levels.certificate import Certificate, Level
from harness.levels.scope import Scope
from harness.levels.stated import Stated
from harness.levels.submission import Submission
from harness.power.page import RateRow, build_page
from harness.power.record import PowerStudy
from harness.site.cells import SiteCell, build_cell, slug
from harness.site.differences import DifferencesRow, differences
from harness.site.rows import NO_EVIDENCE, TableRow, build_rows

BROKEN = (Level.NONE, Level.UNTESTED)
STACK = ("MindSpore Transformers", "MindSpore", "CANN", "HDK")


@dataclass(frozen=True, kw_only=True)
class Power:
    """A study of detection power."""

    name: str
    page: str
    sentence: str
    rates: tuple[RateRow, ...]


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A choice above the table: the name of its column, the key of the rows' attribute, and the values, in order."""

    name: str
    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Site:
    """Everything that the pages show."""

    day: str
    rows: tuple[TableRow, ...]
    cells: tuple[SiteCell, ...]
    broken: tuple[TableRow, ...]
    fallen: tuple[TableRow, ...]
    filters: tuple[Filter, ...]
    stated: Stated
    never_run: tuple[tuple[str, str], ...]
    unreadable: tuple[tuple[str, str], ...]
    any_npu: bool
    differences: tuple[DifferencesRow, ...]
    studies: tuple[Power, ...]


def build_site(
    submissions: Sequence[Submission],
    unreadable: Sequence[tuple[str, str]],
    studies: Mapping[str, PowerStudy],
    stated: Stated,
    at: datetime,
) -> tuple[Site, dict[str, tuple[Submission, Certificate]]]:
    """The site, and the bundle of each certificate by the path of its page."""
    built = [build_cell(group, at) for group in cells(submissions)]
    rows = build_rows(built, stated.levels)
    by_id = {one.cell.id: one for one in built}
    computed = [row.computed for row in rows if row.computed]
    ran = {submission.bundle.case.name for submission in submissions}
    shipped = [load_case(name) for name in shipped_cases()]
    site = Site(
        day=f"{at:%Y-%m-%d}",
        rows=rows,
        cells=tuple(computed),
        broken=tuple(row for row in rows if row.computed and row.computed.level in BROKEN),
        fallen=tuple(row for row in rows if row.computed and row.computed.fallen),
        filters=_filters(rows),
        stated=stated,
        never_run=tuple((case.name, case.title) for case in shipped if case.name not in ran),
        unreadable=tuple(unreadable),
        any_npu=any(cell.scope.device == "Ascend" for cell in computed),
        differences=tuple(differences(by_id[cell.id].submission.bundle for cell in computed)),
        studies=tuple(_study(name, study) for name, study in studies.items()),
    )
    return site, {page: pair for one in built for page, pair in one.pages.items()}


def related(row: TableRow, rows: Sequence[TableRow]) -> tuple[TableRow, ...]:
    """Other rows with evidence of the same size: a hint for readers, and no evidence for this row."""
    size = row.size.partition(",")[0]
    return tuple(one for one in rows if one is not row and one.computed and one.size.partition(",")[0] == size)


def scope_facts(scope: Scope) -> tuple[tuple[str, str], ...]:
    """The whole scope as terms and values, `not stated` where no run recorded it."""
    cpu, foreign = scope.device == "CPU", scope.mindspore_transformers is None and scope.implementation != "mindformers"
    versions = dict(zip(STACK, scope.versions, strict=True))
    absent = {
        "MindSpore Transformers": "not used by this implementation" if foreign else None,
        "CANN": "none on a CPU" if cpu else None,
        "HDK": "none on a CPU" if cpu else None,
    }
    return (
        ("Size", scope.size),
        ("Cut", scope.cut or "whole model"),
        ("Weights", f"{scope.weights} weights" if scope.weights else "trained weights"),
        ("Task", scope.task),
        ("Implementation", scope.implementation),
        ("Device", scope.device),
        ("Chip", scope.soc or ("none on a CPU" if cpu else "not stated")),
        ("Layout", scope.layout),
        ("Recompute", "recompute" if scope.recompute else "no recompute"),
        ("Precision", scope.precision),
        ("Execution mode", scope.mode or "not stated"),
        *((name, value or absent.get(name) or "not stated") for name, value in versions.items()),
    )


def _filters(rows: Sequence[TableRow]) -> tuple[Filter, ...]:
    """A choice for each column in which rows differ, with its values in the order of the rows."""
    found = {
        ("Size", "size"): [row.size for row in rows],
        ("Task", "task"): [row.task for row in rows],
        ("Devices", "device"): [row.device for row in rows],
        ("Architecture", "architecture"): [row.architecture for row in rows],
        ("Stated level", "stated"): [row.stated.level if row.stated else "not stated" for row in rows],
        ("Computed level", "computed"): [row.level for row in rows],
    }
    ranks = [str(level) for level in Level] + [NO_EVIDENCE, "not stated"]
    ordered = {
        key: sorted(set(values), key=ranks.index) if key[1] in ("stated", "computed") else list(dict.fromkeys(values))
        for key, values in found.items()
    }
    return tuple(
        Filter(name=name, key=key, values=tuple(values)) for (name, key), values in ordered.items() if len(values) > 1
    )


def _study(name: str, study: PowerStudy) -> Power:
    page = build_page(study)
    return Power(
        name=name, page=f"power/{slug(name)}.html", sentence=f"{page.headline} {page.sentence}", rates=page.rates
    )


def bundle_directories(directories: Sequence[Path], manifest: str) -> list[Path]:
    """Every bundle at or under some directories, once, sorted by path."""
    found = {
        path.parent.resolve()
        for one in directories
        for path in [one / manifest, *one.glob(f"**/{manifest}")]
        if path.is_file()
    }
    return sorted(found)
