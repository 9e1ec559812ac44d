"""What a run of the subject can see and change, by the protection that it has."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import InputError, MissingPrerequisite
from harness.base.records import write_json
from harness.cases.runs_of_a_case import REQUIRED_RUNS
from harness.certify import case_options, flow
from harness.certify.flow import prepare
from harness.certify.jobs import job, protection_of
from harness.evidence import protection_of_runs
from harness.evidence.bundle import read_run
from harness.runners.job import Job
from harness.runners.launcher import Launcher
from harness.runners.protection import Guard, obstacle, recorded_answers, without
from harness.runs.files import TRACE
from harness.runs.trace import Protection, RunOutcome, Trace
from tests.support.bundles import page_of, write_example, write_page_of
from tests.support.command_line import caller
from tests.support.examples import ROOT, options, small_case, text_case
from tests.support.hostile_runners import REACHED, TRIES
from tests.support.processes import processes_of, until

HOSTILE = "tests.support.hostile_runners"
NAMESPACES = "namespaces" if not obstacle() else "order"  # a machine without them is protected by the order alone
READS = {"read the case", "read a recorded bundle", "read baselines", "read them through the working directory"}


class Bench:
    """A prepared bundle, an earlier one next to it, and recorded answers in the working directory."""

    def __init__(self, root: Path, runners: str = HOSTILE) -> None:
        self.out, self.runners = root / "out", runners
        for recorded in (root / "earlier" / "case.json", root / "baselines" / "baseline.json"):
            recorded.parent.mkdir()
            recorded.write_text("answers")
        case = text_case(root)
        self.case, _ = prepare(case, case_options.load_standards(case.standards, case), options(self.out))

    def jobs(self, subject: str, *names: str) -> list[Job]:
        chosen = options(self.out)
        made = {name: job(self.case, chosen, name) for name in names}
        hostile = f"{self.runners}:{subject}"
        return [Job(**{**vars(one), "runner": hostile}) if one.side == "subject" else one for one in made.values()]

    def take(self, kind: Protection, subject: str, *names: str, listener: Any = lambda run, trace: None) -> Any:
        guard = Guard(kind=kind)
        return Launcher(workers=2, guard=guard).execute(self.jobs(subject, *names), self.case, listener)

    def reached(self, run: str = "subject-1") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "runs" / run / REACHED).read_text())
        return found


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.chdir(tmp_path)
    return Bench(tmp_path)


def test_in_namespaces_nothing_that_is_tried_succeeds(bench: Bench) -> None:
    reference, subject = bench.take("namespaces" if not obstacle() else "order", "Tries", "reference-1", "subject-1")
    assert subject.outcome.status == reference.outcome.status == "completed", subject.outcome
    assert subject.outcome.protection == NAMESPACES
    if NAMESPACES == "namespaces":
        got = {name for name, value in bench.reached().items() if value}
        assert set(bench.reached()) == set(TRIES) and got == set(), (bench.out / "runs/subject-1/log.txt").read_text()


def test_by_order_alone_no_run_of_another_side_is_there_yet_and_everything_else_is_reached(bench: Bench) -> None:
    reference, subject = bench.take("order", "Tries", "reference-1", "subject-1")
    assert subject.outcome.status == reference.outcome.status == "completed", subject.outcome
    assert (reference.outcome.protection, subject.outcome.protection) == (None, "order")
    found = bench.reached()
    assert found["list the other runs"] == [] and not found["read the reference's trace"]
    assert {name for name in READS if found[name]} == READS and found["write the case"]


def test_without_namespaces_no_run_of_another_side_overlaps_with_one_of_the_subject(bench: Bench) -> None:
    seen: list[str] = []

    def listener(run: str, trace: Trace) -> None:
        seen.append(run.partition("-")[0])

    bench.take("order", "Tries", "reference-1", "subject-1", "reference-lr0", "subject-lr0", listener=listener)
    assert "reference" not in seen[: len(seen) - seen[::-1].index("subject")]


def test_a_subject_that_starts_when_the_reference_has_finished_is_said_to_be_unprotected(bench: Bench) -> None:
    bench.take("order", "Fake", "reference-1")
    (subject,) = bench.take("order", "Copies", "subject-1")
    (reference,) = (read_run(bench.out / "runs" / "reference-1"),)
    assert subject.trace is not None and reference.trace is not None
    assert [s.loss for s in subject.trace.steps] == [s.loss for s in reference.trace.steps], "it read all of them"
    assert subject.outcome.protection == "none"


def test_in_namespaces_a_subject_finds_no_numbers_to_copy(bench: Bench) -> None:
    bench.take("order", "Fake", "reference-1")
    (subject,) = bench.take(NAMESPACES, "Copies", "subject-1")
    (reference,) = (read_run(bench.out / "runs" / "reference-1"),)
    assert subject.trace is not None and reference.trace is not None
    same = [s.loss for s in subject.trace.steps] == [s.loss for s in reference.trace.steps]
    assert same == (NAMESPACES != "namespaces") and subject.outcome.protection == (
        "namespaces" if NAMESPACES == "namespaces" else "none"
    )


@pytest.mark.parametrize("kind", [NAMESPACES, "order"])
def test_a_process_that_is_left_behind_ends_with_its_run(bench: Bench, kind: Protection) -> None:
    before = (bench.out / "case.json").read_bytes()
    bench.take(kind, "LeavesAProcess", "subject-1")
    time.sleep(2.5)
    assert (bench.out / "case.json").read_bytes() == before


def test_links_and_pipes_that_a_run_left_are_gone_before_anything_is_written_there(bench: Bench) -> None:
    before = (bench.out / "source.json").read_bytes()
    (run,) = bench.take("order", "LeavesALink", "subject-1")
    assert run.outcome.status == "completed"
    assert (bench.out / "source.json").read_bytes() == before
    assert sorted(p.name for p in (bench.out / "runs" / "subject-1").iterdir()) == [
        "log.txt", "outcome.json", "timing.jsonl", "trace.jsonl"]  # fmt: skip


@pytest.mark.parametrize(
    ("needed", "hidden"),
    [
        ((), ["."]),
        (("a/out",), ["a/other", "b"]),
        (("a", "b"), []),
        (("a/out", "b/file"), ["a/other"]),
        ((".",), []),
    ],
)
def test_what_is_hidden_of_a_place_leaves_what_is_needed(
    tmp_path: Path, needed: tuple[str, ...], hidden: list[str]
) -> None:
    for name in ("a/out/x", "a/other/x", "b/file"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = without(tmp_path, [tmp_path / name for name in needed])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == hidden


def test_recorded_answers_are_those_of_the_working_directory_and_every_bundle_next_to_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("baselines", "reports", "certify-runs", "earlier", "notes", "out", "mine"):
        (tmp_path / name).mkdir()
    (tmp_path / "earlier" / "case.json").touch()
    found = {path.name for path in recorded_answers(tmp_path / "out", [tmp_path / "mine"]) if tmp_path in path.parents}
    assert found == {"baselines", "reports", "certify-runs", "earlier", "mine"}


def test_namespaces_that_are_required_and_not_there_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "obstacle", lambda: "user namespaces: Operation not permitted")
    case, chosen = text_case(tmp_path), options(tmp_path / "out", protection="namespaces")
    with pytest.raises(MissingPrerequisite, match=r"--protection namespaces: .*Operation not permitted"):
        flow.run(case, (), chosen, lambda run, trace: None)
    assert not (tmp_path / "out").exists()
    guard = flow.guard_of(dataclasses.replace(chosen, protection="auto"), lambda job: None)
    assert (guard.kind, guard.why) == ("order", "user namespaces: Operation not permitted")


def test_a_protection_that_there_is_not_is_bad_input() -> None:
    with pytest.raises(InputError, match=r"--protection 'namespace' is none of auto, namespaces, order\. Did you mean"):
        protection_of("namespace")


@pytest.mark.parametrize(
    ("kinds", "weakest", "words"),
    [
        (("namespaces",) * 5, "namespaces", "could read no run of another side"),
        (("namespaces",) * 4 + ("order",), "order", "they could read recorded answers"),
        (("order",) * 4 + ("none",), "none", "none: the subject could read the reference's runs"),
        (("namespaces",) * 4 + (None,), None, "not recorded"),
    ],
)
def test_the_protection_of_a_bundle_is_that_of_its_weakest_run(
    tmp_path: Path, kinds: tuple[Protection | None, ...], weakest: Protection | None, words: str
) -> None:
    names = [name for name in REQUIRED_RUNS if name.startswith("subject")]
    outcomes = {
        name: RunOutcome(status="completed", last_step=1, detail="done", protection=kind)
        for name, kind in zip(names, kinds, strict=True)
    }
    bundle = write_example(tmp_path / "bundle", case=small_case(), outcomes=outcomes)
    assert protection_of_runs.protection_of(bundle) == weakest and words in protection_of_runs.protection_words(bundle)
    assert words in page_of(bundle).replace("&#39;", "'")


@pytest.mark.parametrize(
    ("apart", "words"),
    [
        ((True,) * 5, "no run of the subject could read what an earlier one left outside of its directory"),
        ((True,) * 4 + (False,), "a run of the subject could read what an earlier one left"),
        ((True,) * 4 + (None,), "a run of the subject could read what an earlier one left"),
    ],
)
def test_page_and_verify_state_whether_a_run_could_read_what_another_one_left(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    apart: tuple[bool | None, ...],
    words: str,
) -> None:
    names = [name for name in REQUIRED_RUNS if name.startswith("subject")]
    outcomes = {
        name: RunOutcome(status="completed", last_step=1, detail="done", protection="namespaces", apart=one)
        for name, one in zip(names, apart, strict=True)
    }
    bundle = write_example(tmp_path / "bundle", case=small_case(), outcomes=outcomes)
    write_page_of(bundle)
    page = (bundle.path / "report.html").read_text()
    assert f"{words[0].upper()}{words[1:]}" in page
    verify = caller(capsys, monkeypatch, "verify")
    assert words in verify(bundle.path).said
    assert json.loads(verify(bundle.path, "--json").out)["apart"] is (False not in apart and None not in apart)


GUARDED = """
import sys
from pathlib import Path
from harness.cases.case import parse_case
from harness.runners.launcher import Launcher
from harness.runners.protection import Guard
from harness.runners.worker import read_job
job = read_job(sys.argv[1])
Launcher(workers=1, guard=Guard(kind=sys.argv[2])).execute([job], parse_case(dict(job.case), "the job"))
"""


@pytest.mark.parametrize("kind", [NAMESPACES, "order"])
def test_nothing_is_left_of_a_run_whose_judge_is_killed(bench: Bench, tmp_path: Path, kind: str) -> None:
    (job_of_run,) = bench.jobs("Fake", "subject-1")
    slow = dataclasses.replace(job_of_run, runner="tests.support.fake_runners:Slow")
    write_json(tmp_path / "slow.json", slow)
    command = [sys.executable, "-c", GUARDED, str(tmp_path / "slow.json"), kind]
    judge = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    trace = bench.out / "runs" / "subject-1" / TRACE
    until(lambda: trace.is_file() and trace.read_bytes().count(b"\n") > 2, "the run has steps")
    judge.kill()
    judge.wait()
    until(lambda: not processes_of(bench.out), "nothing is left", seconds=20)
