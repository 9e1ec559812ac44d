"""A small study with both real frameworks: each planted fault is refused and named, no clean run is refused.

The first fault is that of the documentation, planted by its command. A larger study has faults of every area
and clean runs of more kinds. Studies are left to `tox run -e full`.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cases.case import load_case
from harness.cases.runs_of_a_case import SUBJECT, SUBJECT_REPEAT, SUBJECT_RESUMED
from harness.certify.flow import prepare
from harness.certify.jobs import Options, all_jobs
from harness.defects import load_defect
from harness.evidence.bundle import read_bundle
from harness.power.rates import named_rightly
from harness.power.record import PowerStudy, Sighting, read_power, sightings
from harness.runners.launcher import Launcher
from harness.runs.files import TRACE
from harness.studies.forks import Forks
from tests.support.certify_process import certify, start_certify
from tests.support.examples import ROOT, shorter
from tests.support.full import full
from tests.support.scenes import without_subject

DOCUMENT = (ROOT / "docs" / "add-a-defect.md").read_text(encoding="utf-8")
CLEAN, STEPS = 1, 20
MORE_CLEAN, MORE_STEPS = 12, 50
# One of each area, and the small ones on purpose.
MORE_DEFECTS = (
    "missing-key-norm",
    "attention-scale-one-per-mille",
    "label-smoothing-left-on",
    "layer-gradient-one-percent",
    "softmax-derivative",
    "beta1-one-percent",
    "threshold-one-percent",
    "rate-one-per-mille",
    "last-row-replaced",
    "weights-through-bfloat16",
    "one-norm-bfloat16",
    "moments-lost",
)


# A fault of one's own and the shipped ones change what is recorded; what is changed is refused; what is sound is not.
SEEN = (
    "tests/defects/test_catalogue.py::test_a_defect_of_ones_own_file_is_compiled_like_a_shipped_one, "
    "tests/defects/test_catalogue.py::test_a_defect_changes_what_its_subject_records, "
    "tests/unit/evidence/test_fooling.py::test_it_is_not_fooled_by"
)
SOUND = "tests/end_to_end/test_certify.py::test_a_clean_run_meets_preliminary_and_every_criterion_it_is_long_enough_for"
RESUMED = "tests/unit/power/test_power.py::test_a_study_survives_its_file_and_an_edit_is_rejected"
ENDED = "tests/unit/runners/test_launcher.py::test_an_interrupt_leaves_no_process_and_a_run_that_goes_on"
FORKED = (
    "tests/unit/levels/test_walk_through.py::test_the_walk_through_is_as_it_is_written, "
    "tests/defects/test_catalogue.py::test_a_defect_of_ones_own_file_is_compiled_like_a_shipped_one"
)
NOT_RUN = "tests/unit/power/test_power.py::test_an_inconclusive_finding_is_no_sighting"


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("power")
    ((name, code),) = re.findall(r"```python\n# (\S+)\n(.*?)```", DOCUMENT, re.DOTALL)
    (directory / name).write_text(code)
    return directory


@pytest.fixture(scope="module")
def done(inside: Path) -> "subprocess.CompletedProcess[str]":
    """The documented command, with a clean run, in fewer steps than the default case has."""
    (command,) = re.findall(r"^\$ certify (.*)$", DOCUMENT, re.MULTILINE)
    words = [*shlex.split(command), "--clean", CLEAN, "--case", shortened(inside, STEPS)]
    return certify(*words, inside=inside)


def shortened(directory: Path, steps: int) -> str:
    """The default case in fewer steps, as a file there. Its norms begin at 3.0 and are 2.2 after 40 steps: some are
    clipped and others are not."""
    case = shorter(load_case("qwen3-tiny-fp32"), steps, lr_zero_steps=10, clip_grad=2.6)
    (directory / "case.yaml").write_text(yaml.safe_dump(case.record()))
    return "case.yaml"


@pytest.fixture(scope="module")
def study(done: Any, inside: Path) -> PowerStudy:
    assert done.returncode == 0, done.stdout + done.stderr
    return read_power(inside / "quick-gelu.json")


@full(held_by=SEEN)
def test_the_documented_fault_is_seen_as_it_is_written(done: Any, study: PowerStudy) -> None:
    (line,) = re.findall(r"left: (.*)$", DOCUMENT, re.MULTILINE)
    assert f"left: {line}\n" in done.stderr
    assert study.planted[0].defect.id == "quick-gelu-for-silu" and named_rightly(study.planted[0])
    assert study.planted[0].unmade == (SUBJECT_REPEAT, SUBJECT_RESUMED), "what its first runs reject is not made again"


@full(held_by=SOUND)
def test_no_clean_run_is_refused(study: PowerStudy) -> None:
    check_clean(study, CLEAN)


def check_clean(study: PowerStudy, count: int) -> None:
    assert len(study.clean) == count
    assert len({run.variation for run in study.clean}) == count, "each is of another kind"
    assert [run for run in study.clean if run.sightings] == []


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> PowerStudy:
    """A study of faults of every area."""
    directory = tmp_path_factory.mktemp("large")
    planted = [word for defect in MORE_DEFECTS for word in ("--defects", defect)]
    words = ["--clean", MORE_CLEAN, "--case", shortened(directory, MORE_STEPS), "--out", "large.json"]
    done = certify("power", *planted, *words, inside=directory)
    assert done.returncode == 0, done.stdout + done.stderr
    return read_power(directory / "large.json")


@full(held_by=SEEN)
@pytest.mark.parametrize("defect", MORE_DEFECTS)
def test_a_fault_of_every_area_is_refused_and_its_place_named(large: PowerStudy, defect: str) -> None:
    (planted,) = [one for one in large.planted if one.defect.id == defect]
    assert planted.sightings
    assert planted.defect.place is None or named_rightly(planted), planted.named


@full(held_by=SOUND)
def test_no_clean_run_of_many_kinds_is_refused(large: PowerStudy) -> None:
    check_clean(large, MORE_CLEAN)


# Begins with what an interpreter draws for itself: processes that are forked from one draw the same.
UNREPEATABLE = """
import random

