"""What the gate sees: planted defects that it should refuse, clean runs that it should not, and both rates.

Takes what runs of defective and of correct subjects were judged to be; gives which criterion saw what and when, beside
what other rules make of the same traces. `planted` and `clean` make the runs; nothing here imports a framework.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import binomtest

from harness.defects import Defect, Task
from harness.judge import Finding, Judged, Outcome, judge
from harness.measurement import Comparison, Measurement
from harness.provenance import Environment, Source
from harness.records import read_record
from harness.standards import OFFICIAL, Standard, load_standard

FORMAT = "certify-power/1"
CEILINGS = ("official-first-loss", "official-mean-loss", "official-grad-norm")
SCORES, SCORE_CEILING, TEXT = "score.difference", 0.004, "text"
# What is known of a subject before its first step, and what its first step shows.
BEFORE = (".initial.differs", ".alignment.differs")
AT_FIRST = ("oracle.gradients.", "oracle.updates.", "runs.probe_norm", "layout.gradients.")
# Megatron-LM's functional tests compare a run approximately so: relative 5 % a step, one step in a hundred forgiven.
APPROXIMATE, FORGIVEN = 0.05, 0.01
# The other rules that look at the runs of a task, each with what it asks for.
RULES: Mapping[Task, Mapping[str, str]] = {
    "pretrain": {
        "official ceilings": "first loss, mean loss and mean grad norm within the published ceilings",
        "first step and mean loss": "first loss and mean loss within the published ceilings",
        "per step, 5 %": "loss and grad norm of every step within 5 %, one step in a hundred forgiven",
    },
    "inference": {
        "official ceiling": "every score within the published ceiling, 0.4 % of the reference's",
        "accuracy": "the accuracy of each task within 0.4 % of the reference's",
        "perplexity": "perplexity per word within 0.4 % of the reference's",
    },
}


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """A criterion (`STANDARD/ID`) that a run does not meet, and the finding in words.

    `step` is when it can be known: 0 before the first step, None only when the run is over.
    """

    criterion: str
    outcome: Outcome
    step: int | None
    message: str


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A defect in a case, with what saw it.

    `rules` says of each other rule whether it refuses the same traces; `named` is the place that the diagnosis gives,
    None where it found nothing.
    """

    defect: Defect
    case: str
    named: str | None
    sightings: tuple[Sighting, ...]
    rules: Mapping[str, bool]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Clean:
    """A correct run that varies in something that does not matter. `closest` is the criterion that used most of its
    limit, and `used` how much of it: None where what it measured is not finite."""

    variation: str
    seed: int
    case_digest: str
    sightings: tuple[Sighting, ...]
    rules: Mapping[str, bool]
    closest: str
    used: float | None


@dataclass(frozen=True, kw_only=True)
class Study:
    """A whole study of one task: what was planted, what was clean, judged by which standards (digest by name)."""

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

    @property
    def task(self) -> Task:
        """That of its defects."""
        return next((one.defect.task for one in self.planted), "pretrain")

    @property
    def rules(self) -> Mapping[str, str]:
        """The other rules, each with what it asks for."""
        return RULES[self.task]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """`count` of `total`, with Wilson's interval of 95 %."""

    count: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound; everything between 0 and 1 where nothing was counted."""
        if not self.total:
            return 0.0, 1.0
        found = binomtest(self.count, self.total).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        if not self.total:
            return "none of none"
        low, high = self.interval
        return f"{self.count} of {self.total} ({self.count / self.total:.1%}, {low:.1%} to {high:.1%})"


@dataclass(frozen=True, kw_only=True)
class CriterionPower:
    """What a criterion is worth: how many defects it finds alone, how many it is the first to see, and how many
    nothing else sees."""

    criterion: str
    finds: Rate
    first: int
    only: int

    @property
    def redundant(self) -> bool:
        """Never the first: whatever it finds, something else has seen before."""
        return self.first == 0


def sightings(findings: Sequence[Finding]) -> tuple[Sighting, ...]:
    """The findings that refuse a run. Too little shown is no refusal: INCONCLUSIVE is left out."""
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
    # Every limit of a criterion has to be broken before it is.
    return None if None in steps else max(step for step in steps if step is not None)


def _step_of(judged: Judged) -> int | None:
    limit = judged.limit
    if limit.measurement.endswith(BEFORE):
        return 0
    if limit.statistic == "first" or limit.measurement.startswith(AT_FIRST):
        return 1
    if limit.statistic == "maximum" and isinstance(judged.first_beyond, int):
        return judged.first_beyond
    return None


def first_sightings(found: Sequence[Sighting]) -> tuple[Sighting, ...]:
    """Those that are known soonest; several where they are known at the same step."""
    soonest = min((_order(one) for one in found), default=math.inf)
    return tuple(one for one in found if _order(one) == soonest)


def _order(sighting: Sighting) -> float:
    # Below infinity, which is no sighting at all; above every step.
    return 2.0**53 if sighting.step is None else sighting.step


def other_rules(comparison: Comparison, task: Task) -> dict[str, bool]:
    """Whether each of a task's `RULES` refuses a run. What was not measured is not seen by them."""
    refuse = _rules_of_training if task == "pretrain" else _rules_of_inference
    return dict(zip(RULES[task], refuse(comparison), strict=True))


