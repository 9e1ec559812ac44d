"""Many runs of one process of the reference: a run that raises or is killed is told, and the others go on."""

from pathlib import Path

import pytest

from harness.base.errors import InputError
from harness.cases.case import Case
from harness.certify.flow import prepare
from harness.certify.jobs import job
from harness.evidence.bundle import read_run
from harness.studies.pool import Pool
from tests.support.examples import ROOT, options, text_case

Prepared = tuple[Case, Path]


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    out = tmp_path / "out"
    return prepare(text_case(tmp_path), (), options(out))[0], out


def test_a_run_that_raises_in_a_pool_ends_as_a_crash_and_the_next_one_is_carried_out(prepared: Prepared) -> None:
    case, out = prepared
    crashing, fine = (
        job(case, options(out, reference=runner), name)
        for runner, name in (("Crashes", "reference-1"), ("Fake", "reference-2"))
    )
    with Pool(1, out / "log.txt") as pool:
        pool.execute([crashing, fine], case)
    crashed, went_on = (read_run(Path(one.directory)) for one in (crashing, fine))
    assert (crashed.outcome.status, crashed.outcome.detail) == ("crashed", "raised RuntimeError")
    assert "the device is on fire" in crashed.outcome.log_tail
    assert went_on.outcome.status == "completed" and went_on.trace is not None and went_on.trace.complete


def test_a_pool_whose_process_is_killed_says_how_to_go_on(prepared: Prepared) -> None:
    case, out = prepared
    with Pool(1, out / "log.txt") as pool, pytest.raises(InputError, match=r"log\.txt .*--resume"):
        pool.execute([job(case, options(out, reference="Killed"), "reference-1")], case)
