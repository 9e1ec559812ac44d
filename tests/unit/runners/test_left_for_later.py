"""What a run of the subject leaves for a later one, and whom it can reach, by the protection that it has."""

import contextlib
import dataclasses
import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.certify.jobs import outputs_of
from harness.runners.launcher import Launcher
from harness.runners.protection import Guard, below, seen_by, start
from harness.runs.trace import Protection
from tests.support.examples import options
from tests.support.leaving_runners import FOUND, HELPERS, LEFT, NAME, OF_THE_MACHINE
from tests.unit.runners.test_protection import NAMESPACES, Bench

LEAVING = "tests.support.leaving_runners"
# What one user of one machine can do without namespaces, as root or not.
BY_ORDER = {
    "`/tmp`", "`/var/tmp`", "`/dev/shm`", "home", "the directory of `TMPDIR`", "the working directory",
    "a cache that a variable names", "its bundle", "the runs of its bundle", "its inputs", "next to its bundle",
    "the time of a file", "the mode of a file", "shared memory of System V", "a queue of System V",
    "semaphores of System V", "a queue of POSIX",
}  # fmt: skip
# What works in namespaces too, and is gone with the run.
HONEST = {
    "`/tmp`", "`/var/tmp`", "`/dev/shm`", "home", "the directory of `TMPDIR`", "the working directory",
    "a cache that a variable names", "the time of a file", "the mode of a file", "a lock that a process holds",
    "shared memory of System V", "a queue of System V", "semaphores of System V", "a queue of POSIX",
    "a daemon at a port", "a daemon at an abstract socket", "a daemon at a socket in `/tmp`",
}  # fmt: skip


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.chdir(tmp_path)
    for variable, name in (("HOME", "home"), ("TMPDIR", "temporary"), ("MS_COMPILER_CACHE_PATH", "cache")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    (tmp_path / "notes").touch(0o600)
    yield Bench(tmp_path, runners=LEAVING)
    Path(f"/tmp/{NAME}-{os.getuid()}.socket").unlink(missing_ok=True)


def found_by_second(bench: Bench, kind: Protection, subject: str) -> dict[str, bool]:
    """What the second run found; each way was tried by the first."""
    for run in ("subject-1", "subject-2"):
        (made,) = bench.take(kind, subject, run)
        assert made.outcome.status == "completed", made.outcome
        assert (made.outcome.protection, made.outcome.apart) == (kind, kind == "namespaces")
    found: dict[str, bool] = json.loads((bench.out / "runs" / "subject-2" / FOUND).read_text())
    return found


def test_in_namespaces_no_run_finds_anything_that_an_earlier_one_left(bench: Bench, tmp_path: Path) -> None:
    """Also where there are none, each way is one that works without them."""
    subject = "LeavesAndFinds" if NAMESPACES == "namespaces" else "LeavesLittle"
    found = found_by_second(bench, NAMESPACES, subject)
    if NAMESPACES == "namespaces":
        left = json.loads((bench.out / "runs" / "subject-1" / FOUND).read_text())
        assert set(found) == set(LEFT) and {name for name in found if found[name]} == set()
        assert {name for name in HONEST if not left[name]} == set(), "what an honest program needs works"
        assert not any(tmp_path.glob("*/certify-left*")) and not any(tmp_path.glob("certify-left*"))


def test_by_order_alone_a_later_run_finds_what_was_left_but_no_process(bench: Bench) -> None:
    found = found_by_second(bench, "order", "LeavesLittle")
    assert {name for name in found if found[name]} - {"an attribute of a file"} == BY_ORDER
    assert set(found) == set(LEFT) - set(OF_THE_MACHINE)


@contextlib.contextmanager
def helpers(path: Path) -> Iterator[dict[str, str]]:
    """Sockets that answer: at a port, at an abstract name, and at a path."""
    with socket.create_server(("127.0.0.1", 0)) as port, contextlib.ExitStack() as stack:
        addresses = {"port": str(port.getsockname()[1]), "abstract": f"@certify-{os.getpid()}", "path": str(path)}
        stack.callback(path.unlink, missing_ok=True)
        for kind in ("abstract", "path"):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.bind(addresses[kind].replace("@", "\0"))
            one.listen()
        yield addresses


@pytest.mark.parametrize("kind", sorted({NAMESPACES, "order"}))
def test_a_helper_outside_is_reached_without_namespaces_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, kind: Protection
) -> None:
    with helpers(Path(f"/tmp/certify-{os.getpid()}.socket")) as addresses:
        monkeypatch.setenv(HELPERS, json.dumps(addresses))
        (made,) = bench.take(kind, "UsesHelpers", "subject-1")
        assert made.outcome.status == "completed", made.outcome
    found = json.loads((bench.out / "runs" / "subject-1" / FOUND).read_text())
    assert found == dict.fromkeys(addresses, kind == "order")


