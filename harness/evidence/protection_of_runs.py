"""What kept the subject's runs of a bundle from the answers and from each other, as its launcher recorded it, and in
words."""

from collections.abc import Mapping

from harness.cases.runs_of_a_case import SUBJECT, role
from harness.evidence.bundle import Bundle
from harness.runs.trace import PROTECTIONS, Protection, RunOutcome

NOT_RECORDED = "not recorded: an older version made the runs, and the subject could read the reference's runs"
BY_A_TRAINER = "none: a trainer of its own made the subject's runs, and could read recorded answers"
WORDS: Mapping[Protection, str] = {
    "namespaces": (
        "namespaces: the subject's runs could read no run of another side, and no recorded answer of this checkout, in "
        "the working directory or next to the bundle"
    ),
    "order": "order: the subject's runs ended before a run of another side began; they could read recorded answers",
    "none": "none: the subject could read the reference's runs",
}


APART = "no run of the subject could read what an earlier one left outside of its directory"
SHARED = "a run of the subject could read what an earlier one left outside of its directory"


def protection_of(bundle: Bundle) -> Protection | None:
    """The weakest protection of the subject's runs; None if one of them recorded none."""
    found = [outcome.protection for outcome in _outcomes(bundle)]
    return min((one for one in found if one), key=PROTECTIONS.index) if found and all(found) else None


def are_apart(bundle: Bundle) -> bool:
    """Whether no run of the subject could find anything that another one left outside of its directory."""
    found = _outcomes(bundle)
    return bool(found) and all(outcome.apart for outcome in found)


def _outcomes(bundle: Bundle) -> list[RunOutcome]:
    """How the runs of the subject ended."""
    return [
        run.outcome
        for run in bundle.runs.values()
        if run.trace is not None and (role(run.name, bundle.case) or ("",))[0] == "subject"
    ]


def protection_sentences(bundle: Bundle) -> tuple[str, str]:
    """The same in words, as two sentences without their ends: against the answers, and against each other."""
    kind = protection_of(bundle)
    without = BY_A_TRAINER if SUBJECT in bundle.collected else NOT_RECORDED
    return WORDS[kind] if kind else without, APART if are_apart(bundle) else SHARED


def protection_words(bundle: Bundle) -> str:
    """Both in one line."""
    return "; ".join(protection_sentences(bundle))
