"""Rates by the days of faults and of criteria: what a gate rejects that nobody knew when its limits were set.

A catalogue grows beside the criteria, so the rate over all of it flatters them. A fault of the same day as a criterion
counts as known to whoever set it.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from harness.defects import Defect, shipped_defects
from harness.power.rates import Rate, counted
from harness.power.record import Planted, PowerStudy
from harness.standards import dated_criteria


@dataclass(frozen=True, kw_only=True)
class Split:
    """The faults of a study by their days.

    Attributes:
        after: Of the faults that are younger than every criterion of the study, how many any rejects.
        before: The same of the other faults.
        older: Of the faults that are younger than any criterion, how many are rejected by a criterion that is older
            than the fault: what the gate rejected when the fault was new.
    """

    after: Rate
    before: Rate
    older: Rate


def by_day(study: PowerStudy) -> Split | None:
    """The rates of rejection by days; None if no fault of the study has a day."""
    days = _days_of_criteria(study)
    faults = [(day, one) for one in counted(study) if (day := _described(one).since)]
    if not faults or not days:
        return None
    first, last = min(days.values()), max(days.values())
    return Split(
        after=_rejected([one for day, one in faults if day > last]),
        before=_rejected([one for day, one in faults if day <= last]),
        older=Rate(
            count=sum(any(days.get(seen.criterion, day) < day for seen in one.sightings) for day, one in faults),
            total=sum(day > first for day, _ in faults),
        ),
    )


def of_others(study: PowerStudy) -> Rate:
    """How many bugs of public frameworks, rebuilt by their effect, are rejected."""
    return _rejected([one for one in counted(study) if _described(one).reported])


def _rejected(faults: list[Planted]) -> Rate:
    return Rate(count=sum(bool(one.sightings) for one in faults), total=len(faults))


def _days_of_criteria(study: PowerStudy) -> Mapping[str, str]:
    """The day of each criterion of a study; at the latest that of the study, in which it judged."""
    recorded = study.recorded[: len("2000-01-01")]
    known = {f"{one.standard}/{one.criterion}": one.since for one in dated_criteria()}
    return {name: min(known.get(name, recorded), recorded) for name in study.criteria}


def _described(planted: Planted) -> Defect:
    """The defect with its days. A study that was recorded without them takes those of the catalogue."""
    recorded = planted.defect
    if recorded.since is not None or (shipped := _catalogue().get(recorded.id)) is None:
        return recorded
    return shipped if shipped.runner == recorded.runner else recorded


@functools.cache
def _catalogue() -> Mapping[str, Defect]:
    return shipped_defects()
