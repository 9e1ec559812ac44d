"""The newest run of a cell counts, each scope is a cell of its own, and every change of a level has its moment."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.attestation import Attestation, Role, Waiver
from harness.attestation.verification import Signed
from harness.evidence.bundle import Bundle
from harness.evidence.judge import Outcome
from harness.evidence.provenance import Source
from harness.levels.cells import LevelCell, cells
from harness.levels.certificate import VALID_DAYS, Level
from harness.levels.rule import certify
from harness.levels.scope import scope
from harness.levels.submission import NOTHING_SIGNED, Submission, claim_of
from tests.support.bundles import write_example
from tests.support.examples import small_case
from tests.unit.levels.test_levels import shipped, with_outcome, with_outcomes

DAY = timedelta(days=1)
FIRST = datetime(2026, 1, 31, 2, tzinfo=UTC)


@pytest.fixture(scope="module")
def passed(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle that passes all, from a committed revision."""
    bundle = write_example(tmp_path_factory.mktemp("passed") / "bundle", case=small_case(), header=shipped)
    whole = with_outcomes(bundle, *[Outcome.PASS] * len(bundle.findings))
    return dataclasses.replace(whole, source=Source(revision="a" * 40, dirty=False, sha256="c" * 64))


def on(bundle: Bundle, days: int, digest: str = "") -> Bundle:
    """The same on another day."""
    occasion = dataclasses.replace(bundle.occasion, started=(FIRST + days * DAY).isoformat())
    return dataclasses.replace(bundle, occasion=occasion, digest=digest or f"{days:064x}", record=f"{days:064x}")


def signed(bundle: Bundle, **when: int) -> Submission:
    """Signed by people of these roles, so many days after the first run."""
    stated = tuple(
        Attestation(
            statement=claim_of(bundle, Role(role.replace("_", "-")), FIRST + days * DAY),
            person=role,
            key_id="",
            digest="",
        )
        for role, days in when.items()
    )
    return Submission(bundle=bundle, statements=dataclasses.replace(NOTHING_SIGNED, attestations=stated))


def cell_of(*submissions: Submission) -> LevelCell:
    (cell,) = cells(submissions)
    return cell


def test_a_newest_run_that_fails_takes_away_what_was_signed(passed: Bundle) -> None:
    first = signed(on(passed, 0), developer=0, dev_team=1)
    failed = Submission(bundle=with_outcome(on(passed, 2), "converges", Outcome.FAIL))
    assert cell_of(first).current(FIRST + 3 * DAY)[1].level is Level.VALIDATED
    run, certificate = cell_of(failed, first).current(FIRST + 3 * DAY)
    assert (certificate.level, run) == (Level.UNTESTED, failed)


def test_a_newest_run_that_passes_need_not_be_signed_again(passed: Bundle) -> None:
    first = signed(on(passed, 0), developer=0, dev_team=1)
    run, certificate = cell_of(first, Submission(bundle=on(passed, 2))).current(FIRST + 3 * DAY)
    assert (certificate.level, run) == (Level.VALIDATED, first)


def test_the_newest_of_equal_runs_is_the_evidence(passed: Bundle) -> None:
    older, newer = (Submission(bundle=on(passed, days)) for days in (0, 2))
    assert cell_of(newer, older).current(FIRST + 3 * DAY)[0] is newer


def test_a_level_changes_by_a_run_a_signature_and_the_passing_of_time(passed: Bundle) -> None:
    cell = cell_of(signed(on(passed, 0), developer=1, dev_team=2))
    changes = cell.changes(FIRST + 400 * DAY)
    assert [(one.before, one.certificate.level, (one.at - FIRST).days) for one in changes] == [
        (Level.NONE, Level.PRELIMINARY, 0),
        (Level.PRELIMINARY, Level.VALIDATED, 2),
        (Level.VALIDATED, Level.UNTESTED, VALID_DAYS),
    ]
    assert cell.changes(FIRST + 10 * DAY) == changes[:2]


def test_a_run_that_reaches_nothing_is_no_change(passed: Bundle) -> None:
    broken = with_outcome(on(passed, 0), "runs-finite", Outcome.FAIL)
    assert cell_of(Submission(bundle=broken)).changes(FIRST + DAY) == ()


