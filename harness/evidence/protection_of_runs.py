"""What kept the subject's runs of a bundle from the answers, as its launcher recorded it, and in words."""

from collections.abc import Mapping

from harness.cases.runs_of_a_case import role
from harness.evidence.bundle import Bundle
from harness.runs.trace import PROTECTIONS, Protection

NOT_RECORDED = "not recorded: an older version made the runs, and the subject could read the reference's runs"
WORDS: Mapping[Protection, str] = {
    "namespaces": "namespaces: the subject's runs could read no run of another side and no recorded answer",
    "order": "order: the subject's runs ended before a run of another side began; they could read recorded answers",
    "none": "none: the subject could read the reference's runs",
}


def protection_of(bundle: Bundle) -> Protection | None:
    """The weakest protection of the subject's runs; None if one of them recorded none."""
    found = [
        run.outcome.protection
        for run in bundle.runs.values()
        if run.trace is not None and (role(run.name, bundle.case) or ("",))[0] == "subject"
    ]
    return min((one for one in found if one), key=PROTECTIONS.index) if found and all(found) else None


def protection_words(bundle: Bundle) -> str:
    """The same as a sentence without its end."""
    kind = protection_of(bundle)
    return WORDS[kind] if kind else NOT_RECORDED
