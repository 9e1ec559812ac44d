"""A fault that begins after the first step is named where it is: the step is looked into from the weights before it."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import mindspore as ms
import pytest

from harness.cases.case import Case, load_case
from harness.certify.case_options import with_fields
from harness.certify.diagnose import look_later
from harness.certify.flow import prepare
from harness.certify.jobs import Options
from harness.defects import Defect
from harness.defects.draw import Kind, draw, drawn_defects
from harness.diagnosis.diagnosis import Diagnosis
from harness.power.rates import named_rightly
from harness.power.record import Planted
from harness.runners.executor import Listener, no_listener, runs_of
from harness.runners.job import Job
from harness.runners.registry import load_runner
from harness.runners.worker import carry_out
from harness.runs.trace import Run
from harness.studies.reuse import recorded
from tests.support.examples import shorter
from tests.support.full import full

STEPS = 8


@pytest.fixture(scope="module", autouse=True)
def synchronous() -> Iterator[None]:
    ms.set_context(pynative_synchronize=True)
    yield
    ms.set_context(pynative_synchronize=False)


@pytest.fixture(scope="module")
def case() -> Case:
    small = shorter(load_case("qwen3-tiny-fp32"), STEPS, warmup_steps=1, lr_zero_steps=1, graph_mode=False)
    return with_fields(small, {"data": {"seq_length": 16, "global_batch_size": 2}})


class Here:
    """Carries out jobs in this process."""

    def execute(self, jobs: Sequence[Job], case: Case, listener: Listener = no_listener) -> list[Run]:
        for job in jobs:
            recorded(job, functools.partial(carry_out, job, load_runner(job.runner), resume=False))
        return runs_of(jobs)


def looked_at(case: Case, subject: str, step: int, directory: Path) -> Diagnosis:
    options = Options(out=directory / "begun", command=(), subject=subject)
    named, _ = prepare(case, (), options)
    return look_later(named, Options(out=directory / "later", command=(), subject=subject), options.out, step, Here())


def late(case: Case, kind: Kind) -> tuple[Defect, int]:
    """The first drawn fault of a kind that begins in the middle, and its step."""
    for number in itertools.count(1):
        fault = draw(number, case)
        if fault.kind == kind and 3 <= fault.first < STEPS:
            (defect,) = drawn_defects(1, case, first=number)
            return defect, fault.first
    raise AssertionError


LATE = "tests/parity/test_later_steps.py::test_a_fault_that_begins_late_is_named_in_its_step"
KINDS = [
    "output",
    "gradient-once",
    *(pytest.param(kind, marks=full(held_by=LATE)) for kind in ("gradient", "gradient-row")),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_that_begins_late_is_named_in_its_step(case: Case, tmp_path: Path, kind: Kind) -> None:
    defect, step = late(case, kind)
    found = looked_at(case, defect.runner, step, tmp_path)
    assert found.named is not None and found.named.reading is not None, defect.what
    assert found.step == step and found.sentence.startswith(f"step {step}, ")
    planted = Planted(
        defect=defect, case=case.name, named=found.named.place, sightings=(), rules={}, seconds=0.0, differs=True
    )
    assert named_rightly(planted), (defect.what, found.sentence)


def test_a_correct_subject_differs_nowhere_in_a_later_step(case: Case, tmp_path: Path) -> None:
    found = looked_at(case, "mindspore", STEPS, tmp_path)
    assert found.named is None and found.broken is None
    assert {reading.state for reading in found.readings} == {"agrees"} and len(found.readings) > 100
    assert [taps.differing for taps in found.taps.values()] == [()] * 3


def test_what_went_wrong_before_a_step_does_not_differ_in_it(case: Case, tmp_path: Path) -> None:
    """All sides begin with the weights that the subject has."""
    defect, step = late(case, "gradient-once")
    assert looked_at(case, defect.runner, step + 1, tmp_path).named is None
