"""How far two bundles' runs of one name are apart, whatever the task of their case."""

from harness.comparison.inference import answers_apart
from harness.comparison.training import compare_traces
from harness.evidence.bundle import Bundle
from harness.evidence.judge import statistic


def apart(a: Bundle, b: Bundle, run: str) -> dict[str, float]:
    """Of a run that trains, the largest relative difference of loss and grad norm; of one that is asked, those of
    `answers_apart`. Empty where one of the traces is missing."""
    first, second = a.runs.get(run), b.runs.get(run)
    if a.case.inference is not None:
        return answers_apart(first, second)
    found = {m.name: m for m in compare_traces("pair", first, second)}
    curves = {number: found[f"pair.{number}.relative"].values for number in ("loss", "grad_norm")}
    return {number: statistic("maximum", values) for number, values in curves.items() if values}
