"""Criteria by topic, and the first section after a failure."""

import dataclasses
from pathlib import Path

import pytest

from harness.cases.runs_of_a_case import REQUIRED_RUNS, required_runs
from harness.cases.task import INFERENCE, PRETRAIN
from harness.evidence.judge import Finding, Judged, Outcome
from harness.report.groups import GROUPS, group_of
from harness.report.words import purpose
from harness.runs.trace import Step, TraceHeader
from harness.standards import Limit, load_standard, shipped_standards
from tests.support.bundles import view_of, write_example
from tests.support.examples import inference_case


def off_at_17(run: str, step: Step) -> Step:
    return dataclasses.replace(step, loss=step.loss * 1.0058) if run[:7] == "subject" and step.step == 17 else step


def wrong_base(header: TraceHeader) -> TraceHeader:
    changed = {**header.alignment, "model.rope_theta": 1e4}
    return dataclasses.replace(header, alignment=changed) if header.side == "subject" else header


def without_alignment(header: TraceHeader) -> TraceHeader:
    return dataclasses.replace(header, alignment={}) if header.side == "subject" else header


def finding(limit: Limit) -> Finding:
    judged = (Judged(limit=limit, outcome=Outcome.PASS, value=0.0),)
    return Finding(standard="s", criterion="c", title="t", outcome=Outcome.PASS, judged=judged, message="m")


@pytest.mark.parametrize("name", shipped_standards())
def test_every_criterion_of_a_shipped_standard_has_a_group_of_its_own_kind(name: str) -> None:
    groups = [group_of(finding(criterion.limits[0])) for criterion in load_standard(name).criteria]
    assert "Others" not in groups


def test_what_no_group_knows_is_shown_among_the_others() -> None:
    limit = Limit(measurement="something.new", statistic="mean", value=1.0, reason="r", source="s")
    assert group_of(finding(limit)) == "Others" == GROUPS[-1]


def test_no_finding_is_lost_in_the_groups(tmp_path: Path) -> None:
    bundle = write_example(tmp_path)
    rows = [row.id for table in view_of(bundle).standards for group in table.groups for row in group.criteria]
    assert sorted(rows) == sorted(one.criterion for one in bundle.findings)


def test_only_a_group_in_which_all_pass_is_folded(tmp_path: Path) -> None:
    for table in view_of(write_example(tmp_path, change=off_at_17)).standards:
        for group in table.groups:
            assert group.folded == all(row.mark.word == "PASS" for row in group.criteria)
            assert group.folded == (group.mark.word == "PASS")


def test_a_folded_group_names_what_is_closest_to_its_limit(tmp_path: Path) -> None:
    strict = view_of(write_example(tmp_path)).standards[1]
    summary = {group.title: group.summary for group in strict.groups}
    assert summary["Optimizer"].startswith("5 of 5 pass; closest to its limit, ")


def test_a_wrong_configuration_comes_first_with_both_values(tmp_path: Path) -> None:
    trouble = view_of(write_example(tmp_path, change=off_at_17, header=wrong_base)).verdict.trouble
    assert trouble is not None
    (cause,) = trouble.causes
    assert cause.message.endswith("differs: model.rope_theta")
    assert cause.keys == ("model.rope_theta: the subject has 10000.0, the case has 1000000",)
    assert cause.message not in {message for _, message in (*trouble.earliest, *trouble.others)}


def test_a_configuration_without_stated_values_is_shown_in_part(tmp_path: Path) -> None:
    trouble = view_of(write_example(tmp_path, header=without_alignment)).verdict.trouble
    assert trouble is not None
    keys = trouble.causes[0].keys
    assert len(keys) == 5 and keys[0].endswith(": the subject has nothing, the case has 2.0")
    assert keys[-1].endswith(" more")


@pytest.mark.parametrize("name", [*REQUIRED_RUNS, "floor-1", "floor-12"])
def test_every_run_of_a_case_has_a_purpose(name: str) -> None:
    assert purpose(name, PRETRAIN)


def test_every_run_of_an_inference_case_has_a_purpose() -> None:
    assert all(purpose(name, INFERENCE) for name in required_runs(inference_case()))


@pytest.mark.parametrize(
    ("started", "said"),
    [
        ("2026-01-31T02:00:00+00:00", "The run is valid until 2026-07-30."),
        ("2025-06-30T02:00:00+00:00", "The run expired on 2025-12-27."),
    ],
)
def test_the_last_valid_day_of_a_run_is_shown(tmp_path: Path, started: str, said: str) -> None:
    assert view_of(write_example(tmp_path, occasion={"started": started})).verdict.valid == said
