"""The power study's arithmetic: which criterion rejects a defect first, the results of other rules, and the rates."""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import EvidenceError, InputError
from harness.base.records import encode, write_json
from harness.cases import task as tasks
from harness.cases.case import load_case
from harness.cases.runs_of_a_case import judges_layout
from harness.comparison.measurement import Comparison, Measurement
from harness.defects import INFERENCE, PARALLEL, Defect, shipped_defects
from harness.defects.draw import draw, drawn_defects
from harness.evidence.judge import Finding, Judged, Outcome
from harness.evidence.provenance import Environment, Source
from harness.power import days, rates, record, rules
from harness.power.curve import size_curve
from harness.power.page import build_page, render_power
from harness.power.rates import Rate, named_rightly
from harness.power.record import Planted, PowerStudy, Sighting, first_sightings, read_power, sightings
from harness.power.rules import other_rules
from harness.standards import Dated, Limit, load_standard
from harness.studies.clean import chosen
from harness.studies.power import USUAL_LAYOUT, StudyPlan
from harness.studies.variations import variations_of
from qwen3_model.parallel_config import ParallelConfig
from tests.support.bundles import write_example
from tests.support.command_line import caller
from tests.support.examples import ROOT, small_case

STEPS = st.none() | st.integers(0, 10**6)
DEFECT = next(iter(shipped_defects().values()))


def sighting(criterion: str, step: int | None = None) -> Sighting:
    return Sighting(criterion=criterion, outcome=Outcome.FAIL, step=step, message="")


def finding(measurement: str, statistic: Any, beyond: int | str | None, outcome: Outcome = Outcome.FAIL) -> Finding:
    limit = Limit(measurement=measurement, statistic=statistic, value=0, reason="r", source="s")
    judged = Judged(limit=limit, outcome=outcome, value=1.0, first_beyond=beyond)
    return Finding(standard="s", criterion="c", title="", outcome=outcome, judged=(judged,), message="m")


@pytest.mark.parametrize(
    ("measurement", "statistic", "beyond", "step"),
    [
        ("subject.alignment.differs", "maximum", "optimizer.eps", 0),
        ("subject.initial.differs", "maximum", "model.norm.weight", 0),
        ("train.loss.relative", "first", 1, 1),
        ("oracle.gradients.ratio", "mean", "model.norm.weight", 1),
        ("oracle.updates.ratio", "maximum", "model.norm.weight", 1),
        ("runs.probe_norm", "maximum", "subject-probe", 1),
        ("train.loss.relative", "maximum", 17, 17),
        ("subject.resumed.loss.differs", "maximum", 4, 4),
        ("train.loss.relative", "mean", 17, None),
        ("train.loss.signed", "bias", 17, None),
        ("train.parameters.relative", "maximum", "model.norm.weight", None),
    ],
)
def test_a_sighting_is_dated_by_when_it_can_be_known(measurement: str, statistic: str, beyond: Any, step: Any) -> None:
    (found,) = sightings([finding(measurement, statistic, beyond)])
    assert (found.criterion, found.step) == ("s/c", step)


@pytest.mark.parametrize("outcome", [Outcome.PASS, Outcome.INCONCLUSIVE])
def test_an_inconclusive_finding_is_no_sighting(outcome: Outcome) -> None:
    assert sightings([finding("subject.steps", "minimum", None, outcome)]) == ()


@given(st.lists(STEPS, min_size=1))
def test_the_first_sightings_are_those_at_the_earliest_step(steps: list[int | None]) -> None:
    found = [sighting(str(number), step) for number, step in enumerate(steps)]
    first = first_sightings(found)
    order = [math.inf if one.step is None else one.step for one in found]
    assert [order[found.index(one)] for one in first] == [min(order)] * len(first)
    assert all(one in first or order[found.index(one)] > min(order) for one in found)


