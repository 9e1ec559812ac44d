"""Ways to fool the judge of collected runs: none is accepted, and each is a row of docs/design/trust.md.

An honest pair reaches Preliminary, the most that a collected reference carries. Each row spoils the subject's files
and makes the end of each file fit. A row states the level that comes out with the criterion that fails, or that the
evidence is refused and a word of the reason: what is refused for another reason than the one that is tried shows here.
"""

import functools
from pathlib import Path

import numpy as np
import pytest

from harness.certify import judging
from harness.collect.files import write_tensors
from harness.levels.certificate import Level
from harness.runs.collected import FIRST_GRADIENT, RECORD, ROWS
from harness.runs.files import TIMING, TRACE
from tests.support.collected import Trainer, drawn, example_baseline, train
from tests.support.fooling_collected import (
    ALIKE,
    CHIP,
    OF_RANK_0,
    PARTS_OF_0,
    SPLIT,
    Fooling,
    Scene,
    again,
    another_gradient,
    as_another_run,
    batches_of_the_case,
    both,
    both_started,
    called_not_collected,
    copy_of,
    cut,
    disguised_reference_as_subject,
    emptied,
    every_step,
    gone,
    header,
    honest_scene,
    how,
    in_the_bundle,
    json_of,
    lines_of,
    linked,
    never_resumed,
    of_gradient,
    of_holes,
    on,
    one_more,
    over_two_halves,
    over_two_ranks,
    part,
    part_twice,
    parts_of_another_run,
    parts_of_the_repeat,
    piped,
    rank_as_another,
    rank_ends_early,
    rank_too_many,
    rank_with_the_rows_of_another,
    record,
    reference_as_subject,
    row,
    rows,
    step,
    text_of,
    time_of_a_step,
    whole_weights_too,
    without,
)

NONE, UNTESTED, PRELIMINARY = Level.NONE, Level.UNTESTED, Level.PRELIMINARY
LONG = "1" * 5000
ZERO = "0" * 64
NAN = float("nan")


SOURCE = functools.cache(judging.environment.source)


def refused(word: str) -> tuple[None, str]:
    return None, word


