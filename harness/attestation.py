"""Signed statements of a role over an evidence bundle, and which of them stand on a day.

Takes digests, a private key and a trust file; gives DSSE envelopes that hold in-toto statements, signed with ed25519,
and refuses whatever cannot be believed: another form than the one written here, a key that is not trusted, a role that
the key does not hold, a date at which it did not hold it. Nothing here reads a bundle or decides a level.

Times are UTC. A day given as a date counts in full, from 00:00:00 UTC to the end of it. A statement can be taken away
from a directory without a trace, a withdrawal too: what must not be forgotten belongs into the trust file.
"""

import json
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Self, TypeGuard, TypeVar

import yaml
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError

# securesystemslib.signer offers both without declaring them exported, which strict typing refuses
from securesystemslib.signer._crypto_signer import CryptoSigner
from securesystemslib.signer._key import SSlibKey

from harness.case import Record
from harness.digest import canonical_json, digest_bytes
from harness.errors import AttestationError, InputError

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
WITHDRAWAL = "https://mindspore-certify/withdrawal/v1"
WAIVER = "https://mindspore-certify/waiver/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_BYTES = 1 << 16  # an attestation of a hundred criteria is about 10 kB

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# One visible line: these texts go to terminals and pages, where a control sign could hide or rewrite what stands there.
Line = Annotated[str, Field(max_length=1000, pattern=r"^[^\p{C}\s]([^\p{C}\p{Zl}\p{Zp}]*[^\p{C}\s])?$")]

C = TypeVar("C", bound=Sized)


class Role(StrEnum):
    """Who speaks: the levels ask for different ones."""

    DEVELOPER = "developer"
    DEV_TEAM = "dev-team"
    TEST_TEAM = "test-team"


WAIVING = (Role.DEV_TEAM, Role.TEST_TEAM)


class Result(StrEnum):
    """The result of a test run in the words of in-toto's test-result predicate."""

    PASSED = "PASSED"
    WARNED = "WARNED"
    FAILED = "FAILED"


def _not_empty(items: C) -> C:
    if not items:
        raise ValueError("expected at least one")
    return items


def _utc_text(value: str) -> str:
    if datetime.fromisoformat(value).utcoffset() != timedelta(0):
        raise ValueError("expected a UTC time such as 2026-01-31T12:00:00+00:00")
    return value


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("it is beyond the calendar") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


