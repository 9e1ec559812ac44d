"""Steps are profiled as the job states, and what a profiler writes is covered by the record and not by the manifest."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from harness.base.records import read_json
from harness.certify.jobs import job, plan
from harness.cli.run import print_profile
from harness.evidence.bundle_files import MANIFEST, RECORD, check_files, seal
from harness.runners.profiling import Profiling
from tests.support.bundles import page_of, write_example
from tests.support.examples import inference_case, options, small_case


class Recording:
    """A runner with a profiler that notes what is done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def profiler(self, directory: Path) -> "Recording":
        self.done.append(directory.name)
        return self

    def start(self) -> None:
        self.done.append("start")

    def stop(self) -> None:
        self.done.append("stop")


def steps(profile: tuple[int, int] | None, taken: range, last: int, runner: Any, tmp_path: Path) -> None:
    one = job(small_case(), options(tmp_path / "out"), "subject-2")
    profiling = Profiling(dataclasses.replace(one, profile=profile), runner)
    for step in taken:
        profiling.before(step)
        if hasattr(runner, "done"):
            runner.done.append(str(step))
        profiling.after(step, last=step == last)


@pytest.mark.parametrize(
    ("profile", "taken", "last", "done"),
    [
        ((2, 3), range(1, 5), 4, "profile 1 start 2 3 stop 4"),
        ((3, 3), range(1, 5), 4, "profile 1 2 start 3 stop 4"),
        ((3, 9), range(1, 5), 4, "profile 1 2 start 3 4 stop"),
        ((2, 3), range(3, 5), 4, "profile start 3 stop 4"),
        ((2, 3), range(4, 5), 4, "profile 4"),
        (None, range(1, 3), 2, "1 2"),
    ],
    ids=["some", "one", "the run ends before", "resumed within", "resumed after", "none"],
)
def test_the_steps_of_a_job_are_profiled(
    tmp_path: Path, profile: tuple[int, int] | None, taken: range, last: int, done: str
) -> None:
    runner = Recording()
    steps(profile, taken, last, runner, tmp_path)
    assert " ".join(runner.done) == done


def test_a_runner_without_a_profiler_runs_and_its_log_states_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps((1, 2), range(1, 3), 2, object(), tmp_path)
    assert "object cannot be profiled: it has no method profiler" in capsys.readouterr().out


def test_the_repeat_of_the_subject_alone_is_profiled(tmp_path: Path) -> None:
    asked = options(tmp_path / "out", profile=(2, 3))
    assert [one.run for one in plan(small_case(), asked) if one.profile] == ["subject-2"]
    assert not any(one.profile for one in plan(inference_case(), asked))


def test_logs_and_profiles_are_in_the_record_and_not_in_the_manifest(tmp_path: Path) -> None:
    bundle = write_example(tmp_path / "bundle")
    own = {f"runs/subject-2/{name}": name for name in ("profile/a/kernel.csv", "plog/run/plog/plog-7.log")}
    for path in own:
        (bundle.path / path).parent.mkdir(parents=True)
        (bundle.path / path).write_text("written by another program")
    before = read_json(bundle.path / MANIFEST)
    seal(bundle.path)
    assert read_json(bundle.path / MANIFEST) == before
    assert set(own) <= set(read_json(bundle.path / RECORD)["files"])
    check_files(bundle.path)


def test_the_page_and_the_terminal_state_that_times_of_a_profiled_run_are_no_evidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = write_example(tmp_path / "bundle")
    print_profile(bundle)
    assert "Nothing was profiled" in capsys.readouterr().out
    place = bundle.path / "runs" / "subject-2" / "profile"
    place.mkdir()
    (place / "kernel.csv").write_text("1")
    print_profile(bundle)
    assert "times of subject-2 are no evidence" in capsys.readouterr().out
    assert "profiled: its times are no evidence" in page_of(bundle)
