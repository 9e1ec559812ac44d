"""A scene to spoil: two bundles, the keys of everybody, whom to believe; and ways to spoil one of any task.

The honest chain reaches Released. After something was spoiled everybody signs the result again, unless signing is what
was spoiled, for the worst case is that all of them are in it.
"""

import dataclasses
import datetime
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.attestation import Role, Trust, keygen, load_trust, sign, verify_all
from harness.base.digest import canonical_json, digest_bytes, digest_file
from harness.base.errors import AttestationError, EvidenceError
from harness.base.records import read_json, write_json
from harness.cases.case import Case
from harness.cases.task import INFERENCE, PRETRAIN
from harness.evidence.bundle import Bundle, finish_bundle, read_bundle
from harness.levels.certificate import Level
from harness.levels.rule import certify
from harness.levels.submission import Submission, claim_of, read_submission
from harness.runs.trace import TraceHeader
from tests.support.bundles import START, edit_json, write_example

UTC = datetime.UTC
DAY = datetime.datetime(2026, 2, 10, 12, tzinfo=UTC)
SIGNED = datetime.datetime(2026, 2, 5, tzinfo=UTC)
SECOND = {"started": "2026-02-02T08:00:00+00:00", "host": "test-runner"}
SECOND_START = {"nonce": "2" * 64, "committed": START["committed"]}
PEOPLE = {
    "dana": ("Dana", Role.DEVELOPER),
    "li": ("Li Wei", Role.DEV_TEAM),
    "tess": ("Tess", Role.TEST_TEAM),
    "wu": ("Wu", Role.DEV_TEAM),
}
SIGNERS = ("dana", "li", "tess")  # Wu has no part, so she may waive
REFUSED, NONE, UNTESTED, PRELIMINARY, VALIDATED = None, Level.NONE, Level.UNTESTED, Level.PRELIMINARY, Level.VALIDATED


def shipped(header: TraceHeader) -> TraceHeader:
    """The runners that measure as a real run names them."""
    task = INFERENCE if header.arm == "infer" else PRETRAIN
    return dataclasses.replace(header, runner=task.measured_by.get(header.side, header.runner))


def write(directory: Path, header: Callable[[TraceHeader], TraceHeader] = lambda header: header, **more: Any) -> Bundle:
    """A bundle made by the shipped runners unless `header` says otherwise."""
    return write_example(directory, **{"header": lambda asked: header(shipped(asked)), **more})


def write_second(directory: Path, **more: Any) -> Bundle:
    """Another occasion, whose steps took other times."""
    write(directory, **{"occasion": SECOND, "start": SECOND_START, **more})
    for timing in directory.glob("runs/*/timing.jsonl"):
        timing.write_bytes(timing.read_bytes().replace(b"0.02", b"0.03"))
    return finish_bundle(directory)


def trust_file(directory: Path, **changes: Any) -> Path:
    """Everybody with one role for a year; `changes` by person replace fields of their entry."""
    entries = [
        {"person": person, "public_key": f"{name}.pub", "roles": [str(role)], "valid_from": "2026-01-01",
         "valid_until": "2026-12-31", **changes.get(name, {})}
        for name, (person, role) in PEOPLE.items()
    ]  # fmt: skip
    path = directory / "trust.yaml"
    path.write_text(json.dumps({"keys": entries, **changes.get("file", {})}))
    return path


def forge(where: Path) -> None:
    """Makes both lists of a bundle fit what lies there."""
    for name in ("manifest.json", "record.json"):
        content = read_json(where / name)
        content["files"] = {file: digest_file(where / file) for file in content["files"] if (where / file).is_file()}
        if name == "record.json":
            content["manifest"] = digest_file(where / "manifest.json")
        write_json(where / name, content)