def _rules_of_training(comparison: Comparison) -> tuple[bool, ...]:
    ceilings = {f.criterion: f.outcome is not Outcome.PASS for f in judge(comparison, _ceilings())}
    return (
        any(ceilings.values()),
        ceilings[CEILINGS[0]] or ceilings[CEILINGS[1]],
        any(_beyond_approximate(comparison[f"train.{name}.relative"]) for name in ("loss", "grad_norm")),
    )


def _rules_of_inference(comparison: Comparison) -> tuple[bool, ...]:
    scores = comparison[SCORES]
    beyond = {place for place, value in zip(scores.places, scores.values, strict=True) if not value <= SCORE_CEILING}
    return bool(beyond), bool(beyond - {TEXT}), TEXT in beyond


def _ceilings() -> Standard:
    official = load_standard(OFFICIAL["pretrain"])
    return official.model_copy(update={"criteria": tuple(c for c in official.criteria if c.id in CEILINGS)})


def _beyond_approximate(measurement: Measurement) -> bool:
    beyond = [value for value in measurement.values if not value <= APPROXIMATE]
    return not measurement.values or len(beyond) > FORGIVEN * len(measurement.values)


def criterion_power(study: Study) -> tuple[CriterionPower, ...]:
    """Each criterion that was judged, in the order of the standards."""
    every = [{s.criterion for s in planted.sightings} for planted in study.planted]
    first = [{s.criterion for s in first_sightings(planted.sightings)} for planted in study.planted]
    return tuple(
        CriterionPower(
            criterion=criterion,
            finds=Rate(count=sum(criterion in seen for seen in every), total=len(every)),
            first=sum(criterion in seen for seen in first),
            only=sum(seen == {criterion} for seen in every),
        )
        for criterion in study.criteria
    )


def found_by(study: Study, standard: str) -> Rate:
    """How many defects a standard alone refuses."""
    return Rate(count=sum(seen_by(planted, standard) for planted in study.planted), total=len(study.planted))


def seen_by(planted: Planted, standard: str) -> bool:
    """Whether a criterion of a standard refuses a defect."""
    return any(sighting.criterion.startswith(f"{standard}/") for sighting in planted.sightings)


def found(study: Study) -> Rate:
    """How many defects are refused by any criterion."""
    return Rate(count=sum(bool(planted.sightings) for planted in study.planted), total=len(study.planted))


def found_by_rules(study: Study) -> dict[str, Rate]:
    """How many defects each of the other rules refuses, on the same traces."""
    return {
        rule: Rate(count=sum(planted.rules[rule] for planted in study.planted), total=len(study.planted))
        for rule in study.rules
    }


def false_alarms(study: Study) -> Rate:
    """How many clean runs any criterion refused."""
    return Rate(count=sum(bool(clean.sightings) for clean in study.clean), total=len(study.clean))


def places_named(study: Study) -> Rate:
    """Of the defects that have a place, how many the diagnosis named rightly."""
    placed = [planted for planted in study.planted if planted.defect.place is not None]
    return Rate(count=sum(map(named_rightly, placed)), total=len(placed))


def named_rightly(planted: Planted) -> bool:
    """Whether the diagnosis names the place of a defect, or something inside it, or of a weight the module that has it.
    It may name two."""
    place = planted.defect.place
    named = planted.named.split(" or ") if planted.named else []
    return any(place in (one, f"{one}.weight") or one.startswith(f"{place}.") for one in named)


def misses(study: Study) -> Iterator[Planted]:
    """The defects that no criterion refused."""
    return (planted for planted in study.planted if not planted.sightings)


def read_power(path: Path) -> Study:
    """A recorded study.

    Raises:
        EvidenceError: it is missing, of another format, or does not hold what it should.
    """
    study: Study = read_record(Study, path, FORMAT)
    return study
