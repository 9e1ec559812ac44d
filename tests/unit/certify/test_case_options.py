"""What a case becomes under options: what is named changes, and nothing else does."""

import dataclasses
from pathlib import Path

import pytest

from harness.base.errors import InputError
from harness.cases.case import load_case
from harness.certify import case_options
from harness.certify.case_options import (
    at_most,
    cut,
    in_proportion,
    in_steps,
    named_by_digest,
    profiled_steps,
    with_fields,
    with_layout,
    with_options,
    with_recorded_sources,
)
from harness.levels.scope import size_and_cut
from harness.runs.inputs import Inputs
from harness.standards import STANDARDS_DIR
from tests.support.examples import inference_case, small_case

INPUTS = Inputs(
    weights="a" * 64, batches="b" * 64, corpus="text", corpus_sha256="c" * 64, corpus_tokens=1, tokenizer_sha256=None,
    epochs=1, parameters=1, target_tokens=1,
)  # fmt: skip
NOTHING = dict.fromkeys(("text", "data", "tokenizer", "model"))


def test_no_option_leaves_the_case_as_it_is() -> None:
    for case in (small_case(), inference_case()):
        assert with_options(case, **NOTHING) == with_layout(case, None) == with_fields(case) == case


def test_a_changed_field_leaves_every_other_field_and_later_changes_take_precedence() -> None:
    case = small_case()
    changed = with_fields(
        case, {"training": {"steps": 9}, "model": {"num_hidden_layers": 3}}, {"training": {"steps": 10}}, name="other"
    )
    assert (changed.name, changed.training.steps, changed.model.num_hidden_layers) == ("other", 10, 3)
    back = with_fields(
        changed,
        {"training": {"steps": 8}, "model": {"num_hidden_layers": case.model.num_hidden_layers}},
        name=case.name,
    )
    assert back == case


@pytest.mark.parametrize(("text", "steps"), [("5", (5, 5)), ("5-7", (5, 7)), ("1-8", (1, 8)), (None, None)])
def test_profiled_steps_are_of_the_case(text: str | None, steps: tuple[int, int] | None) -> None:
    assert profiled_steps(text, small_case()) == steps


@pytest.mark.parametrize("text", ["0", "9", "7-5", "5-9", "five", "5-", "-5", ""])
def test_steps_that_a_case_does_not_have_are_not_profiled(text: str) -> None:
    with pytest.raises(InputError, match=r"steps 1 to 8"):
        profiled_steps(text, small_case())
    with pytest.raises(InputError, match="profiles steps of training"):
        profiled_steps("1", inference_case())


def test_a_layout_is_given_whole() -> None:
    case = with_layout(small_case(), {"data_parallel": 2})
    assert with_layout(case, {"model_parallel": 2}).parallel.data_parallel == 1
    assert with_layout(case, {}).parallel.world_size == 1


