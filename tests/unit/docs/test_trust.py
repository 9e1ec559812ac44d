"""The page of ways to fool it lists what is tried, and nothing of it is missing there."""

import re

from tests.support.examples import ROOT
from tests.support.hostile_runners import TRIES
from tests.support.leaving_runners import LEFT
from tests.unit.certify.test_fooling_collected import WAYS as WAYS_OF_COLLECTED
from tests.unit.certify.test_what_is_judged import WAYS
from tests.unit.runners.test_environment_of_a_run import NOT_PASSED
from tests.unit.runners.test_surroundings import SURROUNDINGS

PAGE = (ROOT / "docs" / "design" / "trust.md").read_text(encoding="utf-8")


def rows(head: str) -> list[str]:
    """The first cells of the table with this head."""
    table = PAGE[PAGE.index(f"| {head} |") :].split("\n\n")[0].splitlines()[2:]
    return [line.split(" | ")[0].removeprefix("| ") for line in table]


def test_every_try_of_a_hostile_subject_is_a_row() -> None:
    assert rows("what a subject tries") == list(TRIES)


def test_every_way_to_leave_something_for_a_later_run_is_a_row() -> None:
    assert rows("where the first run leaves something") == list(LEFT)


def test_everything_that_surrounds_a_run_is_a_row() -> None:
    assert rows("what surrounds it") == list(SURROUNDINGS)
    assert f"{len(NOT_PASSED)} variables" in PAGE


def test_every_disturbance_of_what_is_judged_is_a_row() -> None:
    assert rows("what a run, or anything else, does to the directory") == list(WAYS)


def test_every_way_with_the_files_of_a_collected_run_is_a_row() -> None:
    assert rows("what is done to the files of a collected run") == list(WAYS_OF_COLLECTED)


def test_what_stays_possible_is_said_as_often_as_it_is_a_row_without_a_rejection() -> None:
    possible = [line for line in PAGE.splitlines() if line.startswith("|") and "stays possible" in line]
    assert len(possible) >= 10 and all(re.search(r"\*\*stays possible", line) for line in possible)
