"""The sections for training: curves, the floor, errors against the exact result, final parameters."""

from dataclasses import dataclass

from harness.evidence.bundle import Bundle
from harness.report.charts import Chart, curve_chart, lr_zero_chart, rate_chart
from harness.report.columns import Column, Table, step_columns, step_tables
from harness.report.oracle import AgainstOracle, against_oracle
from harness.report.sides import FloorRow, Repeated, RepeatRow, TensorTable, floor_rows, repeat_rows, tensor_table
from harness.report.words import Fact

REPEATED = (
    Repeated(measurement="loss.differs", what="Every loss", noun="step"),
    Repeated(measurement="grad_norm.differs", what="Every grad norm", noun="step"),
    Repeated(measurement="parameters.differs", what="Final parameters", noun="tensor"),
)


@dataclass(frozen=True, kw_only=True)
class TrainingPart:
    """`untraced` states why there is nothing to draw."""

    curves: tuple[Chart, ...]
    arms: tuple[Chart, ...]
    untraced: str | None
    floor: tuple[FloorRow, ...]
    floor_repeats: str
    oracle: AgainstOracle
    repeats: tuple[RepeatRow, ...]
    tensors: TensorTable
    columns: dict[str, Column]
    tables: tuple[Table, ...]
    inputs: tuple[Fact, ...] = ()

    @property
    def charts(self) -> tuple[Chart, ...]:
        """Every figure."""
        return (*self.curves, *self.arms, *((self.oracle.chart,) if self.oracle.chart else ()))


def build_training(bundle: Bundle) -> TrainingPart:
    """The sections of a training bundle, with the numbers of its steps."""
    columns = step_columns(bundle)
    return TrainingPart(
        curves=_curves(bundle),
        arms=_arms(bundle),
        untraced=_untraced(bundle),
        floor=floor_rows(bundle),
        floor_repeats=str(sum(name.startswith("floor") for name in bundle.runs)),
        oracle=against_oracle(bundle),
        repeats=repeat_rows(bundle, REPEATED),
        tensors=tensor_table(bundle),
        columns=columns,
        tables=step_tables(columns),
    )


def _curves(bundle: Bundle) -> tuple[Chart, ...]:
    return (
        ()
        if _untraced(bundle)
        else (curve_chart(bundle, "loss", "Loss"), curve_chart(bundle, "grad_norm", "Grad norm"))
    )


def _arms(bundle: Bundle) -> tuple[Chart, ...]:
    rate = () if _untraced(bundle) else (rate_chart(bundle),)
    return (*rate, lr_zero_chart(bundle)) if bundle.comparison["lr_zero.loss.relative"].values else rate


def _untraced(bundle: Bundle) -> str | None:
    """Why there is nothing to draw."""
    measured = bundle.comparison["train.loss.relative"]
    return None if measured.values else measured.broken or measured.missing or "no steps"
