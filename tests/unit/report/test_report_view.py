"""The view model: what the page states about a bundle, as text and numbers."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.text import listed
from harness.cases.case import load_case
from harness.cases.runs_of_a_case import REQUIRED_RUNS
from harness.evidence.bundle import Bundle
from harness.evidence.judge import Outcome
from harness.evidence.summary import remarks
from harness.report.charts import limits_on
from harness.report.columns import step_columns, step_tables
from harness.report.criteria import used_of_allowed
from harness.report.words import duration, exact, number
from harness.runs.trace import Protection, RunOutcome, Step, TraceHeader
from harness.standards import Limit, load_standard
from tests.support.bundles import Change, example_parameters, example_step, page_of, view_of, write_example
from tests.support.examples import inference_case, small_case
from tests.support.pages import facts_without_chinese


def off_from(first: int) -> Change:
    def change(run: str, step: Step) -> Step:
        bad = run in ("subject-1", "subject-2", "subject-resumed") and step.step >= first
        return dataclasses.replace(step, loss=step.loss * 1.0058) if bad else step

    return change


off_from_17 = off_from(17)


def equal_every_third(run: str, step: Step) -> Step:
    return example_step("reference-1", step.step, 200) if run == "subject-1" and step.step % 3 == 0 else step


def limit(value: float, comparator: str = "at_most") -> Limit:
    return Limit(measurement="m", statistic="maximum", comparator=comparator, value=value, reason="r", source="s")


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_example(tmp_path_factory.mktemp("failing"), change=off_from_17)


@pytest.fixture(scope="module")
def floored(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("floored")
    standards = (load_standard("official"),)
    return write_example(path, case=load_case("qwen3-tiny-bf16"), floor=8, standards=standards)


def figure(bundle: Bundle, name: str) -> dict:
    return view_of(bundle).data["figures"][name]


def test_a_red_verdict_names_the_first_step_beyond_a_limit(failing: Bundle) -> None:
    verdict = view_of(failing).verdict
    assert verdict.tone == "bad"
    assert "fail, the first at step 17" in verdict.sentence
    assert verdict.trouble is not None
    assert verdict.trouble.first == "The first step beyond a limit is step 17 (strict-fp32/loss)."
    assert verdict.trouble.earliest[0][1].startswith("Loss of every step: largest 0.0058, at most 1e-05 allowed")


def test_every_failed_finding_is_shown_at_the_top(failing: Bundle) -> None:
    trouble = view_of(failing).verdict.trouble
    assert trouble is not None
    shown = {message for _, message in (*trouble.earliest, *trouble.others)}
    assert shown == {f.message for f in failing.findings if f.outcome in (Outcome.FAIL, Outcome.ERROR)}


def test_a_limit_in_errors_of_the_reference_is_drawn_where_it_lies(tmp_path: Path) -> None:
    standards = (load_standard("strict-bf16"),)
    bundle = write_example(tmp_path, case=load_case("qwen3-tiny-bf16"), standards=standards)
    for arm, field in (("train", "loss"), ("train", "grad_norm"), ("lr_zero", "loss")):
        apart, scaled = (bundle.comparison[f"{arm}.{field}.{measure}"].values for measure in ("relative", "scaled"))
        ((name, drawn),) = limits_on(bundle, f"{arm}.{field}.relative")
        ((_, own),) = limits_on(bundle, f"{arm}.{field}.scaled")
        assert name == "strict-bf16" and drawn.value != own.value
        assert [one <= drawn.value for one in apart] == [one <= own.value for one in scaled]
        assert min(drawn.value, own.value) > 0 and max(apart) > 0


@pytest.mark.parametrize(("rate", "remarked"), [(1e-4, False), (1e-3, True)])
def test_a_failure_beyond_the_rate_of_the_limits_has_a_remark(tmp_path: Path, rate: float, remarked: bool) -> None:
    case = small_case()
    case = case.with_changes(lr_schedule={**case.lr_schedule.model_dump(), "learning_rate": rate})
    bundle = write_example(tmp_path / "failing", case=case, change=off_from(7))
    assert any("derived for learning rates up to 0.0001" in one for one in remarks(bundle)) == remarked
    assert ("this case goes up to 0.001" in page_of(bundle)) == remarked
    assert remarks(write_example(tmp_path / "passing", case=case)) == (), "what passes needs no excuse"


@pytest.mark.parametrize(("fewer", "remarked"), [(0, False), (1, True)])
def test_a_failure_in_more_steps_than_those_of_the_limits_has_a_remark(
    tmp_path: Path, fewer: int, remarked: bool
) -> None:
    case = small_case()
    derived = load_standard("strict-fp32").model_copy(update={"steps": case.training.steps - fewer})
    bundle = write_example(tmp_path / "failing", case=case, change=off_from(7), standards=(derived,))
    said = f"derived for {case.training.steps - fewer} steps, and this case takes {case.training.steps}"
    assert any(said in one for one in remarks(bundle)) == remarked
    assert derived.digest() == load_standard("strict-fp32").digest(), "the number of steps decides nothing"


def test_inconclusive_is_never_shown_as_passed(tmp_path: Path) -> None:
    view = view_of(write_example(tmp_path))
    rows = [c for table in view.standards for group in table.groups for c in group.criteria if c.id == "official-steps"]
    assert [(row.mark.word, row.mark.glyph, row.mark.tone) for row in rows] == [("INCONCLUSIVE", "?", "inconclusive")]
    assert {mark.word: amount for mark, amount in view.verdict.counts}["INCONCLUSIVE"] == 1
    assert "inconclusive" in view.verdict.sentence


def test_a_passing_bundle_has_no_trouble_and_shows_what_the_next_level_lacks(tmp_path: Path) -> None:
    verdict = view_of(write_example(tmp_path)).verdict
    assert verdict.trouble is None and verdict.tone == "good" and verdict.level == "Preliminary"
    assert verdict.next_level == "Validated"
    assert any("Signed by the developer: no valid signature" in text for text in verdict.missing)


def test_missing_signatures_are_shown_at_lower_levels_too(failing: Bundle) -> None:
    verdict = view_of(failing).verdict
    assert verdict.level == "Untested"
    assert verdict.ceiling is not None and "no valid signature" in verdict.ceiling


def test_steps_that_were_not_taken_are_not_called_beyond_a_limit(tmp_path: Path) -> None:
    bundle = write_example(tmp_path, change=lambda run, s: None if run == "subject-1" and s.step > 83 else s)
    loss = view_of(bundle).part.charts[0]
    assert "No taken step is beyond it. Steps 84 to 200 were not taken by both sides." in loss.caption
    assert not any("×" in note["text"] for note in loss.figure["layout"]["annotations"])


def test_limits_for_single_steps_are_drawn_at_their_value(failing: Bundle) -> None:
    lines = [shape for shape in figure(failing, "chart-loss")["layout"]["shapes"] if shape.get("yref") == "y2"]
    assert [line["y0"] for line in lines] == [1e-5]
    lines = [shape for shape in figure(failing, "chart-grad-norm")["layout"]["shapes"] if shape.get("yref") == "y2"]
    assert [line["y0"] for line in lines] == [1e-4]


def test_the_first_step_beyond_is_marked(failing: Bundle) -> None:
    layout = figure(failing, "chart-loss")["layout"]
    assert "× step 17" in [note["text"] for note in layout["annotations"]]
    assert 17 in [shape.get("x0") for shape in layout["shapes"]]


def test_curve_and_error_share_one_axis(failing: Bundle) -> None:
    assert {trace.get("xaxis", "x") for trace in figure(failing, "chart-loss")["data"]} == {"x"}


def test_exactly_equal_steps_have_a_row_below_all_others(tmp_path: Path) -> None:
    bundle = write_example(tmp_path, change=equal_every_third)
    traces = figure(bundle, "chart-loss")["data"]
    row = next(trace["meta"]["at"] for trace in traces if trace["meta"].get("keep") == "equal")
    assert 0 < row < min(value for value in bundle.comparison["train.loss.relative"].values if value)


def test_the_floor_is_a_band_and_a_table_without_a_limit(floored: Bundle) -> None:
    view = view_of(floored)
    assert [(row.what, row.statistic) for row in view.part.floor] == [
        ("Loss", "mean"), ("Loss", "largest"), ("Grad norm", "mean"), ("Grad norm", "largest"),
    ]  # fmt: skip
    assert all(row.ratio.endswith("×") for row in view.part.floor)
    keeps = [trace["meta"].get("keep") for trace in figure(floored, "chart-loss")["data"]]
    assert "band" in keeps
    assert "No standard of this bundle limits single steps" in view.part.charts[0].caption


def test_a_floor_that_was_not_measured_has_no_rows(failing: Bundle) -> None:
    assert view_of(failing).part.floor == ()


def test_determinism_shows_identical_bits_or_the_first_step_that_differs(tmp_path: Path) -> None:
    def drifting(run: str, step: Step) -> Step:
        return dataclasses.replace(step, loss=step.loss + 1e-9) if run == "subject-2" and step.step >= 9 else step

    rows = {(row.side, row.what): row for row in view_of(write_example(tmp_path, change=drifting)).part.repeats}
    assert len(rows) == 6
    assert rows["reference", "Every loss"].mark.word == "identical bits"
    assert rows["reference", "Every loss"].detail == "in 200 of 200 steps"
    assert rows["subject", "Every loss"].mark.word == "differ"
    assert "in 192 of 200 steps, first step 9:" in rows["subject", "Every loss"].detail
    assert rows["subject", "Every grad norm"].mark.word == "identical bits"


def test_a_repeat_that_was_cut_short_is_not_called_identical(tmp_path: Path) -> None:
    bundle = write_example(tmp_path, change=lambda run, s: None if run == "subject-2" and s.step > 83 else s)
    row = next(row for row in view_of(bundle).part.repeats if (row.side, row.what) == ("subject", "Every loss"))
    assert row.mark.word == "not measured" and "step 84" in row.detail


def test_tensors_are_listed_worst_first_and_not_a_number_before_all(tmp_path: Path) -> None:
    def broken(run: str) -> dict[str, np.ndarray]:
        tensors = example_parameters(run)
        if run.startswith("subject"):
            tensors["model.norm.weight"] = tensors["model.norm.weight"] * np.float32("nan")
        return tensors

    table = view_of(write_example(tmp_path, parameters=broken)).part.tensors
    assert table.first[0].name == "model.norm.weight" and table.first[0].relative == "not a number"
    assert table.first[0].bar is not None and table.first[0].bar.over


def test_a_resumed_run_is_shown_as_resumed(tmp_path: Path) -> None:
    resumed = RunOutcome(status="completed", last_step=200, detail="200 of 200 steps", resumed_after=(50, 100))
    view = view_of(write_example(tmp_path, outcomes={"subject-1": resumed}))
    assert view.provenance.notices == ("subject-1 was resumed after step 50, 100.",)


SITE = {"sitecustomize": "a" * 64, "distutils-precedence.pth": "b" * 64}


def started(header: TraceHeader) -> TraceHeader:
    return dataclasses.replace(header, provenance={**header.provenance, "started_by_site": SITE})


def ended(kind: Protection | None, apart: bool | None) -> dict[str, RunOutcome]:
    """Runs of the subject with this protection, one of them resumed."""
    names = [name for name in REQUIRED_RUNS if name.startswith("subject")]
    one = RunOutcome(status="completed", last_step=200, detail="200 of 200 steps", protection=kind, apart=apart)
    return {name: dataclasses.replace(one, resumed_after=(100,) * (name == "subject-1")) for name in names}


@pytest.mark.parametrize(
    "made",
    [
        {"header": started, "outcomes": ended("namespaces", True)},
        {"outcomes": ended("order", False), "source": {"dirty": True}},
        {"outcomes": ended("none", False), "source": {"revision": None}},
        {"case": load_case("qwen3-tiny-sft-fp32")},
        {"case": inference_case()},
    ],
    ids=["started by site", "order", "none", "fine-tuning", "inference"],
)
def test_no_fact_of_the_page_is_without_chinese(tmp_path: Path, made: dict[str, Any]) -> None:
    assert facts_without_chinese(view_of(write_example(tmp_path / "bundle", **made))) == []


def test_columns_hold_every_digit_and_repeat_no_values(failing: Bundle) -> None:
    columns = step_columns(failing)
    trace = failing.runs["reference-1"].trace
    assert trace is not None
    assert columns["train.reference.loss"] == [step.loss for step in trace.steps]
    assert columns["train.subject.batch"] == "train.reference.batch"
    assert columns["train.loss.relative"] == list(failing.comparison["train.loss.relative"].values)


def test_the_csv_of_the_steps_holds_both_sides_and_their_differences(failing: Bundle) -> None:
    table = step_tables(step_columns(failing))[0]
    for name in ("loss", "grad_norm", "learning_rate", "tokens", "batch"):
        assert {f"train.reference.{name}", f"train.subject.{name}"} <= set(table.columns)
    assert {"train.step", "train.loss.relative", "train.grad_norm.relative"} <= set(table.columns)


@pytest.mark.parametrize(
    ("one", "value", "width", "over", "text"),
    [
        (limit(1e-5), 2e-6, 20.0, False, "20 %"),
        (limit(1e-5), 5.8e-3, 100.0, True, "580 ×"),
        (limit(1e-5), 9.99e-6, 99.9, False, "just below 100 %"),
        (limit(1e-5), 0.0, 0.0, False, "0 %"),
        (limit(0.0), 0.0, None, False, "exact"),
        (limit(0.0), 1.0, 100.0, True, "not exact"),
        (limit(1000.0, "at_least"), 200.0, 20.0, True, "20 % of what is required"),
        (limit(0.01, "at_least"), -0.2, 0.0, True, "-2\u202f000 % of what is required"),
        (limit(1e-5), math.nan, 100.0, True, "not finite"),
        (limit(0.5, "below"), 0.5, 100.0, True, "100 %"),
        (limit(-0.3), -0.75, 100.0, False, "2.5 × of what is required"),
        (limit(-0.3), -0.15, 50.0, True, "50 % of what is required"),
    ],
)
def test_used_of_allowed(one: Limit, value: float, width: float | None, over: bool, text: str) -> None:
    bar = used_of_allowed(one, value)
    assert bar is not None
    assert (bar.width, bar.over, bar.text) == (width, over, text)


def test_limits_are_worded_as_in_the_messages(tmp_path: Path) -> None:
    view = view_of(write_example(tmp_path))
    rows = {row.id: row for table in view.standards for group in table.groups for row in group.criteria}
    assert rows["official-steps"].limits[0].allowed == "at least 1000 required"


def test_nothing_measured_has_no_bar() -> None:
    assert used_of_allowed(limit(1e-5), None) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "not measured"), (math.nan, "not a number"), (math.inf, "infinite"), (-math.inf, "minus infinite"),
     (0.0, "0"), (1.234567e-7, "1.23e-07"), (0.30312, "0.303"), (3093588.0, "3\u202f093\u202f588"), (-2.5, "-2.5")],
)  # fmt: skip
def test_numbers_in_words(value: float | None, text: str) -> None:
    assert number(value) == text


def test_exact_numbers_read_back() -> None:
    assert float(exact(0.1 + 0.2)) == 0.1 + 0.2 and exact(np.float64(0.1)) == "0.1", "NumPy 2 writes the type too"


def test_words() -> None:
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert [duration(s) for s in (0.02, 4.0, 118.4, 3725.0)] == ["20 ms", "4 s", "118 s", "1 h 2 min"]


@pytest.mark.parametrize("value", [1.7976931348623157e308, -1e308, 5e-324, -0.0])
def test_numbers_at_the_ends_of_their_range_are_drawn(tmp_path: Path, value: float) -> None:
    def change(run: str, step: Step) -> Step:
        return dataclasses.replace(step, loss=value, grad_norm=abs(value)) if run.startswith("subject") else step

    assert "</html>" in page_of(write_example(tmp_path / "b", case=small_case(), change=change))
