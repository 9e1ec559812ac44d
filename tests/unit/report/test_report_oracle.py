"""The section on the exact result: both sides' errors, and the limit of each ratio."""

import dataclasses
import math
from pathlib import Path

import pytest

from harness.cases.case import load_case
from harness.evidence.bundle import Bundle
from harness.evidence.judge import statistic
from harness.report.columns import step_columns, step_tables
from harness.report.words import number
from harness.runs.trace import Step
from harness.standards import load_standard
from tests.support.bundles import view_of, write_example

WHATS = ["Loss", "Grad norm", "First gradients", "Optimizer alone"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_example(tmp_path_factory.mktemp("oracle"))


def without_oracle(run: str, step: Step) -> Step | None:
    return None if run.startswith("oracle") else step


def test_every_statistic_of_every_measurement_is_shown(bundle: Bundle) -> None:
    groups = view_of(bundle).part.oracle.groups
    assert [group.what for group in groups] == WHATS
    for group, what in zip(groups, ("loss", "grad_norm", "gradients", "updates"), strict=True):
        for row, name in zip(group.rows, ("mean", "rms", "maximum"), strict=True):
            values = {
                part: bundle.comparison[f"oracle.{what}.{part}"].values for part in ("reference", "subject", "ratio")
            }
            shown = {"reference": row.reference, "subject": row.subject, "ratio": row.ratio}
            assert shown == {part: number(statistic(name, some)) for part, some in values.items()}


def test_a_ratio_is_shown_with_the_limit_of_its_own_statistic(bundle: Bundle) -> None:
    allowed = {group.what: [row.allowed for row in group.rows] for group in view_of(bundle).part.oracle.groups}
    limits = [f"at most {value} allowed (strict-fp32)" for value in (2, 2, 10)]
    assert allowed == {"Loss": limits, "Grad norm": [""] * 3, "First gradients": limits, "Optimizer alone": limits}


def test_a_standard_without_limits_on_ratios_draws_no_bars(tmp_path: Path) -> None:
    case, standards = load_case("qwen3-tiny-bf16"), (load_standard("official"),)
    section = view_of(write_example(tmp_path, case=case, standards=standards)).part.oracle
    assert {row.bar for group in section.groups for row in group.rows} == {None}
    assert {row.bar for row in section.gradients.first} == {None}


def test_gradients_are_listed_by_ratio_and_none_is_omitted(bundle: Bundle) -> None:
    table = view_of(bundle).part.oracle.gradients
    ratios = bundle.comparison["oracle.gradients.ratio"]
    worst_first = sorted(zip(ratios.values, ratios.places, strict=True), key=lambda pair: -pair[0])
    assert [row.name for row in (*table.first, *table.rest)] == [name for _, name in worst_first]


def test_a_missing_oracle_is_stated_and_nothing_is_drawn(tmp_path: Path) -> None:
    view = view_of(write_example(tmp_path, change=without_oracle))
    assert [group.missing for group in view.part.oracle.groups] == [
        *["oracle-1: killed by signal 9 after step 0"] * 2,
        *["oracle-probe: killed by signal 9 after step 0"] * 2,
    ]
    assert view.part.oracle.gradients.missing == "oracle-probe: killed by signal 9 after step 0"
    assert view.part.oracle.chart is None and "chart-oracle" not in view.data["figures"]


def test_a_failed_run_is_named_with_its_errors(tmp_path: Path) -> None:
    cut = write_example(tmp_path, change=lambda run, s: None if run == "subject-1" and s.step > 83 else s)
    loss = view_of(cut).part.oracle.groups[0]
    assert loss.broken == "subject-1: killed by signal 9 after step 83"
    assert [row.ratio for row in loss.rows] == ["not a number"] * 3


def test_steps_that_one_of_the_three_did_not_take_are_empty(tmp_path: Path) -> None:
    cut = write_example(tmp_path, change=lambda run, s: None if run == "subject-1" and s.step > 83 else s)
    columns = step_columns(cut)
    assert columns["oracle.loss.reference"][82] is not None
    assert columns["oracle.loss.reference"][83:] == [None] * 117
    assert columns["oracle.loss"][199] is not None


def test_a_loss_that_is_not_a_number_keeps_its_name(tmp_path: Path) -> None:
    def nan_at_57(run: str, step: Step) -> Step:
        return dataclasses.replace(step, loss=math.nan) if run == "subject-1" and step.step == 57 else step

    bundle = write_example(tmp_path, change=nan_at_57)
    assert step_columns(bundle)["oracle.loss.subject"][56:58] == ["NaN", None]


def test_the_errors_are_offered_with_every_digit(bundle: Bundle) -> None:
    columns = step_columns(bundle)
    assert columns["oracle.loss.subject"] == list(bundle.comparison["oracle.loss.subject"].values)
    table = next(table for table in step_tables(columns) if table.ending == "oracle-steps.csv")
    assert {"oracle.step", "oracle.loss", "oracle.loss.subject", "oracle.grad_norm.reference"} <= set(table.columns)


def test_both_errors_share_one_chart(bundle: Bundle) -> None:
    names = [trace["meta"]["y"] for trace in view_of(bundle).data["figures"]["chart-oracle"]["data"]]
    assert set(names) == {"oracle.loss.reference", "oracle.loss.subject"}
