"""How far two bundles' runs of one name are apart, whatever the task of their case."""

from harness.evidence.bundle import Bundle
from harness.evidence.measuring import MEASUREMENTS


def apart(a: Bundle, b: Bundle, run: str) -> dict[str, float]:
    """The largest difference of each number that the task's runs are compared by: loss and grad norm of training,
    those of `answers_apart` for inference. Empty where one of the traces is missing."""
    return MEASUREMENTS[a.case.task.name].apart(a.runs.get(run), b.runs.get(run))
