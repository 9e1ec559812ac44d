"""`certify diff | verify | report`: bundles that are there already, read without any framework."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.attestation import Signed, Waiver, load_trust
from harness.cli.terminal import (
    BAD_INPUT,
    MET,
    NOT_MET,
    AtOption,
    BundleArgument,
    JsonOption,
    TrustOption,
    moment,
    out_console,
)
from harness.cli.verdict import print_verdict
from harness.evidence.bundle import Bundle, read_bundle
from harness.evidence.diff import Kind, diff_bundles
from harness.levels.rule import certify
from harness.levels.submission import contradiction, read_submission, statement_files
from harness.report import write_report


def report(
    bundle: BundleArgument,
    trust: TrustOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check a bundle as 'certify verify' does, and write its page again. Needs no framework.

    Exit code 0: the bundle holds what was recorded, whatever its level. 2: it does not.
    """
    submission = read_submission(bundle, load_trust(trust) if trust else None, asked := moment(at))
    certificate = certify(submission, asked)
    write_report(submission, certificate)
    print_verdict(submission.bundle, certificate, as_json)
    return MET


def verify(
    bundle: BundleArgument,
    trust: TrustOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check every byte of a bundle and compute everything in it again; with --trust, every signed statement too.

    Exit code 0: all of it holds. 2: something does not; the message says what.
    """
    submission = read_submission(bundle, load_trust(trust) if trust else None, moment(at))
    read, standing, files = submission.bundle, submission.standing, len(statement_files(submission.bundle))
    against = {signed.digest: contradiction(signed.statement, read) for signed in standing.attestations}
    statements: list[Signed[Any]] = [*standing.attestations, *standing.waivers]
    refused = [one.reason for one in standing.refused]
    refused += [
        f"{one.person}'s statement {one.digest[:12]} {why}" for one in statements if (why := against.get(one.digest))
    ]
    found = {
        "bundle": str(read.path),
        "digest": read.digest,
        "record": read.record,
        "criteria": len(read.findings),
        "statements": files,
        "standing": [_stated(one) for one in statements if not against.get(one.digest)],
        "withdrawn": [f"{_stated(one.signed)}; withdrawn: {one.by.statement.reason}" for one in standing.withdrawn],
        "refused": refused,
    }
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        _print_verified(read, found, believed=trust is not None)
    return BAD_INPUT if refused else MET


def _print_verified(bundle: Bundle, found: dict[str, Any], believed: bool) -> None:
    def say(text: str, style: str = "") -> None:
        out_console.print(text, style=style, markup=False, soft_wrap=True)

    say(f"{bundle.path} holds what was recorded: digest {bundle.digest}")
    say(f"{found['criteria']} findings follow from the traces of {len(bundle.runs)} runs")
    for text in found["standing"]:
        say(f"stands: {text}", "green")
    for text in found["withdrawn"]:
        say(f"withdrawn: {text}", "yellow")
    for text in found["refused"]:
        say(f"refused: {text}", "bold red")
    if found["statements"] and not believed:
        say(f"{found['statements']} signed statements were not looked at: say whom to believe with --trust TRUST.yaml")


def _stated(signed: Signed[Any]) -> str:
    statement = signed.statement
    if isinstance(statement, Waiver):
        what = f"{statement.criterion} waived until {statement.until}"
    else:
        what = statement.result
    return f"{what} by {signed.person} as {statement.role}, {statement.stated_at:%Y-%m-%d}"


def diff(
    before: Annotated[Path, typer.Argument(help="Directory of a finished bundle.")],
    after: Annotated[Path, typer.Argument(help="Directory of another bundle, of the same case.")],
    as_json: JsonOption = False,
) -> int:
    """Show what changed between two bundles, and say whether it is toolchain drift or a regression.

    Exit code 1: a regression, or another case. 0: anything else.
    """
    found = diff_bundles(read_bundle(before), read_bundle(after))
    if as_json:
        print(json.dumps(dataclasses.asdict(found), ensure_ascii=False))
    else:
        section = ""
        for change in found.changes:
            if change.section != section:
                section = change.section
                out_console.print(f"{section}:", style="bold")
            words = f"{change.before} -> {change.after}" if change.before else change.after
            out_console.print(f"  {change.name}: {words}", markup=False, soft_wrap=True)
        out_console.print(f"{found.kind}: {found.reason}", style="bold", markup=False, soft_wrap=True)
    return NOT_MET if found.kind in (Kind.REGRESSION, Kind.ANOTHER_CASE) else MET
