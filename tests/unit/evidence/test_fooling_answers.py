"""Ways to fool it with answers: what is done to honest evidence of inference, and what comes out. None is accepted.

As in `test_fooling.py`, everybody signs what was spoiled, and a row states the very level that comes out.
"""

import dataclasses
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from harness.cases.case import Case
from harness.evidence.bundle import finish_bundle
from harness.levels.certificate import Level
from harness.runs.trace import Scored, TraceHeader
from harness.standards import Standard, load_standard, parse_standard
from tests.support.answering import Tensors, example_answers
from tests.support.bundles import edit_json, example_parameters
from tests.support.examples import inference_case, small_case
from tests.support.fooling import (
    NONE,
    PRELIMINARY,
    REFUSED,
    UNTESTED,
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
    write_second,
)

CASE, SMALL = inference_case(documents=748), inference_case(documents=20)
SUBJECT = "harness.runners.mindspore_inference:MindSporeInference"
TEXTS, LAST_WORDS = 12, 748  # how many there are before the last words, and before the endings
LAST = TEXTS + 2 * LAST_WORDS


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return honest_scene(tmp_path_factory.mktemp("honest"), CASE)


@pytest.fixture
def scene(honest: Scene, tmp_path: Path) -> Scene:
    return copy_of(honest, tmp_path / "scene")


def test_the_honest_chain_is_released(scene: Scene) -> None:
    scene.kept = None
    assert scene.outcome(lambda _: None) is Level.RELEASED


def lines(of: str, change: Callable[[Scored], Any]) -> Fooling:
    """Other lines in the traces of the inference runs whose names begin so."""
    return again(change=lambda run, line: change(line) if run.startswith(of) and isinstance(line, Scored) else line)


def at(of: str, number: int, change: Callable[[Scored], dict[str, Any]]) -> Fooling:
    return lines(of, lambda line: dataclasses.replace(line, **change(line)) if line.step == number else line)


def answered(of: str, change: Callable[[Tensors], object]) -> Callable[[str, Case], Tensors]:
    """Other tensors, left by the runs that begin so."""

    def answers(run: str, case: Case) -> Tensors:
        left = example_answers(run, case)
        if run.startswith(of):
            change(left)
        return left

    return answers


def leaving(of: str, change: Callable[[Tensors], object]) -> Fooling:
    return again(answers=answered(of, change))


def exact_as(side: str, *rows: int) -> Fooling:
    """The oracle's logits of these rows are a side's own, so that its error there is 0."""

    def answers(run: str, case: Case) -> Tensors:
        left = example_answers(run, case)
        copied_rows = {f"logits.{row}" for row in rows}
        own = example_answers(f"{side}-1", case)
        return {name: own[name] if run == "oracle-1" and name in copied_rows else left[name] for name in left}

    return again(answers=answers)


def exchanged(first: int, second: int) -> Callable[[str, Any], Any]:
    """Two documents in each other's place."""
    kept: dict[str, Scored] = {}

    def change(run: str, line: Any) -> Any:
        if isinstance(line, Scored) and line.step == first:
            kept[run] = line
        if isinstance(line, Scored) and line.step == second:
            return dataclasses.replace(kept[run], step=second)
        return line

    return change


def asked_otherwise(name: str, change: Callable[[Any], object]) -> Fooling:
    """Other questions than those of the runs, judged as if they were theirs."""

    def spoil(scene: Scene) -> None:
        edit_json(scene.first / "inputs" / name, change)
        scene.made = finish_bundle(scene.first)

    return spoil


def other_text(evaluation: dict[str, Any]) -> None:
    evaluation["texts"][0] = "Something else was asked."


def fewer_rows(evaluation: dict[str, Any]) -> None:
    del evaluation["rows"][1:]


def tensor(run: str, name: str, change: Callable[[Any], None]) -> Fooling:
    """One number in a tensor that a run left, judged as if it had been left so."""

    def spoil(scene: Scene) -> None:
        path = scene.first / "tensors" / f"{run}.safetensors"
        tensors = load_file(path)
        change(tensors[name])
        save_file(tensors, path)
        scene.made = finish_bundle(scene.first)

    return spoil


def off(values: Any) -> None:
    values.flat[3] += 0.5