def curve(**values: Any) -> Comparison:
    """Losses and norms that differ by the given amounts in the first of 200 steps."""
    found = {}
    for name in ("train.loss.relative", "train.loss.absolute", "train.grad_norm.relative"):
        apart = dict(enumerate(values.get(name.split(".")[1], ())))
        numbers = tuple(apart.get(step, 0.0) for step in range(200))
        found[name] = Measurement(name=name, places=tuple(range(1, 201)), values=numbers)
    return Comparison(measurements=found)


@pytest.mark.parametrize(
    ("comparison", "seen"),
    [
        (curve(), (False, False, False)),
        (curve(loss=[0.01]), (True, True, False)),  # the first step, and no other
        (curve(loss=[0, *[0.02] * 120]), (True, True, False)),
        (curve(grad_norm=[0.2] * 150), (True, False, True)),
        (curve(loss=[0, 0.06, 0.06]), (False, False, False)),  # two of 200 are forgiven
        (curve(loss=[0, 0.06, 0.06, 0.06]), (False, False, True)),
        (curve(loss=[0, math.nan]), (True, True, False)),
        (curve(loss=[math.nan] * 200), (True, True, True)),
    ],
)
def test_the_other_rules_reject_what_they_are_known_to_reject(comparison: Comparison, seen: tuple[bool, ...]) -> None:
    assert tuple(other_rules(comparison, tasks.PRETRAIN).values()) == seen


@pytest.mark.parametrize(
    ("apart", "seen"),
    [
        ({"text": 0.0, "last_word": 0.004, "ending": 0.0}, (False, False, False)),
        ({"text": 0.005, "last_word": 0.0, "ending": 0.0}, (True, False, True)),
        ({"text": 0.0, "last_word": 0.0, "ending": 0.01}, (True, True, False)),
        ({"text": math.nan, "last_word": math.nan, "ending": 0.0}, (True, True, True)),
    ],
)
def test_the_other_rules_see_only_scores_for_inference(apart: dict[str, float], seen: tuple[bool, ...]) -> None:
    scores = Measurement(name=rules.SCORES, places=tuple(apart), values=tuple(apart.values()))
    comparison = Comparison(measurements={rules.SCORES: scores})
    assert tuple(other_rules(comparison, tasks.INFERENCE).values()) == seen


def test_the_ceiling_of_the_other_rules_is_that_of_the_standard() -> None:
    (limit,) = [c.limits[0] for c in load_standard("official-inference").criteria if c.id == "score-ceiling"]
    assert (limit.measurement, limit.statistic, limit.value) == (rules.SCORES, "maximum", rules.SCORE_CEILING)


def test_the_other_rules_raise_no_alarm_about_a_good_run(tmp_path: Path) -> None:
    comparison = write_example(tmp_path / "b", case=small_case()).comparison
    assert set(other_rules(comparison, tasks.PRETRAIN).values()) == {False}


@given(st.integers(0, 500), st.integers(1, 500))
def test_an_interval_holds_its_rate(count: int, more: int) -> None:
    rate = Rate(count=count, total=count + more)
    low, high = rate.interval
    assert 0 <= low <= rate.count / rate.total <= high <= 1 and low < high


def test_four_hundred_runs_without_alarm_bound_the_rate_at_one_per_cent() -> None:
    assert Rate(count=0, total=400).interval[1] == pytest.approx(0.0095, abs=1e-4)


def test_nothing_counted_has_the_widest_interval() -> None:
    assert (Rate(count=0, total=0).interval, str(Rate(count=0, total=0))) == ((0.0, 1.0), "0 of 0")


def planted(*found: Sighting, place: str | None = None, named: str | None = None, seen: bool = False) -> Planted:
    defect: Defect = dataclasses.replace(DEFECT, place=place)
    refuse = dict.fromkeys(rules.RULES["pretrain"].requires, seen)
    return Planted(defect=defect, case="c", named=named, sightings=found, rules=refuse, seconds=1.0)


