"""The page of a study: how many defects were rejected and by what, how many clean runs, and a row for each."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from harness.base.text import listed
from harness.evidence.judge import Outcome
from harness.power.curve import SizeCurve, size_curve
from harness.power.days import by_day, of_others
from harness.power.rates import (
    Rate,
    by_size,
    counted,
    criterion_power,
    detected_from,
    false_alarms,
    found,
    found_by,
    found_by_rules,
    misses,
    named_rightly,
    none_here,
    places_named,
    seen_by,
)
from harness.power.record import Clean, Planted, PowerStudy, first_sightings
from harness.report.page import render_template
from harness.report.words import Fact, Mark, count, mark

NONE = replace(mark(Outcome.INCONCLUSIVE), word="none here")
FEW = 0.1  # the largest share of the defects that is listed by name


@dataclass(frozen=True, kw_only=True)
class RateRow:
    """A rate with its interval; `share` is its length in a bar, as a percentage."""

    name: str
    note: str
    rate: str
    interval: str
    share: str
    own: bool


@dataclass(frozen=True, kw_only=True)
class CriterionPowerRow:
    criterion: str
    finds: int
    first: int
    only: int
    redundant: bool


@dataclass(frozen=True, kw_only=True)
class DefectRow:
    """One defect: which criteria rejected it first and when, how many did later, and the result of the other rules."""

    id: str
    area: str
    what: str
    imitates: str
    source: str
    case: str
    seen: Mark
    when: str
    first: str
    more: str
    rules: tuple[Mark, ...]
    place: str
    named: Mark | None
    reported: str
    diagnosis: str


@dataclass(frozen=True, kw_only=True)
class CleanRow:
    """One variation over its seeds."""

    variation: str
    runs: int
    refused: Mark
    by: str
    closest: str
    used: str


@dataclass(frozen=True, kw_only=True)
class PowerPage:
    """Everything that the page shows. `located`: whether each defect was diagnosed."""

    headline: str
    tone: str
    sentence: str
    facts: tuple[Fact, ...]
    rates: tuple[RateRow, ...]
    sizes: tuple[RateRow, ...]
    curve: SizeCurve | None
    detected: str
    rules: tuple[str, ...]
    located: bool
    criteria: tuple[CriterionPowerRow, ...]
    missed: tuple[tuple[str, str], ...]
    none: tuple[tuple[str, str], ...]
    left: tuple[str, ...]
    defects: tuple[DefectRow, ...]
    clean: tuple[CleanRow, ...]
    command: str


def render_power(study: PowerStudy) -> str:
    """The page as HTML; it opens from disk, without a network."""
    return render_template("power.html.j2", page=build_page(study))


def build_page(study: PowerStudy) -> PowerPage:
    """The view model of a study."""
    seen, alarms = found(study), false_alarms(study)
    good = seen.count == seen.total and not alarms.count
    return PowerPage(
        headline=f"{seen.count} of {seen.total}",
        tone="good" if good else "open" if not alarms.count else "bad",
        sentence="planted defects rejected; "
        + (f"{alarms.count} of {count(alarms.total, 'clean run')}." if alarms.total else "no clean run was made."),
        facts=tuple(_facts(study)),
        rates=tuple(_rates(study)),
        sizes=tuple(_sizes(study)),
        curve=size_curve(study),
        detected=_detected(study),
        rules=tuple(study.rules),
        located=study.task.judges_steps,
        criteria=tuple(
            CriterionPowerRow(
                criterion=one.criterion, finds=one.finds.count, first=one.first, only=one.only, redundant=one.redundant
            )
            for one in criterion_power(study)
        ),
        missed=tuple(_described(misses(study))),
        none=tuple(_described(none_here(study))),
        left=(*_left(study), *_early(study)),
        defects=tuple(_defect(one, study.rules) for one in study.planted),
        clean=tuple(_clean(study)),
        command=" ".join(study.command),
    )


def _described(every: Iterable[Planted]) -> Iterator[tuple[str, str]]:
    yield from ((one.defect.id, f"{one.defect.what} {one.defect.note}".strip()) for one in every)


def _facts(study: PowerStudy) -> Iterator[Fact]:
    yield Fact(term="Recorded", text=f"{study.recorded}, in {study.seconds / 60:.0f} minutes")
    dirty = ", with uncommitted changes" * study.source.dirty
    yield Fact(term="Source revision", text=f"{study.source.revision or 'no checkout'}{dirty}", code=True)
    for name, digest in study.standards.items():
        yield Fact(term=name, text=digest, code=True)
    yield Fact(term="Cases", text=listed(sorted({one.case for one in study.planted})) or "none")
    yield Fact(term="Processor", text=str(study.environment.machine.get("processor", "not known")))
    packages = study.environment.packages
    shown = (f"{name} {packages[name]}" for name in ("mindspore", "torch", "transformers") if packages.get(name))
    yield Fact(term="Packages", text=", ".join(shown))


def _rates(study: PowerStudy) -> Iterator[RateRow]:
    yield _rate("All criteria together", "defects rejected", found(study), own=True)
    if (split := by_day(study)) is not None:
        yield _rate(
            "Planted after the criteria", "defects that are younger than every criterion", split.after, own=True
        )
        yield _rate("Planted before a criterion", "defects that were known when a criterion was set", split.before)
        what = "defects rejected by a criterion that is older than the defect"
        yield _rate("By older criteria", what, split.older, own=True)
    if (others := of_others(study)).total:
        yield _rate("Faults of others", "bugs of public frameworks, rebuilt by their effect", others, own=True)
    for name in study.standards:
        yield _rate(name, "this standard alone", found_by(study, name), own=True)
    for rule, rate in found_by_rules(study).items():
        yield _rate(rule, study.rules[rule], rate)
    if study.task.judges_steps:
        what = "defects in a module that the diagnosis names, or names a part of"
        yield _rate("The place", what, places_named(study), own=True)
    yield _rate("False alarms", "clean runs that any criterion rejects", false_alarms(study), own=True)


def _sizes(study: PowerStudy) -> Iterator[RateRow]:
    for one in by_size(study):
        yield _rate(f"{one.low:.2%} to {one.high:.2%}", "", one.rate, own=True)


def _detected(study: PowerStudy) -> str:
    size = detected_from(study)
    if size is None:
        return "At no size are 95 % of the defects rejected."
    return f"From a size of {size:.2%} on, at least 95 % of the defects are rejected."


def _left(study: PowerStudy) -> Iterator[str]:
    """The defects that a standard misses, if it rejects nearly all, and the criteria that reject them."""
    for name in study.standards:
        left = [one for one in counted(study) if one.sightings and not seen_by(one, name)]
        if 0 < len(left) <= FEW * len(counted(study)):
            others = sorted({sighting.criterion for one in left for sighting in one.sightings})
            ids = listed([one.defect.id for one in left])
            yield f"{name} alone does not reject {ids}; other criteria do: {listed(others)}."


def _early(study: PowerStudy) -> Iterator[str]:
    """How many defects were rejected before all their runs were made."""
    early = [one.unmade for one in study.planted if one.unmade]
    if early:
        names = listed(sorted({name for unmade in early for name in unmade}))
        yield (
            f"{len(early)} of {count(len(study.planted), 'defect')} were rejected by their first runs, so {names} were "
            "not made of them. What those would have shown besides is not counted for any criterion or standard."
        )


def _rate(name: str, note: str, rate: Rate, own: bool = False) -> RateRow:
    low, high = rate.interval
    share = rate.count / rate.total if rate.total else 0.0
    return RateRow(
        name=name,
        note=note,
        rate=f"{rate.count} of {rate.total}" if rate.total else "not measured",
        interval=f"{low:.1%} to {high:.1%}" if rate.total else "",
        share=f"{share:.1%}",
        own=own,
    )


def _seen(yes: bool, what: tuple[str, str] = ("rejected", "missed")) -> Mark:
    good = mark(Outcome.PASS if yes else Outcome.FAIL)
    return Mark(glyph=good.glyph, word=what[0] if yes else what[1], tone=good.tone)


def _defect(planted: Planted, rules: Iterable[str]) -> DefectRow:
    first = first_sightings(planted.sightings)
    others = len(planted.sightings) - len(first)
    defect = planted.defect
    return DefectRow(
        id=defect.id,
        area=defect.area,
        what=defect.what,
        imitates=defect.imitates,
        source=defect.source,
        case=planted.case,
        seen=NONE if planted.none else _seen(bool(first)),
        when=_when(first[0].step) if first else "",
        first=listed([one.criterion for one in first]),
        more=f"and {count(others, 'criterion', 'criteria')} later" if others else "",
        rules=tuple(_seen(planted.rules[rule]) for rule in rules),
        place=defect.place or "",
        named=_seen(named_rightly(planted), ("named", "not named")) if defect.place and not planted.none else None,
        reported=defect.reported or "",
        diagnosis=planted.named or "nothing differs",
    )


def _when(step: int | None) -> str:
    return {None: "after the run", 0: "before the first step"}.get(step, f"step {step}")


def _clean(study: PowerStudy) -> Iterator[CleanRow]:
    groups: dict[str, list[Clean]] = {}
    for one in study.clean:
        groups.setdefault(one.variation, []).append(one)
    for variation, runs in groups.items():
        refused = sorted({sighting.criterion for one in runs for sighting in one.sightings})
        worst = max(runs, key=_used)
        yield CleanRow(
            variation=variation,
            runs=len(runs),
            refused=_seen(not refused, ("no alarm", "false alarm")),
            by=listed(refused),
            closest=worst.closest,
            used="not finite" if worst.used is None else f"{worst.used:.0%}",
        )


def _used(one: Clean) -> float:
    return math.inf if one.used is None else one.used
