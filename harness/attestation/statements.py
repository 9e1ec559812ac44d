"""What can be signed: an attestation, a recording, a withdrawal or a waiver, each with one canonical text.

Turns a record into its canonical in-toto statement, and rejects any other text when it reads one back.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, AwareDatetime, Field, TypeAdapter, ValidationError

from harness.base.digest import canonical_json

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
WITHDRAWAL = "https://mindspore-certify/withdrawal/v1"
WAIVER = "https://mindspore-certify/waiver/v1"
RECORDING = "https://mindspore-certify/baseline/v1"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# One visible line: these texts go to terminals and pages, where a control character could hide or rewrite other text.
Line = Annotated[str, Field(max_length=1000, pattern=r"^[^\p{C}\s]([^\p{C}\p{Zl}\p{Zp}]*[^\p{C}\s])?$")]

C = TypeVar("C", bound=Sized)


class Role(StrEnum):
    """The role that a person signs in; levels require different ones. `COMMUNITY` maintains a model without a team."""

    DEVELOPER = "developer"
    DEV_TEAM = "dev-team"
    TEST_TEAM = "test-team"
    COMMUNITY = "community"


WAIVING = (Role.DEV_TEAM, Role.TEST_TEAM)
WAIVER_DAYS = 180


class Result(StrEnum):
    """The result of a test run, with the values of in-toto's test-result predicate."""

    PASSED = "PASSED"
    WARNED = "WARNED"
    FAILED = "FAILED"


def not_empty(items: C) -> C:
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
        raise ValueError("it is outside the calendar") from None


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]


