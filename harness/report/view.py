"""The view model: everything that the page shows, formatted, in the order in which it shows it.

The template only loops over these records; a number that is to be shown is made into words here or below.
"""

from dataclasses import dataclass
from typing import Any

from harness.evidence import FINDINGS, Bundle
from harness.levels import Certificate
from harness.records import read_json
from harness.report.charts import Chart, curve_chart, lr_zero_chart, rate_chart
from harness.report.columns import Table, step_columns, step_tables
from harness.report.groups import StandardTable, standard_tables
from harness.report.oracle import AgainstOracle, against_oracle
from harness.report.provenance import Provenance, build_provenance
from harness.report.sides import FloorRow, RepeatRow, TensorTable, floor_rows, repeat_rows, tensor_table
from harness.report.statements import Statements, build_statements
from harness.report.verdict import Verdict, build_verdict
from harness.submission import Submission


@dataclass(frozen=True, kw_only=True)
class Page:
    """The page. `data` is embedded once: columns, figures, findings and the names of the files to download."""

    name: str
    title: str
    digest: str
    verdict: Verdict
    statements: Statements
    standards: tuple[StandardTable, ...]
    charts: tuple[Chart, ...]
    arm_charts: tuple[Chart, ...]
    untraced: str | None
    floor: tuple[FloorRow, ...]
    floor_repeats: str
    oracle: AgainstOracle
    repeats: tuple[RepeatRow, ...]
    tensors: TensorTable
    provenance: Provenance
    tables: tuple[Table, ...]
    data: dict[str, Any]


def build_view(submission: Submission, certificate: Certificate) -> Page:
    """The view model of a bundle, of what is signed about it, and of its level."""
    bundle = submission.bundle
    columns = step_columns(bundle)
    tables = step_tables(columns)
    charts = _charts(bundle)
    arm_charts = _arm_charts(bundle)
    oracle = against_oracle(bundle)
    every = (*charts, *arm_charts, *((oracle.chart,) if oracle.chart else ()))
    return Page(
        name=bundle.case.name,
        title=bundle.case.title,
        digest=bundle.digest,
        verdict=build_verdict(bundle, certificate),
        statements=build_statements(submission),
        standards=standard_tables(bundle),
        charts=charts,
        arm_charts=arm_charts,
        untraced=_untraced(bundle),
        floor=floor_rows(bundle),
        floor_repeats=str(sum(name.startswith("floor") for name in bundle.runs)),
        oracle=oracle,
        repeats=repeat_rows(bundle),
        tensors=tensor_table(bundle),
        provenance=build_provenance(bundle),
        tables=tables,
        data={
            "file": f"{bundle.case.name}-{bundle.digest[:12]}",
            "columns": columns,
            "figures": {chart.id: chart.figure for chart in every},
            "tables": {table.ending: list(table.columns) for table in tables},
            "findings": read_json(bundle.path / FINDINGS),
        },
    )


def _charts(bundle: Bundle) -> tuple[Chart, ...]:
    return (
        ()
        if _untraced(bundle)
        else (curve_chart(bundle, "loss", "Loss"), curve_chart(bundle, "grad_norm", "Grad norm"))
    )


def _arm_charts(bundle: Bundle) -> tuple[Chart, ...]:
    rate = () if _untraced(bundle) else (rate_chart(bundle),)
    return (*rate, lr_zero_chart(bundle)) if bundle.comparison["lr_zero.loss.relative"].values else rate


def _untraced(bundle: Bundle) -> str | None:
    """Why there is nothing to draw."""
    measured = bundle.comparison["train.loss.relative"]
    return None if measured.values else measured.broken or measured.missing or "no steps"