@pytest.mark.parametrize("planted", ["a file", "a link"])
def test_no_run_sees_the_weights_and_logs_that_another_one_left_and_each_keeps_its_own(
    bench: Bench, tmp_path: Path, planted: str
) -> None:
    chosen = options(bench.out, output=tmp_path / "output", keep_weights=True)
    weights, logs = tmp_path / "out-weights", tmp_path / "logs"
    assert outputs_of(chosen) == (weights, tmp_path / "output" / "checkpoint", tmp_path / "output" / "msrun_log")
    for path in (weights / "trained" / "model.safetensors", logs / "subject-1" / "worker_0.log"):
        path.parent.mkdir(parents=True)
        path.write_text("answers")
    if planted == "a link":
        (logs / "subject-2").symlink_to(bench.out)
    else:
        (logs / "subject-2").mkdir()
        (logs / "subject-2" / "numbers").touch()
    guard = Guard(kind=NAMESPACES, outputs=(*outputs_of(chosen), logs))
    (job,) = bench.jobs("ReadsOutputs", "subject-2")
    job = dataclasses.replace(job, logs=str(logs / "subject-2"))
    (made,) = Launcher(workers=1, guard=guard).execute([job], bench.case)
    assert made.outcome.status == "completed", made.outcome
    found = json.loads((bench.out / "runs" / "subject-2" / FOUND).read_text())
    assert (found == ["subject-2"]) == (NAMESPACES == "namespaces"), found
    assert not (logs / "subject-2").is_symlink() or NAMESPACES != "namespaces"
    assert (logs / "subject-2" / "own.log").is_file() and (weights / "trained" / "model.safetensors").is_file()


def test_a_run_that_crashes_as_it_may_not_write_names_the_option_that_permits_it(bench: Bench) -> None:
    (made,) = bench.take(NAMESPACES, "WritesElsewhere", "subject-1")
    detail = "ended with exit code 1 after step 4 of 8; in namespaces it may write to its own directory"
    assert made.outcome.detail.startswith(detail) == (NAMESPACES == "namespaces"), made.outcome
    assert (made.outcome.status == "crashed") == (NAMESPACES == "namespaces")


def test_a_runner_in_a_private_place_is_found_with_what_lies_next_to_it(bench: Bench) -> None:
    own, other = (Path(f"/tmp/certify_{name}_{os.getpid()}.py") for name in ("own", "other"))
    try:
        own.write_text(f"from {other.stem} import Mine\n")
        other.write_text("from tests.support.fake_runners import Fake as Mine\n")
        bench.runners = str(own)
        (made,) = bench.take(NAMESPACES, "Mine", "subject-1")
    finally:
        own.unlink()
        other.unlink()
    assert made.outcome.status == "completed", made.outcome


def test_of_a_private_place_what_a_run_needs_stays_and_an_interpreter_stays_whole(tmp_path: Path) -> None:
    (tmp_path / "private" / "env" / "bin").mkdir(parents=True)
    (tmp_path / "private" / "env" / "bin" / "python").touch()
    (tmp_path / "private" / "code").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "private")
    used = [tmp_path / name for name in ("private", "private/env/bin/python", "link/code", "elsewhere", "private/gone")]
    found = below([tmp_path / "private"], used)
    assert found == [tmp_path / "private" / "code", tmp_path / "private" / "env"]


def test_what_a_run_logs_in_its_own_directory_stays_there(bench: Bench) -> None:
    """Also where the variable of a cache, which is private to a run, names a place in it."""
    (job,) = bench.jobs("LeavesLittle", "subject-1")
    logs = Path(job.directory) / "plog"
    logs.mkdir(parents=True)
    seen = seen_by(job, Guard(kind="namespaces"), {"ASCEND_PROCESS_LOG_PATH": str(logs)})
    assert str(logs) not in seen["private"]
    if NAMESPACES == "namespaces":
        with start([sys.executable, "-I", "-S", "-c", f"open({str(logs / 'one.log')!r}, 'w').write('a line')"], seen):
            pass
        assert (logs / "one.log").read_text() == "a line"


def test_a_cache_in_a_place_that_is_private_is_private_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch names `/tmp/torchinductor_USER` to the processes that it starts."""
    with tempfile.TemporaryDirectory(dir="/tmp") as cache:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", cache)
        (made,) = bench.take(NAMESPACES, "LeavesLittle", "subject-1")
        assert made.outcome.status == "completed", made.outcome
        assert os.listdir(cache) == [] or NAMESPACES != "namespaces"
