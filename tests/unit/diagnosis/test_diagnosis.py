"""The diagnosis: correct sides raise no alarm, and the first of many wrong places is named."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import EvidenceError
from harness.diagnosis.common_cause import EVERY
from harness.diagnosis.diagnosis import Check, Diagnosis, diagnose, first_difference, for_a_clue, judge_sides, record
from harness.diagnosis.errors_by_place import ALLOWED_RATIO, Reading, TappedRun, allowance
from harness.runners.tapping import ALWAYS_WHOLE
from harness.runs.places import LOSS, TABLES, places
from harness.runs.taps import TapRecord
from harness.runs.trace import Side, Step
from tests.support.tapped import (
    CASE_OF_ALL,
    EXACT,
    WEIGHTS_OF_ALL,
    Change,
    batches,
    sketched_sides,
    tapped,
    three,
    write,
)

PLACES = [place for place in places(CASE_OF_ALL.model, 1, 8) if place.name != LOSS]
FEW = settings(max_examples=12)


def judged(sides: dict[Side, TappedRun]) -> Diagnosis:
    return judge_sides(CASE_OF_ALL, sides, WEIGHTS_OF_ALL, batches(), {})


def scaled(by: float, *names: str) -> Change:
    def change(tensors: dict[str, Any]) -> None:
        for name in names:
            tensors[name] = np.float32(by) * tensors[name]

    return change


def consumers(name: str) -> list[str]:
    return [place.name for place in PLACES if name in place.inputs]


def after(name: str) -> list[str]:
    """A place and every place that is computed from it."""
    found = {name}
    for place in PLACES:
        if found & set(place.inputs):
            found.add(place.name)
    return sorted(found)


@pytest.mark.parametrize("left", [dict, sketched_sides], ids=["tensors", "sketches"])
@FEW
@given(st.integers(0, 10**6))
def test_correct_sides_differ_nowhere(
    left: Callable[[dict[Side, TappedRun]], dict[Side, TappedRun]], seed: int
) -> None:
    found = judged(left(three(seed=seed)))
    assert found.named is None
    assert found.sentence == "nothing differs"
    assert {reading.state for reading in found.readings} == {"agrees"}
    assert {check.state for check in found.checks} == {"agrees"}


@FEW
@given(st.sampled_from(PLACES))
def test_a_fault_is_named_and_not_its_consequences(place: Any) -> None:
    wrong = after(place.name)
    everything = [f"forward.{name}" for name in wrong] + [n for n in EXACT if n.startswith(("backward", "gradient"))]
    named = judged(three(scaled(1.01, *everything))).named
    assert named is not None
    assert named.place == place.name
    assert named.finding == "every element is 1.01 times what it should be"


@FEW
@given(st.sampled_from([place for place in PLACES if place.gradient and place.name != "lm_head"]))
def test_a_gradient_that_arrives_wrong_names_the_module_that_passes_it(place: Any) -> None:
    before = [one.name for one in PLACES if one.gradient and place.name in after(one.name)]
    named = judged(three(scaled(1.01, *(f"backward.{name}" for name in before)))).named
    assert named is not None and named.reading is not None
    assert named.reading.name == place.name
    assert named.place == " or ".join(consumers(place.name))
    assert named.finding.startswith(f"the gradient that it passes to {place.name}: every element is 1.01 times")


def test_a_wrong_gradient_of_one_parameter_names_the_parameter() -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    named = judged(three(scaled(0, f"gradient.{name}"))).named
    assert named is not None
    assert named.sentence == f"{name}: gradient is zero everywhere; detached?"


def test_the_first_place_of_a_pass_is_named_and_values_come_before_gradients() -> None:
    wrong = ("gradient.lm_head.weight", "backward.model.norm", "forward.model.layers.1", "forward.model.layers.0.mlp")
    named = judged(three(scaled(1.1, *wrong))).named
    assert named is not None and named.place == "model.layers.0.mlp"


def test_a_module_that_is_never_called_is_named_for_the_place_after_it() -> None:
    name, next_ = "model.layers.1.self_attn.k_norm", "model.layers.1.self_attn.rotary_emb.k"

    def change(tensors: dict[str, Any]) -> None:
        del tensors[f"forward.{name}"], tensors[f"backward.{name}"]
        scaled(1.5, *(f"forward.{one}" for one in after(next_)))(tensors)

    named = judged(three(change)).named
    assert named is not None
    assert named.sentence == f"{name}: this module is never called in the step, and {next_} differs; missing?"


def test_not_a_number_is_named_where_it_begins() -> None:
    def change(tensors: dict[str, Any]) -> None:
        for name in after("model.layers.1.mlp.act"):
            tensors[f"forward.{name}"] = np.full_like(tensors[f"forward.{name}"], np.nan)

    found = judged(three(change))
    assert found.named is not None and found.named.place == "model.layers.1.mlp.act"
    assert "not finite" in found.sentence
    assert json.dumps(record(found), allow_nan=False)


def test_a_reference_that_is_exact_by_chance_causes_no_alarm() -> None:
    sides = three()
    exact = {"forward.model.layers.0.mlp": np.float32(EXACT["forward.model.layers.0.mlp"])}
    sides["reference"] = tapped("reference", {**sides["reference"].tensors, **exact})
    assert judged(sides).named is None


def test_the_allowance_is_at_least_the_precision_of_float32() -> None:
    assert allowance(0.0, []) == allowance(None, []) == allowance(float("nan"), []) == 2.0**-24
    assert allowance(1e-7, [3e-7]) == allowance(3e-7, [1e-7, float("nan")]) == 3e-7


@pytest.mark.parametrize(("times", "state"), [(ALLOWED_RATIO, "agrees"), (ALLOWED_RATIO * 1.0001, "differs")])
def test_the_factor_is_the_limit(times: float, state: str) -> None:
    reading = Reading(name="x", direction="forward", subject=times * 1e-6, reference=1e-6, allowance=1e-6)
    assert reading.state == state


def test_a_loss_is_judged_by_its_own_logits() -> None:
    """So a fault in the logits does not name the loss, and a small fault of the loss is found."""
    found = judged(three(scaled(1.00001, "forward.loss")))
    assert found.named is not None and found.named.place == "loss"
    follows = judged(three(scaled(1.1, "forward.lm_head"))).named
    assert follows is not None and follows.place == "lm_head"


def test_a_place_that_the_subject_did_not_record_is_counted_and_not_judged() -> None:
    sides = three()
    shown = {name: t for name, t in sides["subject"].tensors.items() if name != "forward.model.layers.0.self_attn.mix"}
    found = judged({**sides, "subject": tapped("subject", shown)})
    assert found.named is None
    assert next(check for check in found.checks if check.name == "values").detail.endswith("1 not recorded")


def test_without_taps_the_parameter_that_differs_most_is_named() -> None:
    def change(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if name.startswith(("forward", "backward"))]:
            del tensors[name]
        scaled(1.01, "gradient.lm_head.weight", "gradient.model.norm.weight")(tensors)
        scaled(1.1, "gradient.model.layers.0.mlp.up_proj.weight")(tensors)

    sides = three(change)
    sides["subject"] = tapped("subject", sides["subject"].tensors, TapRecord(missing="Foreign has no method taps"))
    found = judged(sides)
    assert found.named is not None and found.named.place == "model.layers.0.mlp.up_proj.weight"
    assert "3 of 25 parameters differ" in found.sentence
    assert "the first wrong place is unknown" in found.sentence
    assert [check.state for check in found.checks[:3]] == ["not recorded", "not recorded", "differs"]


GRADIENTS = [name for name in EXACT if name.startswith("gradient.")]
BACKWARD = [name for name in EXACT if name.startswith("backward.") and name != "backward.loss"]


def untapped(change: Change) -> dict[Side, TappedRun]:
    """Sides whose subject recorded nothing inside the step."""

    def changed(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if name.startswith(("forward", "backward"))]:
            del tensors[name]
        change(tensors)

    sides = three(changed)
    return {**sides, "subject": tapped("subject", sides["subject"].tensors, TapRecord(missing="no method taps"))}


@pytest.mark.parametrize("left", [dict, sketched_sides], ids=["tensors", "sketches"])
@pytest.mark.parametrize("factor", [2.0, 1.001, -1.0])
def test_a_factor_of_every_gradient_is_the_loss_s_if_it_is_there_from_the_head_on(left: Any, factor: float) -> None:
    named = judged(left(three(scaled(factor, *BACKWARD, *GRADIENTS)))).named
    assert named is not None and named.place == "loss"
    assert named.finding == (
        f"every gradient of 25 is {factor:.6g} times what it should be; from lm_head on: the scale of the loss, or its "
        "derivative"
    )


@pytest.mark.parametrize("left", [dict, sketched_sides], ids=["tensors", "sketches"])
def test_a_factor_after_the_backward_pass_is_said_to_be_there(left: Any) -> None:
    named = judged(left(three(scaled(0.5, *GRADIENTS)))).named
    assert named is not None and named.place == EVERY
    assert named.finding.startswith(
        "every gradient of 25 is 0.5 times what it should be; those inside the step are right"
    )


def test_a_factor_is_named_without_taps_too() -> None:
    named = judged(untapped(scaled(2, *GRADIENTS))).named
    assert named is not None and named.place == EVERY
    assert named.finding.startswith("every gradient of 25 is 2 times what it should be; the loss, its scale, or")


def test_gradients_with_factors_of_their_own_have_no_common_one() -> None:
    def change(tensors: dict[str, Any]) -> None:
        for number, name in enumerate(GRADIENTS):
            scaled(1 + 0.01 * (number + 1), name)(tensors)

    for sides in (three(change), untapped(change)):
        named = judged(sides).named
        assert named is not None and named.place == EVERY
        assert named.finding.startswith("every gradient of 25 differs, without a common factor; ")


def test_all_gradients_but_one_have_no_common_cause() -> None:
    named = judged(three(scaled(2, *GRADIENTS[1:]))).named
    assert named is not None and named.place != EVERY


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("model.layers.1.post_attention_layernorm", "model.layers.1.mlp.gate_proj or model.layers.1.mlp.up_proj"),
        ("model.layers.1.self_attn.softmax", "model.layers.1.self_attn.softmax or model.layers.1.self_attn.mix"),
        ("model.layers.0", "model.layers.0 or model.layers.1.input_layernorm or model.layers.1.residual"),
    ],
)
def test_without_taps_the_place_before_which_all_gradients_are_wrong_is_named(place: str, named: str) -> None:
    def change(tensors: dict[str, Any]) -> None:
        before = {place}
        for one in reversed(PLACES):
            if one.name in before:
                before |= set(one.inputs)
        wrong = [one.parameter for one in PLACES if one.name in before and one.parameter]
        for number, name in enumerate(wrong):
            scaled(1.5 + 0.1 * number, f"gradient.{name}")(tensors)

    found = judged(untapped(change)).named
    assert found is not None and found.place == named


def test_a_wrong_value_is_named_and_not_its_gradients() -> None:
    named = judged(three(scaled(1.1, "forward.model.norm", "forward.lm_head", *BACKWARD, *GRADIENTS))).named
    assert named is not None and named.place == "model.norm"


def test_a_difference_in_what_was_built_is_reported_with_a_place_and_alone() -> None:
    def building(sides: dict[Side, TappedRun]) -> Diagnosis:
        trace = sides["subject"].run.trace
        assert trace is not None
        alignment = {**trace.header.alignment, "clip_grad": None}
        return judged({**sides, "subject": tapped("subject", sides["subject"].tensors, alignment=alignment)})

    assert building(three()).sentence == "what was built: built with clip_grad None, the case has 2.0"
    both = building(three(scaled(2, "forward.model.norm"))).sentence
    assert both == (
        "model.norm: every element is 2 times what it should be; built with clip_grad None, the case has 2.0"
    )


def test_weights_that_were_not_loaded_as_given_are_reported() -> None:
    sides = three()
    initial = {**dict.fromkeys(list(WEIGHTS_OF_ALL)[:1], "other")}
    trace = sides["subject"].run.trace
    assert trace is not None
    sides["subject"] = tapped("subject", sides["subject"].tensors, initial={**trace.header.initial, **initial})
    assert judged(sides).sentence == "what was built: model.embed_tokens.weight was not loaded as given"


def test_the_optimizer_alone_is_checked_where_the_step_agrees() -> None:
    name = "model.norm.weight"
    found = judged(three(lambda tensors: tensors.update({f"updated.{name}": tensors[f"gradient.{name}"]})))
    assert found.named is not None and found.named.place == "optimizer alone"
    assert "1 of 25 differ; first model.norm.weight" in found.named.finding


@pytest.mark.parametrize(
    ("number", "value", "sentence"),
    [
        ("learning_rate", 1e-5, "learning rate: wrong from step 2 on, 2e-05 instead of 1e-05"),
        ("tokens", 1, "number of targets: wrong from step 2 on, 8 instead of 7"),
        ("loss", 0.1, "loss: wrong from step 2 on, 2.6 instead of 2.5"),
    ],
)
def test_numbers_after_the_first_step_are_checked_step_by_step(number: str, value: float, sentence: str) -> None:
    sides = three()
    trace = sides["subject"].run.trace
    assert trace is not None
    wrong = [dataclasses.replace(s, **{number: getattr(s, number) + value * (s.step > 1)}) for s in trace.steps]
    curves: dict[Side, Any] = {"subject": tuple(wrong)}
    assert judge_sides(CASE_OF_ALL, sides, WEIGHTS_OF_ALL, batches(), curves).sentence == sentence


def test_a_step_that_the_subject_did_not_take_differs() -> None:
    sides = three()
    short: dict[Side, Any] = {"subject": sides["subject"].steps()[:4]}
    found = judge_sides(CASE_OF_ALL, sides, WEIGHTS_OF_ALL, batches(), short)
    assert found.sentence == "number of targets: wrong from step 5 on, missing instead of 7"


def test_three_finished_runs_are_judged_from_their_directory(tmp_path: Path) -> None:
    for name in ("clean", "wrong"):
        (tmp_path / name).mkdir()
    assert first_difference(write(tmp_path / "clean", three())) is None
    named = first_difference(write(tmp_path / "wrong", three(scaled(3, "forward.model.norm"))))
    assert named is not None and named.place == "model.norm"
    (tmp_path / "wrong" / "tensors" / "oracle-taps.safetensors").unlink()
    with pytest.raises(EvidenceError, match="oracle-taps"):
        diagnose(tmp_path / "wrong")


@FEW
@given(st.sampled_from([place for place in PLACES if f"forward.{place.name}" not in ALWAYS_WHOLE]))
def test_sketches_name_the_place_and_the_tensors_around_it_give_the_clue(place: Any) -> None:
    sides = three(scaled(1.01, *(f"forward.{name}" for name in after(place.name))))
    with TemporaryDirectory() as base:
        directory = write(Path(base, "sketched"), sketched_sides(sides))
        found = diagnose(directory)
        assert found.named is not None
        assert (found.named.place, found.named.clue) == (place.name, None)
        whole = for_a_clue(directory, found)
        assert f"forward.{place.name}" in whole and len(whole) < len(EXACT) / 2
        again = write(Path(base, "around"), sketched_sides(sides, whole))
        assert diagnose(again).sentence == judged(sides).sentence
        assert for_a_clue(again, diagnose(again)) == ()


def test_rotary_tables_are_left_whole_so_their_clue_needs_no_second_run(tmp_path: Path) -> None:
    sides = sketched_sides(three(scaled(1.01, *(f"forward.{name}" for name in after(TABLES)))))
    found = diagnose(write(tmp_path / "one", sides))
    assert found.sentence == f"{TABLES}: every element is 1.01 times what it should be"
    assert for_a_clue(tmp_path / "one", found) == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: scaled(1.01, "forward.loss")(tensors),
        lambda tensors: scaled(-1, "forward.loss")(tensors),
        lambda tensors: scaled(0, "gradient.model.layers.1.mlp.up_proj.weight")(tensors),
        lambda tensors: tensors.pop("forward.model.layers.1.self_attn.k_norm"),
    ],
)
def test_a_fault_of_the_loss_of_a_gradient_or_of_a_missing_module_is_found_by_sketches(
    change: Change, tmp_path: Path
) -> None:
    sides = three(change)
    named, expected = judged(sketched_sides(sides)).named, judged(sides).named
    assert (named and named.place) == (expected and expected.place)


def test_after_the_last_step_of_a_limited_oracle_rate_and_targets_are_those_of_the_reference() -> None:
    sides = three()
    case = CASE_OF_ALL.with_changes(training={**CASE_OF_ALL.training.model_dump(), "oracle": "probe"})

    def checked(change: Callable[[Step], Step]) -> dict[str, Check]:
        steps = {side: list(run.steps()) for side, run in sides.items()}
        curves = {"oracle": steps["oracle"][:1], "subject": list(map(change, steps["subject"]))}
        found = judge_sides(case, sides, WEIGHTS_OF_ALL, batches(), curves)
        return {check.name: check for check in found.checks}

    assert {check.state for check in checked(lambda step: step).values()} == {"agrees"}
    rate = checked(lambda step: dataclasses.replace(step, learning_rate=1.0) if step.step == 4 else step)
    assert rate["learning rate"].detail.startswith("wrong from step 4 on, 1 instead of 3e-05")
