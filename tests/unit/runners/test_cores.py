"""The cores that a run is held to."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from harness.cases.runs_of_a_case import SUBJECT
from harness.certify.flow import prepare
from harness.certify.jobs import job
from harness.runners import cores
from harness.runners.job import Job
from harness.runners.launcher import Launcher
from harness.runners.starting import Process
from tests.support.examples import ROOT, options, text_case

CORES = sorted(os.sched_getaffinity(0))


@pytest.fixture
def reserved() -> Iterator[list[tuple[int, ...]]]:
    kept: list[tuple[int, ...]] = []
    yield kept
    for one in kept:
        cores.release(one)


FOUR = {0, 1, 2, 3}


def test_runs_of_one_thread_are_spread_over_the_cores(
    reserved: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: FOUR)
    reserved += [cores.reserve(1) for _ in range(2 * len(FOUR))]
    assert Counter(core for one in reserved for core in one) == dict.fromkeys(FOUR, 2)


def test_a_core_that_another_command_has_a_run_on_comes_last(
    reserved: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2} if pid else FOUR)
    reserved += [cores.reserve(1) for _ in FOUR]
    assert reserved[-1] == (2,)


def test_a_run_of_as_many_threads_as_there_are_cores_is_not_held() -> None:
    assert cores.reserve(len(CORES)) == ()
    cores.hold(())
    assert sorted(os.sched_getaffinity(0)) == CORES


def test_what_a_held_process_starts_is_held_too() -> None:
    code = f"from harness.runners import cores; import subprocess; cores.hold([{CORES[-1]}]); subprocess.run(['nproc'])"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert said.stdout == "1\n"


def test_a_run_states_how_many_cores_it_was_held_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    asked = options(tmp_path / "out")
    case, _ = prepare(text_case(tmp_path), (), asked)
    (run,) = Launcher(workers=1).execute([job(case, asked, SUBJECT)], case)
    assert run.trace is not None and run.trace.header.provenance["cores"] == 1


def test_a_run_that_cannot_be_started_gives_its_cores_back(
    tmp_path: Path, reserved: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(job: Job, job_file: Path, log: BinaryIO) -> Process:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: FOUR)
    asked = options(tmp_path / "out")
    case, _ = prepare(text_case(tmp_path), (), asked)
    for _ in range(2 * len(FOUR) - 1):  # which of equals is chosen is chance, so often
        with pytest.raises(BlockingIOError):
            Launcher(workers=1, start=start).execute([job(case, asked, SUBJECT)], case)
        reserved[:] = [cores.reserve(1) for _ in FOUR]
        assert sorted(core for one in reserved for core in one) == sorted(FOUR)
        for one in reserved:
            cores.release(one)
    reserved.clear()