# What is done, the level that comes out (None: refused), and the criterion that fails or a word of the reason.
WAYS: dict[str, dict[str, tuple[Fooling, tuple[Level | None, str]]]] = {
    "an edited number, with the end as it was": {
        "loss": (step(3, fits=False, loss=1.0), refused("changed after its run ended")),
        "tokens": (step(3, fits=False, tokens=1), refused("changed after its run ended")),
    },
    "a number that is none": {
        "NaN": (step(3, loss="NaN"), (NONE, "runs-finite")),
        "Infinity": (step(3, grad_norm="Infinity"), (NONE, "runs-finite")),
        "nan": (step(3, loss="nan"), refused("not a number")),
        "text": (step(3, loss="5.0"), refused("not a number")),
        "true": (step(3, loss=True), refused("not a number")),
        "null": (step(3, loss=None), refused("not a number")),
        "beyond every float": (step(3, loss=10**400), refused("not a number")),
        "bare": (text_of(TRACE, b'"loss":', b'"loss":NaN,"x":'), refused("")),
    },
    "losses that are not numbers, and are called not collected": {
        "loss": (both(how(omitted=["loss"]), step(3, loss="NaN")), refused("What can be missing")),
        "rate": (both(how(omitted=["learning_rate"]), step(3, learning_rate="NaN")), refused("What can be missing")),
    },
    "what is wrong is called not collected, and is there": {
        "grad norm": (both(how(omitted=["grad_norm"]), step(3, grad_norm=9.0)), refused("and holds them")),
        "weights": (how(omitted=["weights"]), refused("and holds them")),
        "alignment": (how(omitted=["alignment"]), refused("and holds them")),
        "batches": (how(omitted=["batches"]), refused("and holds them")),
        "a text": (how(omitted="weights"), refused("What can be missing")),
    },
    "rates that are not the case's": {
        "all": (every_step(lambda one: one.update(learning_rate=2 * one["learning_rate"])), (UNTESTED, "inputs-same")),
        "one": (step(7, learning_rate=1e-3), (UNTESTED, "learning-rate")),
        "none": (every_step(lambda one: one.update(learning_rate=0.0)), (UNTESTED, "inputs-same")),
    },
    "token counts that are not the case's": {
        "in the trace": (step(3, tokens=7), (UNTESTED, "tokens")),
        "in both files": (both(step(3, tokens=7), rows(3, tokens=7)), (UNTESTED, "inputs-same")),
        "negative": (rows(3, tokens=-1), refused("expected a number of target tokens")),
        "huge": (rows(3, tokens=2**60), refused("expected a number of target tokens")),
        "true": (rows(3, tokens=True), refused("expected a number of target tokens")),
    },
    "another case, side, role or kind in its header": {
        "case": (header(case="0" * 64), refused("no collector states")),
        "side": (header(side="reference"), refused("no collector states")),
        "batches": (header(batches=drawn().inputs.batches), refused("no collector states")),
        "probe": (header(arm="probe"), refused("no collector states")),
        "rate 0": (header(arm="lr_zero"), refused("No run of the subject trains")),
        "not stated": (lines_of(TRACE, lambda lines: lines[0]["provenance"].pop("collected")), refused("how it was")),
    },
    "other steps": {
        "fewer stated": (header(steps=11), refused("holds 12 steps")),
        "more stated": (header(steps=13), refused("collected for 13 steps")),
        "one gone": (lines_of(TRACE, lambda lines: lines.pop(5)), refused("missing, repeated or out of order")),
        "one twice": (lines_of(TRACE, lambda lines: lines.insert(5, lines[5])), refused("missing, repeated")),
        "exchanged": (lines_of(TRACE, lambda lines: lines.insert(5, lines.pop(6))), refused("missing, repeated")),
        "rows exchanged": (lines_of(OF_RANK_0, lambda lines: lines.insert(5, lines.pop(6))), refused("expected the")),
    },
    "the digest of a batch, or of a row": {
        "batch": (step(3, batch="0" * 64), refused("do not fit its trace")),
        "row": (row(3, "0", "0", "0" * 32), refused("do not fit its trace")),
        "batches of which no row is there": (
            lines_of(OF_RANK_0, lambda lines: [line.update(rows={}) for line in lines[:-1]]),
            refused("of none of its rows"),
        ),
    },
    "another batch with rows that fit": {
        "one step": (both(step(3, batch="0" * 64), row(3, "0", "0", "0" * 32)), (UNTESTED, "batches-same")),
        "two exchanged rows": (
            both(row(3, "0", "9"), row(3, "1", "0"), row(3, "9", "1"), step(3, batch="0" * 64)),
            (UNTESTED, "batches-same"),
        ),
    },
    "rows in another form": {
        "a leading zero": (row(3, "0", "00"), refused("by its number")),
        "a sign": (row(3, "0", "-1"), refused("by its number")),
        "digits of another script": (row(3, "0", "\u0663"), refused("by its number")),
        "a number of 5000 digits": (row(3, "0", LONG), refused("by its number")),
        "a digest that is none": (row(3, "0", "0", "../../etc"), refused("by its number")),
        "a digest of 5000 digits": (row(3, "0", "0", LONG), refused("by its number")),
        "a row twice": (text_of(OF_RANK_0, b'"rows":{', b'"rows":{"0":"' + b"0" * 32 + b'",'), refused("one form")),
        "white space": (text_of(OF_RANK_0, b'"rows":', b'"rows": '), refused("one form")),
        "a key more": (rows(3, more=1), refused("expected the rows of step")),
        "step 3.0": (rows(3, step=3.0), refused("expected the rows of step")),
    },
    "weights": {
        "one gone": (
            again(Trainer(weights=lambda held: dict(list(held.items())[1:]))), (UNTESTED, "weights-subject")),
        "one more": (
            again(Trainer(weights=lambda held: {**held, "more": held["model.norm.weight"]})),
            (UNTESTED, "weights-subject"),
        ),
        "another list under the digest": (
            lines_of(TRACE, lambda lines: lines[0]["initial"].update({"model.norm.weight": "0" * 64})),
            refused("another digest of its initial weights"),
        ),
    },
    "the files of several ranks": {
        "a rank that is missing": (over_two_ranks(lambda at: (at / OF_RANK_0).unlink()), refused("left no rows")),
        "a rank too many": (over_two_ranks(rank_too_many), refused("does not have")),
        "a rank that ended early": (over_two_ranks(rank_ends_early), refused("ends at step 11")),
        "the same row with other tokens": (over_two_ranks(rank_with_the_rows_of_another), refused("two ranks read")),
        "batches of the case, and other rows": (over_two_ranks(batches_of_the_case), (UNTESTED, "batches-same")),
    },
    "the parts of the weights that ranks state": {
        "edited, with the end as it was": (
            over_two_halves(part(SPLIT, fits=False, digest=ZERO)), refused("changed after its run ended")),
        "edited": (over_two_halves(part(SPLIT, digest=ZERO)), (UNTESTED, "weights-subject")),
        "a file that is missing": (over_two_halves(gone(PARTS_OF_0)), refused("left no parts of the weights")),
        "a file that is empty": (over_two_halves(emptied(PARTS_OF_0)), refused("has no end")),
        "a file without its end": (over_two_halves(cut(PARTS_OF_0, 9)), refused("truncated or edited")),
        "a link": (over_two_halves(linked(PARTS_OF_0)), refused("left no parts")),
        "a pipe": (over_two_halves(piped(PARTS_OF_0)), refused("left no parts")),
        "holes of 20 GB": (over_two_halves(of_holes(PARTS_OF_0)), refused("more than the")),
        "of another run": (over_two_halves(parts_of_another_run), (UNTESTED, "weights-subject")),
        "of the first run, in its repeat": (over_two_halves(parts_of_the_repeat), refused("same collected run")),
        "of one rank, as those of another": (over_two_halves(rank_as_another), refused("same random number")),
        "a part as the whole": (over_two_halves(part(SPLIT, "initial", of=1)), refused("initial or the final")),
        "a part as the whole, also at the end": (
            over_two_halves(both(part(SPLIT, of=1), part(SPLIT, "final", of=1))), (UNTESTED, "weights-subject")),
        "a part of three": (
            over_two_halves(both(part(SPLIT, of=3), part(SPLIT, "final", of=3))), (UNTESTED, "weights-subject")),
        "one part of two": (over_two_halves(without(SPLIT, "initial", "final")), (UNTESTED, "weights-subject")),
        "a weight more": (over_two_halves(one_more), (UNTESTED, "weights-subject")),
        "a part twice": (over_two_halves(part_twice), refused("is there twice")),
        "initial ones as final ones": (
            over_two_halves(lambda scene: None, Trainer(moves=lambda weight: weight)), refused("as its final ones")),
        "no final one of a weight": (over_two_halves(without(SPLIT, "final")), refused("initial or the final")),
        "two ranks that disagree at the beginning": (
            over_two_halves(part(ALIKE, digest=ZERO)), refused("state different digests of the whole of the initial")),
        "two ranks that disagree at the end": (
            over_two_halves(part(ALIKE, "final", digest=ZERO)), refused("different digests of the whole of the final")),
        "called not collected by a rank": (
            over_two_halves(lines_of(PARTS_OF_0, lambda lines: lines[0].update(initial=False))), refused("has some")),
        "called not collected, and there": (over_two_halves(how(omitted=["weights"])), refused("and holds")),
        "called not collected, and gone": (over_two_halves(called_not_collected), (UNTESTED, "")),
        "next to whole weights": (over_two_halves(whole_weights_too), refused("whole weights, and parts")),
        "no part": (over_two_halves(part(SPLIT, index=2)), refused("there is no part 2 of 2")),
        "true": (over_two_halves(part(SPLIT, of=True)), refused("there is no part")),
        "a digest that is none": (over_two_halves(part(SPLIT, digest="../../etc")), refused("expected the digest")),
        "more parts than any layout has": (over_two_halves(part(SPLIT, of=10**9)), refused("there is no part")),
    },
    "the initial weights as the final ones": {
        "of one process": (again(Trainer(moves=lambda weight: weight)), refused("as its final ones")),
    },
    "numbers of ranks": {
        "none": (lines_of(TRACE, lambda lines: lines[0]["provenance"].update(ranks=0)), refused("states 0 ranks")),
        "true": (lines_of(TRACE, lambda lines: lines[0]["provenance"].update(ranks=True)), refused("states True")),
        "a billion": (lines_of(TRACE, lambda lines: lines[0]["provenance"].update(ranks=10**9)), refused("states")),
        "no such reporting one": (how(reporting=1), refused("of which 1 reported")),
        "another layout than the case's": (again(Trainer(ranks=2)), refused("A level holds for one layout")),
    },
    "the reference's files as the subject's": {
        "as they are": (reference_as_subject, refused("are the same collected run")),
        "with another random number": (
            both(reference_as_subject, record(nonce="7" * 64)), refused("are the same collected run")),
        "with another random number and other times": (disguised_reference_as_subject, (PRELIMINARY, "")),
    },
    "the record of where and when": {
        "edited": (record(seal=False, host="elsewhere"), refused("changed since it was written")),
        "a time without a zone": (record(started="2026-01-31T02:00:00"), refused("no UTC time")),
        "no random number": (record(nonce="7"), refused("nonce")),
        "a start in the future": (both_started("2999-01-31T02:00:00+00:00"), (UNTESTED, "")),
        "a start long ago": (record(started="2020-01-31T02:00:00+00:00"), (UNTESTED, "")),
        "a field more": (record(more=1), refused("nothing else")),
        "another format": (record(format="certify-collected/9"), refused("format")),
    },
    "a CPU shown as an NPU": {
        "in the record": (on("Ascend", CHIP), refused("another device than the trace")),
        "in the record, not sealed": (on("Ascend", CHIP, seal=False), refused("changed since it was written")),
        "in record and trace, without a chip": (on("Ascend", stated="Ascend"), refused("no chip that the driver")),
        "with a chip that is none": (on("Ascend", {"soc": "x86"}, stated="Ascend"), refused("no chip that the driver")),
        "by a letter that looks alike": (on("\u0410scend", CHIP, stated="\u0410scend"), refused("which is none of")),
        "in the trace": (how(device="Ascend"), refused("another device than the trace")),
    },
    "the name of a trainer": {
        "a line end": (header(runner="collected:mind\nformers"), refused("how it was collected")),
        "escapes": (header(runner="collected:\x1b[2J"), refused("how it was collected")),
        "a shipped runner": (
            header(runner="collected:harness.runners.mindspore_subject:MindSporeSubject"), refused("how it was")),
        "a shipped runner alone": (
            header(runner="harness.runners.mindspore_subject:MindSporeSubject"), refused("how it was collected")),
    },
    "truncated files": {
        "the trace, within its last line": (cut(TRACE, 9), (NONE, "runs-complete")),
        "the trace, empty": (emptied(TRACE), refused("is empty")),
        "the rows": (cut(OF_RANK_0, 9), refused("truncated or edited")),
        "the rows, empty": (emptied(OF_RANK_0), refused("has no end")),
        "the times": (cut(TIMING, 9), refused("has not the time of each step")),
        "the times, empty": (emptied(TIMING), refused("has not the time of each step")),
        "the record": (cut(RECORD, 9), refused("not JSON")),
        "the gradient": (cut(FIRST_GRADIENT, 9), refused("is not the gradient")),
        "the gradient, gone": (gone(FIRST_GRADIENT), refused("is not the gradient")),
    },
    "times that are none": {
        text: (time_of_a_step(text), refused("has not the time of each step")) for text in ("NaN", "-1", '"1"', "true")
    },
    "links in the place of files": {
        name: (linked(name), refused("no plain file" if name != OF_RANK_0 else "left no rows"))
        for name in (TIMING, RECORD, ROWS, OF_RANK_0, FIRST_GRADIENT)
    },
    "a pipe, whose reader waits for ever": {
        name: (piped(name), refused("no")) for name in (TRACE, TIMING, RECORD, OF_RANK_0, FIRST_GRADIENT)
    },
    "files of holes, of 20 GB": {
        name: (of_holes(name), refused("more than the" if name != FIRST_GRADIENT else "is larger than"))
        for name in (TRACE, TIMING, RECORD, OF_RANK_0, FIRST_GRADIENT)
    },
    "another gradient": {
        "edited": (another_gradient, refused("is not the gradient")),
        "that of another file": (
            lambda scene: write_tensors(scene.subject / FIRST_GRADIENT, {"a": np.ones(3)}), refused("is not the")),
        "no sketch": (of_gradient({"gradient.a": np.ones(3)}), refused("nothing that a sketch")),
        "of another shape": (of_gradient({"gradient.a#decades": np.ones((2, 3))}), refused("nothing that a sketch")),
        "of another type": (of_gradient({"gradient.a#sketch": np.ones(9, np.float32)}), refused("nothing that")),
        "without a number": (of_gradient({"gradient.a#sketch": np.ones(0)}), refused("nothing that a sketch")),
        "no tensor": (of_gradient(b"no tensors"), refused("cannot be read")),
    },
    "a bundle that was edited and sealed again": {
        "protection": (
            in_the_bundle(json_of("runs/subject-1/outcome.json", protection="namespaces")), refused("does not follow")),
        "another random number": (in_the_bundle(json_of("start.json", nonce="7" * 64)), refused("the random number")),
        "a later start": (
            in_the_bundle(json_of("run.json", started="2026-11-30T02:00:00+00:00")), refused("the start")),
        "another host": (in_the_bundle(json_of("run.json", host="elsewhere")), refused("the host")),
        "another device": (in_the_bundle(json_of("environment.json", device="CUDA")), refused("the environment")),
        "a run that was never resumed": (in_the_bundle(never_resumed), refused("never resumed")),
    },
}  # fmt: skip
ROWS_OF_WAYS = [(way, name) for way, variants in WAYS.items() for name in variants]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return honest_scene(tmp_path_factory.mktemp("honest"))