def not_a_number(values: Any) -> None:
    values.flat[3] = math.nan


def other_token(values: Any) -> None:
    values.fill(7)


def spoiled(kind: str, change: Callable[[Any], None] = off) -> Callable[[Tensors], None]:
    def spoil(left: Tensors) -> None:
        if f"{kind}.0" in left:
            change(left[f"{kind}.0"])

    return spoil


def shorter(kind: str, count: int) -> Callable[[Tensors], None]:
    def cut(left: Tensors) -> None:
        for name in [name for name in left if name.startswith(f"{kind}.")]:
            left[name] = left[name][:count].copy()

    return cut


def late_stop(left: Tensors) -> None:
    if "stopped.0" in left:
        left["stopped.0"] = left["greedy.0"][: len(left["stopped.0"]) + 2].copy()


def other_words(left: Tensors) -> None:
    left["greedy.0"][100:] = ord("x")


def with_limit(value: float) -> tuple[Standard, ...]:
    content = load_standard("official-inference").model_dump(mode="json")
    for criterion in content["criteria"]:
        for one in criterion["limits"]:
            one["value"] = value
    return (parse_standard(content, "edited"), load_standard("strict-inference-fp32"))


def as_training(scene: Scene) -> None:
    """The second run is one of training, of another standard."""
    shutil.rmtree(scene.second)
    scene.attest(scene.second, "tess", bundle=write_second(scene.second, case=small_case(steps=1000, lr_zero_steps=20)))


def on_an_npu(scene: Scene) -> None:
    edit_json(scene.first / "environment.json", lambda environment: environment.update(device="Ascend"))
    scene.forge()


def without_last(header: TraceHeader) -> dict[str, str]:
    return dict([*header.initial.items()][:-1])


def nudged(run: str, line: Any) -> Any:
    """The subject's texts are off by the last place."""
    if not run.startswith("subject") or not isinstance(line, Scored) or line.task != "text":
        return line
    score = math.nextafter(line.score, 0.0)
    return dataclasses.replace(line, score=score, log_likelihoods=(score,))


def untrained(run: str) -> Any:
    """Weights of zeros, instead of those for inference."""
    return {name: np.zeros_like(one) if run == "training" else one for name, one in example_parameters(run).items()}


def of_other_weights(header: TraceHeader) -> TraceHeader:
    return dataclasses.replace(header, weights="1" * 64) if header.arm == "infer" else header


def noise(line: Scored) -> Scored:
    if line.task != "text":
        return line
    return dataclasses.replace(line, score=4 * line.score, log_likelihoods=(4 * line.score,))


def flipped(line: Scored) -> Scored:
    """Right in every last word that the other side has wrong."""
    return dataclasses.replace(line, score=1.0) if line.task == "last_word" else line


def scored_as_right(line: Scored) -> Scored:
    """Endings that are called right and are not the likeliest."""
    return dataclasses.replace(line, score=1.0) if line.task == "ending" else line


