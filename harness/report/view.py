"""The view model: everything that the page shows, formatted, in the order of the page.

The template only loops over these records; numbers are formatted here or below.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from harness.base.records import read_json
from harness.cases.task import TaskName
from harness.evidence.bundle import Bundle
from harness.evidence.bundle_files import FINDINGS
from harness.levels.certificate import Certificate
from harness.levels.submission import Submission
from harness.report.charts import Chart
from harness.report.columns import Column, Table
from harness.report.finetuning import build_finetuning
from harness.report.groups import StandardTable, standard_tables
from harness.report.inference import build_inference
from harness.report.provenance import Provenance, build_provenance
from harness.report.statements import Statements, build_statements
from harness.report.training import build_training
from harness.report.verdict import Verdict, build_verdict
from harness.report.words import Fact


class TaskPart(Protocol):
    """The part of a page for one task. Its template reads more fields than are named here."""

    @property
    def charts(self) -> tuple[Chart, ...]:
        """Every figure."""

    @property
    def columns(self) -> dict[str, Column]:
        """The numbers for figures and downloads."""

    @property
    def tables(self) -> tuple[Table, ...]:
        """The files to download."""

    @property
    def inputs(self) -> tuple[Fact, ...]:
        """The inputs that only this task has."""


@dataclass(frozen=True, kw_only=True)
class TaskSections:
    """The sections of a page that only one task has: their content, their template, and the anchor and title of each
    for the navigation."""

    build: Callable[[Bundle], TaskPart]
    template: str
    links: tuple[tuple[str, str], ...]


OF_TRAINING = (
    ("curves", "Curves"),
    ("exact", "Exact result"),
    ("determinism", "Determinism"),
    ("parameters", "Parameters"),
)
SECTIONS: Mapping[TaskName, TaskSections] = {
    "pretrain": TaskSections(build=build_training, template="training.html.j2", links=OF_TRAINING),
    "finetune": TaskSections(
        build=build_finetuning,
        template="finetuning.html.j2",
        links=(*OF_TRAINING, ("conversations", "Conversations")),
    ),
    "inference": TaskSections(
        build=build_inference,
        template="inference.html.j2",
        links=(
            ("scores", "Scores"),
            ("exact", "Exact result"),
            ("continuations", "Continuations"),
            ("itself", "With itself"),
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Page:
    """The page: the content for every task, and in `part` that of its own task, shown by the sections of that task.

    `data` is embedded once: columns, figures, findings and the names of the files to download.
    """

    name: str
    title: str
    digest: str
    verdict: Verdict
    statements: Statements
    standards: tuple[StandardTable, ...]
    sections: TaskSections
    part: TaskPart
    provenance: Provenance
    tables: tuple[Table, ...]
    data: dict[str, Any]


def build_view(submission: Submission, certificate: Certificate) -> Page:
    """The view model of a bundle, of the statements signed about it, and of its level."""
    bundle = submission.bundle
    sections = SECTIONS[bundle.case.task.name]
    part = sections.build(bundle)
    return Page(
        name=bundle.case.name,
        title=bundle.case.title,
        digest=bundle.digest,
        verdict=build_verdict(bundle, certificate, signed=submission.signed),
        statements=build_statements(submission),
        standards=standard_tables(bundle),
        sections=sections,
        part=part,
        provenance=build_provenance(submission, part.inputs),
        tables=part.tables,
        data={
            "file": f"{bundle.case.name}-{bundle.digest[:12]}",
            "columns": part.columns,
            "figures": {chart.id: chart.figure for chart in part.charts},
            "tables": {table.ending: list(table.columns) for table in part.tables},
            "findings": read_json(bundle.path / FINDINGS),
        },
    )
