"""The verdict in words: level, what fails first and where, what is missing, and a command that can be pasted."""

import dataclasses
import math
import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.evidence.judge import Outcome
from harness.levels.rule import certify
from harness.levels.submission import Submission
from harness.levels.verdict_words import NO_LEVEL, Conclusion, conclude
from harness.runs.trace import RunOutcome, Step
from tests.support.bundles import unchanged, write_example
from tests.support.examples import small_case

NOW = datetime.now(UTC)
CRASH = RunOutcome(
    status="crashed", last_step=4, detail="killed by SIGKILL after step 4 of 8", log_tail="out of memory"
)


def off_at_step_17(run: str, step: Step) -> Step:
    return dataclasses.replace(step, loss=step.loss * 1.01) if run == "subject-1" and step.step >= 17 else step


def killed_after_4(run: str, step: Step) -> Step | None:
    return None if run == "subject-1" and step.step > 4 else step


def not_a_number_from_step_17(run: str, step: Step) -> Step:
    broken = run.startswith("subject") and step.step >= 17
    return dataclasses.replace(step, loss=math.nan, grad_norm=math.nan) if broken else step


def conclusion(directory: Path, change: Any = unchanged, place: str | None = None, **more: Any) -> Conclusion:
    occasion = {"started": NOW.isoformat(), **more.pop("occasion", {})}
    bundle = write_example(directory, change=change, occasion=occasion, **more)
    return conclude(bundle, certify(Submission(bundle=bundle), NOW), place=place)


def test_a_correct_run_has_its_level_what_is_missing_and_no_command(tmp_path: Path) -> None:
    found = conclusion(tmp_path / "bundle")
    assert found.headline == "qwen3-tiny-fp32: Preliminary (Qwen3 tiny, training on CPU, one process, float32)"
    assert found.sentence == "64 of 65 criteria pass, none fails; 1 inconclusive."
    assert (found.broken, found.first, found.remarks, found.next_command, found.next_line) == ({}, None, (), None, None)
    assert [(outcome, text.partition(":")[0]) for outcome, text in found.findings] == [
        (Outcome.INCONCLUSIVE, "official-steps")
    ]
    assert found.next_level == "Validated" and "Signed by the developer: no valid signature" in found.missing
    assert found.missing_line is not None and found.missing_line.startswith("Missing for Validated: ")
    assert found.closest is not None and 0 < found.closest.used < 1 and str(found.closest).endswith(" of its limit")


def test_a_loss_that_is_not_a_number_is_named_and_not_that_its_repeat_has_another(tmp_path: Path) -> None:
    found = conclusion(tmp_path / "bundle", not_a_number_from_step_17)
    assert found.first is not None and "step 17" in str(found.first)
    assert "deterministic" not in str(found.first) and "loss" in str(found.first)
    assert any(text.startswith("subject-deterministic") for _, text in found.findings)


def test_criteria_that_say_nothing_for_one_reason_are_one_line(tmp_path: Path) -> None:
    found = conclusion(tmp_path / "bundle", case=small_case())
    silent = [text for outcome, text in found.findings if outcome is Outcome.INCONCLUSIVE]
    (together,) = [text for text in silent if "the case examines no steps" in text]
    assert together.startswith("10 criteria of strict-fp32: the case examines no steps: step-gradients, ")
    assert together.count(",") + together.count(" and ") == 9
    assert len(found.findings) == len(silent) < 4


def test_a_failure_names_where_it_begins_and_the_command_that_locates_it(tmp_path: Path) -> None:
    directory = tmp_path / "my bundle"
    found = conclusion(directory, off_at_step_17)
    assert "fail, the first at step 17" in found.sentence
    assert found.first is not None and found.first.startswith("The first step beyond a limit is step 17 (")
    assert found.next_command is not None
    assert shlex.split(found.next_command.command) == ["certify", "diagnose", str(directory)]
    assert found.next_line is not None
    assert shlex.split(found.next_line.removeprefix("Next: "), comments=True) == ["certify", "diagnose", str(directory)]


def test_the_step_that_a_sentence_names_is_that_of_an_exact_limit_where_there_is_one(tmp_path: Path) -> None:
    found = conclusion(tmp_path / "bundle", off_at_step_17)
    assert found.first is not None and not found.first.endswith(("-mean).", "-rms).", "-bias)."))


@pytest.mark.parametrize(
    "began", [["certify", "run", "c.yaml", "--out", "elsewhere"], ["certify", "run", "c.yaml", "--resume"]]
)
def test_a_run_that_broke_comes_first_and_the_command_resumes_it(tmp_path: Path, began: list[str]) -> None:
    found = conclusion(
        tmp_path / "bundle", killed_after_4, outcomes={"subject-1": CRASH}, occasion={"command": began}, place="BUNDLE"
    )
    assert found.sentence.startswith("subject-1 did not finish: ")
    assert found.broken == {"subject-1": "killed by SIGKILL after step 4 of 8"} and found.level in (
        NO_LEVEL,
        "Untested",
    )
    assert found.next_command is not None
    assert found.next_command.command == "certify run c.yaml --out BUNDLE --resume"


def test_criteria_that_a_run_kept_open_are_one_line_of_each_standard(tmp_path: Path) -> None:
    found = conclusion(tmp_path / "bundle", killed_after_4, outcomes={"subject-1": CRASH})
    texts = [text for outcome, text in found.findings if outcome is Outcome.ERROR]
    assert len(texts) == 2 and all("a run that they need did not finish: " in text for text in texts)
    assert "criteria of official: " in texts[0] and "runs-complete, " in texts[0]


def test_what_another_command_began_is_not_resumed_by_a_made_up_command(tmp_path: Path) -> None:
    found = conclusion(
        tmp_path / "bundle", killed_after_4, outcomes={"subject-1": CRASH}, occasion={"command": ["pytest", "tests"]}
    )
    assert found.broken and found.next_command is None