FOOLINGS: dict[str, tuple[Fooling, Level | None]] = {
    "an edited score": (
        lines_of("subject-1", lambda ls: [*ls[:-2], re.sub(rb'"score":[01].0', b'"score":0.5', ls[-2]), ls[-1]]),
        UNTESTED),
    "a score that both of the subject's runs state": (lines("subject", flipped), UNTESTED),
    "scores that do not follow from their likelihoods": (lines("subject", scored_as_right), UNTESTED),
    "scores of both sides that do not follow": (lines("", scored_as_right), UNTESTED),
    "a text's score that is not its likelihood": (at("subject", 3, lambda _: {"score": -70.0}), UNTESTED),
    "a likelihood that is off by a thousandth": (
        at("subject", 20, lambda line: {"log_likelihoods": (1.001 * line.log_likelihoods[0],)}), UNTESTED),
    "one document more that only one side has right": (
        at("subject", 13, lambda line: {"score": 1.0 - line.score}), PRELIMINARY),
    "another document in the subject": (at("subject", 2, lambda _: {"document": "0" * 64}), UNTESTED),
    "the same other documents on all sides": (again(change=exchanged(20, 21)), UNTESTED),
    "a document of another task": (lines("", lambda line: dataclasses.replace(line, task="text")
                                         if line.step == TEXTS + 1 else line), UNTESTED),
    "more words on all sides, and so a smaller difference": (
        lines("", lambda line: dataclasses.replace(line, words=1000) if line.task == "text" else line), UNTESTED),
    "a task that there is not": (
        lines_of("subject-1", lambda ls: [*ls[:3], ls[3].replace(b'"text"', b'"poem"'), *ls[4:]]), REFUSED),
    "not a number in a likelihood": (at("subject-1", 40, lambda _: {"log_likelihoods": (math.nan,)}), NONE),
    "not a number in a score": (at("subject-2", 5, lambda _: {"score": math.nan}), NONE),
    "not a number in the same likelihood of all sides": (
        at("", 7, lambda _: {"log_likelihoods": (math.nan,), "score": math.nan}), NONE),
    "infinity in a likelihood": (at("reference", 40, lambda _: {"log_likelihoods": (-math.inf,)}), NONE),
    "not a number in a logit of all sides": (leaving("", spoiled("logits", not_a_number)), UNTESTED),
    "a missing document": (lines_of("subject-1", lambda ls: ls[:5] + ls[6:]), REFUSED),
    "a document twice": (lines_of("subject-1", lambda ls: [*ls[:6], *ls[5:]]), REFUSED),
    "one document more than was asked": (lines_of("subject-1", lambda ls: [*ls[:-1], ls[-2], ls[-1]]), REFUSED),
    "a run that was killed": (again(change=lambda r, s: None if r == "subject-1" and s.step > 900 else s), NONE),
    "a short run whose end was moved": (
        lines_of("subject-1", lambda ls: [
            *ls[:1201], ls[-1].replace(f'"last_step":{LAST}'.encode(), b'"last_step":1200')]), NONE),
    "a header that asks for fewer documents": (
        lines_of("subject-1", lambda ls: [
            ls[0].replace(f'"steps":{LAST}'.encode(), f'"steps":{LAST - 1}'.encode()), *ls[1:-2], ls[-1]]), REFUSED),
    "a trace without its end": (lines_of("subject-1", lambda ls: ls[:-1]), NONE),
    "a small evaluation": (again(case=SMALL), PRELIMINARY),
    "other questions": (asked_otherwise("evaluation.json", other_text), UNTESTED),
    "other questions with lists that fit": (edited("inputs/evaluation.json", other_text), REFUSED),
    "another tokenizer": (
        asked_otherwise("tokenizer/tokenizer.json", lambda one: one["model"]["vocab"].update(a=98, b=97)), UNTESTED),
    "another tokenizer with lists that fit": (
        edited("inputs/tokenizer/tokenizer_config.json", lambda one: one.update(chat_template="")), REFUSED),
    "questions with fewer rows": (asked_otherwise("evaluation.json", fewer_rows), REFUSED),
    "questions with fewer texts": (asked_otherwise("evaluation.json", lambda one: one["texts"].pop()), REFUSED),
    "an entropy that makes noise look like sense": (
        asked_otherwise("evaluation.json", lambda one: one.update(unigram_nats=99.0)), UNTESTED),
    "an edited logit": (tensor("subject-1", "logits.0", off), REFUSED),
    "an edited logit of the oracle": (tensor("oracle-1", "greedy_logits.0", off), REFUSED),
    "a logit that is off in both of the subject's runs": (leaving("subject", spoiled("logits")), UNTESTED),
    "a cache that computes something else": (leaving("subject", spoiled("cached")), UNTESTED),
    "a batch that changes a prompt": (leaving("subject", spoiled("batch")), UNTESTED),
    "a logit that does not repeat": (leaving("subject-2", spoiled("logits")), UNTESTED),
    "a drawn token that does not repeat": (leaving("subject-2", spoiled("sampled", other_token)), UNTESTED),
    "other drawn tokens": (leaving("subject", spoiled("sampled", other_token)), UNTESTED),
    "another chat template": (leaving("subject", spoiled("template", other_token)), UNTESTED),
    "a stop token that does not stop": (leaving("subject", late_stop), UNTESTED),
    "a continuation with other words": (leaving("subject", other_words), UNTESTED),
    "continuations that are short on all sides": (
        leaving("", lambda left: (shorter("greedy", 10)(left), shorter("greedy_logits", 10)(left))), PRELIMINARY),
    "a row that no side left": (
        leaving("", lambda left: [left.pop(f"{kind}.1", None) for kind in ("logits", "cached")]), NONE),
    "rows that are short on all sides": (
        leaving("", lambda left: (shorter("logits", 1)(left), shorter("cached", 1)(left))), NONE),
    "tensors that were not kept": (left_out("tensors/subject-1.safetensors"), UNTESTED),
    "an oracle that was not kept": (left_out("tensors/oracle-1.safetensors"), UNTESTED),
    "weights that were not kept": (left_out("tensors/training.safetensors"), UNTESTED),
    "the sides' traces swapped": (swapped(run_in("subject-1"), run_in("reference-1")), REFUSED),
    "the reference's answers as the subject's": (
        copied("tensors/reference-1.safetensors", "tensors/subject-1.safetensors"), REFUSED),
    "the reference's trace as the subject's": (copied(run_in("reference-1"), run_in("subject-1")), REFUSED),
    "one run as both repeats": (copied(run_in("subject-1"), run_in("subject-2")), REFUSED),
    "a trace of training as an answer": (copied(run_in("training"), run_in("subject-1")), REFUSED),
    "the subject's logits as the oracle's": (exact_as("subject", 0, 1), PRELIMINARY),
    "the reference's logits as the oracle's": (exact_as("reference", 0, 1), PRELIMINARY),
    "the subject's logits as the oracle's in one row": (exact_as("subject", 1), PRELIMINARY),
    "the subject as its own reference": (again(header=as_runner("reference", SUBJECT)), PRELIMINARY),
    "the subject as its own oracle": (again(header=as_runner("oracle", SUBJECT)), PRELIMINARY),
    "a reference from elsewhere": (again(header=as_runner("reference", "elsewhere:Torch")), PRELIMINARY),
    "a trace of another case": (header_of("subject-1", lambda h: {"case": "0" * 64}), UNTESTED),
    "other weights": (header_of("subject-1", lambda h: {"weights": "0" * 64}), UNTESTED),
    "other questions to one side": (header_of("reference-1", lambda h: {"batches": "0" * 64}), UNTESTED),
    "a parameter that the subject lacks": (header_of("subject-1", lambda h: {"initial": without_last(h)}), UNTESTED),
    "a parameter that all sides lack": (
        again(header=lambda h: dataclasses.replace(h, initial=without_last(h))), UNTESTED),
    "weights that were not trained": (
        again(parameters=untrained, header=of_other_weights), UNTESTED),
    "another configuration": (
        header_of("subject-1", lambda h: {"alignment": {**h.alignment, "model.rope_theta": 1e4}}), UNTESTED),
    "a model that says noise": (lines("", noise), UNTESTED),
    "a looser standard under its name": (again(standards=with_limit(1e9)), NONE),
    "only a standard of one's own": (again(standards=(load_standard("strict-inference-fp32"),)), NONE),
    "the official standard of training": (
        again(standards=(load_standard("official"), load_standard("strict-inference-fp32"))), NONE),
    "an edited finding": (edited("findings.json", lambda fs: fs[0].update(message="fine")), REFUSED),
    "a CPU shown as an NPU": (statement(on_an_npu), REFUSED),
    "a second run of a smaller evaluation": (second_made(case=SMALL), VALIDATED),
    "a second run with one other token": (second_made(answers=answered("subject", late_stop)), VALIDATED),
    "a second run that is off in the last place": (second_made(change=nudged), VALIDATED),
    "a second run of training": (as_training, VALIDATED),
    "a second run from a dirty tree": (second_made(source={"dirty": True}), VALIDATED),
    "a second run of another implementation": (
        second_made(header=as_runner("subject", "elsewhere:Subject")), VALIDATED),
}  # fmt: skip


def test_none_of_sixty_ways_and_more_is_accepted() -> None:
    assert len(FOOLINGS) >= 60
    assert Level.RELEASED not in {expected for _, expected in FOOLINGS.values()}


@pytest.mark.parametrize("name", FOOLINGS)
def test_it_is_not_fooled_by(scene: Scene, name: str) -> None:
    spoil, expected = FOOLINGS[name]
    assert scene.outcome(spoil) is expected
