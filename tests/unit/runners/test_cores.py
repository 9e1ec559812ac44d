"""The cores that a run is held to."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cases.runs_of_a_case import SUBJECT
from harness.certify.flow import prepare
from harness.certify.jobs import job
from harness.runners import cores
from harness.runners.launcher import Launcher
from tests.support.examples import ROOT, options, text_case

CORES = sorted(os.sched_getaffinity(0))
SEVERAL = pytest.mark.skipif(len(CORES) < 2, reason="this machine has one core, so nothing can be held to fewer")
# A process that starts another, and says so.
PARENT = "import subprocess; subprocess.Popen(['sleep', '60']); print('started', flush=True); input()"


@pytest.fixture
def sleeping() -> Iterator["list[subprocess.Popen[bytes]]"]:
    processes = [subprocess.Popen(["sleep", "60"]) for _ in CORES]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


@SEVERAL
def test_processes_are_held_to_the_cores_that_fewest_are_held_to(sleeping: "list[subprocess.Popen[bytes]]") -> None:
    for process in sleeping:
        cores.hold(process.pid, 1)
    held = [os.sched_getaffinity(process.pid) for process in sleeping]
    assert all(len(one) == 1 for one in held)
    # other processes of this machine may be held too, but none to all of these cores
    assert len(set.union(*held)) > 1


@SEVERAL
def test_what_a_process_has_started_is_held_with_it() -> None:
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    process.stdout.readline()
    cores.hold(process.pid, 1)
    (child,) = (cores.PROCESSES / f"{process.pid}/task/{process.pid}/children").read_text().split()
    assert os.sched_getaffinity(int(child)) == os.sched_getaffinity(process.pid)
    os.kill(int(child), 9)
    process.communicate(b"\n")


def test_a_run_of_as_many_threads_as_there_are_cores_is_not_held(sleeping: "list[subprocess.Popen[bytes]]") -> None:
    cores.hold(sleeping[0].pid, len(CORES))
    assert os.sched_getaffinity(sleeping[0].pid) == set(CORES)


def test_a_process_that_has_ended_is_left_alone() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    cores.hold(process.pid, 1)


def test_a_run_states_how_many_cores_it_was_held_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    asked = options(tmp_path / "out")
    case, _ = prepare(text_case(tmp_path), (), asked)
    (run,) = Launcher(workers=1).execute([job(case, asked, SUBJECT)], case)
    assert run.trace is not None and run.trace.header.provenance["cores"] == 1
