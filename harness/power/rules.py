"""Other rules in use elsewhere, applied to the same traces."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.cases.task import PRETRAIN, Task, TaskName
from harness.comparison.measurement import Comparison, Measurement
from harness.evidence.judge import Outcome, judge
from harness.standards import Standard, load_standard

CEILINGS = ("official-first-loss", "official-mean-loss", "official-grad-norm")


SCORES, SCORE_CEILING, TEXT = "score.difference", 0.004, "text"


# Megatron-LM's functional tests compare a run in about this way: relative 5 % per step, one step in a hundred forgiven.
APPROXIMATE, FORGIVEN = 0.05, 0.01


@dataclass(frozen=True, kw_only=True)
class OtherRules:
    """The other rules for the runs of a task: what each requires, and whether each rejects a comparison, in order."""

    requires: Mapping[str, str]
    refuse: Callable[[Comparison], tuple[bool, ...]]


def other_rules(comparison: Comparison, task: Task) -> dict[str, bool]:
    """Whether each of a task's `RULES` rejects a run. They ignore what was not measured."""
    rules = RULES[task.name]
    return dict(zip(rules.requires, rules.refuse(comparison), strict=True))


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
    official = load_standard(PRETRAIN.official)
    return official.model_copy(update={"criteria": tuple(c for c in official.criteria if c.id in CEILINGS)})


def _beyond_approximate(measurement: Measurement) -> bool:
    beyond = [value for value in measurement.values if not value <= APPROXIMATE]
    return not measurement.values or len(beyond) > FORGIVEN * len(measurement.values)


OF_TRAINING = OtherRules(
    requires={
        "official ceilings": "first loss, mean loss and mean grad norm within the published ceilings",
        "first step and mean loss": "first loss and mean loss within the published ceilings",
        "per step, 5 %": "loss and grad norm of every step within 5 %, one step in a hundred forgiven",
    },
    refuse=_rules_of_training,
)
RULES: Mapping[TaskName, OtherRules] = {
    "pretrain": OF_TRAINING,
    "finetune": OF_TRAINING,
    "inference": OtherRules(
        requires={
            "official ceiling": "every score within the published ceiling, 0.4 % of the reference's",
            "accuracy": "the accuracy of each task within 0.4 % of the reference's",
            "perplexity": "perplexity per word within 0.4 % of the reference's",
        },
        refuse=_rules_of_inference,
    ),
}
