"""Every step after the first is looked at: a fault that begins late, or lasts for one step, is seen there and named."""

import math
from collections.abc import Mapping

import numpy as np
import pytest

from harness.cases.runs_of_a_case import ORACLE, REFERENCE, SUBJECT
from harness.comparison.measurement import Measurement
from harness.comparison.watched import NO_MOMENTS, NOT_WATCHED, of_steps
from harness.runs.sketches import recorded
from harness.runs.trace import Run
from harness.runs.watched import CHANGED, MOMENTS, PARAMETERS, gradients_at, updates_at
from tests.unit.comparison.test_training_comparison import make_run

STEPS, NAMES, BETA, ERROR = 60, tuple("abcdef"), 0.9, 1e-6
EXAMINED = (3, 40)
Arrays = dict[str, np.ndarray]
RUNS: Mapping[str, Run] = {name: make_run(name) for name in (ORACLE, REFERENCE, SUBJECT)}


def gradients(seed: int | None) -> dict[str, np.ndarray]:
    """The parts of the gradients of each step, exact or with rounding errors."""
    exact = {name: np.random.RandomState(number).standard_normal(STEPS) for number, name in enumerate(NAMES)}
    if seed is None:
        return exact
    random = np.random.RandomState(100 + seed)
    return {name: values * (1 + ERROR * random.standard_normal(STEPS)) for name, values in exact.items()}


def side(parts: Mapping[str, np.ndarray], moments: bool = True) -> Arrays:
    """What a run leaves whose gradients have these parts, and whose updates are a hundredth of them."""
    left: Arrays = {}
    for name, values in parts.items():
        moment = [0.0]
        for value in values:
            moment.append(BETA * moment[-1] + (1 - BETA) * value)
        left[f"{PARAMETERS}{name}"] = np.concatenate(([1.0], 1.0 - np.cumsum(values) / 100))
        if moments:
            left[f"{MOMENTS}{name}"] = np.array(moment)
        for step in EXAMINED:
            for prefix in (gradients_at(step), updates_at(step)):
                left |= recorded(f"{prefix}{name}", np.full(4, values[step - 1]))
        left |= recorded(f"{CHANGED}{name}", np.full(4, values.sum()))
    return left


def measured(
    subject: Mapping[str, np.ndarray], *, exact: bool = True, examined: tuple[int, ...] = EXAMINED, moments: bool = True
) -> dict[str, Measurement]:
    left = {ORACLE: side(gradients(None)), REFERENCE: side(gradients(1)), SUBJECT: side(subject, moments)}
    found = of_steps(RUNS, left, examined=examined, beta=BETA, exact=exact)
    return {one.name: one for one in found}


def test_two_correct_sides_are_about_one_error_of_the_reference_apart_at_every_step() -> None:
    found = measured(gradients(2))
    for what in ("gradients", "updates"):
        ratios = found[f"oracle.step_{what}.ratio"]
        assert ratios.places == tuple(range(1, STEPS + 1)) and max(ratios.values) < 3.5
        assert max(found[f"train.step_{what}.relative"].values) < 10 * ERROR


@pytest.mark.parametrize("step", [2, 3, 17, STEPS])
@pytest.mark.parametrize("factor", [1.001, 2.0])
def test_a_gradient_that_is_wrong_in_one_step_is_seen_there_with_its_tensor(step: int, factor: float) -> None:
    wrong = gradients(2)
    wrong["d"][step - 1] *= factor
    ratios = measured(wrong)["oracle.step_gradients.ratio"]
    beyond = [place for place, value in zip(ratios.places, ratios.values, strict=True) if value > 10]
    assert beyond[0] == step and ratios.within[step] == "d"


def test_an_examined_step_names_its_tensor() -> None:
    wrong = gradients(2)
    wrong["b"][39] *= 1.01
    found = measured(wrong)
    for name in ("oracle.examined_gradients.ratio", "train.examined_updates.relative"):
        one = found[name]
        assert one.places[int(np.argmax(one.values))] == "step 40, b" and len(one.places) == len(EXAMINED) * len(NAMES)


def test_one_wrong_update_stands_out_in_the_change_of_its_tensor() -> None:
    wrong = gradients(2)
    wrong["e"][20] *= 1.1
    one = measured(wrong)["oracle.change.ratio"]
    assert one.places[int(np.argmax(one.values))] == "e" and max(one.values) > 100


def test_a_tensor_of_coarse_rounding_hides_no_other() -> None:
    """Of a norm's weight near one, each update is rounded as coarsely on both sides."""
    coarse = 3e-3 * np.random.RandomState(7).standard_normal(STEPS)
    sides = {name: gradients(seed) for name, seed in ((ORACLE, None), (REFERENCE, 1), (SUBJECT, 2))}
    for name in (REFERENCE, SUBJECT):
        sides[name]["a"] = sides[name]["a"] * (1 + coarse)
    sides[SUBJECT]["c"][30] *= 1.001
    left = {name: side(parts) for name, parts in sides.items()}
    found = {one.name: one for one in of_steps(RUNS, left, examined=EXAMINED, beta=BETA, exact=True)}
    assert found["oracle.step_gradients.ratio"].values[30] > 100
    assert found["oracle.step_gradients.ratio"].within[31] == "c"


def test_a_series_that_ends_early_is_not_a_number_from_there_on() -> None:
    short = {name: values[:20] for name, values in gradients(2).items()}
    left = {ORACLE: side(gradients(None)), REFERENCE: side(gradients(1))}
    left[SUBJECT] = {name: one[:21] for name, one in side(gradients(2)).items() if one.ndim == 1 and len(one) > STEPS}
    assert len(short["a"]) == 20
    found = {one.name: one for one in of_steps(RUNS, left, examined=EXAMINED, beta=BETA, exact=True)}
    values = found["oracle.step_gradients.ratio"].values
    assert [math.isnan(value) for value in values] == [False] * 20 + [True] * (STEPS - 20)
    assert all(map(math.isnan, found["oracle.examined_gradients.ratio"].values))


def test_a_tensor_that_one_side_lacks_is_not_a_number() -> None:
    lacking = {name: values for name, values in gradients(2).items() if name != "f"}
    found = measured(lacking)
    assert all(map(math.isnan, found["oracle.step_updates.ratio"].values))
    assert any(map(math.isnan, found["oracle.change.ratio"].values))


def test_what_was_not_looked_at_is_said_to_be_so() -> None:
    assert measured(gradients(2), examined=())["oracle.step_gradients.ratio"].missing == NOT_WATCHED
    without = measured(gradients(2), moments=False)
    assert without["train.step_gradients.relative"].missing == NO_MOMENTS
    assert without["train.step_updates.relative"].missing is None
    probed = measured(gradients(2), exact=False)
    assert probed["oracle.step_updates.ratio"].missing == "the oracle took no steps"
    assert max(probed["train.step_updates.relative"].values) < 10 * ERROR
