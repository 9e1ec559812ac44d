"""The origin of the numbers of a bundle: its code, start, occasion and machine, and a baseline if one was used.

Each is a record that is written where the runs are made and read by everything after them.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from harness.base.digest import digest_json
from harness.base.errors import EvidenceError
from harness.base.records import LATER, check_list, parse, plain_files, read_json
from harness.evidence.bundle_files import is_statement
from harness.runs.inputs import Inputs

SOURCE, ENVIRONMENT, START = "source.json", "environment.json", "start.json"
NPU = "Ascend"
# Of a run of the harness, and of trainers that are collected. A name that only looks like one of them is none.
DEVICES = ("CPU", NPU, "CUDA", "GPU", "mps", "xpu", "hpu")
CHIP = re.compile(r"(Ascend)?\d{3}\w*")  # 910B3, 310P3, Ascend910_9382
NO_CHIP = "no run on an NPU can be made there. 'npu-smi info' has to name one chip."
BASELINE, BASELINE_FORMAT = "baseline.json", "certify-baseline/1"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The environment of the runs: the subject's device, Python, threads of each run, processor and memory, version of
    each package (None if it is not installed), and the environment variables that were set for them.

    `packages` gives each framework's as the side that uses it has it. `sides` gives interpreter and packages of a side
    whose runs had another interpreter. `untried` names the versions that had not been tried with this program.
    """

    device: str
    python: str
    threads: int
    machine: Mapping[str, Any]
    packages: Mapping[str, str | None]
    variables: Mapping[str, str]
    sides: Mapping[str, Any] | None = dataclasses.field(default=None, metadata=LATER)
    untried: tuple[str, ...] | None = dataclasses.field(default=None, metadata=LATER)


@dataclass(frozen=True, kw_only=True)
class Source:
    """The code that ran: its revision (None outside a git checkout), whether files differed from it (`dirty`), and the
    digest of the files of both packages. `runners` gives the digest of the file of each runner that is not part of
    them, by its name; None where there is none."""

    revision: str | None
    dirty: bool
    sha256: str
    runners: Mapping[str, str] | None = field(default=None, metadata=LATER)

    @property
    def state(self) -> str:
        """The revision as text, with a note if files differed from it."""
        return f"{self.revision[:12]}{', with uncommitted changes' * self.dirty}" if self.revision else "no checkout"


@dataclass(frozen=True, kw_only=True)
class Start:
    """What was drawn when the runs of a bundle started, and what stays if they are resumed.

    `nonce` is a random number in hexadecimal, so that no other bundle has this manifest. `committed` is the time of the
    commit of the source's revision (ISO 8601, UTC), as git states it; None outside a git checkout.
    """

    nonce: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    committed: str | None


@dataclass(frozen=True, kw_only=True)
class Occasion:
    """When and how a bundle was made: the command, its start (ISO 8601, UTC), how long all of it took, and its host.

    Of runs that were resumed, the start is the first and the command the last.
    """

    command: tuple[str, ...]
    started: str
    seconds: float
    host: str


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A recorded reference half of a case: author, reason, time (ISO 8601, UTC), command, and machine.

    `case` and `inputs` are those of its runs; `environment` and `source` are what they ran on. `files` gives the
    SHA-256 of every other file by relative POSIX path, `seal` the digest of all the other fields. `reference_code` is
    the digest of the code that makes such runs; None in a recording from before it was stated.
    """

    format: str
    case: str
    case_digest: str
    author: str
    reason: str
    recorded: str
    command: tuple[str, ...]
    inputs: Inputs
    environment: Environment
    source: Source
    files: Mapping[str, str]
    seal: str
    reference_code: str | None = dataclasses.field(default=None, metadata=LATER)


def read_source(path: Path) -> Source:
    """The code that ran.

    Raises:
        EvidenceError: it is missing, or its content is not valid.
    """
    source: Source = parse(Source, read_json(path), path)
    return source


def read_start(path: Path) -> Start:
    """What was drawn when the runs started.

    Raises:
        EvidenceError: it is missing, its content is not valid, or its time is not in UTC.
    """
    start: Start = parse(Start, read_json(path), path)
    if start.committed is not None and not in_utc(start.committed):
        raise EvidenceError(f"{path} states no UTC time of a commit, but {start.committed!r}.")
    return start


def read_occasion(path: Path) -> Occasion:
    """When and how a bundle was made.

    Raises:
        EvidenceError: it is missing, its content is not valid, or its time is not in UTC.
    """
    occasion: Occasion = parse(Occasion, read_json(path), path)
    if not in_utc(occasion.started):
        raise EvidenceError(f"{path} states no UTC time at which the run started, but {occasion.started!r}.")
    return occasion


def read_environment(path: Path) -> Environment:
    """The environment of the runs.

    Raises:
        EvidenceError: it is missing, its content is not valid, or it states an unknown device, or an NPU and no chip.
    """
    environment: Environment = parse(Environment, read_json(path), path)
    check_device(environment, path)
    return environment


def check_device(environment: Environment, path: Path) -> None:
    """Checks the device that an environment states; `path` is where it states it.

    Raises:
        EvidenceError: an unknown device, or an NPU and no chip.
    """
    if environment.device not in DEVICES:
        raise EvidenceError(f"{path} states the device {environment.device!r}, which is none of {', '.join(DEVICES)}.")
    if environment.device == NPU and not chip_of(environment.machine):
        raise EvidenceError(
            f"{path} states the device {NPU}, and its machine has no chip that the driver named: {NO_CHIP}"
        )


def chip_of(machine: Mapping[str, Any]) -> str | None:
    """The chip of a machine, as its driver names it; None where it names none."""
    ascend = machine.get("ascend")
    soc = ascend.get("soc") if isinstance(ascend, Mapping) else None
    return soc if isinstance(soc, str) and CHIP.fullmatch(soc) else None


def read_baseline_record(path: Path) -> Baseline:
    """The record of a baseline.

    Raises:
        EvidenceError: it is missing, has another format, or was changed after it was sealed.
    """
    value = read_json(path)
    if not isinstance(value, dict) or value.get("format") != BASELINE_FORMAT:
        raise EvidenceError(f"{path} does not have the format {BASELINE_FORMAT!r}.")
    if value.get("seal") != digest_json({key: given for key, given in value.items() if key != "seal"}):
        raise EvidenceError(f"{path} was changed since it was recorded.")
    baseline: Baseline = parse(Baseline, value, path)
    if not in_utc(baseline.recorded):
        raise EvidenceError(f"{path} states no UTC time at which it was recorded, but {baseline.recorded!r}.")
    return baseline


def read_baseline(directory: Path) -> Baseline:
    """The baseline of a directory, every byte of its files checked but of the statements signed about it.

    Raises:
        EvidenceError: it is no baseline, or a file is missing, extra, changed or no plain file.
    """
    baseline = read_baseline_record(directory / BASELINE)
    found = [name for name in plain_files(directory) if name != BASELINE and not is_statement(name)]
    check_list(directory, baseline.files, found)
    return baseline


def in_utc(text: str) -> bool:
    """Whether a text is a time in UTC, as ISO 8601 writes it."""
    try:
        return datetime.fromisoformat(text).utcoffset() == timedelta(0)
    except ValueError:
        return False
