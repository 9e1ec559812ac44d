"""Executors: whichever carries out the jobs of a case, the same runs are left and returned."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from harness.cases.case import Case
from harness.certify.flow import prepare
from harness.certify.jobs import job
from harness.evidence.bundle import read_run
from harness.runners.executor import Executor
from harness.runners.job import Job
from harness.runners.launcher import Launcher
from harness.runs.files import TRACE
from harness.runs.trace import Trace
from harness.studies.pool import Pool
from tests.support.examples import ROOT, options, text_case

NAMES = ("reference-1", "reference-2", "reference-lr0")


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    named, _ = prepare(text_case(tmp_path), (), options(tmp_path / "out"))
    return named


EXECUTORS: dict[str, Callable[[Path], AbstractContextManager[Executor]]] = {
    "launcher": lambda directory: nullcontext(Launcher(workers=2)),
    "pool": lambda directory: Pool(1, directory / "log.txt"),
}


@pytest.fixture(params=EXECUTORS)
def executor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Executor]:
    with EXECUTORS[request.param](tmp_path) as one:
        yield one


def jobs(case: Case, out: Path, **runners: Any) -> list[Job]:
    return [job(case, options(out, reference=runners.get(name, "Fake")), name) for name in NAMES]


def test_the_runs_come_back_in_the_order_of_the_jobs_and_as_their_directories_hold_them(
    executor: Executor, case: Case, tmp_path: Path
) -> None:
    asked = jobs(case, tmp_path / "out")
    runs = executor.execute(asked, case)
    assert [run.name for run in runs] == list(NAMES)
    assert runs == [read_run(Path(one.directory)) for one in asked]
    assert [run.outcome.status for run in runs] == ["completed"] * 3


def test_a_run_that_breaks_is_an_outcome_and_the_others_go_on(executor: Executor, case: Case, tmp_path: Path) -> None:
    broken, *others = executor.execute(jobs(case, tmp_path / "out", **{"reference-1": "Crashes"}), case)
    assert broken.outcome.status == "crashed" and "the device is on fire" in broken.outcome.log_tail
    assert [run.outcome.status for run in others] == ["completed"] * 2


def test_a_listener_takes_every_run_up_to_its_last_step(executor: Executor, case: Case, tmp_path: Path) -> None:
    seen: dict[str, Trace] = {}
    runs = executor.execute(jobs(case, tmp_path / "out"), case, seen.__setitem__)
    assert seen == {run.name: run.trace for run in runs}


def test_all_executors_leave_the_same_bytes(case: Case, tmp_path: Path) -> None:
    traces = []
    for name, make in EXECUTORS.items():
        named, _ = prepare(text_case(tmp_path), (), options(tmp_path / name))
        with make(tmp_path) as executor:
            executor.execute(jobs(named, tmp_path / name), named)
        traces.append([(tmp_path / name / "runs" / run / TRACE).read_bytes() for run in NAMES])
    assert traces[0] == traces[1]
