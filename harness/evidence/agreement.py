"""The differences of two bundles' runs of one name, for every task."""

from harness.evidence.bundle import Bundle
from harness.evidence.measuring import MEASUREMENTS


def differences(a: Bundle, b: Bundle, run: str) -> dict[str, float]:
    """The largest difference of each number that is compared for the task: loss and grad norm for training, those of
    `inference_differences` for inference. Empty if a trace is missing."""
    return MEASUREMENTS[a.case.task.name].differences(a.runs.get(run), b.runs.get(run))