def study(*every: Planted) -> PowerStudy:
    shown = Environment(device="CPU", python="3.11.7", threads=1, machine={}, packages={}, variables={})
    return PowerStudy(
        format=record.FORMAT,
        recorded="2026-01-31T00:00:00+00:00",
        command=(),
        environment=shown,
        source=Source(revision="a" * 40, dirty=False, sha256="b" * 64),
        standards={"a": "", "b": ""},
        criteria=("a/x", "a/y", "b/z"),
        planted=every,
        clean=(),
        seconds=0.0,
    )


def test_a_criterion_that_is_never_first_is_redundant() -> None:
    both = planted(sighting("a/x", 1), sighting("a/y", 5)), planted(sighting("a/y"), sighting("b/z", 3))
    found = study(*both, planted(), planted(sighting("a/x"), seen=True))
    powers = {one.criterion: one for one in rates.criterion_power(found)}
    assert [(one.finds.count, one.first, one.only) for one in powers.values()] == [(2, 2, 1), (2, 0, 0), (1, 1, 0)]
    assert [name for name, one in powers.items() if one.redundant] == ["a/y"]
    assert (rates.found(found).count, len(list(rates.misses(found)))) == (3, 1)
    assert (rates.found_by(found, "a").count, rates.found_by(found, "b").count) == (3, 1)
    assert all(rate.count == 1 for rate in rates.found_by_rules(found).values())


def test_defects_that_a_standard_misses_are_listed_with_the_criteria_that_reject_them() -> None:
    every = [planted(sighting("a/x", 1)) for _ in range(19)]
    page = build_page(study(*every, planted(sighting("b/z"))))
    assert page.left == (f"a alone does not reject {DEFECT.id}; other criteria do: b/z.",)


def test_the_page_states_how_many_defects_were_not_run_again() -> None:
    early = dataclasses.replace(planted(sighting("a/x", 1)), unmade=("subject-2", "subject-resumed"))
    (stated,) = build_page(study(early, dataclasses.replace(planted(sighting("a/x")), unmade=()))).left
    assert stated.startswith("1 of 2 defects were rejected by their first runs")
    assert "subject-2 and subject-resumed" in stated
    assert build_page(study(planted(sighting("a/x")))).left == (), "a study from before made every run"


@pytest.mark.parametrize(
    ("place", "named", "right"),
    [
        ("model.layers.1.mlp", "model.layers.1.mlp", True),
        ("model.layers.1.mlp", "model.layers.1.mlp.act", True),
        ("model.layers.1.mlp", "model.layers.0.mlp or model.layers.1.mlp", True),
        ("model.layers.1.mlp", "model.layers.1", False),
        ("model.layers.1", "model.layers.10", False),
        ("model.layers.1.mlp", None, False),
    ],
)
def test_a_place_is_named_rightly_only_at_it_or_inside_it(place: str, named: str | None, right: bool) -> None:
    one = planted(place=place, named=named)
    assert named_rightly(one) is right
    assert rates.places_named(study(one, planted(named="optimizer alone"))) == Rate(count=int(right), total=1)


@pytest.mark.parametrize(
    ("case", "count"), [(tasks.PRETRAIN.usual_case, 400), (tasks.INFERENCE.usual_case, 60), (USUAL_LAYOUT, 70)]
)
def test_there_are_many_clean_runs_and_a_few_are_one_of_each(case: str, count: int) -> None:
    base = load_case(case)
    variations = variations_of(base)
    every = chosen(variations, None)
    assert len(every) >= count and len({(variation.name, seed) for variation, seed in every}) == len(every)
    few = chosen(variations, len(variations))
    assert {variation.name for variation, _ in few} == {variation.name for variation in variations}
    shipped = [run for run in every if run[0].subject == "mindspore"]
    digests = {variation.case(base, seed).digest() for variation, seed in shipped}
    runs = [variation for variation, _ in every if variation.subject == "mindspore" and variation.threads == 1]
    assert len(digests) >= len(runs)


def clean(variation: str, seed: int, *found: Sighting, used: float | None = 0.5) -> record.Clean:
    refuse = dict.fromkeys(rules.RULES["pretrain"].requires, False)
    return record.Clean(
        variation=variation, seed=seed, case_digest="", sightings=found, rules=refuse, closest="a/x", used=used
    )


