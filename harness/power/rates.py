"""Rates of a study, each with its interval of 95 %.

A fault that changes no bit of its runs is none in its case: it counts neither as rejected nor as missed.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from harness.power.record import Planted, PowerStudy, first_sightings


@dataclass(frozen=True, kw_only=True)
class Rate:
    """`count` of `total`, with Wilson's interval of 95 %."""

    count: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound; 0 and 1 if nothing was counted."""
        if not self.total:
            return 0.0, 1.0
        from scipy.stats import binomtest  # here, because importing it takes longer than the work of any command

        found = binomtest(self.count, self.total).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        if not self.total:
            return "0 of 0"
        low, high = self.interval
        return f"{self.count} of {self.total} ({self.count / self.total:.1%}, {low:.1%} to {high:.1%})"


@dataclass(frozen=True, kw_only=True)
class CriterionPower:
    """The value of a criterion: how many defects it rejects, how many it is among the first to reject, and how many
    only it rejects."""

    criterion: str
    finds: Rate
    first: int
    only: int

    @property
    def redundant(self) -> bool:
        """Never among the first: other criteria reject every defect of it earlier."""
        return self.first == 0


def counted(study: PowerStudy) -> tuple[Planted, ...]:
    """The defects that rates are about: all but those that are none in their case."""
    return tuple(planted for planted in study.planted if not planted.none)


def none_here(study: PowerStudy) -> tuple[Planted, ...]:
    """The defects that are none in their case, since no bit of a run differs from the correct subject's."""
    return tuple(planted for planted in study.planted if planted.none)


def criterion_power(study: PowerStudy) -> tuple[CriterionPower, ...]:
    """Each criterion that was judged, in the order of the standards."""
    every = [{s.criterion for s in planted.sightings} for planted in counted(study)]
    first = [{s.criterion for s in first_sightings(planted.sightings)} for planted in counted(study)]
    return tuple(
        CriterionPower(
            criterion=criterion,
            finds=Rate(count=sum(criterion in seen for seen in every), total=len(every)),
            first=sum(criterion in seen for seen in first),
            only=sum(seen == {criterion} for seen in every),
        )
        for criterion in study.criteria
    )


def found_by(study: PowerStudy, standard: str) -> Rate:
    """How many defects a standard alone rejects."""
    return Rate(count=sum(seen_by(planted, standard) for planted in counted(study)), total=len(counted(study)))


def seen_by(planted: Planted, standard: str) -> bool:
    """Whether a criterion of a standard rejects a defect."""
    return any(sighting.criterion.startswith(f"{standard}/") for sighting in planted.sightings)


def found(study: PowerStudy) -> Rate:
    """How many defects any criterion rejects."""
    return Rate(count=sum(bool(planted.sightings) for planted in counted(study)), total=len(counted(study)))


def found_by_rules(study: PowerStudy) -> dict[str, Rate]:
    """How many defects each of the other rules rejects, on the same traces."""
    return {
        rule: Rate(count=sum(planted.rules[rule] for planted in counted(study)), total=len(counted(study)))
        for rule in study.rules
    }


def false_alarms(study: PowerStudy) -> Rate:
    """How many clean runs any criterion rejected."""
    return Rate(count=sum(bool(clean.sightings) for clean in study.clean), total=len(study.clean))


def places_named(study: PowerStudy) -> Rate:
    """For how many of the defects that have a place the diagnosis named it."""
    placed = [planted for planted in counted(study) if planted.defect.place is not None]
    return Rate(count=sum(map(named_rightly, placed)), total=len(placed))


def named_rightly(planted: Planted) -> bool:
    """Whether the diagnosis names the place of a defect, a part of it, or the module of a weight. It may name two."""
    place = planted.defect.place
    named = planted.named.split(" or ") if planted.named else []
    return any(place in (one, f"{one}.weight") or one.startswith(f"{place}.") for one in named)


BINS_OF_A_DECADE = 4
FEWEST_SIZED = 20  # defects of a known size, below which nothing is said about sizes
WANTED = 0.95


@dataclass(frozen=True, kw_only=True)
class SizeBin:
    """The defects whose relative size is at least `low` and below `high`, and how many were rejected."""

    low: float
    high: float
    rate: Rate


def by_size(study: PowerStudy) -> tuple[SizeBin, ...]:
    """The rate of rejection by the relative size of a defect, in quarters of a decade; none for a few defects."""
    sized = _sized(study)
    if len(sized) < FEWEST_SIZED:
        return ()
    groups: dict[int, list[Planted]] = {}
    for size, planted in sized:
        groups.setdefault(math.floor(math.log10(size) * BINS_OF_A_DECADE + 1e-9), []).append(planted)
    return tuple(
        SizeBin(
            low=10 ** (number / BINS_OF_A_DECADE),
            high=10 ** ((number + 1) / BINS_OF_A_DECADE),
            rate=Rate(count=sum(bool(one.sightings) for one in group), total=len(group)),
        )
        for number, group in sorted(groups.items())
    )


def detected_from(study: PowerStudy) -> float | None:
    """The smallest size at which 95 % of the defects are rejected, if the rate is taken to grow with the size and to do
    nothing else (isotonic regression); None if it is lower at every size that enough of the defects have or exceed.

    It is the rate at that size. The one of all that are as large or larger would reach 95 % far below it.
    """
    from scipy.optimize import isotonic_regression  # here, because importing it takes longer than the work of a command

    sized = sorted(_sized(study), key=lambda pair: pair[0])
    if len(sized) < FEWEST_SIZED:
        return None
    rates = isotonic_regression([float(bool(planted.sightings)) for _, planted in sized]).x
    enough = sized[: len(sized) - FEWEST_SIZED + 1]
    return next((size for (size, _), rate in zip(enough, rates, strict=False) if rate >= WANTED - 1e-9), None)


def _sized(study: PowerStudy) -> list[tuple[float, Planted]]:
    return [(one.defect.size, one) for one in counted(study) if one.defect.size]


def misses(study: PowerStudy) -> Iterator[Planted]:
    """The defects that no criterion rejected."""
    return (planted for planted in counted(study) if not planted.sightings)
