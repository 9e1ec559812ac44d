"""`certify level | keygen | attest | withdraw | waive`: the level of a bundle, and the statements signed about it."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.attestation import Role, Statement, Waiver, Withdrawal, load_trust, read, sign
from harness.attestation import keygen as make_key
from harness.base.errors import CertifyError, EvidenceError, InputError
from harness.base.near_names import did_you_mean
from harness.base.whole_files import whole_file
from harness.cli.options import AtOption, BundleArgument, EvidenceArgument, JsonOption, TrustOption, moment
from harness.cli.terminal import BAD_INPUT, MET, NOT_MET, out_console
from harness.evidence.bundle import Bundle, read_bundle
from harness.evidence.bundle_files import ATTESTATIONS, MANIFEST
from harness.evidence.judge import Outcome
from harness.levels.cells import cells
from harness.levels.certificate import Certificate, Level
from harness.levels.recorded import is_baseline, read_signed_baseline, recording_of
from harness.levels.scope import scope
from harness.levels.submission import Submission, claim_of, read_submission

KeyOption = Annotated[Path, typer.Option("--key", help="Private key: the NAME.key that 'certify keygen' wrote.")]
RoleOption = Annotated[Role, typer.Option("--role", help="The role that you sign in.")]


def level(
    directory: Annotated[Path, typer.Argument(help="A bundle, or a directory with bundles.")],
    trust: TrustOption = None,
    at: AtOption = None,
    level: Annotated[Level, typer.Option(help="The level that every case must reach for exit code 0.")] = Level.NONE,
    as_json: JsonOption = False,
) -> int:
    """Print the level of each cell under a directory, every requirement with its state, and what is missing.

    A cell is a case in one scope: model, device, layout, precision, mode and versions. Its newest run counts: a level
    of an earlier run is kept only as far as the newest run's measurements carry it.

    A bundle that is not as recorded is named, and the others are shown.

    Exit code 0: the required level is reached. 1: it is not. 2: a bundle is not as recorded.
    """
    when, trusted = moment(at), load_trust(trust) if trust else None
    submissions, refused = list[Submission](), dict[str, str]()
    for path in _bundles(directory):
        try:
            submissions.append(read_submission(path, trusted, when))
        except (CertifyError, OSError) as error:
            refused[str(path)] = str(error)
    if not submissions:
        raise EvidenceError("\n".join(refused.values()))
    found = [cell.current(when) for cell in cells(submissions)]
    if as_json:
        levels = [_as_json(*pair) for pair in found]
        print(json.dumps({"levels": levels, **({"refused": refused} if refused else {})}, ensure_ascii=False))
    else:
        for submission, certificate in found:
            _print_certificate(submission, certificate)
        if trusted is None:
            out_console.print("Signatures were not checked; pass --trust TRUST.yaml", markup=False)
        for why in refused.values():
            out_console.print(f"not valid evidence: {why}", style="bold red", soft_wrap=True)
    if refused:
        return BAD_INPUT
    return MET if all(certificate.reaches(level) for _, certificate in found) else NOT_MET


def _bundles(directory: Path) -> list[Path]:
    if (directory / MANIFEST).is_file():
        return [directory]
    found = sorted(path.parent for path in directory.glob(f"**/{MANIFEST}"))
    if not found:
        raise InputError(f"There is no finished bundle in {directory}. 'certify run' makes one.")
    return found


def _print_certificate(submission: Submission, certificate: Certificate) -> None:
    def show(text: str, style: str = "") -> None:
        out_console.print(text, style=style, markup=False, soft_wrap=True)

    show(f"{certificate.level}: {certificate.scope}, as of {certificate.at:%Y-%m-%d}", "bold")
    show(f"  {submission.bundle.path}, judged against {', '.join(certificate.standards)}")
    for requirement in certificate.requirements:
        mark, style = ("met    ", "green") if requirement.met else ("missing", "yellow")
        detail = requirement.detail.removeprefix(f"{requirement.text}: ")
        show(f"  {mark} {requirement.level:<11} {requirement.text}: {detail}", style)
    if certificate.next_level:
        count = len(certificate.missing)
        show(f"  {count} requirement{'s' * (count > 1)} missing for {certificate.next_level}")


def _as_json(submission: Submission, certificate: Certificate) -> dict[str, Any]:
    return {
        "bundle": str(submission.bundle.path),
        "case": submission.bundle.case.name,
        "level": certificate.level,
        "scope": certificate.scope.record(),
        "at": certificate.at.isoformat(),
        "standards": certificate.standards,
        "requirements": [vars(requirement) for requirement in certificate.requirements],
        "next_level": certificate.next_level,
    }


def keygen(
    name: Annotated[Path, typer.Argument(help="Writes NAME.key, which you keep, and NAME.pub, for trust files.")],
    as_json: JsonOption = False,
) -> int:
    """Make a pair of ed25519 keys to sign with."""
    key_id = make_key(name)
    if as_json:
        print(json.dumps({"key": f"{name}.key", "public_key": f"{name}.pub", "key_id": key_id}))
        return MET
    words = f"Keep {name}.key secret; give {name}.pub to the maintainer of the trust file. Key id {key_id}"
    out_console.print(words, markup=False, soft_wrap=True)
    return MET


def attest(bundle: EvidenceArgument, role: RoleOption, key: KeyOption, as_json: JsonOption = False) -> int:
    """Sign a bundle or a baseline in a role; the statement is written into its directory.

    Roles: developer, who made the run; dev-team and test-team, who accept it; community, who maintains the model. No
    one can accept their own run. Of a baseline, each of the first three can state that it was recorded as it is.
    """
    if is_baseline(bundle):
        found = read_signed_baseline(bundle, None, _now())
        return _write(bundle, f"{role}", recording_of(found, role, _now()), key, as_json)
    read_ = read_bundle(bundle)
    return _write(bundle, f"{role}", claim_of(read_, role, _now()), key, as_json)


def withdraw(
    bundle: EvidenceArgument,
    statement: Annotated[Path, typer.Argument(help="The statement's file under attestations/ of that directory.")],
    reason: Annotated[str, typer.Option(help="Why it is no longer valid.")],
    key: KeyOption,
    as_json: JsonOption = False,
) -> int:
    """Withdraw a signed statement. Its file stays, and the withdrawal next to it counts from now on."""
    there = bundle / ATTESTATIONS
    if not statement.is_file() or statement.resolve().parent != there.resolve():
        raise InputError(f"There is no statement {statement} in {bundle}: name a file of {there}.")
    withdrawn = read(statement.read_bytes())
    if isinstance(withdrawn.statement, Withdrawal):
        raise InputError(f"{statement} is a withdrawal, which cannot be withdrawn: sign a new statement instead.")
    withdrawal = Withdrawal(withdraws=withdrawn.digest, reason=reason, stated_at=_now())
    return _write(bundle, "withdrawal", withdrawal, key, as_json)


def waive(
    bundle: BundleArgument,
    criterion: Annotated[str, typer.Argument(help="The criterion that need not be met.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    until: Annotated[str, typer.Option(help="The last day, such as 2026-01-31.")],
    role: RoleOption,
    key: KeyOption,
    revision: Annotated[
        bool, typer.Option("--revision", help="For every bundle of this scope and source revision, not this one alone.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Accept that a bundle does not meet a criterion, in its scope and until a day. It excludes Released.

    It counts if you have no other part in the bundle, and its developer has signed. At most 180 days.
    """
    read_ = read_bundle(bundle)
    known = [finding.criterion for finding in read_.findings]
    if criterion not in known:
        near = did_you_mean(criterion, known)
        raise InputError(f"There is no criterion {criterion!r} in {bundle}: it has {', '.join(known)}.{near}")
    if all(finding.outcome is Outcome.PASS for finding in read_.findings if finding.criterion == criterion):
        raise InputError(f"{criterion} passes in {bundle}: there is nothing to waive, and a waiver excludes Released.")
    try:
        last = date.fromisoformat(until)
    except ValueError:
        raise InputError(f"--until {until!r} is not a day such as 2026-01-31.") from None
    waiver = Waiver(
        criterion=criterion,
        case_digest=read_.case.digest(),
        reason=reason,
        until=last,
        role=role,
        stated_at=_now(),
        scope=scope(read_).line,
        bundle=None if revision else read_.digest,
        revision=_committed(read_) if revision else None,
    )
    return _write(bundle, "waiver", waiver, key, as_json)


def _committed(bundle: Bundle) -> str:
    if bundle.source.revision is None or bundle.source.dirty:
        raise InputError(
            f"{bundle.path} was not run from a committed revision: {bundle.source.state}. Omit --revision."
        )
    return bundle.source.revision


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _write(bundle: Path, name: str, statement: Statement, key: Path, as_json: bool) -> int:
    envelope = sign(statement, key)
    signed = read(envelope)
    path = bundle / ATTESTATIONS / f"{name}-{signed.digest[:12]}.json"
    if path.exists():
        raise InputError(f"{path} is exactly this statement already.")
    path.parent.mkdir(exist_ok=True)
    with whole_file(path, overwrite=False) as file:
        file.write(envelope)
    if as_json:
        print(json.dumps({"statement": str(path), "digest": signed.digest, "key_id": signed.key_id}))
    else:
        out_console.print(f"{path}, signed by key {signed.key_id}", markup=False, soft_wrap=True)
    return MET
