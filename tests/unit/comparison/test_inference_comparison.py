"""Laws of the measurements of inference: nothing that is missing, not a number or out of place counts as equal."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load_file

from harness.base.errors import InputError
from harness.cases.runs_of_a_case import ORACLE, SUBJECT, TRAINING
from harness.comparison.inference import inference_differences
from harness.comparison.measurement import Measurement
from harness.comparison.outputs import divergence, first_difference, largest_regret
from harness.comparison.scores import score_differences
from harness.evidence.bundle import Bundle
from harness.evidence.judge import Outcome
from harness.levels.certificate import Level
from harness.runs.trace import Run, Scored
from tests.support.answering import Tensors, example_answers, example_evaluation
from tests.support.bundles import certified, write_example
from tests.support.examples import inference_case

CASE = inference_case()
EVALUATION = example_evaluation(CASE)
LOGITS = arrays(np.float64, st.tuples(st.integers(1, 4), st.just(6)), elements=st.floats(-30, 30))
TOKENS = st.lists(st.integers(0, 3), max_size=6).map(lambda found: np.array(found, np.int32))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_example(tmp_path_factory.mktemp("answers") / "bundle", case=CASE)


@pytest.fixture(scope="module")
def sketched(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same answers, of which sketches were left, by a model that was not trained."""
    case = inference_case(weights={"kind": "drawn"}).with_changes(evidence="sketches")
    return write_example(tmp_path_factory.mktemp("sketched") / "bundle", case=case)


def outcomes(bundle: Bundle) -> dict[str, Outcome]:
    return {finding.criterion: finding.outcome for finding in bundle.findings}


def at(bundle: Bundle, name: str) -> dict[Any, float]:
    measured = bundle.comparison[name]
    return dict(zip(measured.places, measured.values, strict=True))


def leaving(directory: Path, of: str, change: Any) -> Bundle:
    """The example, where what the runs that begin so left is changed."""

    def answers(run: str, case: Any) -> Tensors:
        left = example_answers(run, case)
        if run.startswith(of):
            change(left)
        return left

    return write_example(directory / "b", case=CASE, answers=answers)


def saying(directory: Path, of: str, change: Any) -> Bundle:
    """The example, where lines of the runs that begin so are changed."""

    def changed(run: str, line: Any) -> Any:
        return change(line) if run.startswith(of) and isinstance(line, Scored) else line

    return write_example(directory / "b", case=CASE, change=changed)


@given(LOGITS, st.data())
def test_a_divergence_is_never_below_zero_and_zero_of_the_same(exact: npt.NDArray[Any], data: st.DataObject) -> None:
    found = data.draw(arrays(np.float64, exact.shape, elements=st.floats(-30, 30)))
    assert divergence(exact, found) >= -1e-12
    assert divergence(exact, exact) == 0.0
    assert divergence(exact, exact + 3.0) == pytest.approx(0.0, abs=1e-12), "a shift of all logits predicts the same"


def test_a_divergence_is_that_of_the_worst_position() -> None:
    exact = np.log(np.array([[0.5, 0.5], [0.9, 0.1]]))
    found = np.log(np.array([[0.5, 0.5], [0.1, 0.9]]))
    assert divergence(exact, found) == pytest.approx(0.9 * math.log(9) - 0.1 * math.log(9))


@given(LOGITS, st.data())
def test_no_regret_is_the_same_best_token_or_one_exactly_as_good(exact: npt.NDArray[Any], data: st.DataObject) -> None:
    found = data.draw(arrays(np.float64, exact.shape, elements=st.floats(-30, 30)))
    chosen = np.take_along_axis(exact, found.argmax(-1)[:, None], -1)[:, 0]
    assert (largest_regret(exact, found) == 0) == bool((chosen == exact.max(-1)).all())
    assert largest_regret(exact, found) >= 0 == largest_regret(exact, exact)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_give_not_a_number(bad: float) -> None:
    exact, found = np.zeros((2, 3)), np.zeros((2, 3))
    found[1, 2] = bad
    with np.errstate(invalid="ignore"):
        assert math.isnan(largest_regret(exact, found))
        assert not divergence(exact, found) <= 1e9


