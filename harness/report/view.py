"""The view model: everything that the page shows, formatted, in the order in which it shows it.

The template only loops over these records; a number that is to be shown is made into words here or below.
"""

from dataclasses import dataclass
from typing import Any

from harness.base.records import read_json
from harness.evidence.bundle_files import FINDINGS
from harness.levels.rule import Certificate
from harness.levels.submission import Submission
from harness.report.columns import Table
from harness.report.groups import StandardTable, standard_tables
from harness.report.inference import Answering, build_answering
from harness.report.provenance import Provenance, build_provenance
from harness.report.sides import RepeatRow, repeat_rows
from harness.report.statements import Statements, build_statements
from harness.report.training import Training, build_training
from harness.report.verdict import Verdict, build_verdict


@dataclass(frozen=True, kw_only=True)
class Page:
    """The page: what every task has, and what is of `training` or of `inference` alone, of which one is None.

    `data` is embedded once: columns, figures, findings and the names of the files to download.
    """

    name: str
    title: str
    digest: str
    verdict: Verdict
    statements: Statements
    standards: tuple[StandardTable, ...]
    training: Training | None
    inference: Answering | None
    repeats: tuple[RepeatRow, ...]
    provenance: Provenance
    tables: tuple[Table, ...]
    data: dict[str, Any]


def build_view(submission: Submission, certificate: Certificate) -> Page:
    """The view model of a bundle, of what is signed about it, and of its level."""
    bundle = submission.bundle
    part = build_training(bundle) if bundle.case.inference is None else build_answering(bundle)
    return Page(
        name=bundle.case.name,
        title=bundle.case.title,
        digest=bundle.digest,
        verdict=build_verdict(bundle, certificate),
        statements=build_statements(submission),
        standards=standard_tables(bundle),
        training=part if isinstance(part, Training) else None,
        inference=part if isinstance(part, Answering) else None,
        repeats=repeat_rows(bundle),
        provenance=build_provenance(bundle),
        tables=part.tables,
        data={
            "file": f"{bundle.case.name}-{bundle.digest[:12]}",
            "columns": part.columns,
            "figures": {chart.id: chart.figure for chart in part.charts},
            "tables": {table.ending: list(table.columns) for table in part.tables},
            "findings": read_json(bundle.path / FINDINGS),
        },
    )
