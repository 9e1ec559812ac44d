"""`certify verify`: recomputes everything in a bundle, without any framework."""

import json
from typing import Any

from harness.attestation import Signed, Waiver, load_trust
from harness.cli.options import AtOption, BundleArgument, JsonOption, TrustOption, moment
from harness.cli.page_again import PageState, check_page_again
from harness.cli.terminal import BAD_INPUT, MET, out_console
from harness.evidence.bundle import Bundle
from harness.evidence.bundle_files import PAGE
from harness.evidence.protection_of_runs import protection_of, protection_words
from harness.evidence.summary import collected_notices
from harness.levels.submission import contradiction, read_submission, statement_files, waiver_objection


def verify(
    bundle: BundleArgument,
    trust: TrustOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check every byte of a bundle and recompute everything in it; with --trust, verify every signed statement too.

    The page is rendered again and compared; one of another version is called unverified.

    Exit code 0: everything is valid. 2: something is not; the message names it.
    """
    trusted = load_trust(trust) if trust else None
    submission = read_submission(bundle, trusted, moment(at))
    read, verified, files = submission.bundle, submission.statements, len(statement_files(submission.bundle))
    against = {signed.digest: contradiction(signed.statement, read) for signed in verified.attestations}
    against |= {signed.digest: waiver_objection(signed, submission) for signed in verified.waivers}
    statements: list[Signed[Any]] = [*verified.attestations, *verified.waivers]
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
        show(f"{PAGE} is unverified: {found['page_why']}. Write it again: certify report", "yellow")
    if not found["signed"]:
        show("unsigned: no signature that was verified states who is responsible for this evidence", "yellow")
    for sentence in collected_notices(bundle):
        show(sentence, "yellow")
    show(f"protection: {protection_words(bundle)}", "" if found["protection"] == "namespaces" else "yellow")
    show(f"{found['criteria']} findings were recomputed from the traces of {len(bundle.runs)} runs")
    for text in found["standing"]:
        show(f"valid: {text}", "green")
    for text in found["withdrawn"]:
        show(f"withdrawn: {text}", "yellow")
    for text in found["refused"]:
        show(f"rejected: {text}", "bold red")
    if found["statements"] and not trusted:
        show(f"{found['statements']} signed statements were not checked; pass --trust TRUST.yaml")


def _stated(signed: Signed[Any]) -> str:
    statement = signed.statement
    if isinstance(statement, Waiver):
        what = f"{statement.criterion} waived until {statement.until}"
    else:
        what = statement.result
    return f"{what} by {signed.person} as {statement.role}, {statement.stated_at:%Y-%m-%d}"
