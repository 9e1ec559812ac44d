"""The judge: nothing but a measured, finite value within its limit passes."""

import dataclasses
import math
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.comparison.catalogue import CATALOGUE
from harness.comparison.measurement import Comparison, Measurement
from harness.evidence.judge import Finding, Outcome, holds, judge, statistic
from harness.standards import Criterion, Limit, Standard

NAME = "train.loss.relative"
STATISTICS = ("first", "mean", "maximum", "minimum", "bias")
COMPARATORS = ("at_most", "below", "at_least")
FINITE = st.floats(allow_nan=False, allow_infinity=False)
NOT_FINITE = st.sampled_from([math.nan, math.inf, -math.inf])
VALUES = st.lists(st.floats(), min_size=1, max_size=8)
LIMITS = st.builds(
    Limit,
    measurement=st.just(NAME),
    statistic=st.sampled_from(STATISTICS),
    comparator=st.sampled_from(COMPARATORS),
    value=FINITE,
    reason=st.just("r"),
    source=st.just("s"),
)


def limit(value: float = 1.0, **changes: Any) -> Limit:
    return Limit(
        **{"measurement": NAME, "statistic": "maximum", "value": value, "reason": "r", "source": "s", **changes}
    )


def standard(*limits: Limit, **changes: Any) -> Standard:
    criterion = Criterion(id="c", title="The thing", limits=limits, **changes)
    return Standard(name="test", version=1, title="t", criteria=(criterion,))


def measurement(values: Any, name: str = NAME, **changes: Any) -> Measurement:
    return Measurement(name=name, places=tuple(range(1, len(values) + 1)), values=tuple(values), **changes)


def found(limits: Limit | tuple[Limit, ...], *measurements: Measurement, **changes: Any) -> Finding:
    limits = limits if isinstance(limits, tuple) else (limits,)
    comparison = Comparison(measurements={one.name: one for one in measurements})
    return judge(comparison, standard(*limits, **changes))[0]


@given(LIMITS, VALUES)
def test_a_pass_is_finite_and_within_its_limit(one: Limit, values: list[float]) -> None:
    judged = found(one, measurement(values)).judged[0]
    if judged.outcome is Outcome.PASS:
        assert judged.value is not None and math.isfinite(judged.value)
        assert {"at_most": judged.value <= one.value, "below": judged.value < one.value,
                "at_least": judged.value >= one.value}[one.comparator]  # fmt: skip
        looked_at = values[:1] if one.statistic == "first" else values
        assert all(map(math.isfinite, looked_at))


@given(LIMITS, st.lists(FINITE, max_size=4), st.lists(st.floats(), max_size=4), NOT_FINITE)
def test_not_a_number_never_passes(one: Limit, before: list[float], after: list[float], bad: float) -> None:
    values = [bad, *after] if one.statistic == "first" else [*before, bad, *after]
    assert found(one, measurement(values)).outcome is Outcome.FAIL


@given(LIMITS, VALUES)
def test_what_broke_never_passes(one: Limit, values: list[float]) -> None:
    finding = found(one, measurement(values, broken="it was killed"))
    assert finding.outcome in (Outcome.ERROR, Outcome.FAIL)
    assert "it was killed" in finding.message


@given(LIMITS, st.lists(st.floats(), max_size=4))
def test_what_is_missing_never_passes(one: Limit, values: list[float]) -> None:
    finding = found(one, measurement(values, missing="not run"))
    assert finding.outcome is Outcome.INCONCLUSIVE and "not run" in finding.message


@given(LIMITS)
def test_what_nothing_measures_is_an_error(one: Limit) -> None:
    assert found(one).outcome is Outcome.ERROR
    assert found(one, measurement([])).outcome is Outcome.INCONCLUSIVE
    assert found(one, measurement([], broken="b")).outcome is Outcome.ERROR


@given(st.sampled_from(STATISTICS[1:]), VALUES, st.randoms())
def test_order_does_not_matter_to_a_statistic(name: str, values: list[float], random: Any) -> None:
    shuffled = values.copy()
    random.shuffle(shuffled)
    a, b = statistic(name, values), statistic(name, shuffled)
    assert a == b or (math.isnan(a) and math.isnan(b))


@example("mean", [sys.float_info.max] * 3)
@given(st.sampled_from(STATISTICS), st.lists(FINITE, min_size=1, max_size=8))
def test_a_statistic_lies_between_its_values(name: str, values: list[float]) -> None:
    value = statistic(name, values)
    top = max(map(abs, values))
    assert abs(value) <= top or value == pytest.approx(top)


