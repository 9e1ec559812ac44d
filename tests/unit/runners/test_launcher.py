"""Runs as processes: how each end is seen, what a kill leaves, and that nothing is left behind."""

import contextlib
import ctypes
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.base import ascend
from harness.base.errors import InputError
from harness.base.records import write_json
from harness.cases.case import Case
from harness.certify.flow import prepare
from harness.certify.jobs import job, job_of
from harness.corpus.draw import draw_weights
from harness.evidence.bundle import read_run
from harness.runners import devices
from harness.runners.job import Job
from harness.runners.launcher import Launcher, finished
from harness.runners.protocol import Setting, Taps
from harness.runners.registry import find_runner, load_runner
from harness.runners.starting import variables
from harness.runners.tapping import tap
from harness.runs.inputs import BATCHES, WEIGHTS
from harness.runs.taps import read_taps
from harness.runs.trace import Run, Trace
from tests.support.ascend_machines import Machine, set_up
from tests.support.examples import FAKES, ROOT, options, text_case
from tests.support.fake_runners import AT, FLAG, Fake
from tests.support.processes import processes_of, until

Prepared = tuple[Case, Path]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(FLAG, str(tmp_path / "happened"))


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return begin(tmp_path)


def begin(directory: Path, **training: float) -> Prepared:
    out = directory / "out"
    case, inputs = prepare(text_case(directory, **training), (), options(out))
    write_json(out / "inputs.json", vars(inputs))
    return case, out


def jobs(prepared: Prepared, subject: str, *names: str, resume: bool = False) -> list[Job]:
    case, out = prepared
    asked = options(out, subject=subject, resume=resume)
    return [job(case, asked, name) for name in names or ("subject-1",)]


def take(prepared: Prepared, subject: str, *names: str, resume: bool = False) -> Run:
    """Runs the fake as the named runs and gives the first of them."""
    asked = jobs(prepared, subject, *names, resume=resume)
    return Launcher(workers=2).execute(asked, prepared[0])[0]


def sessions_of(pids: list[int]) -> set[int]:
    return {os.getsid(pid) for pid in pids}


