"""The case: what fixes a run is in its digest, what does not is not, and all errors come at once."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.errors import InputError
from harness.cases.case import DEFAULT_CASE, Case, load_case, parse_case, shipped_cases
from tests.support.examples import small_case

SHIPPED = tuple(shipped_cases())


def changed(path: str, value: Any, case: Case | None = None) -> Case:
    """The case with one field of its record changed, by its dotted path."""
    record = json.loads(json.dumps((case or small_case()).record()))
    *sections, key = path.split(".")
    section = record
    for name in sections:
        section = section[name]
    section[key] = value
    return parse_case(record, "changed")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_case_is_named_like_its_file_and_reads_back(name: str) -> None:
    case = load_case(name)
    assert case.name == name
    assert parse_case(yaml.safe_load(yaml.safe_dump(case.record())), "x").digest() == case.digest()
    assert parse_case(json.loads(json.dumps(case.record())), "x") == case


def test_shipped_cases_have_digests_of_their_own_and_a_default() -> None:
    assert len({load_case(name).digest() for name in SHIPPED}) == len(SHIPPED)
    assert DEFAULT_CASE in SHIPPED


@pytest.mark.parametrize("name", [name for name in SHIPPED if load_case(name).inference is None])
def test_shipped_strict_cases_keep_the_learning_rate_low(name: str) -> None:
    """For training only: weights for inference must be learned, and none of their curves is compared."""
    assert load_case(name).lr_schedule.learning_rate <= 1e-4


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.hidden_size", 128), ("model.rope_theta", 1e4), ("model.rms_norm_eps", 1e-5),
        ("model.tie_word_embeddings", True), ("precision.compute_dtype", "bfloat16"), ("precision.fused", False),
        ("initialization.seed", 43),
        ("initialization.norm_std", 0.0), ("data.seq_length", 17), ("data.global_batch_size", 4),
        ("data.packing", "paragraph"), ("data.eod_mask_loss", True), ("data.corpus.sha256", "a" * 64),
        ("data.reset_attention_mask", True), ("data.reset_position_ids", True),
        ("data.tokenizer.sha256", "a" * 64), ("optimizer.betas", [0.9, 0.999]), ("optimizer.eps", 1e-7),
        ("optimizer.weight_decay", 0.0), ("lr_schedule.type", "constant"), ("lr_schedule.learning_rate", 2e-5),
        ("lr_schedule.warmup_steps", 3), ("lr_schedule.lr_end", 0.0), ("training.steps", 9),
        ("training.clip_grad", None), ("training.gradient_accumulation_steps", 2), ("training.recompute", True),
        ("training.graph_mode", False), ("training.lr_zero_steps", 4),
    ],
)  # fmt: skip
def test_what_fixes_a_run_is_in_the_digest(path: str, value: Any) -> None:
    assert changed(path, value).digest() != small_case().digest()


@pytest.mark.parametrize(
    ("path", "value"),
    [("title", "other"), ("name", "other"),
     ("standards", ["official"]), ("training.checkpoint_every", 7), ("training.step_timeout_s", 9),
     ("training.start_timeout_s", 9), ("training.floor_repeats", 3), ("data.corpus.path", "/elsewhere")],
)  # fmt: skip
def test_what_does_not_change_a_run_is_not_in_the_digest(path: str, value: Any) -> None:
    assert changed(path, value).digest() == small_case().digest()


def test_fused_operators_are_recorded_only_where_a_case_declines_them() -> None:
    """So a case that was recorded before the choice existed keeps its digest."""
    assert "fused" not in small_case().record()["precision"]
    assert changed("precision.fused", True).digest() == small_case().digest()
    assert changed("precision.fused", False).record()["precision"]["fused"] is False


def test_paths_of_this_machine_are_not_in_the_record() -> None:
    case = changed("data.corpus", {"kind": "text", "path": "/home/me/text"})
    assert "/home/me" not in json.dumps(case.record())


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("lr_schedule.learning_rate", float("inf"), "lr_schedule.learning_rate"),
        ("lr_schedule.learning_rate", float("nan"), "lr_schedule.learning_rate"),
        ("lr_schedule.learning_rate", 0, "lr_schedule.learning_rate"),
        ("optimizer.weight_decay", float("inf"), "optimizer.weight_decay"),
        ("training.step_timeout_s", float("inf"), "training.step_timeout_s"),
        ("optimizer.betas", [0.9, 1.0], "optimizer.betas.1"),
        ("optimizer.betas", [0.9], "optimizer.betas"),
        ("training.steps", 1, "training.steps"),
        ("training.steps", 2.5, "training.steps"),
        ("training.clip_grad", 0, "training.clip_grad"),
        ("initialization.seed", -1, "initialization.seed"),
        ("initialization.seed", 2**32, "initialization.seed"),
        ("data.corpus", {"kind": "text"}, "needs a path"),
        ("data.corpus", {"kind": "web"}, "data.corpus.kind"),
        ("data.tokenizer", {"kind": "huggingface"}, "needs a path"),
        ("standards", [], "standards"),
        ("name", "../out", "name"),
        ("model", {"size": "huge"}, "unknown size 'huge'"),
        ("model", {"size": ["tiny"]}, "unknown size"),
        ("model", "tiny", "expected"),
        ("model.hidden_act", "gelu", "hidden_act"),
        ("model.use_sliding_window", True, "sliding_window"),
        ("precision.compute_dtype", "float16", "compute_dtype"),
        ("precision.compute_dtype", [], "compute_dtype"),
        ("precision.fused", "no", "fused: expected true or false"),
        ("precision", {"dtype": "float32"}, "unknown keys"),
        ("precision", {1: "float32"}, "unknown keys"),
        ("data.global_batch_size", 3, None),
        ("lr_schedule.warmup_steps", 8, "leaves none of the 8"),
        ("lr_schedule.lr_end", 1.0, "above"),
        ("training.lr_zero_steps", 9, "exceeds training.steps"),
        ("training.gradient_accumulation_steps", 3, "not a multiple"),
        ("data.seq_length", 4096, "exceeds model.max_position_embeddings"),
        ("model.vocab_size", 200, "below the 257 byte tokens"),
    ],
)
def test_an_unsound_field_is_refused_by_name(path: str, value: Any, message: str | None) -> None:
    if message is None:
        assert changed(path, value).data.global_batch_size == 3
        return
    with pytest.raises(InputError) as error:
        changed(path, value)
    assert message in str(error.value)


def test_a_change_is_checked_like_a_file() -> None:
    case = small_case()
    with pytest.raises(InputError, match=r"training\.steps"):
        case.with_changes(training={**case.training.model_dump(), "steps": 0})
    assert case.with_changes(title="x").digest() == case.digest()


def test_a_case_cannot_be_edited() -> None:
    with pytest.raises(ValueError, match="frozen"):
        small_case().title = "other"


def test_an_error_about_a_misspelt_key_names_the_nearest_at_every_depth() -> None:
    record = small_case().record()
    record["data"]["corpus"]["knd"] = "text"
    record["optimiser"] = {}
    with pytest.raises(InputError) as error:
        parse_case(record, "mine")
    assert "data.corpus.knd: unknown key; did you mean 'kind'?" in str(error.value)
    assert "optimiser: unknown key; did you mean 'optimizer'?" in str(error.value)


def test_an_unknown_case_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=DEFAULT_CASE):
        load_case("no-such-case")
    with pytest.raises(InputError):
        load_case(str(tmp_path))


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
def test_a_case_that_is_named_like_its_file_is_found_by_the_message(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"my-small{suffix}"
    file.write_text("name: my-small\n")
    with pytest.raises(InputError, match=re.escape(f"Did you mean the file {file}?")):
        load_case(str(tmp_path / "my-small"))


MEGATRON = {"kind": "megatron", "path": "A"}


def data_of(**changes: Any) -> dict[str, Any]:
    return {**small_case().data.model_dump(), **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": "megatron"}, "needs a corpus of kind 'megatron'"),
        ({"order": "megatron", "corpus": MEGATRON, "packing": "paragraph"}, "packing 'concat'"),
        ({"seed": 7}, "seed: no meaning for order 'sequential'"),
        ({"split": "9, 1, 0", "num_samples": 99}, "split, num_samples: no meaning"),
        ({"eod": 0}, "the tokenizer defines the id that ends a document"),
        ({"corpus": MEGATRON, "eod_mask_loss": True}, "eod_mask_loss needs eod"),
        ({"corpus": {"kind": "megatron", "data_path": ["1", "A"]}}, "a blend needs order"),
        ({"corpus": {"kind": "text", "data_path": ["1", "A"]}}, "a blend has kind 'megatron'"),
        ({"corpus": {**MEGATRON, "data_path": ["1", "A"]}}, "data_path replaces path and blend"),
        ({"corpus": {"kind": "megatron", "data_path": []}}, "data_path is a list"),
        ({"corpus": {"kind": "megatron", "data_path": "A"}}, "data_path is a list"),
        ({"corpus": {"kind": "megatron", "data_path": ["0", "A", "1", "B"]}}, "is above 0"),
        ({"corpus": {"kind": "megatron", "data_path": ["nan", "A", "1", "B"]}}, "is above 0"),
        ({"order": "megatron", "corpus": MEGATRON, "num_samples": 3}, "below the 16 rows"),
    ],
)
def test_an_order_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        small_case().with_changes(data=data_of(**changes))


@pytest.mark.parametrize(
    ("data_path", "parts"),
    [
        (["0.3", "A", "0.7", "B"], [(0.3, "A"), (0.7, "B")]),
        (["1", "A"], [(1.0, "A")]),
        (["A", "B"], [(None, "A"), (None, "B")]),
        (["A", "B", "C"], [(None, "A"), (None, "B"), (None, "C")]),
    ],
)
def test_a_data_path_is_read_as_mindformers_reads_it(data_path: list[str], parts: list[Any]) -> None:
    corpus = {"kind": "megatron", "data_path": data_path}
    case = small_case().with_changes(data=data_of(order="megatron", corpus=corpus))
    assert [(part.weight, part.path) for part in case.data.corpus.blend] == parts


def test_weights_of_a_blend_are_in_the_digest_and_its_paths_are_not() -> None:
    def blend(*data_path: str) -> Case:
        return small_case().with_changes(
            data=data_of(
                order="megatron", corpus={"kind": "megatron", "data_path": list(data_path), "sha256": "a" * 64}
            )
        )

    assert blend("1", "A", "2", "B").digest() == blend("1", "C", "2", "D").digest()
    assert blend("1", "A", "2", "B").digest() != blend("2", "A", "1", "B").digest()
    case = blend("1", "A", "2", "B")
    assert parse_case(case.record(), "the record").record() == case.record()
