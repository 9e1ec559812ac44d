"""Ways to fool it: what is done to honest evidence, and the level that must not be passed. None is accepted.

The honest chain reaches Released. Each row spoils something and then, unless signing is what it spoils, has everybody
sign the result again, for the worst case is that all of them are in it.
"""

import dataclasses
import datetime
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.attestation import Role, Trust, Waiver, Withdrawal, keygen, load_trust, read, sign
from harness.digest import digest_bytes, digest_file
from harness.errors import CertifyError
from harness.evidence import Bundle, finish_bundle, read_bundle, read_json, write_json
from harness.levels import Level, certify, claim_of, read_submission
from harness.standards import Standard, load_standard, parse_standard
from harness.trace import Step, TraceHeader
from tests.support.bundles import edit_json, write_example, write_page_of
from tests.support.examples import small_case

UTC = datetime.UTC
DAY = datetime.datetime(2026, 2, 10, 12, tzinfo=UTC)
SIGNED = datetime.datetime(2026, 2, 5, tzinfo=UTC)
CASE = small_case(steps=1000, lr_zero_steps=20)
SECOND = {"started": "2026-02-02T08:00:00+00:00", "host": "test-runner"}
PEOPLE = {"dana": ("Dana", Role.DEVELOPER), "li": ("Li Wei", Role.DEV_TEAM), "tess": ("Tess", Role.TEST_TEAM)}


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


@dataclass
class Scene:
    """Two bundles, keys, whom to believe, and the day that is asked for."""

    root: Path
    at: datetime.datetime = DAY
    others: bool = True
    signing: bool = True
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
        for bundle in (self.first, self.second):
            shutil.rmtree(bundle / "attestations", ignore_errors=True)
        first = read_bundle(self.first)
        for key in PEOPLE:
            self.attest(self.first, key, bundle=first)
        self.attest(self.second, "tess")

    def forge(self, bundle: Path | None = None) -> None:
        """Makes both lists fit what lies there."""
        where = bundle or self.first
        for name in ("manifest.json", "record.json"):
            content = read_json(where / name)
            content["files"] = {
                file: digest_file(where / file) for file in content["files"] if (where / file).is_file()
            }
            if name == "record.json":
                content["manifest"] = digest_file(where / "manifest.json")
            write_json(where / name, content)

    def level(self) -> Level:
        """What comes out; what is refused carries no level."""
        try:
            if self.signing:
                self.sign_all()
            believed: Trust = load_trust(trust_file(self.root, **self.trust))
            first, second = (read_submission(path, believed, self.at) for path in (self.first, self.second))
        except CertifyError:
            return Level.NONE
        return certify(first, self.at, [second] if self.others else []).level


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("honest")
    write_example(root / "first", case=CASE)
    write_example(root / "second", case=CASE, occasion=SECOND)
    for name in (*PEOPLE, "other"):
        keygen(root / name)
    Scene(root).sign_all()
    return root


@pytest.fixture
def scene(honest: Path, tmp_path: Path) -> Scene:
    return Scene(Path(shutil.copytree(honest, tmp_path / "scene")))


def test_the_honest_chain_is_released(scene: Scene) -> None:
    assert scene.level() is Level.RELEASED


Fooling = Callable[[Scene], object]


def again(**options: Any) -> Fooling:
    """The first bundle made with other numbers."""

    def spoil(scene: Scene) -> None:
        shutil.rmtree(scene.first)
        write_example(scene.first, **{"case": CASE, **options})

    return spoil


def at_step(run: str, number: int, **values: Any) -> Fooling:
    return again(change=lambda r, s: dataclasses.replace(s, **values) if r.startswith(run) and s.step == number else s)


def header_of(run: str, change: Callable[[TraceHeader], dict[str, Any]]) -> Fooling:
    return again(header=lambda h: dataclasses.replace(h, **change(h)) if h.run == run else h)


def lines_of(run: str, change: Callable[[list[bytes]], list[bytes]]) -> Fooling:
    """Another order of lines in a trace, with lists that fit."""

    def spoil(scene: Scene) -> None:
        path = scene.first / "runs" / run / "trace.jsonl"
        path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
        scene.forge()

    return spoil


