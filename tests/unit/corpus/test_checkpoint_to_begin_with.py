"""A training that begins with the weights of a checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness.base.digest import digest_tensors
from harness.base.errors import InputError
from harness.cases.case import Case, load_case, parse_case
from harness.certify.case_options import cut, named_by_digest, with_model
from harness.corpus.draw import draw_inputs, draw_weights
from harness.runs.inputs import read_inputs, read_weights
from qwen3_model.checkpoints import Checkpoint, write_hugging_face
from tests.support.examples import small_case

Tensors = dict[str, npt.NDArray[Any]]


@pytest.fixture(scope="module")
def weights() -> Tensors:
    """Other weights than any case draws."""
    return {name: tensor + np.float32(0.25) for name, tensor in draw_weights(small_case()).items()}


@pytest.fixture(scope="module")
def directory(weights: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    write_hugging_face(Checkpoint(config=small_case().model, step=0, parameters=weights, moments={}), directory)
    return directory


@pytest.fixture(scope="module")
def case(directory: Path) -> Case:
    return with_model(small_case(), directory)


def named(case: Case) -> Case:
    """The case, whose checkpoint has a digest."""
    assert case.checkpoint is not None
    return case.with_changes(**case.with_checkpoint(case.checkpoint.model_copy(update={"sha256": "a" * 64})))


def test_the_runs_begin_with_its_weights(case: Case, weights: Tensors, tmp_path: Path) -> None:
    inputs = draw_inputs(case, tmp_path)
    assert inputs.weights == digest_tensors(weights)
    read_inputs(tmp_path, inputs)
    assert digest_tensors(dict(read_weights(tmp_path / "weights.safetensors"))) == digest_tensors(weights)


def test_the_record_names_it_by_digest_and_by_no_path(case: Case, directory: Path) -> None:
    recorded = named(case).record()
    assert recorded["initialization"]["checkpoint"] == {"kind": "huggingface", "sha256": "a" * 64}
    assert str(directory) not in str(recorded)
    assert parse_case(recorded, "recorded").digest() != small_case().digest()


def test_without_one_a_case_is_recorded_as_before() -> None:
    assert set(load_case("qwen3-tiny-fp32").record()["initialization"]) == {"seed", "norm_std"}


def test_another_checkpoint_than_the_named_one_is_refused(case: Case) -> None:
    with pytest.raises(InputError, match="The checkpoint "):
        draw_weights(named(case))


def test_a_checkpoint_of_another_dtype_is_the_one_that_was_named(weights: Tensors, tmp_path: Path) -> None:
    halves = {name: tensor.astype(np.float16) for name, tensor in weights.items()}
    write_hugging_face(Checkpoint(config=small_case().model, step=0, parameters=halves, moments={}), tmp_path / "model")
    case = with_model(small_case(), tmp_path / "model")
    inputs = draw_inputs(case, tmp_path / "inputs")
    assert digest_tensors(draw_weights(named_by_digest(case, inputs))) == inputs.weights


def test_a_cut_takes_its_first_layers(case: Case, weights: Tensors) -> None:
    found = draw_weights(cut(case, 1, None))
    assert set(found) == {name for name in weights if not name.startswith("model.layers.1.")}
    assert all(np.array_equal(found[name], weights[name]) for name in found)


def test_a_case_with_fewer_layers_that_is_no_cut_does_not_take_it(case: Case) -> None:
    fewer = case.with_changes(model={**case.model.to_hf(), "num_hidden_layers": 1})
    with pytest.raises(InputError, match="is not a checkpoint of the case's model"):
        draw_weights(fewer)


def test_a_cut_vocabulary_keeps_the_rows_of_its_ids(tmp_path: Path) -> None:
    """Embedding and head have the row of each kept id at the place of its new number."""
    whole = load_case("qwen3-0.6b-fp32")
    config = {**whole.model.to_hf(), "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "tie_word_embeddings": False}
    small = whole.with_changes(model=config)
    weights = draw_weights(small)
    write_hugging_face(Checkpoint(config=small.model, step=0, parameters=weights, moments={}), tmp_path / "model")
    case = cut(with_model(small, tmp_path / "model"), None, 256)
    kept = np.random.RandomState(0).permutation(small.model.vocab_size)[:256].tolist()
    found = draw_weights(case, kept)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert np.array_equal(found[name], weights[name][kept])


def test_a_corpus_with_an_id_that_it_does_not_have_is_refused(case: Case) -> None:
    with pytest.raises(InputError, match=r"has the id 9,?999"):
        draw_weights(cut(case, 1, None), [3, 9999])
