"""The baselines of this checkout: each can be used for the case, the format and the code of now, and is documented."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.cases.case import DEFAULT_CASE, load_case, shipped_cases
from harness.certify.baseline import (
    MAX_AGE_DAYS,
    BaselineState,
    check_baseline,
    find_baseline,
    record_command,
    stored_names,
)
from harness.certify.jobs import Options, recorded_jobs
from harness.evidence.provenance import read_baseline
from harness.levels.recorded import read_signed_baseline
from tests.support.examples import ROOT

BASELINES = ROOT / "baselines"
SHIPPED = stored_names(BASELINES)
LARGEST = 60_000_000  # bytes, of all together
ROW = re.compile(r"^\| `([\w.-]+)` \| ([\d.]+) MB \|", re.MULTILINE)


def size(name: str) -> int:
    return sum(path.stat().st_size for path in (BASELINES / name).rglob("*") if path.is_file())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_baseline_is_of_the_case_the_format_and_the_code_of_now(name: str) -> None:
    case = load_case(name) if name in shipped_cases() else None
    recorded = datetime.fromisoformat(read_signed_baseline(BASELINES / name, None, datetime.now(UTC)).baseline.recorded)
    # its age is no matter of the code: `certify baseline verify` rejects one that is too old
    found = check_baseline(BASELINES, name, case, recorded, MAX_AGE_DAYS)
    extract = f"certify baseline extract reports/{name}-cpu --replace --author NAME --reason WHY"
    record = record_command(name, Path("baselines"), replace=True)
    assert found.state is BaselineState.USABLE, (
        f"{found.detail}\nMake it again: {record}\nor, of a bundle that was made again: {extract}"
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_baseline_holds_every_run_of_its_case(name: str) -> None:
    case = load_case(name)
    jobs = recorded_jobs(case, Options(out=Path("out"), command=()))
    assert find_baseline(BASELINES, case, jobs, max_age_days=100 * MAX_AGE_DAYS).case == name


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_baseline_was_made_from_a_committed_revision(name: str) -> None:
    source = read_baseline(BASELINES / name).source
    assert source.revision is not None and not source.dirty


def test_the_default_case_is_shipped() -> None:
    assert DEFAULT_CASE in SHIPPED


def test_the_shipped_baselines_stay_small() -> None:
    assert sum(map(size, SHIPPED)) < LARGEST


def test_the_table_names_each_shipped_baseline_with_its_size() -> None:
    named = {name: float(megabytes) for name, megabytes in ROW.findall((BASELINES / "README.md").read_text())}
    assert named == {name: pytest.approx(size(name) / 1e6, abs=0.051) for name in SHIPPED}
