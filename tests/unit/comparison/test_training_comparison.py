"""A comparison of runs: what each measurement looks at, and not-a-number that never goes away."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cases.runs_of_a_case import (
    ORACLE,
    REFERENCE,
    REQUIRED_RUNS,
    ROLES_OF_LAYOUT,
    SUBJECT,
    SUBJECT_ALONE,
    SUBJECT_ALONE_PROBE,
    SUBJECT_PROBE,
    required_runs,
)
from harness.comparison.catalogue import NUMBERS
from harness.comparison.distance import MEASURES
from harness.comparison.measurement import Comparison
from harness.comparison.training import Expected, compare_mappings, compare_parameters, compare_steps, measure
from harness.runs.trace import Run, RunOutcome, Step, Trace, TraceFooter, TraceHeader
from tests.support.bundles import example_step
from tests.support.examples import small_case

FINITE = st.floats(allow_nan=False, allow_infinity=False)
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf])
STEPS = 6
INPUTS = {"case": "c", "weights": "w", "batches": "b"}
Change = Callable[[str, Step], Step | None]


def make_run(name: str, change: Change = lambda run, step: step, status: str = "completed", **header: object) -> Run:
    asked = TraceHeader(
        run=name,
        side="subject" if name.startswith("subject") else "reference",
        arm="train",
        steps=STEPS,
        runner="fake",
        initial={"w": "1"},
        alignment={"a": 1},
        **INPUTS,
    )
    changed = [change(name, example_step(name, number, STEPS)) for number in range(1, STEPS + 1)]
    steps = tuple(step for step in changed if step is not None)
    footer = TraceFooter(last_step=len(steps), parameters={"w": "1"}, lines="") if status == "completed" else None
    trace = Trace(header=dataclasses.replace(asked, **header), steps=steps, footer=footer)
    return Run(name=name, outcome=RunOutcome(status=status, last_step=len(steps), detail=f"it {status}"), trace=trace)


def measured(runs: Mapping[str, Run], tensors: Mapping[str, Any] | None = None) -> Comparison:
    expected = Expected(runs=REQUIRED_RUNS, inputs=INPUTS, weights={"w": "1"}, alignment={"a": 1})
    return measure(runs, expected, tensors or {})


def compared(change: Change = lambda run, step: step, runs: tuple[str, ...] = REQUIRED_RUNS) -> Comparison:
    made: Mapping[str, Run] = {name: make_run(name, change) for name in runs}
    return measured(made, {REFERENCE: {"w": np.ones(2)}, SUBJECT: {"w": np.ones(2)}})


def at(number: int, runs: tuple[str, ...], **values: float) -> Change:
    return lambda run, step: dataclasses.replace(step, **values) if run in runs and step.step == number else step


def test_equal_runs_differ_nowhere() -> None:
    found = compared()
    for name in ("loss", "grad_norm", "learning_rate", "tokens"):
        assert set(found[f"reference.repeat.{name}.differs"].values) == {0.0}
    assert set(found["reference.repeat.batch.differs"].values) == {0.0}
    assert found["runs.missing_steps"].values == (0.0,) * len(REQUIRED_RUNS)
    assert found["runs.foreign_inputs"].values == (0.0,) * len(REQUIRED_RUNS)


@pytest.mark.parametrize("runs", [("subject-1",), ("reference-1",), ("reference-1", "subject-1")])
@pytest.mark.parametrize("number", ["loss", "grad_norm", "learning_rate"])
def test_not_a_number_at_one_step_is_not_a_number_there_alone(runs: tuple[str, ...], number: str) -> None:
    found = compared(at(3, runs, **{number: math.nan}))
    for name in ("absolute", "relative", "signed"):
        values = found[f"train.{number}.{name}"].values
        assert [math.isnan(value) for value in values] == [step == 3 for step in range(1, STEPS + 1)]
    assert found[f"train.{number}.differs"].values[2] == 1.0
    assert sum(found["runs.non_finite"].values) == len(runs)


def test_not_a_number_everywhere_on_both_sides_agrees_nowhere() -> None:
    found = compared(lambda run, step: dataclasses.replace(step, loss=math.nan))
    assert all(map(math.isnan, found["train.loss.relative"].values))
    assert set(found["reference.repeat.loss.differs"].values) == {1.0}
    assert math.isnan(found["subject.loss.fall"].values[0])


@pytest.mark.parametrize("run", ["subject-1", "reference-1"])
def test_a_missing_step_is_not_a_number_and_never_left_out(run: str) -> None:
    found = compared(lambda name, step: None if name == run and step.step > 4 else step)
    for number in NUMBERS:
        for name in MEASURES:
            values = found[f"train.{number}.{name}"].values
            assert len(values) == STEPS and [math.isnan(value) for value in values] == [False] * 4 + [True] * 2
    assert math.isnan(found["train.batch.differs"].values[-1])
    assert found["runs.missing_steps"].values[REQUIRED_RUNS.index(run)] == 2.0


def test_an_extra_step_counts_as_a_missing_one() -> None:
    run = make_run("subject-1", steps=STEPS - 2)
    found = measured({"subject-1": run})["runs.missing_steps"]
    assert found.values[REQUIRED_RUNS.index("subject-1")] == 2.0


@pytest.mark.parametrize("name", REQUIRED_RUNS)
def test_a_run_that_was_not_made_breaks_what_looks_at_it(name: str) -> None:
    found = compared(runs=tuple(run for run in REQUIRED_RUNS if run != name))
    missing = found["runs.missing_steps"]
    assert math.isnan(missing.values[REQUIRED_RUNS.index(name)]) and missing.broken == f"{name}: not run"


@pytest.mark.parametrize("status", ["crashed", "hung", "interrupted", "missing"])
def test_a_run_that_broke_breaks_what_looks_at_it(status: str) -> None:
    runs = {name: make_run(name, status=status if name == "subject-1" else "completed") for name in REQUIRED_RUNS}
    found = measured(runs)
    for name in ("train.loss.relative", "subject.repeat.loss.differs", "subject.loss.fall", "runs.missing_steps",
                 "train.parameters.relative", "subject.repeat.parameters.differs", "subject.steps"):  # fmt: skip
        assert f"it {status}" in str(found[name].broken), name
    assert found["reference.repeat.loss.differs"].broken is None


@pytest.mark.parametrize("key", ["case", "weights", "batches"])
def test_a_run_of_other_inputs_is_counted(key: str) -> None:
    runs = {name: make_run(name, **({key: "other"} if name == "subject-2" else {})) for name in REQUIRED_RUNS}
    found = measured(runs)["runs.foreign_inputs"]
    assert dict(zip(found.places, found.values, strict=True))["subject-2"] == 1.0 and sum(found.values) == 1.0


def test_another_batch_at_one_step_is_seen() -> None:
    found = compared(lambda run, step: dataclasses.replace(step, batch="x") if run == "subject-1" else step)
    assert set(found["train.batch.differs"].values) == {1.0}


def test_a_wrong_learning_rate_in_one_step_is_seen_there() -> None:
    found = compared(at(4, ("subject-1",), learning_rate=0.5))["train.learning_rate.differs"]
    assert found.values == (0.0, 0.0, 0.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize(("a", "b"), [({"w": 1, "x": 2}, {"w": 1}), ({"w": 1}, {"w": 1, "x": 2})])
def test_a_missing_or_extra_parameter_is_not_a_number(a: dict[str, int], b: dict[str, int]) -> None:
    left, right = ({name: np.full(2, value) for name, value in side.items()} for side in (a, b))
    for found in compare_parameters("train", left, right, None):
        assert found.places == ("w", "x") and found.values[0] == 0.0 and math.isnan(found.values[1])


@pytest.mark.parametrize(("a", "b"), [({"w": "1", "x": "2"}, {"w": "1"}), ({"w": "1"}, {"w": "1", "x": "2"})])
def test_a_missing_or_extra_parameter_has_no_equal_digest(a: dict[str, str], b: dict[str, str]) -> None:
    assert compare_mappings(a, b).values == (0.0, 1.0)


def test_parameters_that_were_not_kept_have_no_values() -> None:
    assert all(m.missing and not m.values for m in compare_parameters("train", None, {"w": np.ones(2)}, None))
    assert compare_mappings(None, {}).missing


def test_the_floor_is_the_widest_of_its_repeats() -> None:
    runs = {name: make_run(name) for name in (*REQUIRED_RUNS, "floor-1", "floor-2")}
    found = measured(runs)["floor.loss.relative"]
    singles = [compare_steps(runs["reference-1"], runs[name])["loss.relative"] for name in ("floor-1", "floor-2")]
    assert found.values == tuple(map(max, *(m.values for m in singles)))


def test_not_a_number_in_one_repeat_is_not_a_number_in_the_floor() -> None:
    runs = {name: make_run(name, at(2, ("floor-1",), loss=math.nan)) for name in ("reference-1", "floor-1", "floor-2")}
    assert math.isnan(measured(runs)["floor.loss.relative"].values[1])


def test_a_missing_floor_is_a_measurement_that_states_it() -> None:
    found = compared()["floor.loss.relative"]
    assert (found.values, found.missing) == ((), "not run")


def of_layout(change: Change = lambda run, step: step, gradient: float = 1.0) -> Comparison:
    """Runs over ranks and in one process, of which one probe has gradients of its own."""
    runs = {name: make_run(name, change) for name in (*REQUIRED_RUNS, *ROLES_OF_LAYOUT)}
    one = {"gradient.w": np.ones(4), "updated.w": np.ones(4)}
    probes = {SUBJECT_PROBE: {**one, "gradient.w": np.array([1, 1, 1, gradient])}, SUBJECT_ALONE_PROBE: one}
    return measured(runs, {**probes, SUBJECT: {"w": np.ones(2)}, SUBJECT_ALONE: {"w": np.ones(2)}})


def test_a_run_over_ranks_is_compared_with_the_same_in_one_process() -> None:
    found = of_layout(at(3, (SUBJECT,), loss=1.5))
    alone = example_step(SUBJECT_ALONE, 3, STEPS).loss
    assert found["layout.loss.relative"].values[2] == pytest.approx(abs(1.5 - alone) / alone)
    assert found["layout.loss.relative"].between == (SUBJECT_ALONE, SUBJECT)
    assert found["layout.gradients.relative"].values == (0.0,)
    assert of_layout(gradient=2.0)["layout.gradients.relative"].values == (0.5,)
    assert found["layout.parameters.relative"].values == (0.0,)


def test_a_tensor_without_a_value_is_no_agreement() -> None:
    """Of copies that differ between ranks nothing is left but NaN."""
    assert math.isnan(of_layout(gradient=math.nan)["layout.gradients.relative"].values[0])


def test_without_a_run_in_one_process_a_layout_is_not_measured() -> None:
    found = compared()
    for name in ("layout.loss.relative", "layout.gradients.relative", "layout.parameters.relative"):
        assert not found[name].values and found[name].missing


def test_the_runs_in_one_process_belong_to_cases_whose_layout_is_judged() -> None:
    alone, judged = small_case(), small_case().model_copy(update={"standards": ("official", "layout-fp32")})
    assert required_runs(alone) == REQUIRED_RUNS
    assert set(required_runs(judged)) - set(REQUIRED_RUNS) == set(ROLES_OF_LAYOUT)


def apart(reference: float, subject: float, steps: tuple[int, ...] = tuple(range(1, STEPS + 1))) -> Comparison:
    """An oracle at 2 in every step; the sides by these parts of it above and, at every second step, below."""

    def change(run: str, step: Step) -> Step | None:
        part = {"reference": reference, "subject": subject}.get(run.partition("-")[0], 0.0)
        value = 2.0 * (1 + part * (-1) ** step.step)
        kept = run != SUBJECT or step.step in steps
        return dataclasses.replace(step, loss=value, grad_norm=value) if kept else None

    return compared(change)


@pytest.mark.parametrize("number", ["loss", "grad_norm"])
@given(st.floats(1e-6, 1e-2), st.floats(0.5, 5), st.floats(0.5, 5))
def test_in_errors_of_the_reference_a_noise_that_both_share_goes_away(
    number: str, noise: float, times: float, more: float
) -> None:
    one, other = apart(noise, times * noise), apart(more * noise, times * more * noise)
    for name in ("train.{}.scaled", "train.{}.drift", "oracle.{}.scaled"):
        a, b = (comparison[name.format(number)].values for comparison in (one, other))
        assert a == pytest.approx(b, rel=0.2, abs=1e-6)
    assert one[f"oracle.{number}.unit"].values == pytest.approx([noise], rel=1e-6)
    assert one[f"oracle.{number}.scaled"].values == pytest.approx([times] * STEPS, rel=1e-6)


def test_a_drift_is_in_standard_errors_of_a_mean() -> None:
    noise, steady = 1e-4, 1e-5

    def change(run: str, step: Step) -> Step:
        value = 2.0 * (1 + noise * (-1) ** step.step)
        factor = 1 + steady if run.startswith("subject") else 1
        exact = run.startswith("oracle")
        return dataclasses.replace(step, loss=2.0 if exact else value * factor, grad_norm=1.0)

    drift = compared(change)["train.loss.drift"].values
    assert sum(drift) / STEPS == pytest.approx(steady * math.sqrt(STEPS) / noise, rel=1e-3)


@pytest.mark.parametrize("number", ["loss", "grad_norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("runs", [("reference-1",), ("oracle-1",)])
def test_without_a_finite_error_of_the_reference_nothing_is_within_any_number_of_them(
    number: str, value: float, runs: tuple[str, ...]
) -> None:
    found = compared(at(3, runs, **{number: value}))
    for name in (f"train.{number}.scaled", f"train.{number}.drift", f"lr_zero.{number}.scaled"):
        assert all(map(math.isnan, found[name].values)) and found[name].values


def test_an_exact_number_of_zero_is_no_unit_of_infinite_length() -> None:
    found = compared(at(3, (ORACLE,), loss=0.0))
    assert all(map(math.isnan, found["train.loss.scaled"].values))


def test_without_an_oracle_nothing_is_measured_in_errors_of_the_reference() -> None:
    found = compared(runs=tuple(name for name in REQUIRED_RUNS if name != ORACLE))
    for name in ("train.loss.scaled", "train.loss.drift", "lr_zero.loss.scaled", "oracle.loss.scaled"):
        assert (found[name].values, found[name].missing) == ((), "not run")


def test_a_step_that_the_subject_lacks_is_within_no_number_of_errors() -> None:
    found = apart(1e-4, 1e-4, steps=(1, 2, 3, 4, 5))["train.loss.scaled"].values
    assert len(found) == STEPS and math.isnan(found[-1])
