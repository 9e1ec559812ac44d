"""Detection power in the documents is that of the recorded studies."""

from pathlib import Path

import pytest

from harness.power.days import by_day, of_others
from harness.power.rates import Rate, false_alarms, found, places_named
from harness.power.record import PowerStudy, read_power
from tests.support.documents import SITE, read, tables
from tests.support.examples import ROOT

README, SUMMARY, DESIGN = ROOT / "README.md", SITE / "detection.md", SITE / "design" / "power.md"
STUDIES = sorted((ROOT / "reports").glob("power-*.json"))
PLACES = ("power-qwen3-tiny-fp32", "power-qwen3-tiny-bf16")  # of these the README names places


def percent(share: float) -> str:
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def interval(rate: Rate) -> str:
    return " to ".join(map(percent, rate.interval))


def at_most(rate: Rate) -> str:
    return percent(rate.interval[1])


def words(path: Path) -> str:
    return " ".join(read(path).split())


def cells(path: Path) -> list[list[str]]:
    return [row for table in tables(read(path)) for row in table]


@pytest.fixture(scope="module", params=STUDIES, ids=lambda path: path.stem)
def study(request: pytest.FixtureRequest) -> PowerStudy:
    return read_power(request.param)


def test_the_readme_states_both_rates_of_every_study(study: PowerStudy) -> None:
    rejected, alarms = found(study), false_alarms(study)
    assert f"{rejected.count} of {rejected.total} planted faults rejected ({interval(rejected)})" in words(README)
    assert f"{alarms.count} of {alarms.total} correct runs rejected (at most {at_most(alarms)})" in words(README)


def test_the_summary_states_both_rates_of_every_study(study: PowerStudy) -> None:
    rejected, alarms = found(study), false_alarms(study)
    in_a_row = [row for row in cells(SUMMARY) if interval(rejected) in row]
    assert any({str(rejected.count), f"{rejected.count} of {rejected.total}"} & set(row) for row in in_a_row)
    of_alarms = f"{alarms.count} of {alarms.total}"
    assert any({of_alarms, at_most(alarms)} <= set(row) for row in in_a_row) or (
        f"{of_alarms} clean runs rejected, at most {at_most(alarms)}" in words(SUMMARY)
    )


def test_the_page_of_the_study_states_its_rates(study: PowerStudy) -> None:
    rejected, alarms = found(study), false_alarms(study)
    assert any(row[1:] == [str(rejected.count), interval(rejected)] for row in cells(DESIGN))
    assert f"rejected of {rejected.total}" in read(DESIGN)
    assert f"No clean run of {alarms.total}" in words(DESIGN) and alarms.count == 0
    assert f"at most {at_most(alarms)}" in words(DESIGN)


@pytest.mark.parametrize("name", PLACES)
def test_the_readme_states_how_many_places_are_named(name: str) -> None:
    places = places_named(read_power(ROOT / "reports" / f"{name}.json"))
    assert f"{places.count} of {places.total}" in words(README)


def test_the_summary_states_the_rates_by_days_and_of_faults_of_others(study: PowerStudy) -> None:
    split = by_day(study)
    assert split is not None
    stated = [
        f"{rate.count} of {rate.total} ({interval(rate)})" if rate.total else "not measured"
        for rate in (split.after, split.before, split.older, of_others(study))
    ]
    assert stated in [row[1:] for row in cells(SUMMARY)]
