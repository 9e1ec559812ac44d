"""The verdict on a bundle, as text or as JSON."""

import json
import shlex
from typing import Any

from harness.cli.terminal import out_console
from harness.evidence.bundle import Bundle
from harness.evidence.bundle_files import PAGE
from harness.evidence.judge import Outcome as Verdict
from harness.evidence.summary import can_be_diagnosed, remarks
from harness.levels.rule import Certificate

STYLES = {Verdict.PASS: "green", Verdict.FAIL: "bold red", Verdict.ERROR: "bold red", Verdict.INCONCLUSIVE: "yellow"}


def print_verdict(bundle: Bundle, certificate: Certificate, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_summary(bundle, certificate), ensure_ascii=False))
        return
    for one in bundle.runs.values():
        if one.outcome.status != "completed":
            out_console.print(f"{one.name}: {one.outcome.detail}", style="bold red", markup=False)
            if one.outcome.log_tail:
                out_console.print(_indented(one.outcome.log_tail), markup=False)
    for finding in bundle.findings:
        if finding.outcome is not Verdict.PASS:
            out_console.print(f"{finding.outcome:<12} {finding.message}", style=STYLES[finding.outcome], markup=False)
    for remark in remarks(bundle):
        out_console.print(remark, style="yellow", markup=False)
    if (used := bundle.baseline) is not None:
        out_console.print(
            f"Reference and oracle: baseline {used.seal[:12]}, recorded {used.recorded} by {used.author}", markup=False
        )
    standards = ", ".join(f"{one.name} {one.digest()[:12]}" for one in bundle.standards)
    passed = sum(finding.outcome is Verdict.PASS for finding in bundle.findings)
    out_console.print(f"{passed} of {len(bundle.findings)} criteria pass ({standards})")
    out_console.print(f"Level: {certificate.level} ({certificate.scope})", style="bold")
    if certificate.missing:
        reasons = "; ".join(f"{r.text.lower()} ({r.detail})" for r in certificate.missing)
        out_console.print(f"Missing for {certificate.next_level}: {reasons}", markup=False)
    out_console.print(f"Page: {bundle.path / PAGE}", markup=False, soft_wrap=True)
    if can_be_diagnosed(bundle):
        command = shlex.join(["certify", "diagnose", str(bundle.path)])
        out_console.print(f"Next: {command} (names what differs first)", markup=False, soft_wrap=True)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _summary(bundle: Bundle, certificate: Certificate) -> dict[str, Any]:
    return {
        "case": bundle.case.name,
        "case_digest": bundle.case.digest(),
        "bundle": str(bundle.path),
        "bundle_digest": bundle.digest,
        "baseline": bundle.baseline.seal if bundle.baseline else None,
        "level": certificate.level,
        "scope": vars(certificate.scope),
        "standards": {standard.name: standard.digest() for standard in bundle.standards},
        "missing": [f"{r.level}: {r.text} ({r.detail})" for r in certificate.missing],
        "runs": {name: one.outcome.detail for name, one in bundle.runs.items()},
        "findings": [
            {"standard": f.standard, "criterion": f.criterion, "outcome": f.outcome, "message": f.message}
            for f in bundle.findings
        ],
        "remarks": remarks(bundle),
        "page": str(bundle.path / PAGE),
    }