def swapped(one: str, other: str) -> Fooling:
    def spoil(scene: Scene) -> None:
        a, b, aside = scene.first / one, scene.first / other, scene.root / "aside"
        a.rename(aside), b.rename(a), aside.rename(b)
        scene.forge()

    return spoil


def copied(source: str, target: str) -> Fooling:
    def spoil(scene: Scene) -> None:
        shutil.copy(scene.first / source, scene.first / target)
        scene.forge()

    return spoil


def edited(name: str, change: Callable[[Any], object], forge: bool = True) -> Fooling:
    def spoil(scene: Scene) -> None:
        edit_json(scene.first / name, change)
        if forge:
            scene.forge()

    return spoil


def digit(forge: bool) -> Fooling:
    def spoil(scene: Scene) -> None:
        path = scene.first / "runs" / "subject-1" / "trace.jsonl"
        path.write_bytes(path.read_bytes().replace(b'"tokens":256', b'"tokens":257', 1))
        if forge:
            scene.forge()

    return spoil


def standard(change: Callable[[dict[str, Any]], object], name: str = "official") -> tuple[Standard, ...]:
    content = load_standard(name).model_dump(mode="json")
    change(content)
    others = [load_standard(other) for other in CASE.standards if other != name]
    return (parse_standard(content, "edited"), *others)


def loosened(content: dict[str, Any]) -> None:
    for criterion in content["criteria"]:
        for limit in criterion["limits"]:
            limit["value"] = 1e9 if limit["comparator"] != "at_least" else -1e9


def unread(content: dict[str, Any]) -> None:
    content["criteria"][0]["limits"][0]["measurement"] = "runs.nothing"


def older(content: dict[str, Any]) -> None:
    content["version"] = 1


def statement(act: Fooling) -> Fooling:
    """A row about signatures: they are as the row leaves them."""

    def spoil(scene: Scene) -> None:
        scene.sign_all()
        scene.signing = False
        act(scene)

    return spoil


def unsigned(bundle: Path, role: Role) -> None:
    """Takes the statements of a role away."""
    for path in (bundle / "attestations").glob("*.json"):
        if getattr(read(path.read_bytes()).statement, "role", None) is role:
            path.unlink()


def in_role(role: Role, act: Callable[[Scene], object]) -> Fooling:
    """The statement of a role on the first bundle is replaced by what `act` puts there."""
    return statement(lambda scene: (unsigned(scene.first, role), act(scene)))


def nan_everywhere(run: str, step: Step) -> Step:
    return dataclasses.replace(step, loss=math.nan)


def without_first(header: TraceHeader) -> dict[str, str]:
    return dict([*header.initial.items()][1:])


def taken_back(scene: Scene, path: Path) -> None:
    withdrawal = Withdrawal(withdraws=digest_file(path), reason="wrong case", stated_at=SIGNED)
    scene.put(scene.first, withdrawal, "li")


def on_an_npu(environment: dict[str, Any]) -> None:
    environment["device"] = "Ascend"


def waived(scene: Scene, until: str = "2026-12-31", case: str | None = None) -> None:
    """A broken criterion, waived by the development team."""
    shutil.rmtree(scene.first)
    write_example(scene.first, case=CASE, change=lambda r, s: drifting(r, s))
    scene.sign_all()
    scene.signing = False
    last = datetime.date.fromisoformat(until)
    for criterion in ("loss", "loss-bias", "oracle-loss-mean", "oracle-loss-rms", "oracle-loss-maximum"):
        scene.put(scene.first, Waiver(criterion=criterion, case_digest=case or CASE.digest(), reason="known",
                                      until=last, role=Role.DEV_TEAM, stated_at=SIGNED), "li")  # fmt: skip


def drifting(run: str, step: Step) -> Step:
    """The subject's loss is off by twenty times the strict limit."""
    return dataclasses.replace(step, loss=step.loss * 1.0002) if run.startswith("subject") else step


def link(scene: Scene) -> None:
    path = scene.first / "case.json"
    path.rename(scene.root / "case.json")
    path.symlink_to(scene.root / "case.json")


def second_as_copy(scene: Scene) -> None:
    shutil.rmtree(scene.second)
    shutil.copytree(scene.first, scene.second)


def second_made(**options: Any) -> Fooling:
    def spoil(scene: Scene) -> None:
        shutil.rmtree(scene.second)
        write_example(scene.second, **{"case": CASE, "occasion": SECOND, **options})

    return spoil