@given(TOKENS, TOKENS)
def test_two_continuations_part_where_they_first_differ(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> None:
    parted = first_difference(a, b)
    assert parted == first_difference(b, a)
    assert (parted is None) == (a.tolist() == b.tolist())
    if parted is not None:
        assert a[:parted].tolist() == b[:parted].tolist()
        assert a[parted : parted + 1].tolist() != b[parted : parted + 1].tolist()


def test_the_example_has_the_expected_outputs(bundle: Bundle) -> None:
    assert {name for name, one in outcomes(bundle).items() if one is not Outcome.PASS} == {"score-shown"}


def test_sketches_give_the_numbers_of_the_logits(bundle: Bundle, sketched: Bundle) -> None:
    left = {name: set(load_file(sketched.path / "tensors" / f"{name}.safetensors")) for name in (SUBJECT, ORACLE)}
    assert "logits.0#sketch" in left[SUBJECT] and "greedy_logits.0#sketch" in left[ORACLE]
    whole = {"logits.0", "cached.0", "alone.0", "greedy_logits.0", "decoded.0", "decoded_batch.0"}
    assert not whole & (left[SUBJECT] | left[ORACLE])
    for name, measured in bundle.comparison.measurements.items():
        found = sketched.comparison[name]
        if name != "subject.sense":
            assert found.places == tuple(place for place in measured.places if place != TRAINING), name
            exact = dict(zip(measured.places, measured.values, strict=True))
            wanted = [exact[place] for place in found.places]
            assert found.values == pytest.approx(wanted, rel=0.5 if "divergence" in name else 0.25), name


def test_what_an_untrained_model_predicts_is_not_judged(sketched: Bundle) -> None:
    unmet = {name: one for name, one in outcomes(sketched).items() if one is not Outcome.PASS}
    assert unmet == {"score-shown": Outcome.INCONCLUSIVE, "makes-sense": Outcome.INCONCLUSIVE}
    certificate = certified(sketched)
    assert certificate.level is Level.UNTESTED and "with drawn weights" in certificate.scope.model
    (missing,) = {one.detail for one in certificate.missing if one.level is Level.PRELIMINARY}
    assert "the weights are drawn" in missing


def test_trained_weights_are_evidence_so_they_are_not_sketched() -> None:
    with pytest.raises(InputError, match=r"inference\.weights\.kind: trained weights are part of the evidence"):
        CASE.with_changes(evidence="sketches")


KINDS = {
    "logits": ("oracle.logits.subject", "oracle.logits.ratio", "oracle.divergence.subject", "oracle.regret.subject",
               "top1.agreement", "cache.subject"),
    "cached": ("cache.subject", "oracle.cached.subject", "oracle.cached.ratio"),
    "batch": ("batch.subject",),
    "alone": ("batch.subject", "oracle.prompt.subject"),
    "greedy": ("greedy.regret.subject", "greedy.compared.subject"),
}  # fmt: skip


KINDS_LEFT = (
    "logits", "cached", "greedy", "stopped", "sampled", "template", "alone", "batch", "decoded", "decoded_batch", "fed",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_that_one_side_lacks_is_not_a_number_and_not_left_out(tmp_path: Path, kind: str) -> None:
    bundle = leaving(tmp_path, "subject", lambda left: left.pop(f"{kind}.1"))
    for name in KINDS[kind]:
        measured = bundle.comparison[name]
        assert len(measured.values) == 2 and math.isnan(measured.values[1]) and not math.isnan(measured.values[0])
    assert Outcome.FAIL in outcomes(bundle).values()


@pytest.mark.parametrize("kind", ["stopped", "sampled", "template"])
def test_tokens_that_one_side_lacks_differ(tmp_path: Path, kind: str) -> None:
    bundle = leaving(tmp_path, "subject", lambda left: left.pop(f"{kind}.1"))
    place = "prompt 1" if kind == "stopped" else f"{kind} 1"
    assert at(bundle, f"{kind}.differs")[place] == 1


@pytest.mark.parametrize("kind", ["logits", "cached", "batch", "alone"])
def test_a_tensor_of_another_shape_is_not_a_number(tmp_path: Path, kind: str) -> None:
    def cut(left: Tensors) -> None:
        left[f"{kind}.0"] = left[f"{kind}.0"][..., :-1].copy()

    bundle = leaving(tmp_path, "subject", cut)
    for name in KINDS[kind]:
        assert math.isnan(bundle.comparison[name].values[0]), name


@pytest.mark.parametrize("kind", ["logits", "cached", "batch", "alone"])
def test_one_logit_that_is_not_a_number_never_passes(tmp_path: Path, kind: str) -> None:
    def spoil(left: Tensors) -> None:
        left[f"{kind}.1"][..., 3] = math.nan

    found = outcomes(leaving(tmp_path, "", spoil) if kind == "logits" else leaving(tmp_path, "subject", spoil))
    assert found["cache" if kind in ("logits", "cached") else "batch"] is Outcome.FAIL


@pytest.mark.parametrize("kind", KINDS_LEFT)
def test_what_no_side_left_is_missing_from_every_run(tmp_path: Path, kind: str) -> None:
    """Three sides that all lack the same row compare as the same in all that is there."""
    bundle = leaving(tmp_path, "", lambda left: left.pop(f"{kind}.1", None))
    assert outcomes(bundle)["runs-complete"] is Outcome.FAIL
    assert at(bundle, "runs.missing_steps")["subject-1"] == 1


def test_an_unexpected_output_is_counted(tmp_path: Path) -> None:
    def more(left: Tensors) -> None:
        left["logits.2"] = left["logits.0"].copy()

    assert outcomes(leaving(tmp_path, "", more))["runs-complete"] is Outcome.FAIL


def regret(bundle: Bundle) -> tuple[float, float]:
    return at(bundle, "greedy.regret.subject")["prompt 0"], at(bundle, "greedy.compared.subject")["prompt 0"]


def test_a_continuation_that_leaves_the_oracle_is_judged_where_it_does(tmp_path: Path) -> None:
    def leave(left: Tensors) -> None:
        left["greedy.0"][40:] = 7

    exact = example_answers("oracle-1", CASE)
    above = exact["greedy_logits.0"][40, exact["greedy.0"][40]] - exact["greedy_logits.0"][40, 7]
    bundle = leaving(tmp_path, "subject", leave)
    assert regret(bundle) == (pytest.approx(above), 40)
    assert outcomes(bundle)["greedy"] is Outcome.FAIL


def test_a_continuation_that_leaves_it_at_a_near_tie_passes(tmp_path: Path) -> None:
    def leave(left: Tensors) -> None:
        if "greedy_logits.0" in left:
            left["greedy_logits.0"][40, 7] = left["greedy_logits.0"][40].max() - 1e-6
        elif "batch.0" in left:
            left["greedy.0"][40:] = 7

    def of_subject(run: str, case: Any) -> Tensors:
        left = example_answers(run, case)
        if not run.startswith("reference"):
            leave(left)
        return left

    bundle = write_example(tmp_path / "b", case=CASE, answers=of_subject)
    assert regret(bundle) == (pytest.approx(1e-6), 40)
    assert outcomes(bundle)["greedy"] is Outcome.PASS


def test_a_stop_token_is_compared_as_far_as_both_continue_alike(tmp_path: Path) -> None:
    def late(left: Tensors) -> None:
        left["stopped.0"] = left["greedy.0"][: len(left["stopped.0"]) + 1].copy()

    assert at(leaving(tmp_path, "subject", late), "stopped.differs") == {"prompt 0": 1, "prompt 1": 0}


@pytest.mark.parametrize("task", ["text", "last_word", "ending"])
def test_two_documents_that_changed_places_are_seen(tmp_path: Path, bundle: Bundle, task: str) -> None:
    trace = bundle.runs["subject-1"].trace
    assert trace is not None
    one, other = [line for line in trace.scored if line.task == task][:2]
    swapped = {
        one.step: dataclasses.replace(other, step=one.step),
        other.step: dataclasses.replace(one, step=other.step),
    }
    found = saying(tmp_path, "subject", lambda line: swapped.get(line.step, line))
    assert sum(found.comparison["train.batch.differs"].values) == 2
    assert outcomes(found)["batches-same"] is Outcome.FAIL


def test_documents_in_another_order_on_both_sides_repeat_and_still_hold_the_same(bundle: Bundle) -> None:
    """The digest of the evaluation covers its questions, and every header states it."""
    assert all(value == 0 for value in bundle.comparison["runs.foreign_inputs"].values)


def not_a_number(line: Scored) -> Scored:
    return dataclasses.replace(line, log_likelihoods=(math.nan, *line.log_likelihoods[1:])) if line.step == 15 else line


@pytest.mark.parametrize("of", ["subject", "reference", ""])
def test_a_likelihood_that_is_not_a_number_never_passes(tmp_path: Path, of: str) -> None:
    found = saying(tmp_path, of, not_a_number)
    assert outcomes(found)["runs-finite"] is Outcome.FAIL
    assert outcomes(found)["score-ceiling"] is not Outcome.PASS
    assert outcomes(found)["log-likelihoods"] is not Outcome.PASS


def test_a_document_that_one_side_did_not_score_makes_its_task_not_a_number(tmp_path: Path) -> None:
    found = write_example(
        tmp_path / "b", case=CASE, change=lambda run, line: None if run == "subject-1" and line.step == 40 else line
    )
    assert math.isnan(at(found, "score.difference")["ending"]) and math.isnan(at(found, "score.bound")["ending"])
    assert at(found, "score.difference")["text"] < 1e-6
    assert not {outcomes(found)[one] for one in ("runs-complete", "score-ceiling", "score-shown")} & {Outcome.PASS}


def test_a_run_that_was_not_made_is_named_by_every_measurement_of_it(tmp_path: Path) -> None:
    found = write_example(tmp_path / "b", case=CASE, change=lambda run, line: None if run == "oracle-1" else line)
    measured: Mapping[str, Measurement] = found.comparison.measurements
    assert all(one.broken for name, one in measured.items() if name.startswith(("oracle.", "greedy.")))
    assert outcomes(found)["logits"] is not Outcome.PASS


def test_a_model_of_noise_makes_no_sense(tmp_path: Path) -> None:
    def worse(line: Scored) -> Scored:
        if line.task != "text":
            return line
        return dataclasses.replace(line, score=3 * line.score, log_likelihoods=(3 * line.score,))

    found = saying(tmp_path, "", worse)
    assert found.comparison["subject.sense"].values[0] > 1
    assert outcomes(found)["makes-sense"] is Outcome.FAIL


def run_of(bundle: Bundle, name: str) -> Run:
    return bundle.runs[name]


def test_two_runs_of_a_side_are_apart_by_what_differs(bundle: Bundle) -> None:
    assert inference_differences(run_of(bundle, "subject-1"), run_of(bundle, "subject-2")) == {
        "log_likelihood": 0.0,
        "answers": 0.0,
    }
    assert inference_differences(run_of(bundle, "subject-1"), None) == {}
    apart = inference_differences(run_of(bundle, "reference-1"), run_of(bundle, "subject-1"))
    assert 0 < apart["log_likelihood"] < 1e-7 and apart["answers"] > 0


def test_a_score_that_does_not_follow_from_the_same_likelihoods_is_apart(bundle: Bundle) -> None:
    run = run_of(bundle, "subject-1")
    assert run.trace is not None
    lines = [dataclasses.replace(run.trace.scored[-1], score=1 - run.trace.scored[-1].score)]
    edited = dataclasses.replace(run, trace=dataclasses.replace(run.trace, scored=(*run.trace.scored[:-1], *lines)))
    assert math.isnan(score_differences(run, edited).values[-1])
    assert set(score_differences(run, edited).values[:-1]) == {0.0}


def with_system_message(left: Tensors) -> None:
    """The first conversation comes after the prompts and the given prompts, and has another message before it."""
    first = len(EVALUATION.prompts) + len(EVALUATION.given)
    if f"fed.{first}" in left:
        own = left[f"fed.{first}"]
        left[f"fed.{first}"] = np.concatenate([own[:12], own])


def test_a_system_message_that_one_side_added_is_named_with_its_first_token(tmp_path: Path, bundle: Bundle) -> None:
    assert at(bundle, "prompt.tokens.differs") == dict.fromkeys(EVALUATION.fed(), 0)
    tokens = EVALUATION.conversation_tokens[0]
    first = next(n for n, token in enumerate(tokens[12:], 12) if token != tokens[n - 12])
    found = leaving(tmp_path, "subject", with_system_message)
    unmet = {one.criterion: one.message for one in found.findings if one.outcome is not Outcome.PASS}
    assert {*unmet} == {"prompt-tokens", "prompt-tokens-same", "score-shown"}
    assert f"differs: conversation 0 at token {first}" in unmet["prompt-tokens"]
    assert not any(at(found, "prompt.tokens.reference.differs").values())


def test_a_system_message_that_both_sides_added_is_not_what_the_evaluation_has(tmp_path: Path) -> None:
    found = outcomes(leaving(tmp_path, "", with_system_message))
    assert (found["prompt-tokens"], found["prompt-tokens-same"]) == (Outcome.FAIL, Outcome.PASS)


@pytest.mark.parametrize("kind", ["decoded", "decoded_batch"])
def test_one_decoded_position_that_is_wrong_is_named(tmp_path: Path, kind: str) -> None:
    length = len(EVALUATION.given[1].prompt)

    def spoil(left: Tensors) -> None:
        if kind in {name.partition(".")[0] for name in left}:
            left[f"{kind}.1"][1] *= np.float32(1 + 1e-5)

    found = leaving(tmp_path, "subject", spoil)
    unmet = {one.criterion: one.message for one in found.findings if one.outcome is not Outcome.PASS}
    assert {*unmet} == {"decoded", "score-shown"}
    way = "alone" if kind == "decoded" else "in a batch"
    assert f"worst: {length} tokens {way}, 1 decoded" in unmet["decoded"]


def test_decoded_positions_that_one_side_lacks_are_not_a_number(tmp_path: Path) -> None:
    found = leaving(tmp_path, "subject", lambda left: left.pop("decoded.1"))
    assert any(math.isnan(value) for value in found.comparison["oracle.decoded.ratio"].values)
    assert outcomes(found)["decoded"] is Outcome.FAIL


def test_a_case_without_borders_has_no_decoded_positions_and_says_so(tmp_path: Path) -> None:
    found = write_example(tmp_path / "b", case=inference_case(borders=[]))
    unmet = {one.criterion: one for one in found.findings if one.outcome is not Outcome.PASS}
    assert {*unmet} == {"decoded", "score-shown"} and unmet["decoded"].outcome is Outcome.INCONCLUSIVE
    assert "the case has no inference.borders" in unmet["decoded"].message


def test_a_cache_that_is_less_exact_than_the_references_is_refused_below_the_limit_of_the_row(tmp_path: Path) -> None:
    """`cache` allows what is four errors of the reference."""

    def spoil(left: Tensors) -> None:
        noise = np.random.default_rng(5).standard_normal(left["cached.0"].shape)
        left["cached.0"] = (left["cached.0"] * (1 + 4e-7 * noise)).astype(np.float32)

    found = outcomes(leaving(tmp_path, "subject", spoil))
    assert (found["cache"], found["cached"]) == (Outcome.PASS, Outcome.FAIL)