def test_the_page_shows_every_defect_and_variation_and_lists_misses() -> None:
    every = (planted(sighting("a/x", 0), sighting("b/z"), place="model.norm", named="model.norm"), planted())
    runs = (clean("wide", 0), clean("wide", 1, sighting("b/z"), used=1.5), clean("long", 0))
    page = build_page(dataclasses.replace(study(*every), clean=runs))
    assert (page.headline, page.tone) == ("1 of 2", "bad")
    assert page.sentence == "planted defects rejected; 1 of 3 clean runs."
    first, second = page.defects
    assert (first.seen.word, first.when, first.first) == ("rejected", "before the first step", "a/x")
    assert first.more == "and 1 criterion later"
    assert first.named is not None and first.named.word == "named"
    assert (second.seen.word, second.first, second.named) == ("missed", "", None)
    assert [id for id, _ in page.missed] == [DEFECT.id]
    assert [(row.variation, row.runs, row.refused.word, row.by) for row in page.clean] == [
        ("wide", 2, "false alarm", "b/z"), ("long", 1, "no alarm", "")
    ]  # fmt: skip


def test_a_clean_run_that_measured_no_number_is_the_nearest_to_an_alarm() -> None:
    runs = (clean("wide", 0, used=0.9), clean("wide", 1, sighting("b/z"), used=None))
    (row,) = build_page(dataclasses.replace(study(planted()), clean=runs)).clean
    assert (row.refused.word, row.used) == ("false alarm", "not finite")


def test_a_study_of_inference_has_its_own_rules_and_no_places() -> None:
    names = rules.RULES["inference"].requires
    defect = dataclasses.replace(DEFECT, area=INFERENCE)
    one = dataclasses.replace(planted(sighting("a/x")), defect=defect, rules=dict.fromkeys(names, False))
    inference = study(one)
    page = build_page(inference)
    assert page.rules == tuple(names) and not page.located
    assert not {"The place", *rules.RULES["pretrain"].requires} & {row.name for row in page.rates}
    assert "Place</th>" not in render_power(inference) and "Place</th>" in render_power(study(planted()))


@pytest.mark.parametrize("case", [None, "qwen3-tiny-inference"])
def test_a_study_is_of_one_task(case: str | None) -> None:
    inference = next(one for one in shipped_defects().values() if one.area == INFERENCE)
    both = StudyPlan(defects=(inference, DEFECT), case=case, standards=(), clean=None)
    with pytest.raises(InputError, match="a study is of one task"):
        both.cases()
    alone = dataclasses.replace(both, defects=(inference,))
    (own,) = alone.cases()
    assert alone.ground.task == own.task == tasks.INFERENCE


def test_defects_are_planted_in_the_steps_that_a_study_asks_for() -> None:
    whole = StudyPlan(defects=(DEFECT,), case=None, standards=(), clean=None)
    ((case,), (short,)) = whole.cases(), dataclasses.replace(whole, steps=20).cases()
    assert case.training.steps > short.training.steps == 20 and short.standards == case.standards


@pytest.mark.parametrize("layout", ["qwen3-tiny-tp2", None])
def test_clean_runs_of_a_study_of_layouts_are_over_ranks_and_of_every_kind(layout: str | None) -> None:
    """Also where any defect is planted into a case of several ranks."""
    defects = tuple(one for one in shipped_defects().values() if (one.area == PARALLEL) != bool(layout))
    plan = StudyPlan(defects=defects, case=layout, standards=(), clean=None)
    cases = [variation.case(plan.ground, 0) for variation in plan.variations]
    assert all(case.parallel.world_size > 1 and judges_layout(case.standards[-1]) for case in cases)
    for used in dataclasses.fields(ParallelConfig):
        assert any(getattr(case.parallel, used.name) != used.default for case in cases), used.name
    assert {case.parallel.world_size for case in cases} == {2, 4}


