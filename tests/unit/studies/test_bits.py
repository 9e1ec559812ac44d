"""What a subject computed is compared by bits, and by nothing else."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.cases.case import Case
from harness.certify.jobs import Options
from harness.runners.executor import Listener, no_listener
from harness.runners.job import Job
from harness.runs.trace import Run, Trace
from harness.studies.bench import Bench, correct_bits
from harness.studies.bits import bits_of
from tests.support.bundles import write_example
from tests.support.examples import small_case
from tests.support.tapped import correct, tapped


def run(**changes: Any) -> Run:
    """A finished run; `changes` are those of its trace."""
    found = tapped("subject", correct("subject")).run
    assert found.trace is not None
    return dataclasses.replace(found, trace=dataclasses.replace(found.trace, **changes))


TRACE = run().trace
assert TRACE is not None and TRACE.footer is not None
LOSS = TRACE.steps[2].loss


def with_step(**changes: Any) -> tuple[Any, ...]:
    assert TRACE is not None
    steps = list(TRACE.steps)
    steps[2] = dataclasses.replace(steps[2], **changes)
    return tuple(steps)


def test_runs_that_differ_in_their_runner_alone_computed_the_same() -> None:
    assert TRACE is not None and TRACE.footer is not None
    other = run(
        header=dataclasses.replace(TRACE.header, runner="another:Runner"),
        footer=dataclasses.replace(TRACE.footer, lines="another digest"),
    )
    assert bits_of([run()]) == bits_of([other])


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": with_step(loss=LOSS * (1 + 2**-52))},
        {"steps": with_step(grad_norm=2.0 + 2**-51)},
        {"steps": with_step(learning_rate=0.0)},
        {"steps": TRACE.steps[:-1]},
        {"footer": dataclasses.replace(TRACE.footer, parameters={"model.norm.weight": "another digest"})},
        {"footer": dataclasses.replace(TRACE.footer, watched="another digest")},
        {"footer": None},
        {"header": dataclasses.replace(TRACE.header, initial={"model.norm.weight": "another digest"})},
        {"header": dataclasses.replace(TRACE.header, alignment={})},
    ],
)
def test_one_bit_of_what_a_run_left_is_another_run(changes: dict[str, Any]) -> None:
    assert bits_of([run()]) != bits_of([run(**changes)])


def test_a_run_without_a_trace_computed_nothing() -> None:
    assert bits_of([run()]) != bits_of([dataclasses.replace(run(), trace=None)])


class Executor:
    """Carries out every job with the same result, and remembers them."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def execute(self, jobs: Sequence[Job], case: Case, listener: Listener = no_listener) -> list[Run]:
        self.jobs += jobs
        return [dataclasses.replace(run(), name=job.run) for job in jobs]


def test_the_correct_subject_makes_its_runs_once_for_a_case(tmp_path: Path) -> None:
    case, inputs = small_case(), write_example(tmp_path / "b", case=small_case()).inputs
    (tmp_path / "plain" / "inputs").mkdir(parents=True)
    bench = Bench(
        case=case, inputs=inputs, standards=(), options=Options(out=tmp_path, command=(), subject="mine.py:Mine"),
        plain=tmp_path / "plain", tapped=None,
    )  # fmt: skip
    executor = Executor()
    first = correct_bits(bench, executor)
    assert {(job.runner, job.side) for job in executor.jobs} == {(case.task.subject, "subject")}
    assert set(first) == {job.run for job in executor.jobs} >= {"subject-1", "subject-2", "subject-probe"}
    made = len(executor.jobs)
    assert correct_bits(bench, executor) == first and len(executor.jobs) == made
    assert not (tmp_path / "correct").exists()


def test_the_type_of_a_trace_has_all_of_it() -> None:
    """A field that a trace gets later is one to compare."""
    compared = {"header", "steps", "footer", "scored"}
    assert {field.name for field in dataclasses.fields(Trace)} == compared