from harness.defects import defect
from harness.defects.planting import ChangedGradients, WithGradients
from harness.runners.mindspore_subject import MindSporeSubject

DRAWN = 1e-3 * random.random()


class Scaled(ChangedGradients):
    def changed(self, gradients):
        scaled = ()
        for gradient in gradients:
            scaled += (gradient * (1.0 + DRAWN),)
        return scaled


@defect(area="gradients", imitates="A seed that nobody set", source="https://docs.python.org/3/library/random.html")
class OtherInEachProcess(MindSporeSubject):
    \"\"\"Gradients are off by a number that each interpreter draws.\"\"\"

    class trainer(WithGradients):
        gradients_cell = Scaled
"""
JUDGED = ("attention-scale-one-per-mille", "beta1-one-percent", "last-row-replaced", "moments-lost")
OWN, DETERMINISTIC = "unrepeatable.py", "official/subject-deterministic"


@pytest.fixture(scope="module")
def judged_twice(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Sighting, ...]]:
    """What `certify run` says of the subjects of a study, with the study in the same directory."""
    directory = tmp_path_factory.mktemp("judged")
    (directory / OWN).write_text(UNREPEATABLE)
    case = shortened(directory, STEPS)
    words = [word for defect in (*JUDGED, OWN) for word in ("--defects", defect)]
    study_of_all = ["--clean", 0, "--all-runs", "--case", case, "--out", "study.json"]
    done = certify("power", *words, *study_of_all, inside=directory)
    assert done.returncode == 0, done.stdout + done.stderr
    study = read_power(directory / "study.json")
    certify("run", case, "--out", "first", inside=directory)
    said = {}
    for one in study.planted:
        with contextlib.chdir(directory):  # a runner of a file is named from here
            out = without_subject(directory / "first", directory / one.defect.id, one.defect.runner)
        run = certify("run", case, "--out", out, "--resume", "--subject", one.defect.runner, inside=directory)
        assert run.returncode == 1, run.stdout + run.stderr
        said[one.defect.id] = sightings(read_bundle(out).findings)
        assert one.sightings, one.defect.id
    return said | {f"study of {one.defect.id}": one.sightings for one in study.planted}


@full(held_by=FORKED)
@pytest.mark.parametrize("defect", [*JUDGED, "other-in-each-process"])
def test_the_verdict_of_a_study_is_that_of_a_run(judged_twice: dict[str, tuple[Sighting, ...]], defect: str) -> None:
    ran, studied = judged_twice[defect], judged_twice[f"study of {defect}"]
    if defect in JUDGED:
        assert studied == ran
    else:
        assert all(DETERMINISTIC in {one.criterion for one in found} for found in (ran, studied))


@full(held_by=RESUMED)
def test_a_study_goes_on_with_what_it_has_and_only_with_that(study: PowerStudy, done: Any, inside: Path) -> None:
    asked = done.args[3:]
    again = certify(*asked, "--resume", "--out", "again.json", inside=inside)
    assert again.returncode == 0, again.stderr
    resumed = read_power(inside / "again.json")
    assert (resumed.planted, resumed.clean) == (study.planted, study.clean)
    for other, why in (
        ([], "Go on with it: --resume"),
        (["--resume", "--standard", "official"], "Begin again with another --work"),
    ):
        refused = certify(*asked, *other, "--out", "other.json", inside=inside)
        assert refused.returncode == 2 and why in " ".join(refused.stderr.split())
        assert not (inside / "other.json").exists()


@full(held_by=ENDED)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_study_that_is_ended_leaves_no_process_and_concludes_nothing(
    study: PowerStudy, done: Any, inside: Path, number: signal.Signals
) -> None:
    one_more = ["--defects", "moments-float16", "--resume", "--out", "killed.json"]
    work = inside / "certify-runs" / "power"
    shutil.rmtree(work / "at-work", ignore_errors=True)
    running = start_certify(*done.args[3:], *one_more, inside=inside)
    wait_for(lambda: any(work.glob("at-work/moments-float16/plain/runs/subject-1/trace.jsonl")), running)
    running.send_signal(number)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130, said
    assert said.rstrip().endswith(shlex.join(["certify", *running.args[3:]])), said
    assert not (work / "planted" / "moments-float16.json").exists() and not (inside / "killed.json").exists()
    wait_for(lambda: not inhabitants(inside), None)


def wait_for(happened: Callable[[], bool], running: "subprocess.Popen[str] | None") -> None:
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline and (running is None or running.poll() is None)
        time.sleep(0.1)


def inhabitants(directory: Path) -> list[str]:
    """The processes that work in a directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(entry / "cwd") == str(directory):
                found.append(entry.name)
    return found


