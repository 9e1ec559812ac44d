"""The probes of elementary operators: exact by themselves, and a bias is seen for what it is."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.comparison.measurement import Comparison
from harness.comparison.operators import NOT_SHOWN, biased, of_operators
from harness.evidence.judge import Outcome
from harness.evidence.summary import remarks
from harness.runs.operators import PROBES, probed
from harness.runs.watched import OPERATOR
from tests.support.bundles import write_example
from tests.unit.comparison.test_training_comparison import make_run

Operator = Callable[..., np.ndarray]


def in_float32(name: str) -> Operator:
    """The exact result, rounded once."""
    return lambda *inputs: PROBES[name].exact(*(one.astype(np.float64) for one in inputs)).astype(np.float32)


@pytest.mark.parametrize("name", PROBES)
def test_an_operator_that_rounds_once_has_no_bias(name: str) -> None:
    bias, error, largest = probed(in_float32(name), name)
    assert abs(bias) < 1e-8 and abs(bias) <= error <= largest < 2.0**-23


@pytest.mark.parametrize("name", PROBES)
def test_a_bias_is_measured_as_large_as_it_is(name: str) -> None:
    bias, _, _ = probed(lambda *inputs: in_float32(name)(*inputs).astype(np.float64) * (1 - 1e-6), name)
    exact = PROBES[name].exact(*(one.astype(np.float64) for one in PROBES[name].inputs()))
    if (exact > 0).all() and PROBES[name].size is None:
        assert bias == pytest.approx(-1e-6, rel=0.05)


def measured(subject: Operator, name: str = "exp") -> Comparison:
    runs = {probe: make_run(probe) for probe in ("reference-probe", "subject-probe")}
    steps = {
        "reference-probe": {f"{OPERATOR}{name}": probed(in_float32(name), name)},
        "subject-probe": {f"{OPERATOR}{name}": probed(subject, name)},
    }
    return Comparison(measurements={one.name: one for one in of_operators(runs, steps)})


def test_a_biased_operator_is_named_with_what_to_use() -> None:
    (sentence,) = biased(measured(lambda x: in_float32("exp")(x).astype(np.float64) * (1 - 1e-6)))
    assert "of the subject's framework are off on average: exp by -1e-06" in sentence and "expm1" in sentence
    assert list(biased(measured(in_float32("exp")))) == []


def test_an_operator_that_gives_no_number_is_named() -> None:
    assert len(list(biased(measured(lambda x: np.full(x.shape, np.nan))))) == 1


def test_operators_that_no_runner_showed_are_missing() -> None:
    runs = {probe: make_run(probe) for probe in ("reference-probe", "subject-probe")}
    assert {one.missing for one in of_operators(runs, {})} == {NOT_SHOWN}


@pytest.mark.parametrize(("ratio", "said"), [(5.0, 1), (500.0, 0)])
def test_operators_are_remarked_on_where_one_can_be_the_cause(tmp_path: Path, ratio: float, said: int) -> None:
    """What is hundreds of the reference's errors off is no rounding."""
    bundle = write_example(tmp_path)
    (finding,) = [one for one in bundle.findings if one.criterion == "oracle-loss-maximum"]
    failed = tuple(dataclasses.replace(one, outcome=Outcome.FAIL, value=ratio) for one in finding.judged)
    comparison = measured(lambda x: in_float32("exp")(x).astype(np.float64) * (1 - 1e-6))
    finding = dataclasses.replace(finding, outcome=Outcome.FAIL, judged=failed)
    assert len(remarks(dataclasses.replace(bundle, comparison=comparison, findings=(finding,)))) == said
