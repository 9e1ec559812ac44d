"""Runs of a study that are forked show what fresh processes show."""

from pathlib import Path

import pytest

from harness.certify.flow import prepare
from harness.certify.jobs import job
from harness.runs.trace import Run
from tests.support.examples import ROOT, options, text_case
from tests.support.forked_runs import FakeForks


def repeated(subject: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, Run]:
    """The training of a subject and its repeat."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    chosen = options(tmp_path / "a" / "b" / "out", subject=subject)
    case, _ = prepare(text_case(tmp_path), (), chosen)
    with FakeForks() as forks:
        one, other = forks.execute([job(case, chosen, name) for name in ("subject-1", "subject-2")], case)
    return one, other


def losses(run: Run) -> list[float]:
    assert run.trace is not None, run.outcome
    return [step.loss for step in run.trace.steps]


@pytest.mark.parametrize("subject", ["Unseeded", "Compiled"])
def test_a_subject_that_differs_between_interpreters_does_not_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subject: str
) -> None:
    """Also where what it drew is in a graph that was compiled and kept."""
    one, other = repeated(subject, tmp_path, monkeypatch)
    assert one.outcome.status == other.outcome.status == "completed" and losses(one) != losses(other)


def test_a_deterministic_subject_repeats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = repeated("Fake", tmp_path, monkeypatch)
    assert losses(one) == losses(other)
