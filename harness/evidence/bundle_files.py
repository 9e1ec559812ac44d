"""The files of an evidence bundle: their names, and whether each is still as sealed.

Two runs of one case on one machine have the same manifest but for what each draws at its start: files that depend on
time or host are in a separate list.

    manifest.json                 format, path and SHA-256 of all files that follow from case, code and start
      start.json                  the nonce of these runs
      case.json  standards/*.json  inputs.json  inputs/*.safetensors  environment.json  source.json
      runs/NAME/{trace.jsonl, outcome.json}   tensors/NAME.safetensors   findings.json
      runs/NAME/{rows/, gradient.safetensors} of a collected run
      baseline.json               the recorded reference and oracle: author, reason, machine
    record.json                   digest of the manifest, and path and SHA-256 of the files that depend on time or host
      run.json  runs/NAME/{log.txt, timing.jsonl, ranks/, plog/, profile/, collected.json}
    report.html                   may be written again; its last two lines state how, and the digest of the lines before
    attestations/*.json           signed statements about manifest and record, or about baseline.json
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.base.digest import digest_bytes, digest_file
from harness.base.errors import EvidenceError
from harness.base.records import check_list, list_files, plain_files, read_bytes, read_json, write_json
from harness.base.whole_files import whole_file
from harness.runs.collected import RECORD as COLLECTED
from harness.runs.files import LOG, PLOG, PROFILE, RANKS, TIMING

FORMAT, RECORD_FORMAT = "certify-bundle/2", "certify-record/1"
MANIFEST, RECORD, FINDINGS = "manifest.json", "record.json", "findings.json"
CASE, INPUTS = "case.json", "inputs.json"
RUN, PAGE, ATTESTATIONS = "run.json", "report.html", "attestations"
RECORDED = (RUN,)  # depends on time or host
RECORDED_OF_RUN = (LOG, TIMING, RANKS, PLOG, PROFILE, COLLECTED)  # depends on time or host, for each run
PAGE_SEAL = "<!-- sha256 {} -->\n"


def covered(directory: Path) -> dict[str, str]:
    """The digest of each file that a manifest or a record will cover, by relative POSIX path.

    Raises:
        EvidenceError: something is not a plain file.
    """
    digested, recorded = _files(directory)
    return list_files(directory, [*digested, *recorded])


def seal(directory: Path, known: Mapping[str, str] | None = None) -> None:
    """Writes manifest and record: after this, a changed byte is detected. `known` are digests that are not taken
    again."""
    known = known or {}
    digested, recorded = (
        {name: known.get(name) or digest_file(directory / name) for name in names} for names in _files(directory)
    )
    write_json(directory / MANIFEST, {"format": FORMAT, "files": digested})
    record = {"format": RECORD_FORMAT, "manifest": digest_file(directory / MANIFEST)}
    write_json(directory / RECORD, {**record, "files": recorded})


def _files(directory: Path) -> tuple[list[str], list[str]]:
    """The relative POSIX paths of the files that the manifest covers, and of those that the record covers.

    Raises:
        EvidenceError: something is not a plain file.
    """
    covered = [name for name in plain_files(directory) if not _has_own_check(name.split("/"))]
    recorded = [name for name in covered if _is_recorded(name.split("/"))]
    return [name for name in covered if name not in recorded], recorded


def _has_own_check(parts: Sequence[str]) -> bool:
    if len(parts) == 1:
        return parts[0] in (MANIFEST, RECORD, PAGE)
    return is_statement("/".join(parts))


def is_statement(name: str) -> bool:
    """Whether a file is a signed statement, by its relative POSIX path: its signature is its check."""
    parts = name.split("/")
    return len(parts) == 2 and parts[0] == ATTESTATIONS and parts[1].endswith(".json")


def _is_recorded(parts: Sequence[str]) -> bool:
    if len(parts) >= 3 and parts[0] == "runs":
        return parts[2] in RECORDED_OF_RUN
    return len(parts) == 1 and parts[0] in RECORDED


def check_files(directory: Path) -> None:
    """Checks every byte of a bundle's files, except its page and its signed statements.

    Raises:
        EvidenceError: no finished bundle, another format, or a file extra, missing or changed.
    """
    if directory.is_file():
        raise EvidenceError(f"{directory} is not a finished bundle: it is a file. {_in_place_of(directory)}")
    if not (directory / MANIFEST).is_file():
        raise EvidenceError(
            f"{directory} is not a finished bundle: it has no {MANIFEST}. 'certify run --resume' finishes a run."
        )
    digested, recorded = _files(directory)
    manifest = _read_list(directory / MANIFEST, FORMAT, {"format", "files"})
    check_list(directory, manifest["files"], digested)
    record = _read_list(directory / RECORD, RECORD_FORMAT, {"format", "manifest", "files"})
    if record["manifest"] != digest_file(directory / MANIFEST):
        raise EvidenceError(f"{directory / RECORD} belongs to another {MANIFEST}.")
    check_list(directory, record["files"], recorded)


def _in_place_of(file: Path) -> str:
    """What was probably meant by a file in the place of a bundle."""
    if (file.parent / MANIFEST).is_file():
        return f"Give its directory: {file.parent}"
    study = shlex.join(["certify", "site", str(file.parent), "--power", str(file), "--out", "site"])
    return f"A study that 'certify power' recorded is shown by: {study}"


def _read_list(path: Path, form: str, keys: set[str]) -> dict[str, Any]:
    value: Any = read_json(path)
    known = isinstance(value, dict) and set(value) == keys and value["format"] == form
    if not known or not isinstance(value["files"], dict):
        raise EvidenceError(f"{path} does not have the format {form!r}: it was written by another version, or edited.")
    return dict(value)


def write_page(directory: Path, page: str) -> Path:
    """Writes the page of a bundle with the digest of its content as its last line."""
    path = directory / PAGE
    content = (page.rstrip("\n") + "\n").encode("utf-8")
    with whole_file(path, overwrite=True) as file:
        file.write(content + PAGE_SEAL.format(digest_bytes(content)).encode())
    return path


def check_page(path: Path) -> None:
    """A page may be missing, but not changed."""
    if not path.is_file():
        return
    content = read_bytes(path)
    end = content.rfind(b"\n", 0, len(content) - 1) + 1
    if content[end:] != PAGE_SEAL.format(digest_bytes(content[:end])).encode():
        command = shlex.join(["certify", "report", str(path.parent)])
        raise EvidenceError(f"{path} was changed since it was written. Write it again: {command}")