def run_in(name: str) -> str:
    return f"runs/{name}/trace.jsonl"


def moved(scene: Scene, at: datetime.datetime) -> None:
    scene.at = at


LATE, EARLY = DAY + datetime.timedelta(days=181), datetime.datetime(2026, 1, 30, tzinfo=UTC)
NONE, UNTESTED, PRELIMINARY, VALIDATED = Level.NONE, Level.UNTESTED, Level.PRELIMINARY, Level.VALIDATED

# name: what is done, and the highest level that may still come out
FOOLINGS: dict[str, tuple[Fooling, Level]] = {
    "not a number in one step": (at_step("subject-1", 500, loss=math.nan), NONE),
    "infinity in the grad norm": (at_step("subject-2", 7, grad_norm=math.inf), NONE),
    "not a number in every step of every run": (again(change=nan_everywhere), NONE),
    "not a number in both sides at the same step": (at_step("", 12, loss=math.nan), NONE),
    "a run that was killed": (again(change=lambda r, s: None if r == "subject-1" and s.step > 900 else s), NONE),
    "a missing step": (lines_of("subject-1", lambda ls: ls[:5] + ls[6:]), NONE),
    "a step twice": (lines_of("subject-1", lambda ls: ls[:6] + ls[5:]), NONE),
    "steps in another order": (lines_of("subject-1", lambda ls: [*ls[:5], ls[6], ls[5], *ls[7:]]), NONE),
    "an extra step": (lines_of("subject-1", lambda ls: [*ls[:-1], ls[-2], ls[-1]]), NONE),
    "an empty trace": (lines_of("subject-1", lambda ls: []), NONE),
    "a trace without its end": (lines_of("subject-1", lambda ls: ls[:-1]), NONE),
    "a header that asks for fewer steps": (
        lines_of("subject-1", lambda ls: [ls[0].replace(b'"steps":1000', b'"steps":999'), *ls[1:-2], ls[-1]]), NONE),
    "a short run of a shorter case": (again(case=small_case(steps=200, lr_zero_steps=20)), PRELIMINARY),
    "the sides' traces swapped": (swapped(run_in("subject-1"), run_in("reference-1")), NONE),
    "the reference's trace as the subject's": (copied(run_in("reference-1"), run_in("subject-1")), NONE),
    "the subject's trace as the oracle's": (copied(run_in("subject-1"), run_in("oracle-1")), NONE),
    "the reference's probe as the subject's": (
        copied("tensors/reference-probe.safetensors", "tensors/subject-probe.safetensors"), NONE),
    "one run as both repeats": (copied(run_in("subject-1"), run_in("subject-2")), NONE),
    "a trace of another case": (header_of("subject-1", lambda h: {"case": "0" * 64}), UNTESTED),
    "other weights": (header_of("subject-1", lambda h: {"weights": "0" * 64}), UNTESTED),
    "other batches": (header_of("reference-1", lambda h: {"batches": "0" * 64}), UNTESTED),
    "tokens in another order": (at_step("subject-1", 3, batch="0" * 64), UNTESTED),
    "a parameter that the subject lacks": (header_of("subject-1", lambda h: {"initial": without_first(h)}), UNTESTED),
    "a parameter too many": (header_of("subject-1", lambda h: {"initial": {**h.initial, "extra": "0" * 64}}), UNTESTED),
    "a parameter that both sides lack": (
        again(header=lambda h: dataclasses.replace(h, initial=without_first(h))), UNTESTED),
    "another configuration": (
        header_of("subject-1", lambda h: {"alignment": {**h.alignment, "model.rope_theta": 1e4}}), UNTESTED),
    "a configuration that is not stated": (header_of("subject-1", lambda h: {"alignment": {}}), UNTESTED),
    "a wrong learning rate in one step": (at_step("subject-1", 600, learning_rate=2e-4), UNTESTED),
    "a token count that is off by one": (at_step("subject-1", 600, tokens=257), UNTESTED),
    "a loss that rises": (again(change=lambda r, s: dataclasses.replace(s, loss=1 + s.step / 100)), UNTESTED),
    "a loss that stays flat": (
        again(change=lambda r, s: dataclasses.replace(s, loss=4 + 0.01 * math.sin(s.step))), UNTESTED),
    "a spike": (at_step("", 700, loss=40.0), UNTESTED),
    "a loss that drifts": (again(change=drifting), UNTESTED),
    "a subject that does not repeat": (at_step("subject-2", 400, loss=1.0), UNTESTED),
    "a run that goes on with other bits": (at_step("subject-resumed", 5, loss=1.0), UNTESTED),
    "an edited digit": (digit(forge=False), NONE),
    "an edited digit with lists that fit": (digit(forge=True), NONE),
    "an edited finding": (edited("findings.json", lambda fs: fs[0].update(message="fine")), NONE),
    "an edited case": (edited("case.json", lambda c: c["training"].update(clip_grad=None)), UNTESTED),
    "an edited limit": (
        edited("standards/official.json", lambda s: s["criteria"][0]["limits"][0].update(value=9)), NONE),
    "a looser standard under its name": (again(standards=standard(loosened)), NONE),
    "a limit that nothing reads": (again(standards=standard(unread)), NONE),
    "an older version of the standard": (again(standards=standard(older)), NONE),
    "only a standard of one's own": (again(standards=(load_standard("strict-fp32"),)), NONE),
    "a bundle of an older format": (
        edited("manifest.json", lambda m: m.update(format="certify-bundle/1"), forge=False), NONE),
    "a dirty tree": (again(source={"dirty": True}), PRELIMINARY),
    "no checkout": (again(source={"revision": None}), PRELIMINARY),
    "a CPU shown as an NPU": (
        statement(lambda s: (edit_json(s.first / "environment.json", on_an_npu), s.forge())), PRELIMINARY),
    "a run dated later than it was": (
        statement(lambda s: (edit_json(s.first / "run.json", lambda r: r.update(SECOND)), s.forge())), PRELIMINARY),
    "a symbolic link": (statement(link), NONE),
    "an extra file": (statement(lambda s: (s.first / "notes.txt").write_text("hello")), NONE),
    "a file that is gone": (statement(lambda s: (s.first / "inputs.json").unlink()), NONE),
    "two names that differ by case": (statement(lambda s: (s.first / "runs" / "Oracle-1").mkdir()), NONE),
    "an edited page": (statement(lambda s: (s.first / "report.html").write_text("<h1>Released</h1>")), NONE),
    "no signature at all": (
        statement(lambda s: [shutil.rmtree(b / "attestations") for b in (s.first, s.second)]), PRELIMINARY),
    "an attestation of another bundle": (
        in_role(Role.DEV_TEAM, lambda s: shutil.copy(
            s.attest(s.second, "li"), s.first / "attestations" / "replayed.json")), PRELIMINARY),
    "an attestation that says more than the bundle shows": (
        in_role(Role.DEV_TEAM, lambda s: s.attest(s.first, "li", passed=("everything",))), PRELIMINARY),
    "a role that the key does not hold": (
        in_role(Role.DEV_TEAM, lambda s: s.attest(s.first, "dana", Role.DEV_TEAM)), PRELIMINARY),
    "a key that nobody trusts": (
        in_role(Role.DEV_TEAM, lambda s: s.attest(s.first, "other", Role.DEV_TEAM)), PRELIMINARY),
    "a key that had expired": (statement(lambda s: s.trust.update(li={"valid_until": "2026-02-01"})), PRELIMINARY),
    "a key that was not valid yet": (statement(lambda s: s.trust.update(li={"valid_from": "2026-02-07"})), PRELIMINARY),
    "a key that was withdrawn": (
        statement(lambda s: s.trust.update(file={"withdrawn": [
            {"key": read(next((s.second / "attestations").glob("*.json")).read_bytes()).key_id, "date": "2026-02-08",
             "reason": "stolen"}]})), VALIDATED),
    "a statement that was withdrawn": (
        in_role(Role.DEV_TEAM, lambda s: taken_back(s, s.attest(s.first, "li"))), PRELIMINARY),
    "a statement from the future": (
        in_role(Role.DEV_TEAM, lambda s: s.attest(s.first, "li", stated_at=LATE)), PRELIMINARY),
    "a flipped byte in a statement": (
        in_role(Role.DEV_TEAM, lambda s: flip(s.attest(s.first, "li"))), PRELIMINARY),
    "a file that is no statement": (
        in_role(Role.DEV_TEAM, lambda s: (s.first / "attestations" / "li.json").write_text("{}")), PRELIMINARY),
    "a developer who accepts the own run": (
        statement(lambda s: s.trust.update(li={"person": "Dana"})), PRELIMINARY),
    "a developer in the test team": (statement(lambda s: s.trust.update(tess={"person": "Dana"})), VALIDATED),
    "one person in both teams": (statement(lambda s: s.trust.update(tess={"person": "Li Wei"})), VALIDATED),
    "a test team that only signs": (lambda s: setattr(s, "others", False), VALIDATED),
    "a test team that only runs": (in_role(Role.TEST_TEAM, lambda s: None), VALIDATED),
    "a second run that nobody signed": (
        statement(lambda s: shutil.rmtree(s.second / "attestations")), VALIDATED),
    "a copy for the second run": (second_as_copy, VALIDATED),
    "a second run of another case": (second_made(case=small_case(steps=1001, lr_zero_steps=20)), VALIDATED),
    "a second run that differs": (
        second_made(change=lambda r, s: dataclasses.replace(s, loss=s.loss * (1 + 1e-9)) if "subject" in r else s),
        VALIDATED),
    "a second run that fails": (second_made(change=drifting), VALIDATED),
    "a second run from a dirty tree": (second_made(source={"dirty": True}), VALIDATED),
    "a waiver for Released": (waived, VALIDATED),
    "a waiver that ended": (lambda s: waived(s, until="2026-02-06"), UNTESTED),
    "a waiver of another case": (lambda s: waived(s, case="0" * 64), UNTESTED),
    "evidence of 181 days ago": (lambda s: moved(s, LATE), UNTESTED),
    "a clock that was set back": (lambda s: moved(s, EARLY), UNTESTED),
}  # fmt: skip


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_table_is_as_long_as_it_is_said_to_be() -> None:
    assert len(FOOLINGS) >= 70