def members(session: int) -> list[int]:
    """The living processes of a session, also those that a run started itself."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, _, _, sid = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(sid) == session and state != "Z":
                found.append(int(entry.name))
    return found


def bytes_of(run: str, prepared: Prepared) -> bytes:
    return (prepared[1] / "runs" / run / "trace.jsonl").read_bytes()


def test_a_run_that_took_all_steps_is_completed(prepared: Prepared) -> None:
    run = take(prepared, "Fake")
    assert (run.outcome.status, run.outcome.last_step, run.outcome.log_tail) == ("completed", 8, "")
    assert run.trace is not None and run.trace.complete
    assert not (prepared[1] / "runs" / "subject-1" / "checkpoint").exists()


def test_a_run_records_how_long_its_steps_were_compiled(prepared: Prepared) -> None:
    assert take(prepared, "Compiles").outcome.status == "completed"
    lines = (prepared[1] / "runs" / "subject-1" / "timing.jsonl").read_text().splitlines()
    first, *steps, last = map(json.loads, lines)
    assert first["compile_seconds"] >= 0.2 and [line["step"] for line in steps] == list(range(1, 9))
    assert last["phase"] == "final parameters" and last["peak_mib"] > 10
    assert all(line["seconds"] < 0.2 for line in steps), "no step includes it"


def test_a_run_states_the_digests_of_what_it_read(prepared: Prepared) -> None:
    case, _ = prepared
    run = take(prepared, "Fake")
    assert run.trace is not None
    header = run.trace.header
    assert (header.case, header.steps, header.side, header.arm) == (case.digest(), 8, "subject", "train")
    assert header.runner == f"{FAKES}:Fake"


def test_the_same_run_gives_the_same_bytes_in_a_fresh_process(prepared: Prepared) -> None:
    take(prepared, "Fake", "subject-1", "subject-2")
    first, second = (bytes_of(run, prepared).split(b"\n") for run in ("subject-1", "subject-2"))
    assert first[1:-2] == second[1:-2]


def test_another_file_of_weights_shows_in_the_trace(prepared: Prepared) -> None:
    before = take(prepared, "Fake").trace
    weights = prepared[1] / "inputs" / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    after = take(prepared, "Fake", "subject-2").trace
    assert before is not None and after is not None
    assert before.header.weights != after.header.weights and before.header.batches == after.header.batches


def test_a_cut_file_of_batches_is_a_crash_and_no_trace(prepared: Prepared) -> None:
    batches = prepared[1] / "inputs" / BATCHES
    batches.write_bytes(batches.read_bytes()[:-1])
    run = take(prepared, "Fake")
    assert (run.outcome.status, run.trace) == ("crashed", None)
    assert "cannot be read" in run.outcome.log_tail


def test_an_error_that_is_explained_at_length_is_still_named(prepared: Prepared) -> None:
    tail = take(prepared, "ExplainsAtLength").outcome.log_tail
    assert tail.startswith("NameError: it is not defined") and tail.endswith("# 59 in the graph")


def test_a_crash_says_at_which_step_and_why(prepared: Prepared) -> None:
    run = take(prepared, "Crashes")
    assert run.outcome.status == "crashed" and run.outcome.detail == "ended with exit code 1 after step 4 of 8"
    assert run.outcome.log_tail.endswith("RuntimeError: the device is on fire")
    assert run.trace is not None and (len(run.trace.steps), run.trace.footer) == (AT - 1, None)


def test_a_crash_at_the_start_has_no_trace(prepared: Prepared) -> None:
    run = take(prepared, "CannotStart")
    assert run.outcome.detail == "ended with exit code 1 before its first step"
    assert (run.outcome.status, run.trace) == ("crashed", None)


def test_a_runner_that_cannot_be_imported_is_a_crash(prepared: Prepared) -> None:
    run = take(prepared, "NoSuchClass")
    assert run.outcome.status == "crashed" and "NoSuchClass" in run.outcome.log_tail


def test_exit_code_0_without_a_whole_trace_is_a_crash(prepared: Prepared) -> None:
    run = take(prepared, "LeavesWithZero")
    assert (run.outcome.status, run.outcome.detail) == ("crashed", "ended with exit code 0 after step 4 of 8")


def test_a_kill_is_named_by_its_signal(prepared: Prepared) -> None:
    run = take(prepared, "Killed")
    assert (run.outcome.status, run.outcome.detail) == ("crashed", "killed by SIGKILL after step 4 of 8")


@pytest.mark.parametrize(("fake", "number"), [("NotANumber", "loss nan"), ("InfiniteNorm", "grad_norm inf")])
def test_a_run_ends_at_its_first_number_that_is_not_finite(prepared: Prepared, fake: str, number: str) -> None:
    run = take(prepared, fake)
    assert run.outcome.status == "non_finite" and number in run.outcome.detail
    assert run.trace is not None and len(run.trace.steps) == AT and not run.trace.complete


def test_a_run_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    prepared = begin(tmp_path, step_timeout_s=3.0)
    seen: set[int] = set()

    def note(name: str, trace: Trace) -> None:
        seen.update(sessions_of(processes_of(prepared[1])))

    asked = jobs(prepared, "Hangs")
    Launcher(workers=1).execute(asked, prepared[0], note)
    outcome = read_run(Path(asked[0].directory)).outcome
    assert (outcome.status, outcome.last_step) == ("hung", AT - 1)
    assert outcome.detail == "hung: no step within 3 s after step 4; the process was ended"
    assert seen and not [pid for session in seen for pid in members(session)]


def test_a_run_that_hangs_before_its_first_step_is_ended(tmp_path: Path) -> None:
    run = take(begin(tmp_path, start_timeout_s=1.0), "HangsAtStart")
    assert run.outcome.status == "hung" and "no first step within 1 s" in run.outcome.detail


def test_one_broken_run_does_not_stop_the_others(prepared: Prepared) -> None:
    case, out = prepared
    asked = [*jobs(prepared, "Crashes"), *jobs(prepared, "Fake", "subject-2", "subject-lr0")]
    Launcher(workers=2).execute(asked, case)
    ends = {name: read_run(out / "runs" / name).outcome.status for name in ("subject-1", "subject-2", "subject-lr0")}
    assert ends == {"subject-1": "crashed", "subject-2": "completed", "subject-lr0": "completed"}


def test_learning_rate_zero_leaves_the_weights(prepared: Prepared) -> None:
    run = take(prepared, "Fake", "subject-lr0")
    assert run.trace is not None and {step.learning_rate for step in run.trace.steps} == {0.0}
    assert len(run.trace.steps) == 3


def test_resume_after_a_kill_gives_the_bytes_of_an_uninterrupted_run(prepared: Prepared) -> None:
    Path(os.environ[FLAG]).touch()
    assert take(prepared, "KilledOnce").outcome.status == "completed"
    whole = bytes_of("subject-1", prepared)
    kept = (prepared[1] / "tensors" / "subject-1.safetensors").read_bytes()
    Path(os.environ[FLAG]).unlink()
    assert take(prepared, "KilledOnce").outcome.status == "completed", "finished before, so not run again"
    for path in (prepared[1] / "runs" / "subject-1").glob("*.json*"):
        path.unlink()
    assert take(prepared, "KilledOnce").outcome.status == "crashed"
    resumed = take(prepared, "KilledOnce", resume=True)
    assert (resumed.outcome.status, resumed.outcome.resumed_after) == ("completed", (3,))
    assert bytes_of("subject-1", prepared) == whole
    assert (prepared[1] / "tensors" / "subject-1.safetensors").read_bytes() == kept


def test_resume_after_a_line_that_was_cut_gives_the_same_bytes(prepared: Prepared) -> None:
    Path(os.environ[FLAG]).touch()
    take(prepared, "KilledOnce")
    whole = bytes_of("subject-1", prepared)
    Path(os.environ[FLAG]).unlink()
    (prepared[1] / "runs" / "subject-1" / "outcome.json").unlink()
    assert take(prepared, "KilledOnce").outcome.status == "crashed"
    trace = prepared[1] / "runs" / "subject-1" / "trace.jsonl"
    trace.write_bytes(trace.read_bytes()[:-9])
    assert take(prepared, "KilledOnce", resume=True).outcome.resumed_after == (3,)
    assert bytes_of("subject-1", prepared) == whole


def test_without_resume_a_broken_run_begins_again(prepared: Prepared) -> None:
    assert take(prepared, "KilledOnce").outcome.status == "crashed"
    again = take(prepared, "KilledOnce")
    assert (again.outcome.status, again.outcome.resumed_after) == ("completed", ())


def test_resume_does_not_take_up_the_run_of_another_runner(prepared: Prepared) -> None:
    assert take(prepared, "KilledOnce").outcome.status == "crashed"
    run = take(prepared, "Fake", resume=True)
    assert (run.outcome.status, run.outcome.resumed_after) == ("completed", ())
    assert run.trace is not None and run.trace.header.runner == f"{FAKES}:Fake"


def test_an_edited_trace_is_not_a_finished_run(prepared: Prepared) -> None:
    take(prepared, "Fake")
    asked = jobs(prepared, "Fake")[0]
    assert finished(asked)
    trace = Path(asked.directory) / "trace.jsonl"
    trace.write_bytes(trace.read_bytes().replace(b'"step":3', b'"step":4'))
    assert not finished(asked)


def interrupted(prepared: Prepared, number: int) -> None:
    """Runs something endless in this process, and has it sent a signal once it took its steps."""
    waiting = [f"import os, time; time.sleep(0.3); os.kill({os.getpid()}, {number})"]
    started: list[subprocess.Popen[bytes]] = []

    def send(name: str, trace: Trace) -> None:
        if len(trace.steps) == AT - 1 and not started:
            started.append(subprocess.Popen([sys.executable, "-c", *waiting]))

    try:
        Launcher(workers=2).execute(jobs(prepared, "HangsOnce", "subject-1"), prepared[0], send)
    finally:
        for process in started:
            process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_process_and_a_run_that_goes_on(prepared: Prepared, number: int) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        interrupted(prepared, number)
    assert processes_of(prepared[1]) == []
    assert signal.getsignal(signal.SIGTERM) is handler
    run = read_run(prepared[1] / "runs" / "subject-1")
    assert (run.outcome.status, run.outcome.detail) == ("interrupted", "interrupted after step 4")
    assert take(prepared, "HangsOnce", resume=True).outcome.status == "completed"


LAUNCH = """
import sys
from pathlib import Path
from harness.base.records import read_json
from harness.cases import parse_case
from harness.certify.jobs import job, job_of
from harness.runners.launcher import Launcher
from tests.support.examples import options
out = Path(sys.argv[1])
case = parse_case(read_json(out / "case.json"), "case")
jobs = [job(case, options(out, subject=sys.argv[2]), name) for name in ("subject-1", "subject-2")]
Launcher(workers=2).execute(jobs, case)
"""


@pytest.fixture
def reaper() -> Iterator[None]:
    """This process takes orphans in, as a service manager does: their parent is then not process 1."""
    set_reaper = 36  # PR_SET_CHILD_SUBREAPER, linux/prctl.h
    ctypes.CDLL(None).prctl(set_reaper, 1)
    yield
    ctypes.CDLL(None).prctl(set_reaper, 0)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@pytest.mark.parametrize("seen", ["as soon as it is started", "in the middle of a step"])
def test_a_killed_parent_leaves_no_orphan(prepared: Prepared, reaper: None, seen: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", LAUNCH, str(prepared[1]), "HangsAtStart"], cwd=ROOT)

    def runs() -> list[int]:
        return [pid for pid in processes_of(prepared[1] / "runs") if pid != parent.pid]

    until(lambda: len(runs()) == 2, "both runs were started")
    if seen == "in the middle of a step":
        time.sleep(1.0)
    parent.kill()
    parent.wait()
    until(lambda: runs() == [], "no run is left")
    assert not list((prepared[1] / "runs").glob("*/outcome.json"))


def test_a_runner_is_a_name_or_module_and_class() -> None:
    assert find_runner("torch") == "harness.runners.torch_reference:TorchReference"
    assert find_runner("tests.support.fake_runners:Fake") == "tests.support.fake_runners:Fake"


def test_a_runner_may_lie_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("class Mine: ...\n")
    assert load_runner(find_runner(f"{path}:Mine")).__name__ == "Mine"


def test_a_runner_in_a_file_that_is_not_there_is_refused_before_anything_runs() -> None:
    with pytest.raises(InputError, match=r"names the file 'no/such\.py', which is not there"):
        find_runner("no/such.py:Runner")


def test_a_runner_in_a_module_that_is_not_there_is_refused_before_anything_runs() -> None:
    with pytest.raises(InputError, match=r"'no_such_package\.module', which cannot be found"):
        find_runner("no_such_package.module:Runner")


@pytest.mark.parametrize("name", ["", "pytorch", "module:", ":Class", "a:b:c"])
def test_any_other_runner_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="known are torch, oracle, mindspore, mindformers, or give MODULE:CLASS"):
        find_runner(name)


def test_every_run_gets_deterministic_variables_and_its_threads() -> None:
    found = variables(3, "Ascend")
    assert found["OMP_NUM_THREADS"] == "3" and found["HCCL_DETERMINISTIC"] == "true" and found["HF_HUB_OFFLINE"] == "1"


def test_runs_on_devices_at_a_time_have_devices_of_their_own(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "machine").mkdir()
    set_up(Machine(npus=3, users=((0, 0, 4711),)), tmp_path / "machine", monkeypatch)
    case, out = prepared
    asked = dataclasses.replace(options(out, subject="SeesDevices"), device="Ascend")
    on_devices = [job(case, asked, name) for name in ("subject-1", "subject-2", "subject-lr0")]
    on_the_cpu = dataclasses.replace(job(case, asked, "reference-1"), runner=on_devices[0].runner)
    runs = Launcher(workers=2).execute([*on_devices, on_the_cpu], case)
    seen = [run.trace.header.provenance["devices"] for run in runs if run.trace]
    assert set(seen[:3]) == {"1", "2"} and seen[:2] == ["1", "2"], "the first is in use, and two run at a time"
    assert seen[3] is None
    logs = [run.trace.header.provenance["logs"] for run in runs if run.trace]
    assert logs == [*(str(Path(one.directory) / "plog") for one in on_devices), None], "each run has its own"
    assert all((Path(one.directory) / "plog").is_dir() for one in on_devices)
    assert devices.free(2), "they are given back"
    ascend.numbers.cache_clear()


class Mute(Fake):
    """Has taps that fail without a word."""

    def taps(self, tokens: object, loss_mask: object) -> Taps:
        raise ValueError


def test_taps_that_fail_without_a_message_are_stated_and_lose_nothing(
    prepared: Prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    case, out = prepared
    runner = Mute(case, draw_weights(case), Setting(device="CPU", threads=1, learning_rate_zero=False))
    tapped = job_of(case, options(out), "subject-taps", "subject", "taps", keep=True)
    directory = Path(tapped.directory)
    directory.mkdir(parents=True)
    places = tap(tapped, runner, lambda: runner, np.zeros((2, 17), np.int32), np.ones((2, 16), np.uint8), {})
    assert (read_taps(directory).missing, places) == ("the tapped step failed: ValueError: without a message", {})
    assert "ValueError" in capsys.readouterr().err
