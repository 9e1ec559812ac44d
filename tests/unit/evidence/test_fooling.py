"""Ways to fool it: what is done to honest evidence, and what comes out. None is accepted.

The honest chain reaches Released. Each row spoils something and then, unless signing is what it spoils, has everybody
sign the result again, for the worst case is that all of them are in it. A row states the very level that comes out, or
that the evidence is refused: what is refused for another reason than the one that is tried shows here.
"""

import dataclasses
import datetime
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.attestation import Role, Waiver, Withdrawal, load_trust, read
from harness.base.digest import digest_file
from harness.base.errors import CertifyError
from harness.evidence.bundle import finish_bundle
from harness.evidence.judge import Outcome
from harness.levels.certificate import Level
from harness.levels.rule import certify
from harness.levels.scope import scope
from harness.levels.submission import read_submission
from harness.report import render_report
from harness.runs.trace import Step, TraceHeader
from harness.standards import Standard, load_standard, parse_standard
from tests.support.bundles import edit_json, example_step, write_example, write_page_of
from tests.support.examples import small_case
from tests.support.fooling import (
    DAY,
    NONE,
    PEOPLE,
    PRELIMINARY,
    REFUSED,
    SECOND,
    SIGNED,
    UNTESTED,
    UTC,
    VALIDATED,
    Fooling,
    Scene,
    again,
    as_runner,
    copied,
    copy_of,
    edited,
    header_of,
    honest_scene,
    left_out,
    lines_of,
    run_in,
    second_made,
    statement,
    swapped,
    trust_file,
)
from tests.support.properties import examples