def _resource(name: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What an attestation says: in this role, that this bundle's run of this case ended so.

    `manifest_digest` and `record_digest` are the SHA-256 of the bundle's manifest.json and record.json, `case_digest`
    and `standards` (digest by name) what it was judged by. Each criterion stands once, in one of `passed`, `warned`,
    `failed`. `run_started` is an ISO 8601 UTC time, as the record writes it; `scope` says in words what it holds for.
    """

    predicate_type: ClassVar[str] = TEST_RESULT

    manifest_digest: Sha256
    record_digest: Sha256
    case_name: Line
    case_digest: Sha256
    standards: Annotated[Mapping[Line, Sha256], AfterValidator(_not_empty)]
    passed: tuple[Line, ...]
    warned: tuple[Line, ...]
    failed: tuple[Line, ...]
    run_started: Annotated[str, AfterValidator(_utc_text)]
    scope: Line
    role: Role
    stated_at: Moment

    @property
    def result(self) -> Result:
        """FAILED if any criterion failed, else WARNED if any was warned of, else PASSED."""
        if self.failed:
            return Result.FAILED
        return Result.WARNED if self.warned else Result.PASSED

    def applies_to(self, *, manifest_digest: str, record_digest: str) -> bool:
        """Whether it speaks of the bundle with these two digests, and not of another one."""
        return (self.manifest_digest, self.record_digest) == (manifest_digest, record_digest)

    def problems(self) -> Iterator[str]:
        """The laws between its fields that it breaks."""
        counts = Counter((*self.passed, *self.warned, *self.failed))
        if not counts:
            yield "it names no criterion"
        if twice := sorted(name for name, count in counts.items() if count > 1):
            yield f"these criteria stand twice: {', '.join(twice)}"
        if datetime.fromisoformat(self.run_started) > self.stated_at:
            yield f"it is stated at {self.stated_at.isoformat()}, before the run started ({self.run_started})"

    def body(self) -> dict[str, Any]:
        """Subject and predicate; what the predicate has no field for is an annotation of the first subject.

        Source: in-toto attestation v1, statement, resource descriptor and predicate "test result" 0.1.
        """
        annotations = {
            "role": self.role,
            "run_started": self.run_started,
            "scope": self.scope,
            "stated_at": _time(self.stated_at),
        }
        return {
            "subject": [
                {**_resource("manifest.json", self.manifest_digest), "annotations": annotations},
                _resource("record.json", self.record_digest),
            ],
            "predicate": {
                "result": self.result,
                "configuration": [
                    _resource(f"case/{self.case_name}", self.case_digest),
                    *(_resource(f"standard/{name}", self.standards[name]) for name in sorted(self.standards)),
                ],
                "passedTests": list(self.passed),
                "warnedTests": list(self.warned),
                "failedTests": list(self.failed),
            },
        }

    @staticmethod
    def fields_of(subject: Any, predicate: Any) -> dict[str, Any]:
        """The fields of the claim that has this body; those that `body` derives are left out."""
        manifest, record = subject
        case, *standards = predicate["configuration"]
        return {
            **manifest["annotations"],
            "manifest_digest": manifest["digest"]["sha256"],
            "record_digest": record["digest"]["sha256"],
            "case_name": case["name"].removeprefix("case/"),
            "case_digest": case["digest"]["sha256"],
            "standards": {s["name"].removeprefix("standard/"): s["digest"]["sha256"] for s in standards},
            "passed": predicate["passedTests"],
            "warned": predicate["warnedTests"],
            "failed": predicate["failedTests"],
        }


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """Takes back an attestation or a waiver, by the SHA-256 of its envelope's file, from `stated_at` on.

    It counts if signed by the same person, or with a key that holds the role of what is withdrawn. A withdrawal cannot
    be withdrawn: state anew what holds after all.
    """

    predicate_type: ClassVar[str] = WITHDRAWAL

    withdraws: Sha256
    reason: Line
    stated_at: Moment

    def problems(self) -> Iterator[str]:
        """The laws between its fields that it breaks."""
        yield from ()

    def body(self) -> dict[str, Any]:
        """Subject and predicate."""
        return {
            "subject": [_resource("envelope", self.withdraws)],
            "predicate": {"reason": self.reason, "stated_at": _time(self.stated_at)},
        }

    @staticmethod
    def fields_of(subject: Any, predicate: Any) -> dict[str, Any]:
        """The fields of the withdrawal that has this body."""
        (envelope,) = subject
        return {**predicate, "withdraws": envelope["digest"]["sha256"]}


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """Accepts that a criterion is not met by a case, for a reason and until the end of a day (UTC)."""

    predicate_type: ClassVar[str] = WAIVER

    criterion: Line
    case_digest: Sha256
    reason: Line
    until: date
    role: Role
    stated_at: Moment

    def problems(self) -> Iterator[str]:
        """The laws between its fields that it breaks."""
        if self.role not in WAIVING:
            yield f"a {self.role} cannot waive a criterion, only {' or '.join(WAIVING)} can"
        if self.until < _day(self.stated_at):
            yield f"it ends on {self.until}, before it is stated ({_day(self.stated_at)})"

    def body(self) -> dict[str, Any]:
        """Subject and predicate."""
        return {
            "subject": [_resource("case", self.case_digest)],
            "predicate": {
                "criterion": self.criterion,
                "reason": self.reason,
                "until": self.until.isoformat(),
                "role": self.role,
                "stated_at": _time(self.stated_at),
            },
        }

    @staticmethod
    def fields_of(subject: Any, predicate: Any) -> dict[str, Any]:
        """The fields of the waiver that has this body."""
        (case,) = subject
        return {**predicate, "case_digest": case["digest"]["sha256"]}


Statement = Claim | Withdrawal | Waiver
KINDS: Mapping[str, type[Statement]] = {kind.predicate_type: kind for kind in (Claim, Withdrawal, Waiver)}
S = TypeVar("S", bound=Statement, covariant=True)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def _day(moment: datetime) -> date:
    return moment.astimezone(UTC).date()


def _problems(error: ValidationError) -> list[str]:
    """Each problem with its place; the refused value is not repeated, it could be a private key."""
    return [
        f"{'.'.join(map(str, e['loc'])) or '(whole)'}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()
    ]


def _checked(kind: type[S], fields: Mapping[str, Any]) -> S:
    """A statement whose fields and laws were checked.

    Raises:
        ValueError: all problems of its fields, or else all laws that it breaks.
    """
    try:
        statement = TypeAdapter(kind).validate_python(dict(fields))
    except ValidationError as error:
        raise ValueError("; ".join(_problems(error))) from None
    if problems := list(statement.problems()):
        raise ValueError("; ".join(problems))
    return statement


def _encode(statement: Statement) -> bytes:
    content = {"_type": STATEMENT_TYPE, "predicateType": statement.predicate_type, **statement.body()}
    return canonical_json(content).encode()


def _decode(payload: bytes) -> Statement:
    """The statement of a payload, which must be byte for byte what `_encode` writes of it.

    Raises:
        ValueError: it is not.
    """
    try:
        content = json.loads(payload)
        kind = KINDS.get(content["predicateType"])
        fields = kind.fields_of(content["subject"], content["predicate"]) if kind else {}
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError):
        raise ValueError("it is not an in-toto statement with the fields that this tool writes") from None
    if kind is None:
        raise ValueError(f"unknown kind {content['predicateType']!r:.100}; known: {', '.join(KINDS)}")
    statement = _checked(kind, fields)
    if _encode(statement) != payload:
        raise ValueError("a field is more, missing, twice or in another form than this tool writes it")
    return statement


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise InputError(f"{path} exists, and a key is never overwritten. Choose another name.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}. Name a directory that can be written.") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    except OSError as error:
        path.unlink()
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None


def keygen(name: Path) -> str:
    """Makes an ed25519 key pair and gives its key id.

    Writes NAME.key (PKCS #8 PEM, unencrypted, readable by the owner only) and NAME.pub (PEM). The id is the SHA-256
    that securesystemslib computes of the public key.

    Raises:
        InputError: one of the files exists already, or cannot be written. Neither is there then, or as it was.
    """
    private = Ed25519PrivateKey.generate()
    signer = CryptoSigner(private)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    key_file, public_file = Path(f"{name}.key"), Path(f"{name}.pub")
    _write_new(key_file, signer.private_bytes, 0o600)
    try:
        _write_new(public_file, public, 0o644)
    except InputError:
        key_file.unlink()
        raise
    return signer.public_key.keyid


def _read_key(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise InputError(f"{path} is not a file. Name the NAME.key that 'certify keygen' wrote.")
        if mode & 0o077:
            raise InputError(
                f"{path} can be read or written by others (permissions {stat.S_IMODE(mode):03o}), so a signature with "
                f"it names nobody. If nobody had it: chmod 600 {path}. Else make a new key with 'certify keygen'."
            )
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"The key file {path} cannot be read: {error.strerror}. Make a key with 'certify keygen'."
        ) from None


def _signer(path: Path) -> CryptoSigner:
    """The signer of a private key's file.

    Raises:
        InputError: no such file, not an unencrypted ed25519 key, or others may read it.
    """
    pem = _read_key(path)
    if b"PUBLIC KEY-----" in pem:
        raise InputError(f"{path} holds a public key, which cannot sign. Name the NAME.key beside it.")
    try:
        private = load_pem_private_key(pem, password=None)
    except TypeError:
        raise InputError(
            f"{path} is encrypted. Decrypt it for this use: openssl pkey -in {path} -out NAME.key"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{path} holds no private key in PEM. Make one with 'certify keygen'.") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise InputError(f"{path} holds a key of another algorithm than ed25519. Make one with 'certify keygen'.")
    return CryptoSigner(private)


def _public_key(value: Any, info: ValidationInfo) -> SSlibKey:
    """A public key from its PEM, or from the path of its file relative to the trust file (`info.context`)."""
    if not isinstance(value, str):
        raise ValueError("expected a public key in PEM, or the path of its file")
    pem = value
    if "-----BEGIN" not in value:
        try:
            pem = (Path(info.context or "") / value).read_text(encoding="ascii")
        except (OSError, ValueError):
            raise ValueError("neither a public key in PEM nor a file that holds one can be read there") from None
    if "PRIVATE KEY-----" in pem:
        raise ValueError(
            "this is a private key. Whoever read it can sign in this name: make a new key, and put its .pub here"
        )
    try:
        public = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("this is no public key in PEM. 'certify keygen' writes one to NAME.pub") from None
    if not isinstance(public, Ed25519PublicKey):
        raise ValueError("this key is of another algorithm than ed25519. Make one with 'certify keygen'")
    return SSlibKey.from_crypto(public)


def _calendar_day(value: Any) -> date:
    if type(value) is date:
        return value
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("expected a day such as 2026-01-31") from None


Day = Annotated[date, PlainValidator(_calendar_day)]


class TrustedKey(Record):
    """A person's key: the roles it may speak in, and the days on which a statement may be made with it (both full)."""

    person: Line
    public_key: Annotated[SSlibKey, PlainValidator(_public_key)]
    roles: Annotated[tuple[Role, ...], AfterValidator(_not_empty)]
    valid_from: Day
    valid_until: Day

    @model_validator(mode="after")
    def _days_in_order(self) -> Self:
        if self.valid_until < self.valid_from:
            raise ValueError(f"valid_until {self.valid_until} is before valid_from {self.valid_from}")
        return self


class WithdrawnKey(Record):
    """A key that others may have: from `date` on nothing that it signed counts, whatever day it states."""

    key: Sha256
    date: Day
    reason: Line


class Trust(Record):
    """Whose signatures count. Build one with `load_trust`.

    A person may have several keys, at the same time too: keys rotate, and people have several machines. A key stands
    once, so it has one person, one set of roles and one validity. A withdrawn key stays in the list, so that a
    misspelt key id is noticed.
    """

    keys: Annotated[tuple[TrustedKey, ...], AfterValidator(_not_empty)]
    withdrawn: tuple[WithdrawnKey, ...] = ()

    @model_validator(mode="after")
    def _each_key_once(self) -> Self:
        holders: dict[str, list[str]] = {}
        for key in self.keys:
            holders.setdefault(key.public_key.keyid, []).append(key.person)
        problems = [f"key {k} stands twice: {', '.join(who)}" for k, who in holders.items() if len(who) > 1]
        withdrawn = Counter(entry.key for entry in self.withdrawn)
        problems += [f"withdrawn key {key} is none of the keys" for key in withdrawn if key not in holders]
        problems += [f"key {key} is withdrawn twice" for key, count in withdrawn.items() if count > 1]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def find(self, key_id: str) -> TrustedKey | None:
        """The entry of a key, withdrawn or not."""
        return next((key for key in self.keys if key.public_key.keyid == key_id), None)

    def withdrawal_of(self, key_id: str) -> WithdrawnKey | None:
        """The entry that withdraws a key."""
        return next((entry for entry in self.withdrawn if entry.key == key_id), None)


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which no key stands twice: a second `withdrawn:` would undo the first without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        if twice := [name for index, name in enumerate(names) if name in names[:index]]:
            raise yaml.MarkedYAMLError(problem=f"the key {twice[0]!r} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def load_trust(path: Path) -> Trust:
    """The trust file of a team.

        keys:
          - person: Li Wei
            public_key: li-wei.pub          # or the PEM itself; a path is relative to this file
            roles: [dev-team]
            valid_from: 2026-01-01
            valid_until: 2026-12-31
        withdrawn:                          # optional
          - {key: KEY ID, date: 2026-06-01, reason: laptop stolen}

    Raises:
        InputError: not readable as YAML, or every problem of its content, one a line.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except OSError as error:
        raise InputError(f"The trust file {path} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"The trust file {path} cannot be read as YAML: {error}") from None
    try:
        return Trust.model_validate(content, context=path.parent)
    except ValidationError as error:
        lines = _problems(error)
        raise InputError(
            f"{path} is not a valid trust file ({len(lines)} problem{'s' * (len(lines) > 1)}):\n  " + "\n  ".join(lines)
        ) from None


class _Signature(Record):
    keyid: Sha256
    sig: str


class _EnvelopeContent(Record):
    payload: str
    payloadType: str
    signatures: tuple[_Signature]


@dataclass(frozen=True, kw_only=True)
class Unverified:
    """What an envelope says, before anyone asked who signed it. `digest` is the SHA-256 of its file."""

    digest: str
    key_id: str
    statement: Statement
    envelope: Envelope = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Signed(Generic[S]):
    """A statement that was believed: who signed it with which key, and the SHA-256 of its envelope's file."""

    statement: S
    person: str
    key_id: str
    digest: str


Attestation = Signed[Claim]


@dataclass(frozen=True, kw_only=True)
class Refused:
    """An envelope that counts for nothing, by the SHA-256 of its file, and why."""

    digest: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Withdrawn:
    """A statement that was believed until it was taken back, and the withdrawal that did."""

    signed: Signed[Claim | Waiver]
    by: Signed[Withdrawal]


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a set of envelopes is worth at a moment; each distinct file is in one of these, once."""

    attestations: tuple[Attestation, ...]
    waivers: tuple[Signed[Waiver], ...]
    withdrawn: tuple[Withdrawn, ...]
    refused: tuple[Refused, ...]


def _file(envelope: Envelope) -> bytes:
    return (canonical_json(envelope.to_dict()) + "\n").encode()


def _untrusted(digest: str, why: str) -> AttestationError:
    # the names of unknown fields come from the file, and the message goes to a terminal
    visible = "".join(sign if sign.isprintable() else "?" for sign in why[:1000])
    return AttestationError(f"The signed statement {digest[:12]} does not count: {visible}.")


def sign(statement: Statement, key_file: Path) -> bytes:
    """The bytes of an envelope's file: canonical JSON with a final newline.

    Source: DSSE 1.0; ed25519 signs its pre-authentication encoding.

    Raises:
        InputError: the key cannot be used.
        AttestationError: the statement breaks its own rules, or is too long to be read again.
    """
    try:
        payload = _encode(_checked(type(statement), vars(statement)))
    except ValueError as error:
        raise AttestationError(f"This cannot be signed: {error}.") from None
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(_signer(key_file))
    data = _file(envelope)
    read(data)
    return data


def read(data: bytes) -> Unverified:
    """What an envelope's file says, whoever signed it; to be shown, never to be relied on.

    Strict: at most `MAX_BYTES`, one signature, and no other bytes than those that `sign` would write for this content,
    so that no byte can change and no field be added without notice.

    Raises:
        AttestationError: it is anything else.
    """
    digest = digest_bytes(data)
    if len(data) > MAX_BYTES:
        raise _untrusted(digest, f"its file has {len(data)} bytes, more than the {MAX_BYTES} of a statement")
    try:
        content = _EnvelopeContent.model_validate_json(data)
    except ValidationError as error:
        raise _untrusted(
            digest, "its file is not an envelope with one signature: " + "; ".join(_problems(error))
        ) from None
    if content.payloadType != PAYLOAD_TYPE:
        raise _untrusted(digest, f"its payload type is {content.payloadType!r:.100}, not {PAYLOAD_TYPE!r}")
    try:
        envelope = Envelope.from_dict(content.model_dump())
        canonical = _file(envelope) == data
    except ValueError:
        canonical = False
    if not canonical:
        raise _untrusted(digest, "its file is not written as this tool writes it: it was edited or re-formatted")
    try:
        statement = _decode(envelope.payload)
    except ValueError as error:
        raise _untrusted(digest, f"its payload is not one that this tool signs: {error}") from None
    return Unverified(digest=digest, key_id=content.signatures[0].keyid, statement=statement, envelope=envelope)


def _objection(unverified: Unverified, key: TrustedKey, trust: Trust, at: datetime) -> str | None:
    """Why a statement with a good signature does not count at a moment."""
    statement = unverified.statement
    withdrawn = trust.withdrawal_of(unverified.key_id)
    if withdrawn and withdrawn.date <= _day(at):
        return f"{key.person}'s key was withdrawn on {withdrawn.date} ({withdrawn.reason}); sign again with another key"
    if not isinstance(statement, Withdrawal) and statement.role not in key.roles:
        return f"{key.person} signed as {statement.role}, but the key holds only: {', '.join(key.roles)}"
    stated = _day(statement.stated_at)
    if not key.valid_from <= stated <= key.valid_until:
        return (
            f"it is stated on {stated}, but {key.person}'s key is valid from {key.valid_from} to {key.valid_until}; "
            "sign again with a valid key"
        )
    if statement.stated_at > at:
        return f"it is stated at {_time(statement.stated_at)}, after {_time(at)}; check the clock of who signed it"
    if isinstance(statement, Waiver) and statement.until < _day(at):
        return f"the waiver of {statement.criterion} ended on {statement.until}; meet the criterion, or waive it anew"
    return None


def _believe(data: bytes, trust: Trust, at: datetime) -> Signed[Statement]:
    unverified = read(data)
    key = trust.find(unverified.key_id)
    if key is None:
        raise _untrusted(
            unverified.digest,
            f"the trust file has no key {unverified.key_id}; put it there if you know whose it is",
        )
    try:
        unverified.envelope.verify([key.public_key], threshold=1)
    except UnverifiedSignatureError:
        raise _untrusted(unverified.digest, f"its signature is not one of {key.person}'s key: it was edited") from None
    if objection := _objection(unverified, key, trust, at):
        raise _untrusted(unverified.digest, objection)
    return Signed(statement=unverified.statement, person=key.person, key_id=unverified.key_id, digest=unverified.digest)


def _is(signed: Signed[Any], kind: type[S]) -> TypeGuard[Signed[S]]:
    return isinstance(signed.statement, kind)


def verify(data: bytes, trust: Trust, at: datetime) -> Attestation:
    """The attestation of an envelope's file, believed at a moment (with time zone).

    Its signature is of a trusted key that holds the claimed role, was valid on the day that is stated, and is not
    withdrawn on the day of `at`; it is stated neither before the run started nor after `at`. It stays good after the
    key expired, since keys rotate; what rests on it has its own end. An earlier `at` gives what was believed then.
    Whether someone withdrew the attestation is asked by `standing`.

    Raises:
        AttestationError: it does not count, and why.
    """
    signed = _believe(data, trust, at)
    if not _is(signed, Claim):
        raise _untrusted(signed.digest, f"it is a {type(signed.statement).__name__.lower()}, not an attestation")
    return signed


def standing(envelopes: Sequence[bytes], trust: Trust, at: datetime) -> Standing:
    """What the files of envelopes are worth at a moment (with time zone).

    Statements are believed as by `verify`; a waiver also only until its end. A withdrawal counts from the moment that
    it states on. A withdrawal that names nothing which stands here, or is signed by someone who may not, is refused.
    A file given twice counts once.
    """
    believed: dict[str, Signed[Statement]] = {}
    refused: dict[str, str] = {}
    for data in envelopes:
        try:
            signed = _believe(data, trust, at)
        except AttestationError as error:
            refused[digest_bytes(data)] = str(error)
        else:
            believed[signed.digest] = signed
    targets: dict[str, Signed[Claim | Waiver]] = {
        digest: signed for digest, signed in believed.items() if _is(signed, Claim) or _is(signed, Waiver)
    }
    withdrawn = []
    for withdrawal in [signed for signed in believed.values() if _is(signed, Withdrawal)]:
        target = targets.get(withdrawal.statement.withdraws)
        if target is not None and _may_withdraw(withdrawal, target, trust):
            withdrawn.append(Withdrawn(signed=target, by=withdrawal))
            continue
        why = "it withdraws nothing that stands here"
        if target is not None:
            why = f"{withdrawal.person} is not {target.person} and does not hold the role {target.statement.role}"
        refused[withdrawal.digest] = str(_untrusted(withdrawal.digest, why))
    gone = {entry.signed.digest for entry in withdrawn}
    left = [signed for digest, signed in believed.items() if digest not in gone]
    return Standing(
        attestations=tuple(signed for signed in left if _is(signed, Claim)),
        waivers=tuple(signed for signed in left if _is(signed, Waiver)),
        withdrawn=tuple(withdrawn),
        refused=tuple(Refused(digest=digest, reason=reason) for digest, reason in refused.items()),
    )


def _may_withdraw(withdrawal: Signed[Withdrawal], target: Signed[Claim | Waiver], trust: Trust) -> bool:
    key = trust.find(withdrawal.key_id)
    return withdrawal.person == target.person or (key is not None and target.statement.role in key.roles)