@pytest.fixture(autouse=True)
def only_judged(monkeypatch: pytest.MonkeyPatch, honest: Scene) -> None:
    """No page is written, and the state of the checkout is looked up once: most of the time goes there."""
    monkeypatch.setattr(judging, "write_report", lambda *_: None)
    monkeypatch.setattr(judging.environment, "source", SOURCE)


@pytest.fixture
def scene(honest: Scene, tmp_path: Path) -> Scene:
    return copy_of(honest, tmp_path / "scene")


def test_the_honest_pair_reaches_preliminary(scene: Scene) -> None:
    assert scene.judge() is PRELIMINARY and scene.failing == set()


@pytest.mark.parametrize(("way", "name"), ROWS_OF_WAYS)
def test_it_is_not_fooled_by(scene: Scene, way: str, name: str) -> None:
    spoil, (level, word) = WAYS[way][name]
    assert scene.outcome(spoil) is level, scene.refused
    if level is None:
        assert word in scene.refused
    elif word:
        assert word in scene.failing


def test_no_way_gives_more_than_an_honest_pair() -> None:
    levels = {level for variants in WAYS.values() for _, (level, _) in variants.values()}
    assert levels <= {None, NONE, UNTESTED, PRELIMINARY}
    assert len(ROWS_OF_WAYS) >= 100


def test_a_subject_on_several_devices_is_refused(scene: Scene) -> None:
    honest = scene.root / "honest"
    scene.subject.rename(honest)
    train(scene.subject, Trainer())
    as_another_run(scene.subject)
    on("CUDA", stated="CUDA")(scene)
    assert scene.judge(honest) is None and "a level holds for one device" in scene.refused


def test_a_copied_baseline_carries_no_validated(scene: Scene, tmp_path: Path) -> None:
    """The numbers of the recorded reference, given to the collector."""
    baseline = example_baseline(tmp_path)
    scene = Scene(tmp_path)
    train(scene.subject, Trainer(run="reference-1"))
    as_another_run(scene.subject)
    scene.against = baseline
    assert scene.judge() is PRELIMINARY and scene.certificate is not None
    (measured,) = (one for one in scene.certificate.requirements if one.text.startswith("Measured by the shipped"))
    assert not measured.met and "has the reference's bits, as in a copy" in measured.detail