def test_statistics_by_hand() -> None:
    values = (3.0, -1.0, -5.0)
    assert [statistic(name, values) for name in STATISTICS] == [3.0, -1.0, 3.0, -5.0, 1.0]


def test_a_sum_beyond_every_float_is_no_number_within_a_limit() -> None:
    for name in ("mean", "bias"):
        assert found(limit(1.0, statistic=name), measurement([1.7e308, 1.7e308])).outcome is Outcome.FAIL


@given(st.floats(), LIMITS)
def test_only_finite_values_hold(value: float, one: Limit) -> None:
    assert not (holds(value, one) and not math.isfinite(value))


@pytest.mark.parametrize(("comparator", "at_limit"), [("at_most", True), ("below", False), ("at_least", True)])
def test_the_limit_itself(comparator: str, at_limit: bool) -> None:
    assert holds(1.0, limit(comparator=comparator)) is at_limit


def test_a_small_mean_hides_no_large_step() -> None:
    values = [0.0] * 99 + [2.0]
    assert found(limit(1.0, statistic="mean"), measurement(values)).outcome is Outcome.PASS
    assert found(limit(1.0), measurement(values)).outcome is Outcome.FAIL


@given(st.lists(st.sampled_from([0.5, 2.0]), min_size=1, max_size=4))
def test_a_criterion_is_met_where_one_of_its_limits_is(values: list[float]) -> None:
    measurements = [measurement([value], name=name) for name, value in zip(CATALOGUE, values, strict=False)]
    limits = tuple(limit(1.0, measurement=one.name) for one in measurements)
    assert found(limits, *measurements).outcome is (Outcome.PASS if 0.5 in values else Outcome.FAIL)


@given(LIMITS, st.sampled_from(["FAIL", "INCONCLUSIVE"]))
def test_unmet_gives_the_outcome_and_never_pass(one: Limit, unmet: Any) -> None:
    assert found(one, measurement([math.nan]), unmet=unmet).outcome is Outcome(unmet)


def test_the_message_locates_compares_and_names_the_rule() -> None:
    sides = ((4.0, 4.0), (4.0, 4.5))
    one = measurement([0.0, 0.125], sides=sides, between=("reference-1", "subject-1"))
    message = found(limit(1e-5), one).message
    assert message == (
        "The thing: largest 0.125, at most 1e-05 allowed (test); "
        "first beyond the limit at step 2: subject-1 has 4.5, reference-1 has 4"
    )


@pytest.mark.parametrize(
    ("differing", "message"),
    [
        (["rope_theta"], "; differs: rope_theta"),
        (["a", "b", "c", "d", "rope_theta"], "; differs: a, b, c and 2 more"),
    ],
)
def test_the_message_names_the_keys_that_differ(differing: list[str], message: str) -> None:
    places = (*differing, "same")
    one = Measurement(name="subject.initial.differs", places=places, values=(*[1.0] * len(differing), 0.0))
    assert found(limit(0.0, measurement="subject.initial.differs"), one).message.endswith(message)


def test_the_worst_place_is_not_a_number_before_any_number() -> None:
    judged = found(limit(), measurement([0.5, math.nan, math.inf, 9.0])).judged[0]
    assert (judged.worst, judged.first_beyond) == (2, 2)


def test_the_message_states_which_part_of_the_worst_place_differs() -> None:
    tensors = dataclasses.replace(
        measurement([1.0, 3.0]), places=("a", "b"), within={"a": "row 1", "b": "query head 3"}
    )
    assert "worst: b, query head 3" in found(limit(2.0), tensors).message


def test_the_worst_of_what_must_be_at_least_is_the_smallest() -> None:
    one = limit(1.0, statistic="minimum", comparator="at_least")
    assert found(one, measurement([3.0, 0.5, 2.0])).judged[0].worst == 2


def test_every_criterion_has_its_finding_in_order() -> None:
    criteria = tuple(Criterion(id=f"c{n}", title="t", limits=(limit(),)) for n in range(3))
    many = dataclasses.replace(Comparison(measurements={}))
    findings = judge(many, Standard(name="test", version=1, title="t", criteria=criteria))
    assert [finding.criterion for finding in findings] == ["c0", "c1", "c2"]