def test_the_description_of_a_defect_is_text_on_the_page() -> None:
    hostile = "<script>alert(1)</script>"
    one = planted(sighting(hostile), named=hostile)
    defect = dataclasses.replace(DEFECT, id=hostile, what=hostile, imitates=hostile, source=f"javascript:{hostile}")
    page = render_power(dataclasses.replace(study(dataclasses.replace(one, defect=defect)), command=(hostile,)))
    assert "<script" not in page and page.count("&lt;script&gt;") >= 5 and 'href="javascript' not in page


def test_the_page_next_to_a_study_is_that_of_its_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file orders names; what was recorded may hold them in another order."""
    made = dataclasses.replace(study(planted(sighting("b/z", 1), sighting("a/x", 1))), standards={"b": "", "a": ""})
    monkeypatch.setattr("harness.cli.power.run_study", lambda *_: made)
    out = tmp_path / "power.json"
    assert caller(capsys, monkeypatch, "power")("--out", out).code == 0
    assert out.with_suffix(".html").read_text(encoding="utf-8") == render_power(read_power(out))


def test_faults_are_drawn_over_the_steps_that_are_planted_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = list[StudyPlan]()
    made = study(planted(sighting("a/x", 1)))
    monkeypatch.setattr("harness.cli.power.run_study", lambda plan, *_: plans.append(plan) or made)
    out = tmp_path / "power.json"
    assert caller(capsys, monkeypatch, "power")("--out", out, "--drawn", 30, "--steps", 20).code == 0
    (plan,) = plans
    cases = plan.cases()
    assert len(plan.defects) == 30 and {case.training.steps for case in cases} == {20}
    faults = [draw(number, case) for number, case in enumerate(cases, 1)]
    assert max(fault.first for fault in faults) < 20
    assert [one.what for one in plan.defects] == [one.what for one in drawn_defects(30, cases[0])]


def test_a_study_survives_its_file_and_an_edit_is_rejected(tmp_path: Path) -> None:
    made = dataclasses.replace(study(planted(sighting("a/x", 1))), clean=(clean("wide", 0),))
    write_json(tmp_path / "power.json", made)
    assert read_power(tmp_path / "power.json") == made
    write_json(tmp_path / "power.json", {**encode(made), "more": 1})
    with pytest.raises(EvidenceError, match=r"power\.json"):
        read_power(tmp_path / "power.json")


def dated(since: str | None, *found: Sighting, reported: str | None = None) -> Planted:
    one = planted(*found)
    other = dataclasses.replace(one.defect, id="of-somebody", since=since, reported=reported)
    return dataclasses.replace(one, defect=other)


OLD, NEW = "official/first-loss", "strict-probe-fp32/gradients-line"


@pytest.fixture
def of_days(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A study of the tenth, whose criteria are of the second and of the fourth."""
    ages = {OLD: "2026-01-02", NEW: "2026-01-04"}
    known = [
        Dated(standard=name.split("/")[0], version=1, criterion=name.split("/")[1], since=day)
        for name, day in ages.items()
    ]
    monkeypatch.setattr(days, "dated_criteria", lambda: tuple(known))

    def of(*every: Planted) -> days.Split | None:
        made = dataclasses.replace(study(*every), recorded="2026-01-10T00:00:00+00:00", criteria=(OLD, NEW))
        return days.by_day(made)

    return of


def test_a_fault_of_the_day_of_a_criterion_is_not_younger_than_it(of_days: Any) -> None:
    first = of_days(dated("2026-01-02", sighting(OLD)))
    assert (first.after.total, first.before.total, first.older.total) == (0, 1, 0)
    last = of_days(dated("2026-01-04", sighting(NEW)))
    assert (last.after.total, last.before.total) == (0, 1)


def test_a_fault_that_only_a_younger_criterion_rejects_was_missed_when_it_was_new(of_days: Any) -> None:
    between = [dated("2026-01-03", sighting(NEW)), dated("2026-01-03", sighting(NEW), sighting(OLD))]
    missed = dated("2026-01-05")
    found = of_days(*between, missed, dated("2026-01-05", sighting(NEW)))
    assert (found.before, found.after) == (Rate(count=2, total=2), Rate(count=1, total=2))
    assert found.older == Rate(count=2, total=4)


