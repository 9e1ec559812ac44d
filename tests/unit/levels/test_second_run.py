"""What is no run of its own, and what no waiver is: by records alone, since reading bundles takes most of the time."""

import dataclasses
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from harness.attestation import Attestation, Role, Signed, Waiver
from harness.evidence.bundle import Bundle
from harness.evidence.judge import Outcome
from harness.evidence.provenance import Start
from harness.evidence.timing import Timing, read_timing
from harness.levels.certificate import Level, Requirement
from harness.levels.rule import certify
from harness.levels.scope import scope
from harness.levels.submission import NOTHING_SIGNED, Submission, claim_of
from tests.support.bundles import write_example
from tests.support.examples import small_case
from tests.unit.levels.test_levels import shipped, with_outcome, with_outcomes

AT = datetime(2026, 2, 10, tzinfo=UTC)
SIGNED = datetime(2026, 2, 5, tzinfo=UTC)
PEOPLE = {"Dana": Role.DEVELOPER, "Li": Role.DEV_TEAM, "Tess": Role.TEST_TEAM}
Change = Callable[[Bundle], Bundle]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a committed revision that passes all."""
    made = write_example(tmp_path_factory.mktemp("first") / "first", case=small_case(), header=shipped)
    return with_outcomes(made, *[Outcome.PASS] * len(made.findings))


@pytest.fixture(scope="module")
def second(first: Bundle) -> Bundle:
    """Another run of the same, two days later."""
    return dataclasses.replace(
        first,
        path=Path("second"),
        digest="2" * 64,
        record="2" * 64,
        occasion=dataclasses.replace(first.occasion, started="2026-02-02T08:00:00+00:00"),
        start=dataclasses.replace(started(first), nonce="2" * 64),
        timings={name: slower(timing) for name, timing in first.timings.items()},
    )


def started(bundle: Bundle) -> Start:
    assert bundle.start is not None
    return bundle.start


def slower(timing: Timing, by: float = 0.01) -> Timing:
    return dataclasses.replace(timing, steps=tuple((step, round(seconds + by, 6)) for step, seconds in timing.steps))


def signed(bundle: Bundle, *people: str, waivers: tuple[Signed[Waiver], ...] = ()) -> Submission:
    stated = tuple(
        Attestation(statement=claim_of(bundle, PEOPLE[person], SIGNED), person=person, key_id="", digest=person)
        for person in people
    )
    return Submission(
        bundle=bundle, statements=dataclasses.replace(NOTHING_SIGNED, attestations=stated, waivers=waivers)
    )


def independent(first: Bundle, second: Bundle) -> Requirement:
    certificate = certify(signed(first, *PEOPLE), AT, [signed(second, "Tess")])
    (found,) = [one for one in certificate.requirements if "independent run" in one.text]
    assert certificate.reaches(Level.RELEASED) == found.met
    return found


def test_a_run_of_its_own_is_a_second_run_and_independence_is_the_word_of_who_signed(
    first: Bundle, second: Bundle
) -> None:
    found = independent(first, second)
    words = "second: the same bits in every number; that it is independent is the word of Tess"
    assert (found.met, found.detail) == (True, words)


def with_start(**fields: Any) -> Change:
    return lambda bundle: dataclasses.replace(bundle, start=dataclasses.replace(started(bundle), **fields))


def with_source(**fields: Any) -> Change:
    return lambda bundle: dataclasses.replace(bundle, source=dataclasses.replace(bundle.source, **fields))


def with_occasion(**fields: Any) -> Change:
    return lambda bundle: dataclasses.replace(bundle, occasion=dataclasses.replace(bundle.occasion, **fields))


def with_times(change: Callable[[Timing], Timing]) -> Change:
    return lambda bundle: dataclasses.replace(bundle, timings={n: change(t) for n, t in bundle.timings.items()})


def steps(*times: tuple[int, float]) -> Callable[[Timing], Timing]:
    """These steps in place of the first ones."""
    return lambda timing: dataclasses.replace(timing, steps=(*times, *timing.steps[len(times) :]))


def both(*changes: Change) -> Change:
    def change(bundle: Bundle) -> Bundle:
        for one in changes:
            bundle = one(bundle)
        return bundle

    return change


def test_a_second_run_of_a_newer_revision_counts(first: Bundle, second: Bundle) -> None:
    newer = both(with_source(revision="b" * 40, sha256="e" * 64), with_start(committed="2026-01-31T00:00:00+00:00"))
    assert independent(first, newer(second)).met


@pytest.mark.parametrize(("file", "met"), [("a" * 64, True), ("b" * 64, False)])
def test_a_second_run_has_the_same_file_of_a_runner(first: Bundle, second: Bundle, file: str, met: bool) -> None:
    made, again = (
        with_source(runners={"mine.py:Mine": one * 64})(two) for one, two in (("a", first), (file[0], second))
    )
    assert independent(made, again).met == met


def test_a_step_that_was_taken_again_after_a_resumption_does_no_harm(first: Bundle, second: Bundle) -> None:
    again = with_times(lambda t: dataclasses.replace(t, steps=(*t.steps, *slower(t).steps), compiling=(1.0, 2.0)))
    assert independent(first, again(second)).met


NOT_SECOND: dict[str, tuple[Change, str]] = {
    "without a nonce": (
        lambda b: dataclasses.replace(b, start=None), "second has no nonce: it was not made by this version"),
    "with the nonce of the first": (with_start(nonce="1" * 64), "second is the same run"),
    "with the times of the first": (with_times(lambda t: slower(t, -0.01)), "second is the same run"),
    "with the time of one step changed": (
        with_times(lambda t: steps((1, 0.5))(slower(t, -0.01))), "second is the same run"),
    "older": (with_occasion(started="2026-01-31T01:00:00+00:00"), "second started before the first run"),
    "of the same moment": (
        with_occasion(started="2026-01-31T02:00:00+00:00", host="elsewhere"), "second started before the first run"),
    "of an older revision": (
        both(with_source(revision="b" * 40), with_start(committed="2026-01-29T00:00:00+00:00")),
        "second is of another revision, which is not known to be newer"),
    "of a revision whose time is not known": (
        both(with_source(revision="b" * 40), with_start(committed=None)),
        "second is of another revision, which is not known to be newer"),
    "of other code under one revision": (with_source(sha256="e" * 64), "second has other code of the same revision"),
    "judged by fewer standards": (
        lambda b: dataclasses.replace(b, standards=b.standards[:1]), "second was judged by other standards"),
    "without times": (
        lambda b: dataclasses.replace(b, timings={}), "second has not the time of each step of oracle-1"),
    "without the time of a step": (
        with_times(lambda t: dataclasses.replace(t, steps=t.steps[1:])),
        "second has not the time of each step of oracle-1"),
    "with the time of a step that was not taken": (
        with_times(steps((9999, 0.02))), "second has not the time of each step of oracle-1"),
    "whose steps took no time": (
        with_times(steps((1, 0.0))), "second has times of oracle-1 that do not fit its duration"),
    "whose steps took longer than it": (
        with_times(steps((1, 500.0))), "second has times of oracle-1 that do not fit its duration"),
    "that compiled longer than it took": (
        with_times(lambda t: dataclasses.replace(t, compiling=(500.0,))),
        "second has times of oracle-1 that do not fit its duration"),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_SECOND)
def test_no_second_run_is_one(first: Bundle, second: Bundle, name: str) -> None:
    change, why = NOT_SECOND[name]
    found = independent(first, change(second))
    assert (found.met, found.detail) == (False, why)


def waiver(of: Bundle, /, person: str = "Wu", **fields: Any) -> Signed[Waiver]:
    whole = {"criterion": "probe", "case_digest": of.case.digest(), "reason": "known", "until": date(2026, 6, 30),
             "role": Role.DEV_TEAM, "stated_at": SIGNED, "scope": scope(of).line, "bundle": of.digest}  # fmt: skip
    return Signed(statement=Waiver(**{**whole, **fields}), person=person, key_id="", digest="w")


@pytest.fixture(scope="module")
def failed(first: Bundle) -> Bundle:
    return with_outcome(first, "probe", Outcome.FAIL)


def level(bundle: Bundle, one: Signed[Waiver], *people: str) -> Level:
    return certify(signed(bundle, *people, waivers=(one,)), AT).level


def test_a_waiver_of_a_bundle_or_of_its_revision_counts(failed: Bundle) -> None:
    for fields in ({}, {"bundle": None, "revision": failed.source.revision}):
        assert level(failed, waiver(failed, **fields), "Dana", "Li") is Level.PRELIMINARY


@pytest.mark.parametrize(
    "fields",
    [
        {"criterion": "grads-finite"}, {"case_digest": "0" * 64}, {"scope": "Qwen3 tiny, training on Ascend"},
        {"scope": None}, {"bundle": "0" * 64}, {"bundle": None}, {"bundle": None, "revision": "0" * 40},
        {"person": "Dana"}, {"person": "Li"}, {"person": "Tess", "role": Role.TEST_TEAM},
    ],
)  # fmt: skip
def test_no_other_waiver_counts(failed: Bundle, fields: dict[str, Any]) -> None:
    assert level(failed, waiver(failed, **fields), *PEOPLE) is Level.UNTESTED


def test_no_waiver_counts_before_the_developer_has_signed(failed: Bundle) -> None:
    assert level(failed, waiver(failed), "Li") is Level.UNTESTED


def test_a_waiver_of_a_revision_does_not_hold_for_changes_of_it(failed: Bundle) -> None:
    dirty = with_source(dirty=True)(failed)
    assert level(dirty, waiver(dirty, bundle=None, revision=dirty.source.revision), "Dana") is Level.UNTESTED


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff\n", b"[]\n", b"{}\n", b'{"step": 1, "seconds": NaN}\n', b'{"step": 1, "seconds": -1}\n',
        b'{"step": true, "seconds": 1}\n', b'{"step": 1.5, "seconds": 1}\n', b'{"step": -1, "seconds": 1}\n',
        b'{"step": 1, "seconds": "1"}\n', b"[" * 100_000, b'{"step": 1, "seconds": 1e999}\n',
        b'{"seconds": 1' + b"0" * 400 + b"}\n",
    ],
)  # fmt: skip
def test_times_with_a_line_that_is_none_are_no_times(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "timing.jsonl"
    good = (json.dumps({"step": 1, "seconds": 0.5}) + "\n").encode()
    path.write_bytes(good)
    assert read_timing(path) == Timing(steps=((1, 0.5),))
    path.write_bytes(good + junk)
    assert read_timing(path) == Timing() == read_timing(tmp_path / "none")


def test_days_of_a_waiver_are_counted(failed: Bundle) -> None:
    for days, problems in ((180, 0), (181, 1)):
        one = waiver(failed, until=(SIGNED + timedelta(days=days)).date())
        assert len(list(one.statement.problems())) == problems
