"""The record of a run that took several attempts."""

from pathlib import Path

import pytest

from harness.certify import case_options, flow
from harness.evidence.bundle_files import RUN
from harness.evidence.provenance import Occasion, read_occasion
from tests.support.examples import options, text_case
from tests.support.forked_runs import forked


def attempt(out: Path, base: Path, *, resume: bool) -> Occasion:
    case = text_case(base)
    with forked():
        flow.run(
            case,
            case_options.load_standards(case.standards, case),
            options(out, subject="Crashes", resume=resume),
            lambda run, trace: None,
        )
    return read_occasion(out / RUN)


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_time_of_a_resumed_run_is_that_of_all_its_attempts(
    tmp_path: Path, interrupted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    if interrupted:
        execute = flow.Launcher.execute

        def stopped(self: object, *arguments: object) -> None:
            execute(self, *arguments)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(flow.Launcher, "execute", stopped)
            attempt(out, tmp_path, resume=False)
        first = read_occasion(out / RUN)
    else:
        first = attempt(out, tmp_path, resume=False)
    again = attempt(out, tmp_path, resume=True)
    assert again.started == first.started and again.seconds > first.seconds > 0


def test_the_time_of_an_attempt_that_was_killed_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, kept = tmp_path / "out", bytearray()
    execute = flow.Launcher.execute

    def killed(self: flow.Launcher, jobs: object, case: object, listener: flow.Listener) -> None:
        def noted(run: str, trace: object) -> None:
            listener(run, trace)  # type: ignore[arg-type]
            kept[:] = (out / RUN).read_bytes()

        execute(self, jobs, case, noted)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(flow, "NOTE_SECONDS", 0.0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(flow.Launcher, "execute", killed)
        attempt(out, tmp_path, resume=False)
    (out / RUN).write_bytes(kept)  # what a kill would have left
    first = read_occasion(out / RUN)
    again = attempt(out, tmp_path, resume=True)
    assert first.seconds > 0 and again.started == first.started and again.seconds > first.seconds
