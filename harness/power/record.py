"""A study of the gate: planted defects that it should reject, clean runs that it should accept, and both rates.

Records for runs of defective and of correct subjects which criterion rejected which run and when, and what other rules
give for the same traces. `harness.studies` makes the runs; nothing here imports a framework.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from harness.base.errors import EvidenceError
from harness.base.parts import Share
from harness.base.records import LATER, read_record
from harness.cases.task import PRETRAIN, Task
from harness.comparison.catalogue import CATALOGUE
from harness.defects import Defect
from harness.evidence.judge import Finding, Judged, Outcome
from harness.evidence.provenance import Environment, Source, in_utc
from harness.power.rules import RULES

FORMAT = "certify-power/1"
CLOCKS_APART = timedelta(days=1)  # more than the clocks of two machines


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """A criterion (`STANDARD/ID`) that a run does not meet, with the message of the finding.

    `step` is when it can be known: 0 before the first step, None only after the run.
    """

    criterion: str
    outcome: Outcome
    step: int | None
    message: str


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A defect in a case, with the criteria that rejected it.

    `rules` gives for each other rule whether it rejects the same traces. `named` is the place that the diagnosis gives,
    or None if it found nothing. `differs`: whether any bit of a run differs from the correct subject's: loss, norm and
    rate of a step, a probed gradient or update, a final parameter; None in a study that did not compare them. `unmade`
    names the runs that were not made, because those before rejected the defect; None in a study that made all.
    """

    defect: Defect
    case: str
    named: str | None
    sightings: tuple[Sighting, ...]
    rules: Mapping[str, bool]
    seconds: float
    differs: bool | None = field(default=None, metadata=LATER)
    unmade: tuple[str, ...] | None = field(default=None, metadata=LATER)

    @property
    def none(self) -> bool:
        """Whether it is no fault in this case, such as a rounding that the case makes anyway."""
        return self.differs is False


@dataclass(frozen=True, kw_only=True)
class Clean:
    """A correct run with a variation that does not matter. `closest` is the criterion that used most of its limit, and
    `used` how much of it: None if the measured value is not finite."""

    variation: str
    seed: int
    case_digest: str
    sightings: tuple[Sighting, ...]
    rules: Mapping[str, bool]
    closest: str
    used: float | None


@dataclass(frozen=True, kw_only=True)
class PowerStudy:
    """A study of one task: planted and clean runs, and the standards that judged them (digest by name). `share`: it has
    the runs of one machine of several; None for a whole study."""

    format: str
    recorded: str
    command: tuple[str, ...]
    environment: Environment
    source: Source
    standards: Mapping[str, str]
    criteria: tuple[str, ...]
    planted: tuple[Planted, ...]
    clean: tuple[Clean, ...]
    seconds: float
    share: Share | None = field(default=None, metadata=LATER)

    @property
    def task(self) -> Task:
        """The task of its defects."""
        return next((one.defect.task for one in self.planted), PRETRAIN)

    @property
    def rules(self) -> Mapping[str, str]:
        """The other rules, each with what it requires."""
        return RULES[self.task.name].requires


def sightings(findings: Sequence[Finding]) -> tuple[Sighting, ...]:
    """The findings that reject a run. INCONCLUSIVE does not reject it and is omitted."""
    return tuple(
        Sighting(
            criterion=f"{finding.standard}/{finding.criterion}",
            outcome=finding.outcome,
            step=_known_at(finding),
            message=finding.message,
        )
        for finding in findings
        if finding.outcome in (Outcome.FAIL, Outcome.ERROR)
    )


def _known_at(finding: Finding) -> int | None:
    steps = [_step_of(judged) for judged in finding.judged]
    # A criterion is not met only if none of its limits is met.
    return None if None in steps else max(step for step in steps if step is not None)


def _step_of(judged: Judged) -> int | None:
    limit = judged.limit
    known_at = CATALOGUE[limit.measurement].known_at
    if known_at is not None or limit.statistic == "first":
        return 1 if known_at is None else known_at
    if limit.statistic == "maximum" and isinstance(judged.first_beyond, int):
        return judged.first_beyond
    return None


def first_sightings(found: Sequence[Sighting]) -> tuple[Sighting, ...]:
    """Those that are known first; several if they are known at the same step."""
    soonest = min((_order(one) for one in found), default=math.inf)
    return tuple(one for one in found if _order(one) == soonest)


def _order(sighting: Sighting) -> float:
    # Below infinity, which means no sighting; above every step.
    return 2.0**53 if sighting.step is None else sighting.step


def read_power(path: Path, *, part: bool = False) -> PowerStudy:
    """A recorded study, or a `part` of one.

    Raises:
        EvidenceError: it is missing, has another format, its content is not valid or what no study records, or it is a
            part, whose rates are those of a choice of the runs.
    """
    study: PowerStudy = read_record(PowerStudy, path, FORMAT)
    if (why := next(_contradictions(study), None)) is not None:
        raise EvidenceError(f"{path} was edited: {why}.")
    if study.share is not None and not part:
        raise EvidenceError(
            f"{path} is part {study.share.part} of a study. Gather all: certify power --gather FILE ..."
        )
    return study


def _contradictions(study: PowerStudy) -> Iterator[str]:
    """What no study records, and what would give wrong rates."""
    if not in_utc(study.recorded):
        yield f"it states no UTC time at which it was recorded, but {study.recorded!r}"
    elif datetime.fromisoformat(study.recorded) > datetime.now(UTC) + CLOCKS_APART:
        yield f"it was recorded at {study.recorded}, in the future"
    times = {"the study": study.seconds, **{one.defect.id: one.seconds for one in study.planted}}
    yield from (f"{name} took {time} seconds" for name, time in times.items() if not 0 <= time < math.inf)
    judged = Counter(study.criteria)
    yield from (f"the criterion {name} is there twice" for name, count in judged.items() if count > 1)
    yield from (f"no standard has {name}" for name in judged if name.partition("/")[0] not in study.standards)
    defects = Counter((one.defect.id, one.case) for one in study.planted)
    yield from (f"the defect {name} is there twice in {case}" for (name, case), count in defects.items() if count > 1)
    clean = Counter((one.variation, one.seed, one.case_digest) for one in study.clean)
    yield from (f"the clean run {name} {seed} is there twice" for (name, seed, _), count in clean.items() if count > 1)
    if len({one.defect.task.name for one in study.planted}) > 1:
        yield "its defects are of several tasks"
    named: list[tuple[str, Planted | Clean]] = [
        *((one.defect.id, one) for one in study.planted),
        *((f"{one.variation} {one.seed}", one) for one in study.clean),
    ]
    rules = {frozenset(study.rules)} if study.planted else {frozenset(of_task.requires) for of_task in RULES.values()}
    for name, one in named:
        if frozenset(one.rules) not in rules:
            yield f"{name} has other rules than {', '.join(study.rules)}"
        if wrong := [s.criterion for s in one.sightings if not _is_sighting(s, study)]:
            yield f"{name} cannot have been rejected by {wrong[0]} as it states"
    for planted in study.planted:
        if planted.none and planted.sightings:
            yield f"{planted.defect.id} differs in no bit, and was rejected"
        if planted.defect.size is not None and not planted.defect.size >= 0:
            yield f"{planted.defect.id} has the size {planted.defect.size}"


def _is_sighting(sighting: Sighting, study: PowerStudy) -> bool:
    """Whether a criterion that was judged rejects a run, at a step that there is."""
    rejects = sighting.outcome in (Outcome.FAIL, Outcome.ERROR)
    return rejects and sighting.criterion in study.criteria and (sighting.step is None or sighting.step >= 0)
