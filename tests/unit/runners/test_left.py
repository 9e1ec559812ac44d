"""What a run may leave in its directory, and of what job its trace may be."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.base.records import plain_files
from harness.certify.jobs import job
from harness.evidence.kept import Kept
from harness.runners import left
from harness.runners.job import Job
from harness.runners.left import tidy, trace_of
from harness.runs.files import LOG, TIMING, TRACE
from harness.runs.trace import TraceHeader, TraceWriter
from tests.support.examples import options, small_case

HUGE = 1 << 43  # bytes of a file of holes; its digest would take hours
HONEST = (LOG, TIMING, TRACE)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    directory = tmp_path / "runs" / "subject-1"
    directory.mkdir(parents=True)
    for name in HONEST:
        (directory / name).write_text("{}\n")
    return directory


def holes(name: str) -> Callable[[Path], None]:
    def leave(place: Path) -> None:
        with (place / name).open("ab") as file:
            file.truncate(HUGE)

    return leave


def deep(place: Path) -> None:
    """Many directories in one another, as only who works inside them can make."""
    here = os.getcwd()
    os.chdir(place)
    for _ in range(1200):
        os.mkdir("d")
        os.chdir("d")
    Path("end").touch()
    os.chdir(here)


def named(name: bytes) -> Callable[[Path], None]:
    return lambda place: (Path(os.fsdecode(os.fsencode(place) + b"/" + name))).touch()


def directory_for(name: str) -> Callable[[Path], None]:
    def leave(place: Path) -> None:
        (place / name).unlink(missing_ok=True)
        (place / name / "inside").mkdir(parents=True)

    return leave


def link_for_itself(place: Path) -> None:
    place.rename(place.with_name("elsewhere"))
    place.symlink_to(place.with_name("elsewhere"), target_is_directory=True)


# what a run leaves, and what must be gone
LEFT: dict[str, tuple[Callable[[Path], Any], set[str]]] = {
    "a file of holes": (holes("extra.bin"), {"extra.bin"}),
    "a log of holes": (holes(LOG), {LOG}),
    "a trace of holes": (holes(TRACE), {TRACE}),
    "times of holes": (holes(TIMING), {TIMING}),
    "tensors of holes": (holes("tensors.safetensors"), {"tensors.safetensors"}),
    "a file of holes in a directory": (lambda p: ((p / "a").mkdir(), holes("a/b")(p)), {"a/b"}),
    "directories without end": (deep, {"/".join(["d"] * 1200) + "/end"}),
    "a name with a line end": (named(b"a\nb"), {"a\nb"}),
    "a name that colours a terminal": (named(b"\x1b[31m"), {"\x1b[31m"}),
    "a name that is no text": (named(b"\xff\xfe"), {"\udcff\udcfe"}),
    "two names that differ by case": (lambda p: ((p / "A").touch(), (p / "a").touch()), {"a"}),
    "a directory for its outcome": (directory_for("outcome.json"), {"outcome.json/inside"}),
    "a directory for its next outcome": (directory_for("outcome.json.part"), {"outcome.json.part"}),
    "a directory for its job": (directory_for("job.json"), {"job.json"}),
    "a directory for its log": (directory_for(LOG), {LOG}),
    "a directory for its trace": (directory_for(TRACE), {TRACE}),
    "a link": (lambda p: (p / "l").symlink_to("/"), {"l"}),
    "a pipe": (lambda p: os.mkfifo(p / "f"), {"f"}),
    "a directory that no one may read": (lambda p: ((p / "a").mkdir(), (p / "a").chmod(0)), set()),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_a_run_may_not_leave_is_gone_and_the_rest_can_be_digested(place: Path, name: str) -> None:
    leave, gone = LEFT[name]
    leave(place)
    tidy(place)
    kept = Kept(place.parents[1])
    kept.add_run("subject-1")
    found = plain_files(place)
    assert not gone & set(found) and {one for one in HONEST if one not in gone} <= set(found)


def test_a_link_in_the_place_of_its_directory_leads_no_one_elsewhere(place: Path) -> None:
    link_for_itself(place)
    tidy(place)
    assert place.is_dir() and not place.is_symlink() and plain_files(place) == []
    assert plain_files(place.with_name("elsewhere")) == sorted(HONEST)


def test_what_an_honest_run_leaves_stays_as_it_is(place: Path) -> None:
    (place / "ranks" / "log" / "worker_0").mkdir(parents=True)
    (place / "ranks" / "log" / "worker_0" / "a.log").write_text("fine\n")
    before = {path: path.stat().st_mode for path in [place, *place.rglob("*")]}
    tidy(place)
    assert {path: path.stat().st_mode for path in [place, *place.rglob("*")]} == before


def test_large_files_that_are_really_there_stay(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left, "LARGEST_BYTES", 1 << 10)
    (place / "tensors.safetensors").write_bytes(os.urandom(1 << 16))
    tidy(place)
    assert (place / "tensors.safetensors").stat().st_size == 1 << 16


def test_on_a_file_system_that_states_no_blocks_only_holes_go(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(left, "BLOCK", 0)
    monkeypatch.setattr(left, "LARGEST_BYTES", 1 << 10)
    (place / "tensors.safetensors").write_bytes(os.urandom(1 << 16))
    holes("extra.bin")(place)
    tidy(place)
    assert plain_files(place) == sorted([*HONEST, "tensors.safetensors"])


OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "the shipped runner": ({"runner": "harness.runners.mindspore_subject:MindSporeSubject"}, "the runner harness"),
    "another run": ({"run": "reference-1"}, "the run reference-1"),
    "another side": ({"side": "oracle"}, "the side oracle"),
    "another arm": ({"arm": "floor"}, "the arm floor"),
    "another case": ({"case": "0" * 64}, "the case 0000"),
    "fewer steps": ({"steps": 2}, "the number of steps 2"),
    "a collected run": ({"provenance": {"collected": {"omitted": ["grad_norm"]}}}, "as only a run of a trainer does"),
}


@pytest.mark.parametrize("name", [*OTHER, "its own"])
def test_a_trace_that_is_not_of_its_job_is_none(place: Path, name: str) -> None:
    mine = dataclasses.replace(job(small_case(), options(place.parents[1]), "subject-1"), runner="mine.py:Mine")
    change, words = OTHER.get(name, ({}, ""))
    with TraceWriter.create(place / TRACE, dataclasses.replace(_header(mine), **change)) as writer:
        writer.finish({})
    trace, why = trace_of(place, mine)
    assert (trace is None, (place / TRACE).exists()) == (name != "its own", name == "its own")
    assert (words in why and why.startswith("its trace is not of its job: ")) if words else why == ""


def _header(mine: Job) -> TraceHeader:
    return TraceHeader(
        run=mine.run,
        side=mine.side,
        arm=mine.arm,
        case=mine.case_digest,
        weights="w",
        batches="b",
        steps=mine.steps,
        runner=mine.runner,
    )


def test_a_trace_that_cannot_be_read_is_removed_with_the_reason(place: Path) -> None:
    (place / TRACE).write_text("no trace\n")
    trace, why = trace_of(place, job(small_case(), options(place.parents[1]), "subject-1"))
    assert trace is None and why.startswith("its trace cannot be read: ") and not (place / TRACE).exists()
    assert trace_of(place, job(small_case(), options(place.parents[1]), "subject-1")) == (None, "")