@pytest.mark.parametrize("name", FOOLINGS)
def test_it_is_not_fooled_by(scene: Scene, name: str) -> None:
    spoil, highest = FOOLINGS[name]
    spoil(scene)
    order = list(Level)
    assert order.index(scene.level()) >= order.index(highest)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, honest: Path) -> Scene:
    """A short bundle with a page and every kind of statement."""
    root = tmp_path_factory.mktemp("small")
    for name in PEOPLE:
        for suffix in (".key", ".pub"):
            shutil.copy(honest / f"{name}{suffix}", root)
    scene = Scene(root)
    bundle = write_example(scene.first, case=small_case())
    write_page_of(bundle)
    withdrawn = scene.attest(scene.first, "dana")
    scene.attest(scene.first, "li")
    scene.put(scene.first, Withdrawal(withdraws=digest_file(withdrawn), reason="oops", stated_at=SIGNED), "dana")
    until = datetime.date(2026, 12, 31)
    waiver = Waiver(criterion="official-steps", case_digest=bundle.case.digest(), reason="short", until=until,
                    role=Role.DEV_TEAM, stated_at=SIGNED)  # fmt: skip
    scene.put(scene.first, waiver, "li")
    trust_file(root)
    return scene


@given(st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_flipped_byte_of_any_file_or_statement_is_refused(small: Scene, data: st.DataObject) -> None:
    trust = load_trust(small.root / "trust.yaml")
    assert not read_submission(small.first, trust, DAY).standing.refused
    files = sorted(path for path in small.first.rglob("*") if path.is_file() and path.stat().st_size)
    statements = [path for path in files if path.parent.name == "attestations"]
    path = data.draw(st.sampled_from(statements) | st.sampled_from(files))
    before = path.read_bytes()
    flipped = bytearray(before)
    flipped[data.draw(st.integers(0, len(before) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        path.write_bytes(flipped)
        try:
            refused = read_submission(small.first, trust, DAY).standing.refused
        except CertifyError:
            return
        assert refused
    finally:
        path.write_bytes(before)


def test_finishing_a_bundle_again_does_not_keep_old_statements_alive(scene: Scene) -> None:
    scene.signing = False
    edit_json(scene.first / "run.json", lambda run: run.update(host="elsewhere"))
    finish_bundle(scene.first)
    assert scene.level() is Level.PRELIMINARY