def test_a_field_that_no_section_has_is_refused() -> None:
    with pytest.raises(InputError, match="stepz"):
        with_fields(small_case(), {"training": {"stepz": 9}})


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"text": Path("a"), "data": Path("b")}, "--text and --data"),
        ({"data": Path("a"), "tokenizer": Path("b")}, "--tokenizer has nothing to do"),
        ({"model": Path("a")}, "a cannot be used"),
    ],
)
def test_options_that_contradict_each_other_or_the_case_are_refused(given: dict[str, Path], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        with_options(small_case(), **{**NOTHING, **given})


def test_a_named_corpus_changes_nothing_but_the_corpus(tmp_path: Path) -> None:
    case = small_case()
    for option, kind in (("text", "text"), ("data", "megatron")):
        changed = with_options(case, **{**NOTHING, option: tmp_path / "corpus"})
        assert (changed.data.corpus.kind, changed.data.corpus.path) == (kind, str(tmp_path / "corpus"))
        assert with_fields(changed, {"data": {"corpus": case.data.corpus.model_dump()}}) == case


def test_drawn_inputs_name_their_sources_by_digest() -> None:
    named = named_by_digest(small_case(), dataclasses.replace(INPUTS, tokenizer_sha256="d" * 64))
    assert (named.data.corpus.sha256, named.data.tokenizer.sha256) == ("c" * 64, "d" * 64)
    asked = named_by_digest(inference_case(weights={"kind": "huggingface", "path": "somewhere"}), INPUTS)
    assert asked.inference is not None and asked.inference.weights.model_dump()["sha256"] == "a" * 64
    assert named_by_digest(inference_case(), INPUTS).inference == inference_case().inference, (
        "trained weights have none"
    )


def test_a_case_takes_the_sources_of_its_recording_and_nothing_else(tmp_path: Path) -> None:
    case = small_case()
    recorded = named_by_digest(with_options(case, **{**NOTHING, "text": tmp_path / "other"}), INPUTS)
    taken = with_recorded_sources(case, with_fields(recorded, {"training": {"steps": 99}}))
    assert taken.data == recorded.data and taken.training == case.training


def test_two_standards_of_one_name_are_refused(tmp_path: Path) -> None:
    text = (STANDARDS_DIR / "official.yaml").read_text().replace("name: official", "name: mine", 1)
    copies = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for copy in copies:
        copy.write_text(text)
    with pytest.raises(InputError, match="Two of the standards have one name: mine"):
        case_options.judged_by(small_case(), list(map(str, copies)))


def test_a_cut_case_has_the_widths_of_its_model_and_a_name_of_its_own() -> None:
    case = load_case("qwen3-0.6b-fp32")
    two = cut(case, 2, 4096)
    assert two.name == "qwen3-0.6b-fp32-2l-4096v" and two.digest() != case.digest()
    assert (two.model.num_hidden_layers, two.model.vocab_size, two.data.cut_vocabulary) == (2, 4096, True)
    assert {**two.model.to_hf(), "num_hidden_layers": 28, "vocab_size": 151936} == case.model.to_hf()
    assert cut(case, None, None) is case


def test_a_level_states_what_of_the_model_it_holds_for() -> None:
    case = load_case("qwen3-0.6b-fp32")
    assert size_and_cut(case.model) == ("0.6B", "")
    assert size_and_cut(cut(case, 2, None).model) == ("0.6B", "2 of 28 layers")
    assert size_and_cut(cut(case, 2, 4096).model) == ("0.6B", "2 of 28 layers, vocabulary 4,096 of 151,936")
    wider = with_fields(case, {"model": {"hidden_size": 2048}})
    assert size_and_cut(wider.model) == ("of 28 layers of width 2048", "")


@pytest.mark.parametrize(
    ("layers", "vocabulary", "said"), [(28, None, "--layers 28 cuts nothing"), (None, 200_000, "--vocab")]
)
def test_a_cut_that_cuts_nothing_is_refused(layers: int | None, vocabulary: int | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        cut(load_case("qwen3-0.6b-fp32"), layers, vocabulary)


def test_a_vocabulary_of_bytes_is_not_cut() -> None:
    with pytest.raises(InputError, match="cut_vocabulary"):
        cut(load_case("qwen3-tiny-fp32"), None, 100)


def test_examined_steps_stay_at_the_same_part_of_a_shorter_run() -> None:
    case = small_case()
    training = {**case.training.model_dump(), "steps": 200, "examined_steps": (1, 2, 101, 200), "resume_after": 150}
    case = case.with_changes(training=training)
    assert in_proportion(case, 40) == {"training": {"examined_steps": (1, 2, 20, 40), "resume_after": 30}}
    assert in_proportion(small_case(), 40) == {"training": {"examined_steps": (), "resume_after": None}}
    assert with_fields(case, in_proportion(case, 4), {"training": {"steps": 4, "lr_zero_steps": 1}}).training.steps == 4


def test_another_number_of_steps_moves_the_steps_that_a_case_names_and_stands_in_its_name() -> None:
    case = with_fields(small_case(), {"training": {"steps": 20, "examined_steps": (1, 2, 10, 20), "resume_after": 15}})
    longer = with_options(case, **NOTHING, steps=40)
    assert (longer.name, longer.training.steps, longer.training.resume_after) == (f"{case.name}-40steps", 40, 30)
    assert longer.training.examined_steps == (2, 4, 20, 40)
    assert longer.training.lr_zero_steps == case.training.lr_zero_steps
    assert longer.digest != case.digest
    shorter = in_steps(case, 4)
    assert (shorter.training.steps, shorter.training.resume_after) == (4, 3)
    assert shorter.training.lr_zero_steps == min(4, case.training.lr_zero_steps)
    assert in_steps(case, 20) is at_most(case, 40) is case


def test_a_case_without_training_has_no_number_of_steps() -> None:
    with pytest.raises(InputError, match=r"--steps 40: .* takes no step of training"):
        in_steps(load_case("qwen3-0.6b-inference-fp32"), 40)


def test_a_case_of_at_most_so_many_steps_names_them_and_keeps_its_limits() -> None:
    case = load_case("qwen3-tiny-fp32")
    assert at_most(case, None) is case and at_most(case, case.training.steps) is case
    short = at_most(case, 200)
    assert (short.training.steps, short.training.resume_after) == (200, 120)
    assert short.training.examined_steps == (2, 100, 200)
    assert short.name == "qwen3-tiny-fp32-200steps" and short.standards == case.standards
    assert at_most(case, 20).training.lr_zero_steps == 20