def _resource(name: str, sha256: str) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": sha256}}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The content of an attestation: a person in a role confirms the results of this bundle's run of this case.

    `manifest_digest` and `record_digest` are the SHA-256 of the bundle's manifest.json and record.json; `case_digest`
    and `standards` (digest by name) identify what it was judged by. Each criterion is listed once, in `passed`,
    `warned` or `failed`. `run_started` is an ISO 8601 UTC time, as in the record. `scope` describes what it holds for.
    """

    predicate_type: ClassVar[str] = TEST_RESULT

    manifest_digest: Sha256
    record_digest: Sha256
    case_name: Line
    case_digest: Sha256
    standards: Annotated[Mapping[Line, Sha256], AfterValidator(not_empty)]
    passed: tuple[Line, ...]
    warned: tuple[Line, ...]
    failed: tuple[Line, ...]
    run_started: Annotated[str, AfterValidator(_utc_text)]
    scope: Line
    role: Role
    stated_at: Moment

    @property
    def result(self) -> Result:
        """FAILED if any criterion failed, else WARNED if any has a warning, else PASSED."""
        if self.failed:
            return Result.FAILED
        return Result.WARNED if self.warned else Result.PASSED

    def applies_to(self, *, manifest_digest: str, record_digest: str) -> bool:
        """Whether it is about the bundle with these two digests."""
        return (self.manifest_digest, self.record_digest) == (manifest_digest, record_digest)

    def problems(self) -> Iterator[str]:
        """The rules between its fields that it breaks."""
        counts = Counter((*self.passed, *self.warned, *self.failed))
        if not counts:
            yield "it names no criterion"
        if twice := sorted(name for name, count in counts.items() if count > 1):
            yield f"these criteria are listed twice: {', '.join(twice)}"
        if datetime.fromisoformat(self.run_started) > self.stated_at:
            yield f"it is stated at {self.stated_at.isoformat()}, before the run started ({self.run_started})"

    def body(self) -> dict[str, Any]:
        """Subject and predicate; values without a field in the predicate are annotations of the first subject.

        Source: in-toto attestation v1, statement, resource descriptor and predicate "test result" 0.1.
        """
        annotations = {
            "role": self.role,
            "run_started": self.run_started,
            "scope": self.scope,
            "stated_at": time_text(self.stated_at),
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
        """The fields of the claim with this body; those that `body` derives are omitted."""
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
class Recording:
    """A person in a role confirms a baseline: the runs of reference and oracle of a case, recorded once.

    `baseline_digest` is the SHA-256 of its baseline.json, which has the digest of every other file. The other fields
    are those of that file in words: `recorded` is an ISO 8601 UTC time, and `recorded_on` the device.
    """

    predicate_type: ClassVar[str] = RECORDING

    baseline_digest: Sha256
    case_name: Line
    case_digest: Sha256
    author: Line
    recorded: Annotated[str, AfterValidator(_utc_text)]
    recorded_on: Line
    role: Role
    stated_at: Moment

    def problems(self) -> Iterator[str]:
        """The rules between its fields that it breaks."""
        if datetime.fromisoformat(self.recorded) > self.stated_at:
            yield f"it is stated at {self.stated_at.isoformat()}, before the recording ({self.recorded})"

    def body(self) -> dict[str, Any]:
        """Subject and predicate."""
        return {
            "subject": [_resource("baseline.json", self.baseline_digest)],
            "predicate": {
                "case": _resource(self.case_name, self.case_digest),
                "author": self.author,
                "recorded": self.recorded,
                "recorded_on": self.recorded_on,
                "role": self.role,
                "stated_at": time_text(self.stated_at),
            },
        }

    @staticmethod
    def fields_of(subject: Any, predicate: Any) -> dict[str, Any]:
        """The fields of the recording with this body."""
        (baseline,), case = subject, predicate["case"]
        return {
            **{name: value for name, value in predicate.items() if name != "case"},
            "baseline_digest": baseline["digest"]["sha256"],
            "case_name": case["name"],
            "case_digest": case["digest"]["sha256"],
        }


@dataclass(frozen=True, kw_only=True)
class Withdrawal:
    """Withdraws an attestation, a recording or a waiver, by the SHA-256 of its envelope's file, from `stated_at` on.

    It counts if it is signed by the same person, or with a key that has the role of the withdrawn statement. A
    withdrawal cannot be withdrawn: sign a new statement instead.
    """

    predicate_type: ClassVar[str] = WITHDRAWAL

    withdraws: Sha256
    reason: Line
    stated_at: Moment

    def problems(self) -> Iterator[str]:
        """The rules between its fields that it breaks."""
        yield from ()

    def body(self) -> dict[str, Any]:
        """Subject and predicate."""
        return {
            "subject": [_resource("envelope", self.withdraws)],
            "predicate": {"reason": self.reason, "stated_at": time_text(self.stated_at)},
        }

    @staticmethod
    def fields_of(subject: Any, predicate: Any) -> dict[str, Any]:
        """The fields of the withdrawal with this body."""
        (envelope,) = subject
        return {**predicate, "withdraws": envelope["digest"]["sha256"]}


@dataclass(frozen=True, kw_only=True)
class Waiver:
    """Accepts that a case does not meet a criterion, for a reason and until the end of a day (UTC).

    `scope` is the whole line of what it holds for. It holds for one bundle, named by the SHA-256 of its manifest, or
    for every bundle of one source revision. Older statements name neither, and do not count.
    """

    predicate_type: ClassVar[str] = WAIVER

    criterion: Line
    case_digest: Sha256
    reason: Line
    until: date
    role: Role
    stated_at: Moment
    scope: Line | None = None
    bundle: Sha256 | None = None
    revision: Line | None = None

    def problems(self) -> Iterator[str]:
        """The rules between its fields that it breaks."""
        if self.scope is None:
            yield "it names no scope, as older versions wrote it: sign it again"
        if (self.bundle is None) == (self.revision is None):
            yield "it names neither or both of a bundle and a revision: sign it again"
        if (self.until - day_of(self.stated_at)).days > WAIVER_DAYS:
            yield f"it ends on {self.until}, more than {WAIVER_DAYS} days after it is stated"
        if self.role not in WAIVING:
            yield f"a {self.role} cannot waive a criterion, only {' or '.join(WAIVING)} can"
        if self.until < day_of(self.stated_at):
            yield f"it ends on {self.until}, before it is stated ({day_of(self.stated_at)})"

    def body(self) -> dict[str, Any]:
        """Subject and predicate."""
        return {
            "subject": [_resource("case", self.case_digest)],
            "predicate": {
                "criterion": self.criterion,
                "reason": self.reason,
                "until": self.until.isoformat(),
                "role": self.role,
                "stated_at": time_text(self.stated_at),
                **{
                    name: value
                    for name in ("scope", "bundle", "revision")
                    if (value := getattr(self, name)) is not None
                },
            },
        }

    @staticmethod
    def fields_of(subject: Any, predicate: Any) -> dict[str, Any]:
        """The fields of the waiver with this body."""
        (case,) = subject
        return {**predicate, "case_digest": case["digest"]["sha256"]}


Statement = Claim | Recording | Withdrawal | Waiver
KINDS: Mapping[str, type[Statement]] = {kind.predicate_type: kind for kind in (Claim, Recording, Withdrawal, Waiver)}
S = TypeVar("S", bound=Statement, covariant=True)


def time_text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def day_of(moment: datetime) -> date:
    return moment.astimezone(UTC).date()


def problems_of(error: ValidationError) -> list[str]:
    """Each problem with its place; the invalid value is not repeated, since it could be a private key."""
    return [
        f"{'.'.join(map(str, e['loc'])) or '(whole)'}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()
    ]


def checked(kind: type[S], fields: Mapping[str, Any]) -> S:
    """A statement whose fields and rules were checked.

    Raises:
        ValueError: all problems of its fields; if there are none, all rules that it breaks.
    """
    try:
        statement = TypeAdapter(kind).validate_python(dict(fields))
    except ValidationError as error:
        raise ValueError("; ".join(problems_of(error))) from None
    if problems := list(statement.problems()):
        raise ValueError("; ".join(problems))
    return statement


def encode(statement: Statement) -> bytes:
    content = {"_type": STATEMENT_TYPE, "predicateType": statement.predicate_type, **statement.body()}
    return canonical_json(content).encode()


def decode(payload: bytes) -> Statement:
    """The statement of a payload, which must be byte for byte what `encode` writes for it.

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
    statement = checked(kind, fields)
    if encode(statement) != payload:
        raise ValueError("a field is unknown, missing, duplicated or in another form than this tool writes")
    return statement