@full(held_by=NOT_RUN)
def test_a_fault_that_does_not_run_is_no_sighting(study: PowerStudy, done: Any, inside: Path) -> None:
    working = (inside / "quick_gelu.py").read_text()
    (inside / "broken.py").write_text(working.replace("1.702 * x", "missing * x").replace("QuickGeluFor", "BrokenFor"))
    one_more = ["--defects", "broken.py", "--resume", "--out", "broken.json"]
    again = certify(*done.args[3:], *one_more, inside=inside)
    assert again.returncode == 2, again.stdout
    assert "shows nothing of the gate" in " ".join(again.stderr.split()) and "missing" in again.stderr
    assert not (inside / "broken.json").exists()


# A run twice, so that the second takes the kept graph; or all of the subject, with what is compiled after the step.
TWICE = (SUBJECT, SUBJECT_REPEAT)


# Forks run a whole walk-through of fakes; a defect that is compiled in a fresh process leaves what it should.
@full(held_by=FORKED)
@pytest.mark.parametrize(("runs", "files"), [(TWICE, 3), ((), 7)], ids=["twice", "all"])
def test_a_forked_run_with_a_kept_graph_leaves_the_bits_of_a_fresh_process(
    tmp_path: Path, runs: tuple[str, ...], files: int
) -> None:
    small = shorter(load_case("qwen3-tiny-fp32"), 12, lr_zero_steps=3)
    left = {}
    for way in ("fresh", "forked"):
        options = Options(out=tmp_path / way / "plain", command=(), subject=load_defect("moments-bfloat16").runner)
        named, _ = prepare(small, (), options)
        jobs = [job for job in all_jobs(named, options) if job.side == "subject" and job.run in (runs or [job.run])]
        if way == "fresh":
            Launcher(workers=2).execute(jobs, named)
        else:
            with Forks(threads=1) as forks:
                forks.execute(jobs, named)
        kept = {path.name: path.read_bytes() for path in options.out.glob("tensors/*")}
        left[way] = {**kept, **{job.run: (Path(job.directory) / TRACE).read_bytes() for job in jobs}}
    assert len(left["fresh"]) == files
    assert left["forked"] == left["fresh"]