def test_a_fault_without_a_day_is_in_neither_part(of_days: Any) -> None:
    assert of_days(dated(None, sighting(OLD))) is None


def test_a_criterion_without_a_day_is_as_old_as_the_study() -> None:
    made = dataclasses.replace(study(dated("2026-01-09", sighting("a/x"))), recorded="2026-01-10T00:00:00+00:00")
    found = days.by_day(made)
    assert found is not None and (found.after.total, found.older.total) == (0, 0)


def test_a_study_without_days_takes_those_of_the_catalogue() -> None:
    shipped = next(one for one in shipped_defects().values() if one.reported)
    undated = dataclasses.replace(shipped, since=None, reported=None)
    one = dataclasses.replace(planted(sighting("a/x")), defect=undated)
    assert days.of_others(study(one)) == Rate(count=1, total=1)
    foreign = dataclasses.replace(one, defect=dataclasses.replace(undated, runner="mine.py:Mine"))
    assert days.of_others(study(foreign)).total == 0


def test_bugs_of_others_have_a_rate_of_their_own() -> None:
    every = dated("2026-01-05", sighting("a/x"), reported="2020-01-01"), dated("2026-01-05"), dated("2026-01-05")
    page = build_page(study(*every))
    (row,) = [row for row in page.rates if row.name == "Faults of others"]
    assert row.rate == "1 of 1"
    assert [row.reported for row in page.defects] == ["2020-01-01", "", ""]
    assert "reported on 2020-01-01" in render_power(study(*every))


def test_a_fault_that_changes_no_bit_is_neither_rejected_nor_missed() -> None:
    none = dataclasses.replace(planted(place="model.norm"), differs=False)
    made = study(planted(sighting("a/x")), none, dataclasses.replace(planted(), differs=True))
    assert rates.found(made) == Rate(count=1, total=2)
    assert rates.places_named(made).total == 0 and len(list(rates.misses(made))) == 1
    page = build_page(made)
    assert (page.headline, [row.seen.word for row in page.defects]) == ("1 of 2", ["rejected", "none here", "missed"])
    assert [id for id, _ in page.none] == [DEFECT.id]
    assert "None in this case" in render_power(made) and "None in this case" not in render_power(study(planted()))


def test_a_study_that_compared_no_bits_counts_every_fault() -> None:
    assert rates.found(study(planted(), planted(sighting("a/x")))) == Rate(count=1, total=2)


def sized(size: float, rejected: bool) -> Planted:
    one = planted(*([sighting("s/c", 1)] if rejected else []))
    return dataclasses.replace(one, defect=dataclasses.replace(one.defect, size=size))


def test_the_rate_by_size_counts_each_defect_once_in_its_bin() -> None:
    every = [sized(size, size > 0.004) for size in (0.001, 0.0012, 0.003, 0.005, 0.02, 0.09) for _ in range(5)]
    bins = rates.by_size(study(*every))
    assert sum(one.rate.total for one in bins) == 30
    assert all(low.high <= high.low * (1 + 1e-9) for low, high in itertools.pairwise(bins))
    assert [one.rate.count for one in bins] == [0, 0, 5, 5, 5]


def test_the_size_from_which_on_faults_are_detected_is_where_the_rate_at_that_size_is_high() -> None:
    """Large faults that are all rejected say nothing of small ones."""
    missed = [sized(0.001 + number * 1e-6, False) for number in range(20)]
    seen = [sized(0.01 + number * 1e-4, True) for number in range(400)]
    assert rates.detected_from(study(*missed, *seen)) == pytest.approx(0.01)
    one_later = [*seen[:10], sized(0.011, False), *seen[11:]]
    assert rates.detected_from(study(*missed, *one_later)) == pytest.approx(0.0111)
    assert rates.detected_from(study(*missed)) is None
    assert rates.detected_from(study(*seen[:5])) is None


