"""`index.json`: the table of levels for programs, with its JSON Schema next to it.

A reader can rely on the schema of a `format`; another layout of the file has another one.
"""

from datetime import date
from typing import Any

from pydantic import ConfigDict, Field

from harness.base.yaml_records import Record
from harness.levels.certificate import Level
from harness.site.cells import Change, Past, SiteCell
from harness.site.rows import TableRow
from harness.site.view import Site

SITE_FORMAT = "certify-site/2"
INDEX, SCHEMA, FEED = "index.json", "index.schema.json", "feed.atom"


class IndexStated(Record):
    """A level as MindSpore Transformers states it; `source` is repository, path and commit, `read_on` the day."""

    level: Level
    devices: tuple[str, ...]
    source: str
    read_on: date
    settings: dict[str, str]


class IndexRow(Record):
    """A row of the table. `level` is the computed level, or `no evidence`; `cell` is the id of the computed cell."""

    id: str
    model: str
    size: str
    task: str
    architecture: str
    device: str
    place: str
    details: tuple[str, ...]
    stated: IndexStated | None
    level: str
    cell: str | None
    next_level: Level | None
    missing: tuple[str, ...]
    page: str
    badge: str


class IndexScope(Record):
    """What a level holds for; null is not stated."""

    model: str
    task: str
    size: str
    cut: str
    weights: str
    implementation: str
    device: str
    soc: str | None
    layout: str
    recompute: bool
    precision: str
    mode: str | None
    mindspore_transformers: str | None
    mindspore: str | None
    cann: str | None
    hdk: str | None


class IndexRun(Record):
    """A run of a cell with the level on its day; `worst_ratio` is the share of its limit that the closest criterion
    used."""

    run: str
    level: Level
    worst_ratio: float | None
    bundle_digest: str
    certificate: str


class IndexChange(Record):
    """A change of a cell's level (UTC)."""

    at: str
    before: Level
    after: Level
    bundle_digest: str


class IndexCell(Record):
    """A computed cell: its level on the site's day, by the bundle `bundle_digest`. `valid_until` is null for a level
    that needs no recent run."""

    id: str
    case: str
    case_digest: str
    changed: tuple[str, ...]
    scope: IndexScope
    level: Level
    run: date
    valid_until: date | None
    worst_ratio: float | None
    worst_criterion: str
    passed: int
    criteria: int
    next_level: Level | None
    missing: tuple[str, ...]
    bundle_digest: str
    page: str
    certificate: str
    badge: str
    history: tuple[IndexRun, ...]
    changes: tuple[IndexChange, ...]


class IndexVersions(Record):
    """Versions that belong together, as stated."""

    mindspore_transformers: str
    mindspore: str
    cann: str
    hdk: str


class IndexRefused(Record):
    """A directory that is not valid evidence."""

    bundle: str
    reason: str


class Index(Record):
    """The table of levels. `stated_digest` identifies the tables of what is stated."""

    # the name that editors look for has a sign that no field can have
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)

    schema_: str = Field(default=SCHEMA, alias="$schema")
    format: str = Field(default=SITE_FORMAT, pattern=f"^{SITE_FORMAT}$")
    as_of: date
    stated_digest: str
    feed: str = FEED
    rows: tuple[IndexRow, ...]
    cells: tuple[IndexCell, ...]
    versions: tuple[IndexVersions, ...]
    never_run: tuple[str, ...]
    refused: tuple[IndexRefused, ...]


def index_of(site: Site) -> Index:
    """The index of a site."""
    return Index(
        as_of=date.fromisoformat(site.day),
        stated_digest=site.stated.digest,
        rows=tuple(map(_row, site.rows)),
        cells=tuple(map(_cell, site.cells)),
        versions=tuple(IndexVersions(**_of(one, IndexVersions)) for one in site.stated.versions),
        never_run=tuple(name for name, _ in site.never_run),
        refused=tuple(IndexRefused(bundle=name, reason=why) for name, why in site.unreadable),
    )


def schema() -> dict[str, Any]:
    """The JSON Schema of `index.json` (draft 2020-12)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Index.model_json_schema(by_alias=True, mode="serialization"),
    }


def _of(source: Any, kind: type[Record]) -> dict[str, Any]:
    """The fields of a record that have the same names in another one."""
    return {name: getattr(source, name) for name in kind.model_fields if hasattr(source, name)}


def _row(row: TableRow) -> IndexRow:
    stated = row.stated and IndexStated(**{**_of(row.stated, IndexStated), "settings": dict(row.stated.settings)})
    own = {**_of(row, IndexRow), "stated": stated, "cell": row.computed.id if row.computed else None}
    return IndexRow(**own, missing=row.lacks)


def _cell(cell: SiteCell) -> IndexCell:
    own = {
        **_of(cell, IndexCell),
        "scope": IndexScope(**cell.scope.record()),
        "run": date.fromisoformat(cell.run),
        "history": tuple(map(_run, cell.history)),
        "changes": tuple(map(_change, cell.changes)),
    }
    return IndexCell(
        **own,
        valid_until=date.fromisoformat(cell.until) if cell.until else None,
        worst_ratio=cell.ratio,
        worst_criterion=cell.criterion,
        missing=cell.why,
        bundle_digest=cell.digest,
    )


def _run(past: Past) -> IndexRun:
    return IndexRun(
        run=past.day, level=past.level, worst_ratio=past.ratio, bundle_digest=past.digest, certificate=past.page
    )


def _change(change: Change) -> IndexChange:
    return IndexChange(at=change.at.isoformat(), before=change.before, after=change.after, bundle_digest=change.bundle)
