"""`certify verify`: recomputes everything in a bundle or checks a baseline, without any framework."""

import json
from typing import Any

from harness.attestation import Recording, Signed, Waiver, load_trust
from harness.cli.options import AtOption, EvidenceArgument, JsonOption, TrustOption, moment
from harness.cli.page_again import PageState, check_page_again, report_command
from harness.cli.terminal import BAD_INPUT, MET, out_console
from harness.evidence.bundle import Bundle
from harness.evidence.bundle_files import PAGE
from harness.evidence.protection_of_runs import are_apart, protection_of, protection_words
from harness.evidence.summary import collected_notices
from harness.levels.recorded import (
    SignedBaseline,
    baseline_objection,
    check_about,
    is_baseline,
    read_signed_baseline,
    recorded_where,
    recorded_words,
    vouched_for,
)
from harness.levels.submission import (
    Submission,
    contradiction,
    read_submission,
    statement_paths,
    waiver_objection,
)


def verify(
    bundle: EvidenceArgument,
    trust: TrustOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check every byte of a bundle and recompute everything in it; with --trust, verify every signed statement too.

    The page is rendered again and compared; one of another version is called unverified. Of a recorded baseline every
    byte and statement is checked; whether its case still is the same is what 'certify baseline verify' checks.

    Exit code 0: everything is valid. 2: something is not; the message names it.
    """
    trusted = load_trust(trust) if trust else None
    if is_baseline(bundle):
        return _verify_baseline(read_signed_baseline(bundle, trusted, moment(at)), as_json)
    submission = read_submission(bundle, trusted, moment(at))
    read, verified, files = submission.bundle, submission.statements, len(statement_paths(submission.bundle.path))
    against = {signed.digest: contradiction(signed.statement, read) for signed in verified.attestations}
    against |= {signed.digest: waiver_objection(signed, submission) for signed in verified.waivers}
    against |= {signed.digest: baseline_objection(signed.statement, read) for signed in verified.recordings}
    statements: list[Signed[Any]] = [*verified.attestations, *verified.waivers, *verified.recordings]
    refused = [one.reason for one in verified.refused]
    refused += [
        f"{one.person}'s statement {one.digest[:12]} {why}" for one in statements if (why := against.get(one.digest))
    ]
    page = check_page_again(read, trusted)
    found = {
        "bundle": str(read.path),
        "signed": submission.signed,
        "page": page.state,
        "page_why": page.why,
        "protection": protection_of(read),
        "apart": are_apart(read),
        "baseline": _baseline_words(submission),
        "digest": read.digest,
        "record": read.record,
        "criteria": len(read.findings),
        "collected": sorted(read.collected),
        "statements": files,
        "standing": [_stated(one) for one in statements if not against.get(one.digest)],
        "withdrawn": [f"{_stated(one.signed)}; withdrawn: {one.by.statement.reason}" for one in verified.withdrawn],
        "refused": refused,
    }
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        _print_verified(read, found, trusted=trust is not None)
    return BAD_INPUT if refused else MET


def _print_verified(bundle: Bundle, found: dict[str, Any], trusted: bool) -> None:
    def show(text: str, style: str = "") -> None:
        out_console.print(text, style=style, markup=False, soft_wrap=True)

    show(f"{bundle.path} is as recorded: digest {bundle.digest}")
    if found["page"] is PageState.VERIFIED:
        show(f"{PAGE} was rendered again, and is the same")
    elif found["page"] is PageState.UNVERIFIED:
        show(f"{PAGE} is unverified: {found['page_why']}. Write it again: {report_command(bundle)}", "yellow")
    if not found["signed"]:
        show("unsigned: no signature that was verified states who is responsible for this evidence", "yellow")
    for sentence in collected_notices(bundle):
        show(sentence, "yellow")
    protected = found["protection"] == "namespaces" and found["apart"]
    show(f"protection: {protection_words(bundle)}", "" if protected else "yellow")
    if found["baseline"]:
        show(f"reference and oracle: {found['baseline']}")
    show(f"{found['criteria']} findings were recomputed from the traces of {len(bundle.runs)} runs")
    _print_statements(found, trusted=trusted)


def _print_statements(found: dict[str, Any], *, trusted: bool) -> None:
    def show(text: str, style: str = "") -> None:
        out_console.print(text, style=style, markup=False, soft_wrap=True)

    for text in found["standing"]:
        show(f"valid: {text}", "green")
    for text in found["withdrawn"]:
        show(f"withdrawn: {text}", "yellow")
    for text in found["refused"]:
        show(f"rejected: {text}", "bold red")
    if found["statements"] and not trusted:
        show(f"{found['statements']} signed statements were not checked; pass --trust TRUST.yaml")


def _baseline_words(submission: Submission) -> str | None:
    """Who recorded the baseline of a bundle, when and on what, and who signed it; None where there is none."""
    used = submission.bundle.baseline
    if used is None:
        return None
    return f"{recorded_words(used, recorded_where(submission.bundle))}; {vouched_for(submission)}"


def _verify_baseline(found: SignedBaseline, as_json: bool) -> int:
    refused = list(found.rejected)
    if not found.trusted:
        check_about(found)
    stated = {
        "baseline": str(found.path),
        "case": found.baseline.case,
        "digest": found.baseline.seal,
        "signed": bool(found.valid),
        "recorded": found.baseline.recorded,
        "author": found.baseline.author,
        "reason": found.baseline.reason,
        "recorded_on": found.on,
        "statements": found.files,
        "standing": [_stated(one) for one in found.valid],
        "withdrawn": [
            f"{_stated(one.signed)}; withdrawn: {one.by.statement.reason}" for one in found.statements.withdrawn
        ],
        "refused": refused,
    }
    if as_json:
        print(json.dumps(stated, ensure_ascii=False))
        return BAD_INPUT if refused else MET
    out_console.print(
        f"{found.path} is as recorded: baseline of {found.baseline.case}, digest {found.baseline.seal}", soft_wrap=True
    )
    out_console.print(f"{recorded_words(found.baseline, found.on)}: {found.baseline.reason}", soft_wrap=True)
    if not found.valid:
        out_console.print(
            "unsigned: no signature that was verified states who is responsible for this recording",
            style="yellow",
            soft_wrap=True,
        )
    _print_statements(stated, trusted=found.trusted)
    return BAD_INPUT if refused else MET


def _stated(signed: Signed[Any]) -> str:
    statement = signed.statement
    if isinstance(statement, Waiver):
        what = f"{statement.criterion} waived until {statement.until}"
    elif isinstance(statement, Recording):
        what = f"recording of {statement.recorded} on {statement.recorded_on}"
    else:
        what = statement.result
    return f"{what} by {signed.person} as {statement.role}, {statement.stated_at:%Y-%m-%d}"
