"""The verdict on a bundle, as text or as JSON."""

import json
from typing import Any

from harness.cli.terminal import out_console
from harness.evidence.bundle import Bundle
from harness.evidence.bundle_files import PAGE
from harness.evidence.judge import Outcome
from harness.evidence.protection_of_runs import are_apart, protection_of, protection_words
from harness.levels.certificate import Certificate
from harness.levels.requirements_of_signatures import BASELINE_SIGNED
from harness.levels.verdict_words import SAME_LOG, conclude

STYLES = {Outcome.FAIL: "bold red", Outcome.ERROR: "bold red", Outcome.INCONCLUSIVE: "yellow"}


def print_verdict(bundle: Bundle, certificate: Certificate, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_summary(bundle, certificate), ensure_ascii=False))
        return
    conclusion = conclude(bundle, certificate)
    shown: dict[str, str] = {}  # the run whose log ends so
    for name, text in conclusion.broken.items():
        out_console.print(f"{name}: {text}", style="bold red", markup=False)
        if name in bundle.runs and (log := bundle.runs[name].outcome.log_tail):
            first = shown.setdefault(log, name)
            out_console.print(_indented(log if first == name else SAME_LOG.format(first)), markup=False)
    for outcome, text in conclusion.findings:
        out_console.print(f"{outcome:<12} {text}", style=STYLES[outcome], markup=False)
    for remark in conclusion.remarks:
        out_console.print(remark, style="yellow", markup=False)
    if (used := bundle.baseline) is not None:
        out_console.print(
            f"Reference and oracle: baseline {used.seal[:12]}, "
            f"{next(one.detail for one in certificate.requirements if one.text == BASELINE_SIGNED)}",
            soft_wrap=True,
        )
    out_console.print(f"Protection: {protection_words(bundle)}", markup=False)
    standards = ", ".join(f"{one.name} {one.digest()[:12]}" for one in bundle.standards)
    out_console.print(f"{conclusion.sentence} Standards: {standards}", markup=False)
    if conclusion.first:
        out_console.print(conclusion.first, markup=False)
    out_console.print(f"Level: {conclusion.level} ({conclusion.scope})", style="bold", markup=False)
    if conclusion.missing_line:
        out_console.print(conclusion.missing_line, markup=False)
    out_console.print(f"Page: {bundle.path / PAGE}", markup=False, soft_wrap=True)
    if conclusion.next_line:
        out_console.print(conclusion.next_line, markup=False, soft_wrap=True)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _summary(bundle: Bundle, certificate: Certificate) -> dict[str, Any]:
    conclusion = conclude(bundle, certificate)
    return {
        "case": bundle.case.name,
        "case_digest": bundle.case.digest(),
        "bundle": str(bundle.path),
        "bundle_digest": bundle.digest,
        "protection": protection_of(bundle),
        "apart": are_apart(bundle),
        "baseline": bundle.baseline.seal if bundle.baseline else None,
        "level": certificate.level,
        "scope": certificate.scope.record(),
        "standards": {standard.name: standard.digest() for standard in bundle.standards},
        "sentence": conclusion.sentence,
        "next_level": conclusion.next_level,
        "missing": conclusion.missing,
        "runs": {name: one.outcome.detail for name, one in bundle.runs.items()},
        "findings": [
            {"standard": f.standard, "criterion": f.criterion, "outcome": f.outcome, "message": f.message}
            for f in bundle.findings
        ],
        "remarks": conclusion.remarks,
        "next": conclusion.next_command and conclusion.next_command.command,
        "page": str(bundle.path / PAGE),
    }