@dataclass
class Scene:
    """Two bundles, keys, the trusted people, and the day of the level."""

    root: Path
    case: Case
    at: datetime.datetime = DAY
    others: bool = True
    signing: bool = True
    # what lies in `first`, and what lay in `second`, if it is known: most of the time goes into reading
    made: Bundle | None = None
    kept: Bundle | None = None
    trust: dict[str, Any] = field(default_factory=dict)

    @property
    def first(self) -> Path:
        return self.root / "first"

    @property
    def second(self) -> Path:
        return self.root / "second"

    def put(self, bundle: Path, statement: Any, key: str) -> Path:
        envelope = sign(statement, self.root / f"{key}.key")
        path = bundle / "attestations" / f"{digest_bytes(envelope)[:12]}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(envelope)
        return path

    def attest(
        self, path: Path, key: str, role: Role | None = None, bundle: Bundle | None = None, **changes: Any
    ) -> Path:
        claim = claim_of(bundle or read_bundle(path), role or PEOPLE[key][1], changes.pop("stated_at", SIGNED))
        return self.put(path, dataclasses.replace(claim, **changes), key)

    def sign_all(self) -> None:
        """Everybody signs the first bundle, in place of what was signed before."""
        shutil.rmtree(self.first / "attestations", ignore_errors=True)
        first = self.made or read_bundle(self.first)
        for key in SIGNERS:
            self.attest(self.first, key, bundle=first)

    def forge(self) -> None:
        """Makes both lists of the first bundle fit what lies there."""
        forge(self.first)

    def read_second(self, trust: Trust) -> Submission:
        if self.kept is None or self.kept.record != digest_file(self.second / "record.json"):
            return read_submission(self.second, trust, self.at)
        envelopes = [path.read_bytes() for path in (self.second / "attestations").glob("*.json")]
        return Submission(bundle=self.kept, statements=verify_all(envelopes, trust, self.at))

    def outcome(self, spoil: Callable[["Scene"], object]) -> Level | None:
        """What comes out after something was spoiled; None where the evidence is refused."""
        try:
            spoil(self)
            if self.signing:
                self.sign_all()
            believed = load_trust(trust_file(self.root, **self.trust))
            first, second = read_submission(self.first, believed, self.at), self.read_second(believed)
        except (EvidenceError, AttestationError):
            return None
        return certify(first, self.at, [second] if self.others else []).level


def honest_scene(root: Path, case: Case) -> Scene:
    """A scene in which nothing is spoiled."""
    for name in (*PEOPLE, "other"):
        keygen(root / name)
    scene = Scene(root, case=case, made=write(root / "first", case=case))
    scene.sign_all()
    scene.kept = write_second(scene.second, case=case)
    scene.attest(scene.second, "tess", bundle=scene.kept)
    return scene


def copy_of(honest: Scene, root: Path) -> Scene:
    """A scene of one's own to spoil."""
    return Scene(Path(shutil.copytree(honest.root, root)), case=honest.case, kept=honest.kept)


Fooling = Callable[[Scene], object]


def again(**options: Any) -> Fooling:
    """The first bundle made with other numbers."""

    def spoil(scene: Scene) -> None:
        shutil.rmtree(scene.first)
        scene.made = write(scene.first, **{"case": scene.case, **options})

    return spoil


def header_of(run: str, change: Callable[[TraceHeader], dict[str, Any]]) -> Fooling:
    return again(header=lambda h: dataclasses.replace(h, **change(h)) if h.run == run else h)


def lines_of(run: str, change: Callable[[list[bytes]], list[bytes]]) -> Fooling:
    """Other lines in a trace, whose end then states their digest, judged as if they had been recorded."""

    def spoil(scene: Scene) -> None:
        path = scene.first / "runs" / run / "trace.jsonl"
        *lines, end = change(path.read_bytes().splitlines(keepends=True))
        content = json.loads(end)
        if "lines" in content:
            end = (canonical_json({**content, "lines": digest_bytes(b"".join(lines))}) + "\n").encode()
        path.write_bytes(b"".join([*lines, end]))
        scene.made = finish_bundle(scene.first)

    return spoil


def swapped(one: str, other: str) -> Fooling:
    def spoil(scene: Scene) -> None:
        a, b, aside = scene.first / one, scene.first / other, scene.root / "aside"
        a.rename(aside), b.rename(a), aside.rename(b)
        finish_bundle(scene.first)

    return spoil


def copied(source: str, target: str) -> Fooling:
    def spoil(scene: Scene) -> None:
        shutil.copy(scene.first / source, scene.first / target)
        scene.made = finish_bundle(scene.first)

    return spoil


def edited(name: str, change: Callable[[Any], object], forge: bool = True) -> Fooling:
    def spoil(scene: Scene) -> None:
        edit_json(scene.first / name, change)
        if forge:
            scene.forge()

    return spoil


def statement(act: Fooling) -> Fooling:
    """A row about signatures: they are as the row leaves them."""

    def spoil(scene: Scene) -> None:
        scene.signing = False
        act(scene)

    return spoil


def second_made(*signers: str, **options: Any) -> Fooling:
    """Another second run, signed by the test team and by who else is named."""

    def spoil(scene: Scene) -> None:
        shutil.rmtree(scene.second)
        made = write_second(scene.second, **{"case": scene.case, **options})
        for key in ("tess", *signers):
            scene.attest(scene.second, key, bundle=made)

    return spoil


def as_runner(side: str, name: str) -> Callable[[TraceHeader], TraceHeader]:
    """One side made by another runner."""
    return lambda header: dataclasses.replace(header, runner=name) if header.side == side else header


def left_out(name: str) -> Fooling:
    def spoil(scene: Scene) -> None:
        (scene.first / name).unlink()
        scene.made = finish_bundle(scene.first)

    return spoil


def run_in(name: str) -> str:
    return f"runs/{name}/trace.jsonl"
