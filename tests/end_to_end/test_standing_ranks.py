"""Ranks that stay from one clean run to the next, real ones: what a run leaves is what ranks of its own would leave."""

from pathlib import Path
from typing import Any

import pytest

from harness.cases.case import Case, load_case
from harness.cases.runs_of_a_case import SUBJECT, SUBJECT_RESUMED
from harness.certify.flow import prepare
from harness.certify.jobs import Options, job
from harness.evidence.bundle import read_run
from harness.runners.job import Job
from harness.runners.launcher import Launcher
from harness.runners.mindspore_subject import MindSporeSubject
from harness.runs.files import TRACE
from harness.studies.pool import Pool
from harness.studies.variations import OVER_RANKS
from tests.support.examples import ROOT, shorter
from tests.support.full import full


class BreaksOnOneRank(MindSporeSubject):
    """Goes as far as the first step."""

    def train_step(self, *batch: Any) -> Any:
        if self._setting.rank == 1:
            raise OSError("the second rank has no room left")
        return super().train_step(*batch)


def shortened(case: Case) -> Case:
    return shorter(case, 6, warmup_steps=2, lr_zero_steps=2)


def asked(case: Case, directory: Path, run: str, subject: str = "mindspore") -> tuple[Case, Job]:
    options = Options(out=directory, command=(), subject=subject)
    named, _ = prepare(case, (), options)
    return named, job(named, options, run)


ENDED = "test_a_run_that_raises_in_a_pool_ends_as_a_crash_and_the_next_one_is_carried_out"
BYTES = "tests/unit/runners/test_executors.py::test_all_executors_leave_the_same_bytes"
BROKE = f"{BYTES}, tests/unit/studies/test_pool.py::{ENDED}"


@pytest.mark.parametrize(
    ("arm", "they_broke"),
    [
        pytest.param(SUBJECT, False, marks=full(held_by=BYTES)),
        pytest.param(SUBJECT_RESUMED, False, marks=full(held_by=BYTES)),
        pytest.param(SUBJECT_RESUMED, True, marks=full(held_by=BROKE)),
    ],
    ids=["as begun", "resumed", "after they broke"],
)
def test_a_run_by_ranks_that_stay_has_the_bits_of_ranks_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arm: str, they_broke: bool
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # this file is a rank's subject, and imports what tests share
    (variation,) = [one for one in OVER_RANKS if one.name == "dp2-shared-moments"]
    first, second = (shortened(variation.case(load_case("qwen3-tiny-dp2-tp2"), seed)) for seed in (0, 1))
    broken_case, breaks = asked(first, tmp_path / "breaks", SUBJECT, f"{__file__}:BreaksOnOneRank")
    case_before, before = asked(first, tmp_path / "before", SUBJECT)
    case_stayed, stayed = asked(second, tmp_path / "stayed", arm)
    with Pool(1, tmp_path / "log.txt") as pool:
        for one, of in ([(breaks, broken_case)] if they_broke else []) + [(before, case_before), (stayed, case_stayed)]:
            pool.execute([one], of)
    if they_broke:
        broken = read_run(Path(breaks.directory)).outcome
        assert (broken.status, broken.detail) == ("crashed", "raised RanksBroke")
        assert "the second rank has no room left" in broken.log_tail
    case, own = asked(second, tmp_path / "own", arm)
    Launcher(workers=2).execute([own], case)
    left = [(Path(one.directory) / TRACE).read_bytes() for one in (before, stayed, own)]
    assert left[0] != left[1] == left[2]
    assert [read_run(Path(one.directory)).outcome.status for one in (before, stayed, own)] == ["completed"] * 3
