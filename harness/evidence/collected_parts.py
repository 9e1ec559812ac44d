"""The parts of the weights that the ranks of a collected run stated, read strictly and compared with the case.

Over several ranks no process holds all weights, so each states the digests of its own parts. Takes the files of all
ranks; gives what they state together, and next to the weights of the case the digest of each tensor that is there in
full and equal. Rejects files that were changed, a rank that left none, and ranks that state other digests for one part.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy.typing as npt

from harness.base.digest import canonical_json, digest_array, digest_json
from harness.base.errors import EvidenceError
from harness.base.records import read_bytes, read_json
from harness.runs.collected import (
    FINAL_PARTS,
    INITIAL_PARTS,
    PARTS,
    PARTS_FORMAT,
    PROVENANCE,
    REPORTING,
    WEIGHTS,
    omitted,
    part_in_words,
)
from harness.runs.trace import Trace
from qwen3_model.parallel_config import LARGEST_DEGREE, Part

LARGEST_PARTS = 1 << 28  # bytes of the parts of a rank; those of 1,000 tensors have a five hundredth of it
MOST_AXES = 8
DIGEST = re.compile(r"[0-9a-f]{64}")
OF_RANK = re.compile(r"(0|[1-9][0-9]{0,4})\.jsonl")
HEAD = {"format", "nonce", "rank", "ranks", INITIAL_PARTS}
LINE = {"when", "name", "axis", "index", "of", "digest"}


class StatedDigest(NamedTuple):
    """The digest of a part of a tensor, and the first rank that states it."""

    digest: str
    rank: int


StatedDigests = Mapping[str, Mapping[Part, StatedDigest]]  # by Hugging Face name and part


@dataclass(frozen=True, kw_only=True)
class CollectedParts:
    """What the ranks of a run state of their parts of its initial and of its final weights. `began` and `ended`:
    whether each rank stated what it holds. `nonces` are the random numbers of the ranks."""

    initial: StatedDigests
    final: StatedDigests
    began: bool
    ended: bool
    nonces: frozenset[str]

    @property
    def moved(self) -> bool:
        """Whether a part has another digest at the end than at the beginning; also where either was not stated."""
        if not (self.began and self.ended and self.final):
            return True
        return any(_in_words(self.initial[name]) != _in_words(claims) for name, claims in self.final.items())


@dataclass(kw_only=True)
class _OfRank:
    """The file of one rank."""

    nonce: str
    began: bool
    ended: bool = False
    stated: dict[str, dict[tuple[str, Part], str]] = field(default_factory=lambda: {INITIAL_PARTS: {}, FINAL_PARTS: {}})


def read_parts(directory: Path, trace: Trace) -> CollectedParts | None:
    """What the ranks of a run state of their parts; None where one rank stated whole weights, or none was collected.

    Raises:
        EvidenceError: a file is missing, is no plain file or was changed after the run; a rank states what no collector
            does; or two ranks state different digests for one part of a tensor.
    """
    header, place = trace.header, directory / PARTS
    absent = WEIGHTS in omitted(header.provenance)
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise EvidenceError(f"{place} is no plain directory. Give the directory that the collector wrote.")
    if (absent or header.initial) and not place.exists():
        return None
    if header.initial:
        _check_bare(directory, place)
        return None
    ranks, reporting = header.provenance["ranks"], header.provenance[PROVENANCE][REPORTING]
    found = [_read_rank(place / f"{rank}.jsonl", rank, ranks, trace) for rank in range(ranks)]
    others = (one.name for one in place.iterdir() if OF_RANK.fullmatch(one.name))
    if more := sorted(name for name in others if int(name.partition(".")[0]) >= ranks):
        raise EvidenceError(f"{place / more[0]} is of a rank that the run of {ranks} ranks does not have.")
    if found[reporting].began == absent:
        what = "did not collect weights, and holds parts of them" if absent else "collected weights, and holds none"
        raise EvidenceError(f"{directory} states that it {what}.")
    nonces = frozenset(one.nonce for one in found)
    if len(nonces) < ranks:
        raise EvidenceError(f"{place}: two ranks have the same random number. One file is a copy of the other.")
    return CollectedParts(
        initial=_together(place, INITIAL_PARTS, found),
        final=_together(place, FINAL_PARTS, found),
        began=all(one.began for one in found),
        ended=all(one.ended for one in found),
        nonces=nonces,
    )


def _check_bare(directory: Path, place: Path) -> None:
    """Rejects parts next to whole weights, which one rank stated: only one of both is judged."""
    for path in sorted(place.iterdir()):
        if path.is_symlink() or not path.is_file() or b'"when"' in read_bytes(path, LARGEST_PARTS):
            raise EvidenceError(f"{directory} states whole weights, and parts of them in {PARTS}/{path.name}.")


def _together(place: Path, when: str, found: Iterable[_OfRank]) -> StatedDigests:
    claims: dict[str, dict[Part, StatedDigest]] = {}
    for rank, one in enumerate(found):
        for (name, part), digest in one.stated[when].items():
            held = claims.setdefault(name, {}).setdefault(part, StatedDigest(digest, rank))
            if held.digest != digest:
                raise EvidenceError(
                    f"{place}: rank {held.rank} and rank {rank} state different digests of {part_in_words(part)} of the"
                    f" {when} {name}. Ranks that hold the same part must hold the same numbers."
                )
    return claims


def _read_rank(path: Path, rank: int, ranks: int, trace: Trace) -> _OfRank:
    if path.is_symlink() or not path.is_file():
        raise EvidenceError(
            f"{path} is missing: rank {rank} of {ranks} left no parts of the weights. Copy the files of all ranks."
        )
    head, *lines = _read_lines(path, finished=trace.footer is not None) or [{}]
    nonce, began = head.get("nonce"), head.get(INITIAL_PARTS)
    wanted = {"format": PARTS_FORMAT, "rank": rank, "ranks": ranks}
    stated = {key: head[key] for key in wanted if key in head}
    known = isinstance(nonce, str) and DIGEST.fullmatch(nonce) and isinstance(began, bool)
    if not known or set(head) != HEAD or canonical_json(stated) != canonical_json(wanted):
        raise EvidenceError(f"{path} does not begin as the parts of rank {rank} of {ranks} do.")
    found = _OfRank(nonce=str(nonce), began=bool(began))
    if trace.footer is not None:
        end = lines.pop()
        if type(end.get(FINAL_PARTS)) is not bool or end.get("last_step") != len(trace.steps):
            raise EvidenceError(f"{path} does not end as the trace of its run does, at step {len(trace.steps)}.")
        found.ended = end[FINAL_PARTS]
    for number, line in enumerate(lines, 2):
        when, name, part, digest = _stated(line, f"{path}, line {number}")
        if (name, part) in found.stated[when]:
            raise EvidenceError(f"{path}, line {number}: {part_in_words(part)} of the {when} {name} is there twice.")
        found.stated[when][name, part] = digest
    _check_given(path, found)
    return found


def _check_given(path: Path, found: _OfRank) -> None:
    """Rejects parts that a rank calls not collected, and final parts of other tensors than the initial ones."""
    initial, final = (found.stated[when] for when in (INITIAL_PARTS, FINAL_PARTS))
    if (initial and not found.began) or (final and not found.ended):
        raise EvidenceError(f"{path} states that it has no parts of the weights, and has some.")
    if found.began and found.ended and (other := sorted(set(initial) ^ set(final), key=str)):
        name, part = other[0]
        raise EvidenceError(f"{path} states {part_in_words(part)} of {name} of the initial or the final weights alone.")


def _read_lines(path: Path, *, finished: bool) -> list[dict[str, Any]]:
    """The lines of a file; where the run is finished, the last one has the digest of those before it."""
    *lines, rest = read_bytes(path, LARGEST_PARTS).split(b"\n")
    if finished and rest:
        raise EvidenceError(f"{path} ends within a line. The file was truncated or edited.")
    parsed = [_parsed(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    if finished:
        covered = hashlib.sha256(b"".join(line + b"\n" for line in lines[:-1])).hexdigest()
        if len(parsed) < 2 or set(parsed[-1]) != {"last_step", FINAL_PARTS, "lines"}:
            raise EvidenceError(f"{path} has no end, and the trace of its run has one.")
        if parsed[-1]["lines"] != covered:
            raise EvidenceError(f"{path} was changed after its run ended.")
    elif parsed and "lines" in parsed[-1]:
        parsed.pop()  # this rank ended, and the reporting one did not
    return parsed


def _parsed(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
        same = canonical_json(value).encode() == line
    except (ValueError, RecursionError):
        raise EvidenceError(f"{where}: not JSON. The file was truncated or edited.") from None
    if not isinstance(value, dict) or not same:
        raise EvidenceError(f"{where}: not a line in its one form. The file was edited.")
    return value


def _stated(line: Mapping[str, Any], where: str) -> tuple[str, str, Part, str]:
    """When, of which tensor, which part, and its digest."""
    if set(line) != LINE or line["when"] not in (INITIAL_PARTS, FINAL_PARTS) or not isinstance(line["name"], str):
        raise EvidenceError(f"{where}: expected a part of an initial or a final weight.")
    axis, index, of, digest = line["axis"], line["index"], line["of"], line["digest"]
    whole = all(type(one) is int for one in (axis, index, of))
    if not whole or not (0 <= axis < MOST_AXES and 0 <= index < of <= LARGEST_DEGREE) or (of == 1 and axis):
        raise EvidenceError(f"{where}: there is no part {index!r} of {of!r} along axis {axis!r}.")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise EvidenceError(f"{where}: expected the digest of a part.")
    return line["when"], line["name"], Part(axis=axis, index=index, of=of), digest


class PartsOfCase:
    """The digests of the weights of a case, and of parts of them.

    Args:
        directory: Of the inputs.
        digests: Of each whole weight.
        weights: The weights; empty for a case whose evidence is sketches, of which the parts that its collected runs
            stated were digested when they were judged.
    """

    FILE = "parts.json"

    def __init__(self, directory: Path, digests: Mapping[str, str], weights: Mapping[str, npt.NDArray[Any]]) -> None:
        self.digests = digests
        self._directory, self._weights = directory, weights
        self._known: dict[tuple[str, str], str | None] = {}

    def digest(self, name: str, part: Part) -> str | None:
        """That of a part of a weight; None where the weight cannot be divided in this way."""
        if part.of == 1:
            return self.digests[name]
        if (name, part_in_words(part)) not in self._known:
            self._learn(name, part)
        return self._known[name, part_in_words(part)]

    def _learn(self, name: str, part: Part) -> None:
        if self._weights:
            self._known[name, part_in_words(part)] = _digest_of_part(self._weights[name], part)
            return
        path = self._directory / self.FILE
        listed = read_json(path)
        if not isinstance(listed, dict) or not all(isinstance(one, dict) for one in listed.values()):
            raise EvidenceError(f"{path} does not hold the digests of parts by the names of their weights.")
        if part_in_words(part) not in listed.get(name, {}):
            raise EvidenceError(f"{path} does not have {part_in_words(part)} of {name}, which a collected run states.")
        self._known |= {(key, text): digest for key, texts in listed.items() for text, digest in texts.items()}


def digests_of_parts(
    weights: Mapping[str, npt.NDArray[Any]], stated: Iterable[CollectedParts]
) -> dict[str, dict[str, str | None]]:
    """The digests that `PartsOfCase.FILE` lists: of each part that the runs state of a weight of the case, null where
    it cannot be divided so. One weight at a time is held."""
    wanted: dict[str, set[Part]] = {}
    for one in stated:
        for name in set(one.initial) & set(weights):
            wanted.setdefault(name, set()).update(part for part in one.initial[name] if part.of > 1)
    found: dict[str, dict[str, str | None]] = {}
    for name in sorted(name for name, parts in wanted.items() if parts):
        weight = weights[name]
        found[name] = {part_in_words(part): _digest_of_part(weight, part) for part in wanted[name]}
    return found


def _digest_of_part(weight: npt.NDArray[Any], part: Part) -> str | None:
    divides = part.axis < weight.ndim and weight.shape[part.axis] % part.of == 0
    return digest_array(part.take(weight)) if divides else None


def departures(parts: CollectedParts, case: PartsOfCase) -> dict[str, str]:
    """By name, where the initial weights that the ranks state depart from those of the case, in words. A tensor that no
    rank states does so only where every rank stated what it holds."""
    found: dict[str, str] = {}
    for name in sorted({*case.digests, *parts.initial}):
        claims = parts.initial.get(name, {})
        text = next(_departures(name, claims, case), None) or (parts.began and _missing(claims)) or None
        if text:
            found[name] = text
    return found


def _departures(name: str, claims: Mapping[Part, StatedDigest], case: PartsOfCase) -> Iterator[str]:
    for part, claim in claims.items():
        if name not in case.digests:
            yield f"rank {claim.rank} states it, and the case has no such weight"
            return
        wanted = case.digest(name, part)
        if wanted is None:
            yield f"rank {claim.rank} states {part_in_words(part)}, and it cannot be divided so"
        elif wanted != claim.digest:
            yield f"{part_in_words(part)}, on rank {claim.rank}, is not that of the case"


def _missing(claims: Mapping[Part, StatedDigest]) -> str | None:
    """What no rank states of a tensor, None if there is nothing: each division that is stated must be complete."""
    if not claims:
        return "no rank states it"
    for axis, of in sorted({(part.axis, part.of) for part in claims}):
        if left := [one for index in range(of) if (one := Part(axis=axis, index=index, of=of)) not in claims]:
            return f"no rank states {part_in_words(left[0])}"
    return None


def initial_of(parts: CollectedParts, case: PartsOfCase) -> dict[str, str]:
    """The digests of the initial weights by name: where all of a tensor is stated and equal, that of the case, and
    another one where it departs."""
    wrong = departures(parts, case)
    return {
        name: digest_json(_in_words(claims)) if name in wrong else case.digests[name]
        for name, claims in parts.initial.items()
        if name in wrong or _missing(claims) is None
    }


def final_of(parts: CollectedParts) -> dict[str, str]:
    """The digests of the final weights by name, of all parts of each; none unless every rank stated what it holds."""
    return {name: _of_all(claims) for name, claims in parts.final.items()} if parts.ended else {}


def _of_all(claims: Mapping[Part, StatedDigest]) -> str:
    whole = claims.get(Part())
    return whole.digest if whole is not None and len(claims) == 1 else digest_json(_in_words(claims))


def _in_words(claims: Mapping[Part, StatedDigest]) -> dict[str, str]:
    return {part_in_words(part): claim.digest for part, claim in claims.items()}
