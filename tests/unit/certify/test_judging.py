"""Collected runs are judged by their content: what was not collected says nothing, and what is wrong is refused."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import CertifyError, InputError
from harness.certify.case_options import judged_by
from harness.certify.judging import judge_collected
from harness.cli.judge import rules_of_others
from harness.collect import collector
from harness.evidence.bundle import Bundle, read_bundle
from harness.evidence.judge import Outcome
from harness.evidence.protection_of_runs import protection_of, protection_words
from harness.levels.certificate import Certificate, Level
from harness.levels.submission import Submission
from harness.report import render_report
from harness.runs.files import TRACE
from harness.runs.trace import Step, read_trace
from tests.support.bundles import example_step
from tests.support.collected import (
    STEPS,
    Array,
    Trainer,
    collected_case,
    drawn,
    edit_record,
    example_baseline,
    train,
)

REFERENCE = Trainer(run="reference-1", trainer="hugging-face")
COMMAND = ("certify", "judge", "CASE")


def judged(out: Path, reference: Path, *subjects: Path, replicas: int = 1) -> tuple[Bundle, Certificate]:
    parallel = {"data_parallel": replicas} if replicas > 1 else {}
    case, standards = judged_by(collected_case().with_changes(parallel=parallel), ())
    return judge_collected(case, standards, [reference], subjects, out, COMMAND)


def pair(tmp_path: Path, subject: Trainer, reference: Trainer = REFERENCE) -> tuple[Bundle, Certificate]:
    return judged(tmp_path / "out", train(tmp_path / "reference", reference), train(tmp_path / "subject", subject))


def failing(bundle: Bundle) -> dict[str, str]:
    wrong = (Outcome.FAIL, Outcome.ERROR)
    return {one.criterion: one.message for one in bundle.findings if one.outcome in wrong}


def test_two_honest_runs_reach_preliminary_and_what_was_not_collected_says_nothing(tmp_path: Path) -> None:
    bundle, certificate = pair(tmp_path, Trainer())
    assert certificate.level is certificate.measured is Level.PRELIMINARY
    assert failing(bundle) == {}
    silent = {one.criterion for one in bundle.findings if one.outcome is Outcome.INCONCLUSIVE}
    assert {"subject-deterministic", "resume", "first-gradients"} & silent
    assert read_bundle(bundle.path).digest == bundle.digest


def test_a_collected_reference_cannot_carry_validated(tmp_path: Path) -> None:
    _, certificate = pair(tmp_path, Trainer())
    (measured,) = (one for one in certificate.requirements if one.text.startswith("Measured by the shipped"))
    assert not measured.met and "reference-1 was collected from a trainer of its own" in measured.detail


def test_nothing_kept_recorded_answers_from_a_trainer_of_its_own(tmp_path: Path) -> None:
    bundle, _ = pair(tmp_path, Trainer())
    assert protection_of(bundle) is None and protection_words(bundle).startswith("none: a trainer of its own made")


def test_page_and_verify_state_that_runs_were_collected(tmp_path: Path) -> None:
    bundle, certificate = pair(tmp_path, Trainer())
    page = render_report(Submission(bundle=bundle), certificate)
    assert "subject-1 was collected from the trainer example; the harness did not run it." in page
    assert "Not collected, and so not judged:" in page


def test_a_repeat_and_a_run_with_rate_zero_are_judged_too(tmp_path: Path) -> None:
    subjects = [train(tmp_path / "one"), train(tmp_path / "two")]
    edit_times(tmp_path / "two")
    flat = Trainer(run="subject-lr0", steps=4, arm="lr_zero")
    subjects.append(train(tmp_path / "flat", flat))
    reference = train(tmp_path / "reference", REFERENCE)
    bundle, _ = judged(tmp_path / "out", reference, *subjects)
    assert set(bundle.runs) == {"reference-1", "subject-1", "subject-2", "subject-lr0"}
    outcomes = {one.criterion: one.outcome for one in bundle.findings}
    assert outcomes["subject-deterministic"] is Outcome.PASS


def edit_times(directory: Path) -> None:
    """Other times of every step, as a second run has them."""
    path = directory / "timing.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**one, "seconds": one["seconds"] + 0.01}) + "\n" for one in lines))


def at(step: int, **changes: Callable[[Step], Any]) -> Callable[[Step], Step]:
    def change(one: Step) -> Step:
        from_here = one.step >= step
        return dataclasses.replace(one, **{k: f(one) for k, f in changes.items()}) if from_here else one

    return change


def swapped_rows(step: int, tokens: Array) -> Array:
    return tokens[::-1].copy() if step == 3 else tokens


def wrong_token(step: int, tokens: Array) -> Array:
    if step == 5:
        tokens[0, 0] += 1
    return tokens


def another_order(step: int, tokens: Array) -> Array:
    """The same rows, as another sampler gives them."""
    every = drawn().tokens
    flat = np.random.RandomState(7).permutation(every.reshape(-1, every.shape[-1]))
    return flat.reshape(every.shape)[step - 1]


def one_weight(weights: dict[str, Array]) -> dict[str, Array]:
    name = "model.norm.weight"
    return {**weights, name: np.nextafter(weights[name], np.float32(2))}


def skipped(step: Step) -> Step:
    """From step 6 on, what the next step gives: one update was left out of the data, or of the optimizer."""

    return (
        step if step.step < 6 else dataclasses.replace(example_step("subject-1", step.step + 1, STEPS), step=step.step)
    )


# Ten faults of a trainer, and the criterion that refuses each.
FAULTS: dict[str, tuple[Trainer, str]] = {
    "a wrong token in one batch": (Trainer(tokens=wrong_token), "batches-same"),
    "the rows of one batch in another order": (Trainer(tokens=swapped_rows), "batches-same"),
    "the rows of the files by another sampler": (Trainer(tokens=another_order), "batches-same"),
    "a step that was skipped": (Trainer(change=skipped), "learning-rate"),
    "one weight by one unit in the last place": (Trainer(weights=one_weight), "weights-subject"),
    "the loss as a mean over ranks": (Trainer(change=at(1, loss=lambda s: s.loss * 1.003)), "first-loss"),
    "the norm after clipping": (Trainer(change=at(1, grad_norm=lambda s: min(s.grad_norm, 1.0))), "official-grad-norm"),
    "the rate of the next step": (Trainer(change=at(1, learning_rate=lambda s: 1e-4 * s.step / 10)), "learning-rate"),
    "no weight decay": (
        Trainer(alignment=lambda found: {**found, "optimizer.weight_decay": 0.0}), "alignment-subject"
    ),
    "a loss that is not a number": (
        Trainer(change=at(7, loss=lambda s: float("nan"))), "runs-finite"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_trainer_is_refused(tmp_path: Path, fault: str) -> None:
    subject, criterion = FAULTS[fault]
    bundle, certificate = pair(tmp_path, subject)
    assert criterion in failing(bundle), failing(bundle)
    assert not certificate.level.reaches(Level.PRELIMINARY)


def test_another_order_of_data_is_refused_at_its_step_and_row(tmp_path: Path) -> None:
    bundle, _ = pair(tmp_path, Trainer(tokens=swapped_rows))
    message = failing(bundle)["batches-same"]
    last = len(drawn().tokens[0]) - 1
    assert "first beyond the limit at step 3" in message
    assert f"subject-1, row 0: what was read is row {last} of step 3 of the case" in message


def test_rows_that_no_case_has_are_called_that(tmp_path: Path) -> None:
    bundle, _ = pair(tmp_path, Trainer(tokens=wrong_token))
    assert "step 5, subject-1, row 0: what was read is no row of the case" in failing(bundle)["batches-same"]


def test_several_ranks_count_their_own_rows(tmp_path: Path) -> None:
    reference, subject = train(tmp_path / "reference", REFERENCE), train(tmp_path / "subject", Trainer(ranks=2))
    bundle, certificate = judged(tmp_path / "out", reference, subject, replicas=2)
    assert failing(bundle) == {} and certificate.level is Level.PRELIMINARY
    (trace,) = (run.trace for name, run in bundle.runs.items() if name == "subject-1")
    assert trace is not None
    assert [step.tokens for step in trace.steps] == [int(mask.sum()) for mask in drawn().mask]


@pytest.mark.parametrize(
    ("how", "criterion", "words"),
    [
        (Trainer(omitted=("grad_norm",)), "official-grad-norm", "grad_norm of subject-1: not collected"),
        (Trainer(omitted=("batches",)), "batches-same", "batches of subject-1: not collected"),
        (Trainer(weights=lambda weights: {}), "weights-subject", "weights of subject-1: not collected"),
        (Trainer(alignment=lambda found: {}), "alignment-subject", "alignment of subject-1: not collected"),
    ],
)
def test_what_was_not_collected_is_inconclusive(tmp_path: Path, how: Trainer, criterion: str, words: str) -> None:
    bundle, _ = pair(tmp_path, how)
    found = {one.criterion: one for one in bundle.findings}
    assert found[criterion].outcome is Outcome.INCONCLUSIVE and words in found[criterion].message
    assert failing(bundle) == {}


@pytest.mark.parametrize("how", [Trainer(omitted=("batches",)), Trainer(weights=lambda weights: {})])
def test_without_weights_or_batches_there_is_no_preliminary(tmp_path: Path, how: Trainer) -> None:
    assert pair(tmp_path, how)[1].level is Level.UNTESTED


def test_a_run_that_was_not_ended_is_no_run(tmp_path: Path) -> None:
    bundle, certificate = pair(tmp_path, Trainer(ends=False))
    assert certificate.level is Level.NONE
    assert (
        bundle.runs["subject-1"].outcome.detail
        == f"{STEPS} of {STEPS} steps were collected, and the collector was not ended"
    )


def edited_loss(directory: Path) -> None:
    path = directory / TRACE
    lines = path.read_bytes().split(b"\n")
    step = json.loads(lines[3])
    step["loss"] *= 1.001
    lines[3] = json.dumps(step, sort_keys=True, separators=(",", ":")).encode()
    path.write_bytes(b"\n".join(lines))


def as_the_harness(directory: Path) -> None:
    path = directory / TRACE
    path.write_bytes(path.read_bytes().replace(b'"run":"collected"', b'"run":"subject-1"'))


@pytest.mark.parametrize("edit", [edited_loss, as_the_harness])
def test_a_trace_that_was_edited_is_refused(tmp_path: Path, edit: Callable[[Path], None]) -> None:
    reference, subject = train(tmp_path / "reference", REFERENCE), train(tmp_path / "subject")
    edit(subject)
    with pytest.raises(CertifyError):
        judged(tmp_path / "out", reference, subject)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_run_of_other_steps_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    reference, subject = train(tmp_path / "reference", REFERENCE), train(tmp_path / "subject", Trainer(steps=5))
    with pytest.raises(InputError, match="was collected for 5 steps, and subject-1 of"):
        judged(tmp_path / "out", reference, subject)
    assert not (tmp_path / "out").exists()


def test_a_directory_without_a_collected_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no collected run"):
        judged(tmp_path / "out", tmp_path, tmp_path)


def test_the_same_run_judged_twice_is_the_same_run(tmp_path: Path) -> None:
    first, _ = pair(tmp_path, Trainer())
    second, _ = judged(tmp_path / "again", tmp_path / "reference", tmp_path / "subject")
    assert first.start is not None and second.start is not None
    assert first.start.nonce == second.start.nonce
    assert first.occasion.started == second.occasion.started


def test_the_trace_in_the_bundle_is_the_trainers_own_bytes(tmp_path: Path) -> None:
    bundle, _ = pair(tmp_path, Trainer())
    own, kept = tmp_path / "subject" / TRACE, bundle.path / "runs" / "subject-1" / TRACE
    assert own.read_bytes() == kept.read_bytes()
    assert read_trace(kept).header.run == "collected"


def test_the_rules_of_others_neither_raise_a_level_nor_lower_it(tmp_path: Path) -> None:
    reference, subject = train(tmp_path / "reference", REFERENCE), train(tmp_path / "subject")
    case, standards = judged_by(collected_case(), [*collected_case().standards, *rules_of_others()])
    bundle, certificate = judge_collected(case, standards, [reference], [subject], tmp_path / "rules", COMMAND)
    outcomes = {one.standard: one.outcome for one in bundle.findings if one.standard.startswith("rule-")}
    assert outcomes["rule-torchtitan"] is Outcome.FAIL and outcomes["rule-msprobe"] is Outcome.PASS
    assert len(outcomes) == len(rules_of_others()) == 6
    _, alone = judged(tmp_path / "alone", reference, subject)
    assert certificate.level is alone.level is Level.PRELIMINARY
    assert [one.met for one in certificate.requirements] == [one.met for one in alone.requirements]


@pytest.mark.parametrize("fault", ["a wrong token in one batch", "the loss as a mean over ranks"])
def test_only_the_rules_of_others_give_no_level(tmp_path: Path, fault: str) -> None:
    reference, subject = train(tmp_path / "reference", REFERENCE), train(tmp_path / "subject", FAULTS[fault][0])
    case, standards = judged_by(collected_case(), rules_of_others())
    _, certificate = judge_collected(case, standards, [reference], [subject], tmp_path / "out", COMMAND)
    assert certificate.level is Level.NONE


def test_a_resumed_run_is_judged_next_to_the_whole_one(tmp_path: Path) -> None:
    reference, subject = train(tmp_path / "reference", REFERENCE), train(tmp_path / "subject")
    steps = collected_case().training.steps_of("resumed")
    how = Trainer(arm="resumed", steps=steps, length=STEPS)
    train(tmp_path / "resumed", dataclasses.replace(how, change=lambda one: one if one.step <= 2 else None))
    with pytest.raises(InputError, match="never resumed"):
        judged(tmp_path / "out", reference, subject, tmp_path / "resumed")
    train(tmp_path / "resumed", how, after=2)
    bundle, _ = judged(tmp_path / "out", reference, subject, tmp_path / "resumed")
    outcomes = {one.criterion: one.outcome for one in bundle.findings}
    assert outcomes["resumed-loss"] is Outcome.PASS
    assert bundle.runs["subject-resumed"].outcome.resumed_after == (2,)


def test_a_collected_subject_next_to_a_baseline_lacks_only_what_was_not_collected(tmp_path: Path) -> None:
    bundle, certificate = judged(tmp_path / "out", example_baseline(tmp_path), train(tmp_path / "subject"))
    assert bundle.baseline is not None and failing(bundle) == {}
    assert certificate.level is Level.PRELIMINARY
    (measured,) = (one for one in certificate.requirements if one.text.startswith("Measured by the shipped"))
    assert measured.met, measured.detail
    assert set(bundle.not_collected) == {"subject-2", "subject-lr0", "subject-resumed", "subject-probe"}
    assert bundle.absent == ()
    of_the_change = {one.criterion: one for one in bundle.findings if one.criterion.startswith("change-")}
    assert set(of_the_change) == {"change-rms", "change-maximum", "change-along", "change-length"}
    assert {one.outcome for one in of_the_change.values()} == {Outcome.INCONCLUSIVE}
    assert "change of the parameters of subject-1: not collected" in of_the_change["change-rms"].message


def test_another_version_of_the_collector_carries_no_validated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "imported", lambda: "f" * 64)
    _, certificate = pair(tmp_path, Trainer())
    (committed,) = (one for one in certificate.requirements if one.text.startswith("Run from a committed"))
    assert not committed.met and "subject-1 was collected by other code (ffffffffffff)" in committed.detail


def test_a_level_counts_from_the_start_of_the_training(tmp_path: Path) -> None:
    reference, subject = train(tmp_path / "reference", REFERENCE), train(tmp_path / "subject")
    edit_record(subject, started="2026-01-31T02:00:00+00:00")
    bundle, certificate = judged(tmp_path / "out", reference, subject)
    assert bundle.occasion.started == "2026-01-31T02:00:00+00:00"
    assert certificate.level is Level.UNTESTED


GRADIENTS = ("gradients-mean", "gradients-maximum", "gradients-along", "gradients-length", "decades", "zeros", "probe")


def test_a_first_gradient_that_was_given_is_judged_next_to_the_probes_of_a_baseline(tmp_path: Path) -> None:
    bundle, certificate = judged(tmp_path / "out", example_baseline(tmp_path), given_gradient(tmp_path, 1.0))
    outcomes = {one.criterion: one.outcome for one in bundle.findings}
    assert {name: outcomes[name] for name in GRADIENTS} == dict.fromkeys(GRADIENTS, Outcome.PASS)
    assert outcomes["updates-mean"] is Outcome.INCONCLUSIVE and certificate.level is Level.PRELIMINARY
    assert read_bundle(bundle.path).digest == bundle.digest


@pytest.mark.parametrize("factor", [1.001, 0.5])
def test_a_first_gradient_that_is_not_the_exact_one_fails(tmp_path: Path, factor: float) -> None:
    bundle, certificate = judged(tmp_path / "out", example_baseline(tmp_path), given_gradient(tmp_path, factor))
    assert {"gradients-mean", "gradients-absolute", "gradients-length", "probe"} <= set(failing(bundle))
    assert not certificate.level.reaches(Level.PRELIMINARY)


def test_without_a_grad_norm_a_first_gradient_is_judged_but_for_its_norm(tmp_path: Path) -> None:
    subject = train(tmp_path / "subject", Trainer(gradient=1.0, omitted=("grad_norm",)))
    bundle, _ = judged(tmp_path / "out", example_baseline(tmp_path), subject)
    outcomes = {one.criterion: one.outcome for one in bundle.findings}
    assert (outcomes["probe"], outcomes["gradients-mean"]) == (Outcome.INCONCLUSIVE, Outcome.PASS)


def given_gradient(directory: Path, factor: float) -> Path:
    return train(directory / "subject", Trainer(gradient=factor))