def test_the_page_states_the_rate_by_size_where_sizes_are_known() -> None:
    page = render_power(study(*(sized(0.01, True) for _ in range(30))))
    assert "How large a fault has to be" in page and "From a size of 1.00% on" in page
    assert "How large" not in render_power(study(planted(sighting("s/c", 1)))) and "<polyline" not in page


@given(st.lists(st.tuples(st.floats(1e-3, 0.1), st.booleans()), min_size=20, max_size=60))
def test_the_curve_has_a_point_in_its_drawing_for_each_bin_of_sizes(every: list[tuple[float, bool]]) -> None:
    made = study(*(sized(*one) for one in every))
    bins, curve = rates.by_size(made), size_curve(made)
    assert (curve is None) == (len(bins) < 2)
    if curve is not None:
        assert len(curve.dots) == len(bins)
        assert all(0 <= dot.x <= curve.width and 0 <= dot.y <= curve.height for dot in curve.dots)
        assert [dot.y for dot in curve.dots] == pytest.approx(
            [curve.height * (1 - one.rate.count / one.rate.total) for one in bins], abs=0.1
        )
        assert len(curve.sizes) >= 2 and "<polyline" in render_power(made)


PUBLISHED = json.loads((ROOT / "reports" / "power-qwen3-tiny-inference.json").read_bytes())
FIRST, CLEAN = PUBLISHED["planted"][0], PUBLISHED["clean"][0]
SEEN = {"criterion": PUBLISHED["criteria"][0], "outcome": "FAIL", "step": 1, "message": ""}
CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "a defect twice": ({"planted": [FIRST, FIRST]}, "is there twice in"),
    "a clean run twice": ({"clean": [CLEAN, CLEAN]}, "is there twice"),
    "a result of other rules that is missing": ({"planted": [{**FIRST, "rules": {}}]}, "has other rules than"),
    "that of a clean run": ({"clean": [{**CLEAN, "rules": {"mine": False}}]}, "has other rules than"),
    "a criterion that did not judge": (
        {"planted": [{**FIRST, "sightings": [{**SEEN, "criterion": "mine/all"}]}]}, "rejected by mine/all"
    ),
    "a criterion that passed": ({"planted": [{**FIRST, "sightings": [{**SEEN, "outcome": "PASS"}]}]}, "rejected by"),
    "a step before the first": ({"planted": [{**FIRST, "sightings": [{**SEEN, "step": -1}]}]}, "rejected by"),
    "no difference, but rejected": ({"planted": [{**FIRST, "sightings": [SEEN], "differs": False}]}, "in no bit"),
    "a size below 0": ({"planted": [{**FIRST, "defect": {**FIRST["defect"], "size": -1.0}}]}, "has the size -1.0"),
    "a time that is none": ({"recorded": "yesterday"}, "no UTC time"),
    "a time that is not yet": ({"recorded": "2999-01-01T00:00:00+00:00"}, "in the future"),
    "a study of less than no time": ({"seconds": -1.0}, "the study took -1.0 seconds"),
    "a fault of less than no time": ({"planted": [{**FIRST, "seconds": -1.0}]}, "took -1.0 seconds"),
    "a criterion twice": ({"criteria": [*PUBLISHED["criteria"], PUBLISHED["criteria"][0]]}, "is there twice"),
    "a criterion of no standard": ({"criteria": [*PUBLISHED["criteria"], "mine/all"]}, "no standard has mine/all"),
    "another task": ({"planted": [FIRST, {**FIRST, "defect": encode(DEFECT)}]}, "of several tasks"),
}  # fmt: skip


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_a_study_that_states_what_none_records_is_rejected(what: str, tmp_path: Path) -> None:
    changes, why = CONTRADICTIONS[what]
    write_json(tmp_path / "study.json", {**PUBLISHED, **changes})
    with pytest.raises(EvidenceError, match=f"study.json was edited: .*{why}"):
        read_power(tmp_path / "study.json")