CASE, SHORT = (
    small_case(steps=steps, lr_zero_steps=20, examined_steps=(2, steps), resume_after=steps // 2)
    for steps in (1000, 200)
)
SUBJECT_RUNNER = "harness.runners.mindspore_subject:MindSporeSubject"
LATE, EARLY = DAY + datetime.timedelta(days=181), datetime.datetime(2026, 1, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return honest_scene(tmp_path_factory.mktemp("honest"), CASE)


@pytest.fixture
def scene(honest: Scene, tmp_path: Path) -> Scene:
    return copy_of(honest, tmp_path / "scene")


def untouched(scene: Scene) -> None:
    """Nothing is spoiled."""


def test_the_honest_chain_is_released(scene: Scene) -> None:
    scene.kept = None
    assert scene.outcome(untouched) is Level.RELEASED


def test_a_second_run_within_the_floor_is_released_too(scene: Scene) -> None:
    def spoil(scene: Scene) -> None:
        again(floor=2)(scene)
        second_made(floor=2, change=aside)(scene)

    assert scene.outcome(spoil) is Level.RELEASED


def test_the_page_states_that_independence_is_the_word_of_who_signed(scene: Scene) -> None:
    trust = load_trust(trust_file(scene.root))
    first, second = read_submission(scene.first, trust, DAY), scene.read_second(trust)
    certificate = certify(first, DAY, [second])
    (found,) = [one for one in certificate.requirements if "independent run" in one.text]
    assert found.met and found.detail.endswith("; that it is independent is the word of Tess")
    assert "that it is independent is the word of Tess" in render_report(first, certificate)


def at_step(run: str, number: int, **values: Any) -> Fooling:
    return again(change=lambda r, s: dataclasses.replace(s, **values) if r.startswith(run) and s.step == number else s)


def emptied(scene: Scene) -> None:
    (scene.first / run_in("subject-1")).write_bytes(b"")
    finish_bundle(scene.first)


def digit(forge: bool) -> Fooling:
    def spoil(scene: Scene) -> None:
        path = scene.first / "runs" / "subject-1" / "trace.jsonl"
        path.write_bytes(path.read_bytes().replace(b'"tokens":', b'"tokens":9', 1))
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


def waived(scene: Scene, until: str = "2026-06-30", by: str = "wu", **made: Any) -> None:
    """A bundle whose every open criterion is waived by someone who has no part in it."""
    again(**(made or {"change": drifting}))(scene)
    scene.sign_all()
    scene.signing = False
    bundle = scene.made
    assert bundle is not None
    whole = {"case_digest": bundle.case.digest(), "scope": scope(bundle).line, "bundle": bundle.digest}
    last = datetime.date.fromisoformat(until)
    for criterion in {f.criterion for f in bundle.findings if f.outcome is not Outcome.PASS}:
        waiver = Waiver(criterion=criterion, reason="known", until=last, role=PEOPLE[by][1], stated_at=SIGNED,
                        **whole)  # fmt: skip
        scene.put(scene.first, waiver, by)


def waived_by_her_other_key(scene: Scene) -> None:
    """The developer waives her own finding with a key of the development team."""
    scene.trust = {"wu": {"person": "Dana"}}
    waived(scene)


def drifting(run: str, step: Step) -> Step:
    """The subject's loss is off by twenty times the strict limit."""
    return dataclasses.replace(step, loss=step.loss * 1.0002) if run.startswith("subject") else step


def narrow(run: str, step: Step) -> Step:
    """A floor of one part in 10^9."""
    if not run.startswith("floor"):
        return step
    reference = example_step("reference-1", step.step, CASE.training.steps)
    return dataclasses.replace(step, loss=reference.loss * (1 + 1e-9), grad_norm=reference.grad_norm)


def aside(run: str, step: Step) -> Step:
    """A subject that ends elsewhere by one part in 10^8: less than the usual floor of the examples."""
    return dataclasses.replace(step, loss=step.loss * (1 + 1e-8)) if run.startswith("subject") else step


def at_other_rates(times: float, side: str = "") -> Callable[[str, Step], Step]:
    """The runs of a side, or all, at a multiple of the case's rate."""

    def change(run: str, step: Step) -> Step:
        return dataclasses.replace(step, learning_rate=step.learning_rate * times) if run.startswith(side) else step

    return change


def uncounted(run: str, step: Step) -> Step:
    return dataclasses.replace(step, tokens=1) if run.startswith("subject") else step


def as_the_reference(run: str, step: Step) -> Step:
    """A subject that trains with the reference's bits in every number."""
    if run not in ("subject-1", "subject-2", "subject-resumed"):
        return step
    reference = example_step("reference-1", step.step, CASE.training.steps)
    return dataclasses.replace(step, loss=reference.loss, grad_norm=reference.grad_norm)


def flat(run: str, step: Step) -> Step:
    return dataclasses.replace(step, loss=4 + 0.01 * math.sin(step.step))


def link(scene: Scene) -> None:
    path = scene.first / "case.json"
    path.rename(scene.root / "case.json")
    path.symlink_to(scene.root / "case.json")


def second_as_copy(scene: Scene) -> None:
    shutil.rmtree(scene.second)
    shutil.copytree(scene.first, scene.second)


def redated_copy(**start: Any) -> Fooling:
    """A copy of the first run with another date, another nonce if one is given, and a line end more in its times."""

    def spoil(scene: Scene) -> None:
        second_as_copy(scene)
        edit_json(scene.second / "run.json", lambda run: run.update({**SECOND, "seconds": 99.5}))
        edit_json(scene.second / "start.json", lambda drawn: drawn.update(start))
        with (scene.second / "runs" / "subject-1" / "timing.jsonl").open("a") as file:
            file.write("\n" if start else "")
        finish_bundle(scene.second)
        scene.attest(scene.second, "tess")

    return spoil


def one_repeat_more(scene: Scene) -> None:
    """A perturbed repeat that the case does not have, far off, so that the floor is wide."""
    again(floor=2, change=narrow)(scene)
    second_made(floor=2, change=aside)(scene)
    source = scene.first / "runs" / "floor-1"
    shutil.copytree(source, scene.first / "runs" / "floor-3")
    scene.made = finish_bundle(scene.first)


def exact_as_the_subject(run: str, step: Step) -> Step:
    """The oracle's numbers are the subject's own, so its error is 0."""
    return example_step(f"subject-{run}", step.step, CASE.training.steps) if run == "oracle-1" else step


def moved(scene: Scene, at: datetime.datetime) -> None:
    scene.at = at


# name: what is done, and the level that comes out, or that the evidence is refused
FOOLINGS: dict[str, tuple[Fooling, Level | None]] = {
    "not a number in one step": (at_step("subject-1", 500, loss=math.nan), NONE),
    "infinity in the grad norm": (at_step("subject-2", 7, grad_norm=math.inf), NONE),
    "not a number in every step of every run": (again(change=nan_everywhere), NONE),
    "not a number in both sides at the same step": (at_step("", 12, loss=math.nan), NONE),
    "a run that was killed": (again(change=lambda r, s: None if r == "subject-1" and s.step > 900 else s), NONE),
    "a missing step": (lines_of("subject-1", lambda ls: ls[:5] + ls[6:]), REFUSED),
    "a step twice": (lines_of("subject-1", lambda ls: ls[:6] + ls[5:]), REFUSED),
    "steps in another order": (lines_of("subject-1", lambda ls: [*ls[:5], ls[6], ls[5], *ls[7:]]), REFUSED),
    "an extra step": (lines_of("subject-1", lambda ls: [*ls[:-1], ls[-2], ls[-1]]), REFUSED),
    "an empty trace": (emptied, REFUSED),
    "a trace without its end": (lines_of("subject-1", lambda ls: ls[:-1]), NONE),
    "a short run whose end was moved": (
        lines_of("subject-1", lambda ls: [*ls[:901], ls[-1].replace(b'"last_step":1000', b'"last_step":900')]), NONE),
    "an edited digit with a digest that fits": (
        lines_of("subject-1", lambda ls: [*ls[:5], ls[5].replace(b'"tokens":', b'"tokens":9'), *ls[6:]]), UNTESTED),
    "a header that asks for fewer steps": (
        lines_of("subject-1", lambda ls: [ls[0].replace(b'"steps":1000', b'"steps":999'), *ls[1:-2], ls[-1]]), REFUSED),
    "a short run of a shorter case": (again(case=SHORT), PRELIMINARY),
    "the sides' traces swapped": (swapped(run_in("subject-1"), run_in("reference-1")), REFUSED),
    "the reference's trace as the subject's": (copied(run_in("reference-1"), run_in("subject-1")), REFUSED),
    "the subject's trace as the oracle's": (copied(run_in("subject-1"), run_in("oracle-1")), REFUSED),
    "the reference's probe as the subject's": (
        copied("tensors/reference-probe.safetensors", "tensors/subject-probe.safetensors"), REFUSED),
    "a probe that left nothing": (left_out("tensors/subject-probe.safetensors"), UNTESTED),
    "final parameters that were not kept": (left_out("tensors/subject-1.safetensors"), UNTESTED),
    "the subject as its own reference": (again(header=as_runner("reference", SUBJECT_RUNNER)), PRELIMINARY),
    "the subject as its own oracle": (again(header=as_runner("oracle", SUBJECT_RUNNER)), PRELIMINARY),
    "the subject's numbers as the oracle's": (again(change=exact_as_the_subject), PRELIMINARY),
    "a reference from elsewhere": (again(header=as_runner("reference", "elsewhere:Torch")), PRELIMINARY),
    "one run as both repeats": (copied(run_in("subject-1"), run_in("subject-2")), REFUSED),
    "a trace of another case": (header_of("subject-1", lambda h: {"case": "0" * 64}), UNTESTED),
    "other weights": (header_of("subject-1", lambda h: {"weights": "0" * 64}), UNTESTED),
    "other batches": (header_of("reference-1", lambda h: {"batches": "0" * 64}), UNTESTED),
    "tokens in another order": (at_step("subject-1", 3, batch="0" * 64), REFUSED),
    "a parameter that the subject lacks": (header_of("subject-1", lambda h: {"initial": without_first(h)}), UNTESTED),
    "a parameter too many": (header_of("subject-1", lambda h: {"initial": {**h.initial, "extra": "0" * 64}}), UNTESTED),
    "a parameter that both sides lack": (
        again(header=lambda h: dataclasses.replace(h, initial=without_first(h))), UNTESTED),
    "another configuration": (
        header_of("subject-1", lambda h: {"alignment": {**h.alignment, "model.rope_theta": 1e4}}), UNTESTED),
    "a configuration that is not stated": (header_of("subject-1", lambda h: {"alignment": {}}), UNTESTED),
    "a wrong learning rate in one step": (at_step("subject-1", 600, learning_rate=2e-4), UNTESTED),
    "a token count that is off by one": (at_step("subject-1", 600, tokens=33), UNTESTED),
    "rates of both sides that are not the case's": (again(change=at_other_rates(3.0)), UNTESTED),
    "both sides at rate 0": (again(change=at_other_rates(0.0)), UNTESTED),
    "a rate in the runs that have none": (
        again(change=lambda r, s: dataclasses.replace(s, learning_rate=1e-4) if r.endswith("lr0") else s), UNTESTED),
    "a token count that both sides have and the masks do not": (
        again(change=lambda r, s: dataclasses.replace(s, tokens=1)), UNTESTED),
    "the reference's numbers as the subject's": (again(change=as_the_reference), PRELIMINARY),
    "another runner in one run of a side": (header_of("subject-2", lambda h: {"runner": "elsewhere:Subject"}), REFUSED),
    "the shipped subject for the probe alone": (
        again(header=lambda h: dataclasses.replace(h, runner="elsewhere:Subject")
              if h.side == "subject" and h.arm != "probe" else h), REFUSED),
    "a runner of one's own that states the name of the shipped one": (
        again(source={"runners": {"mine.py:Mine": "e" * 64}}), REFUSED),
    "a run of the harness that calls itself collected": (
        header_of("subject-1", lambda h: {"provenance": {**h.provenance, "collected": {"omitted": ["grad_norm"]}}}),
        REFUSED),
    "a number that is given twice in a step": (
        lines_of("subject-1", lambda ls: [*ls[:5], ls[5].replace(b'"loss":', b'"loss":9,"loss":'), *ls[6:]]), REFUSED),
    "a step in another form": (
        lines_of("subject-1", lambda ls: [*ls[:5], ls[5].replace(b'"loss":', b'"loss": '), *ls[6:]]), REFUSED),
    "a line end of another system": (lines_of("subject-1", lambda ls: [ls[0][:-1] + b"\r\n", *ls[1:]]), REFUSED),
    "a loss that rises": (again(change=lambda r, s: dataclasses.replace(s, loss=1 + s.step / 100)), UNTESTED),
    "a loss that stays flat": (again(change=flat), UNTESTED),
    "a spike": (at_step("", 700, loss=40.0), UNTESTED),
    "a loss that drifts": (again(change=drifting), UNTESTED),
    "a subject that does not repeat": (at_step("subject-2", 400, loss=1.0), UNTESTED),
    "a run that goes on with other bits": (at_step("subject-resumed", 5, loss=1.0), UNTESTED),
    "an edited digit": (digit(forge=False), REFUSED),
    "an edited digit with lists that fit": (digit(forge=True), REFUSED),
    "an edited finding": (edited("findings.json", lambda fs: fs[0].update(message="fine")), REFUSED),
    "an edited case": (edited("case.json", lambda c: c["training"].update(clip_grad=None)), REFUSED),
    "an edited limit": (
        edited("standards/official.json", lambda s: s["criteria"][0]["limits"][0].update(value=9)), REFUSED),
    "a looser standard under its name": (again(standards=standard(loosened)), NONE),
    "a limit that nothing reads": (again(standards=standard(unread)), NONE),
    "an older version of the standard": (again(standards=standard(older)), NONE),
    "only a standard of one's own": (again(standards=(load_standard("strict-fp32"),)), NONE),
    "a bundle of an older format": (
        edited("manifest.json", lambda m: m.update(format="certify-bundle/1"), forge=False), REFUSED),
    "a dirty tree": (again(source={"dirty": True}), PRELIMINARY),
    "no checkout": (again(source={"revision": None}), PRELIMINARY),
    "a CPU shown as an NPU": (
        statement(lambda s: (edit_json(s.first / "environment.json", on_an_npu), s.forge())), REFUSED),
    "an NPU without a chip, signed by everybody": (again(environment={"device": "Ascend"}), REFUSED),
    "a device whose name looks like an NPU": (again(environment={"device": "\u0410scend"}), REFUSED),
    "an NPU with a chip that is none": (
        again(environment={"device": "Ascend", "machine": {"ascend": {"soc": "x86"}}}), REFUSED),
    "a run dated later than it was": (
        statement(lambda s: (edit_json(s.first / "run.json", lambda r: r.update(SECOND)), s.forge())), PRELIMINARY),
    "a symbolic link": (statement(link), REFUSED),
    "an extra file": (statement(lambda s: (s.first / "notes.txt").write_text("hello")), REFUSED),
    "a file that is gone": (statement(lambda s: (s.first / "inputs.json").unlink()), REFUSED),
    "two names that differ by case": (statement(lambda s: (s.first / "runs" / "Oracle-1").mkdir()), REFUSED),
    "an edited page": (statement(lambda s: (s.first / "report.html").write_text("<h1>Released</h1>")), REFUSED),
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
    "a second run that differs where no floor was measured": (second_made(change=aside), VALIDATED),
    "a second run that fails": (second_made(change=drifting), VALIDATED),
    "a second run from a dirty tree": (second_made(source={"dirty": True}), VALIDATED),
    "a copy for the second run, dated anew": (redated_copy(), VALIDATED),
    "a copy for the second run with another nonce": (redated_copy(nonce="3" * 64), VALIDATED),
    "a second run judged by fewer standards": (second_made(standards=(load_standard("official"),)), VALIDATED),
    "a second run whose floor only the first measured": (
        lambda s: (again(floor=2)(s), second_made(change=aside)(s)), VALIDATED),
    "one perturbed repeat more than the case has": (one_repeat_more, REFUSED),
    "a second run beyond the floor": (
        lambda s: (again(floor=2, change=narrow)(s), second_made(floor=2, change=aside)(s)), VALIDATED),
    "a second run that the developer made": (second_made("dana"), VALIDATED),
    "a second run of another implementation": (
        second_made(header=as_runner("subject", "elsewhere:Subject")), VALIDATED),
    "a second run with another reference": (second_made(header=as_runner("reference", "elsewhere:Torch")), VALIDATED),
    "a waiver of what failed": (waived, PRELIMINARY),
    "a waiver of the steps that are missing": (
        lambda s: (waived(s, case=SHORT), second_made(case=SHORT)(s)), VALIDATED),
    "a waiver of convergence": (lambda s: waived(s, change=flat), UNTESTED),
    "a waiver of the learning rate": (lambda s: waived(s, change=at_other_rates(2.0, "subject")), UNTESTED),
    "a waiver of the token counts": (lambda s: waived(s, change=uncounted), UNTESTED),
    "a waiver of the weights": (
        lambda s: waived(s, header=lambda h: dataclasses.replace(h, initial=dict.fromkeys(h.initial, "0" * 64))
                         if h.side == "subject" else h), UNTESTED),
    "a waiver of the configuration": (
        lambda s: waived(s, header=lambda h: dataclasses.replace(h, alignment={}) if h.side == "subject" else h),
        UNTESTED),
    "a waiver that ended": (lambda s: waived(s, until="2026-02-06"), UNTESTED),
    "a waiver by the team that accepts": (lambda s: waived(s, by="li"), UNTESTED),
    "a waiver by the developer with another key": (waived_by_her_other_key, UNTESTED),
    "evidence of 181 days ago": (lambda s: moved(s, LATE), UNTESTED),
    "a clock that was set back": (lambda s: moved(s, EARLY), UNTESTED),
}  # fmt: skip


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_none_of_ninety_ways_and_more_is_accepted() -> None:
    assert len(FOOLINGS) >= 90
    assert Level.RELEASED not in {expected for _, expected in FOOLINGS.values()}


@pytest.mark.parametrize("name", FOOLINGS)
def test_it_is_not_fooled_by(scene: Scene, name: str) -> None:
    spoil, expected = FOOLINGS[name]
    assert scene.outcome(spoil) is expected


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, honest: Scene) -> Scene:
    """A short bundle with a page and every kind of statement."""
    root = tmp_path_factory.mktemp("small")
    for name in PEOPLE:
        for suffix in (".key", ".pub"):
            shutil.copy(honest.root / f"{name}{suffix}", root)
    scene = Scene(root, case=small_case())
    bundle = write_example(scene.first, case=small_case())
    write_page_of(bundle)
    withdrawn = scene.attest(scene.first, "dana")
    scene.attest(scene.first, "li")
    scene.put(scene.first, Withdrawal(withdraws=digest_file(withdrawn), reason="oops", stated_at=SIGNED), "dana")
    until = datetime.date(2026, 6, 30)
    waiver = Waiver(criterion="official-steps", case_digest=bundle.case.digest(), reason="short", until=until,
                    role=Role.DEV_TEAM, stated_at=SIGNED, scope=scope(bundle).line, bundle=bundle.digest)  # fmt: skip
    scene.put(scene.first, waiver, "wu")
    assert not read_submission(scene.first, load_trust(trust_file(root)), DAY).statements.refused
    return scene


@given(st.data())
@settings(max_examples=examples(300), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_flipped_byte_of_any_file_or_statement_is_refused(small: Scene, data: st.DataObject) -> None:
    trust = load_trust(small.root / "trust.yaml")
    files = sorted(path for path in small.first.rglob("*") if path.is_file() and path.stat().st_size)
    statements = [path for path in files if path.parent.name == "attestations"]
    path = data.draw(st.sampled_from(statements) | st.sampled_from(files))
    before = path.read_bytes()
    flipped = bytearray(before)
    flipped[data.draw(st.integers(0, len(before) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        path.write_bytes(flipped)
        try:
            refused = read_submission(small.first, trust, DAY).statements.refused
        except CertifyError:
            return
        assert refused
    finally:
        path.write_bytes(before)


def finished_again(scene: Scene) -> None:
    scene.signing = False
    edit_json(scene.first / "run.json", lambda run: run.update(host="elsewhere"))
    finish_bundle(scene.first)


def test_finishing_a_bundle_again_does_not_keep_old_statements_alive(scene: Scene) -> None:
    assert scene.outcome(finished_again) is Level.PRELIMINARY