def _environment(bundle: Bundle, **fields: Any) -> Bundle:
    return dataclasses.replace(bundle, environment=dataclasses.replace(bundle.environment, **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"packages": {"mindspore": "2.10.0"}},
        {"device": "Ascend"},
        {"machine": {"ascend": {"cann": "8.5.0", "driver": "25.5.0", "soc": "910B3"}}},
    ],
)
def test_other_versions_and_another_chip_are_another_cell(passed: Bundle, fields: dict[str, Any]) -> None:
    other = _environment(passed, **fields)
    assert len(cells([Submission(bundle=passed), Submission(bundle=other)])) == 2
    assert scope(other).line != scope(passed).line


def test_one_chip_in_two_servers_and_plain_operators_are_other_cells(passed: Bundle) -> None:
    def on_server(**more: str) -> Bundle:
        return _environment(passed, device="Ascend", machine={"ascend": {"soc": "910B3", **more}})

    servers = [on_server(product="Atlas 800T A2"), on_server(product="Atlas 800I A2"), on_server(board="0x64")]
    found = cells([Submission(bundle=one) for one in servers])
    assert sorted(str(one.scope.soc) for one in found) == [
        "910B3, Atlas 800I A2", "910B3, Atlas 800T A2", "910B3, board 0x64",
    ]  # fmt: skip
    plain = passed.case.with_changes(precision={**passed.case.precision.dtypes, "fused": False})
    assert scope(dataclasses.replace(passed, case=plain)).precision == "float32, plain operators"


def test_another_mode_is_another_cell(passed: Bundle) -> None:
    def in_mode(mode: str) -> Bundle:
        run = passed.runs["subject-1"]
        assert run.trace is not None
        header = dataclasses.replace(run.trace.header, provenance={"mode": mode})
        runs = {**passed.runs, run.name: dataclasses.replace(run, trace=dataclasses.replace(run.trace, header=header))}
        return dataclasses.replace(passed, runs=runs)

    found = cells([Submission(bundle=in_mode(mode)) for mode in ("PYNATIVE", "GRAPH")])
    assert [one.scope.mode for one in found] == ["PYNATIVE", "GRAPH"]


def test_what_was_not_recorded_is_not_stated(passed: Bundle) -> None:
    bare = _environment(passed, packages={}, machine={})
    assert scope(bare).versions == (None, None, None, None)
    assert scope(bare).line.endswith(
        "no recompute, chip not stated, mode not stated, MindSpore Transformers not stated, MindSpore not stated, "
        "CANN not stated, HDK not stated"
    )


def test_a_level_below_preliminary_has_no_end(passed: Bundle) -> None:
    good = certify(Submission(bundle=on(passed, 0)), FIRST + DAY)
    assert good.until == FIRST + VALID_DAYS * DAY
    failed = with_outcome(on(passed, 0), "converges", Outcome.FAIL)
    assert certify(Submission(bundle=failed), FIRST + DAY).until is None


def test_a_waiver_holds_for_its_scope_alone(passed: Bundle) -> None:
    failed = with_outcome(on(passed, 0), "probe", Outcome.FAIL)
    assert any(one.outcome is Outcome.FAIL for one in failed.findings)

    def level(bundle: Bundle, line: str | None, person: str = "Li") -> Level:
        waiver = Waiver(
            criterion="probe",
            case_digest=bundle.case.digest(),
            reason="known",
            until=(FIRST + 9 * DAY).date(),
            role=Role.DEV_TEAM,
            stated_at=FIRST,
            scope=line,
            revision="a" * 40,
        )
        waived = Signed(statement=waiver, person=person, key_id="", digest="")
        submission = signed(bundle, developer=0)
        statements = dataclasses.replace(submission.statements, waivers=(waived,))
        return certify(Submission(bundle=bundle, statements=statements), FIRST + DAY).level

    elsewhere = _environment(failed, packages={"mindspore": "2.10.0"})
    line = scope(failed).line
    assert (level(failed, line), level(elsewhere, line)) == (Level.PRELIMINARY, Level.UNTESTED)
    assert level(elsewhere, scope(elsewhere).line) is Level.PRELIMINARY
    assert level(failed, None) is Level.UNTESTED  # as an older version signed it
    assert level(failed, line, person="developer") is Level.UNTESTED
