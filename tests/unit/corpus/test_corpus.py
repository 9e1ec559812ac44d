"""The corpus: documents, tokens, rows and masks, checked by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.digest import digest_file, digest_tensors
from harness.base.errors import InputError
from harness.cases.case import Case, load_case, shipped_cases
from harness.cases.data import Corpus, Tokenizer
from harness.corpus.batches import draw_batches
from harness.corpus.documents import read_documents, text_documents
from harness.corpus.draw import draw_weights
from harness.corpus.tokenizers import ByteTokenizer, load_tokenizer
from qwen3_model.configuration_qwen3 import parameter_shapes
from qwen3_model.sizes import PUBLISHED
from tests.support.examples import small_case
from tests.support.megatron import IDS, STORED, write_data_set

EOD = 256
ARTICLES = " = Snow = \n \n It snows . \n\n = = Ice = = \n \n Ice . \n \n = Rain = \n \n It rains . \n"


def text(directory: Path, content: str) -> Path:
    path = directory / "text"
    path.write_bytes(content.encode())
    return path


def case_of(path: Path, kind: str = "text", **data: Any) -> Case:
    case = small_case()
    changes = {"seq_length": 4, "global_batch_size": 2, "corpus": {"kind": kind, "path": str(path)}, **data}
    return case.with_changes(
        data={**case.data.model_dump(), **changes},
        lr_schedule={**case.lr_schedule.model_dump(), "warmup_steps": 0},
        training={**case.training.model_dump(), "steps": 2, "lr_zero_steps": 1},
    )


def test_each_article_of_wikitext_is_a_document(tmp_path: Path) -> None:
    documents = text_documents(text(tmp_path, ARTICLES))
    assert [one[:9] for one in documents.texts] == [" = Snow =", " = Rain ="]
    assert "".join(documents.texts) == ARTICLES
    assert documents.sha256 == digest_file(tmp_path / "text")


@pytest.mark.parametrize("content", ["plain words", "# = not a title = \n\nwords", "= Snow =\n", " = = Section = = \n"])
def test_any_other_text_is_one_document(tmp_path: Path, content: str) -> None:
    assert text_documents(text(tmp_path, content)).texts == (content,)


@pytest.mark.parametrize(("content", "message"), [(b"", "is empty"), (b" \n\t", "is empty"), (b"ok\xff", "byte 2")])
def test_a_text_that_cannot_be_used_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(InputError, match=message):
        text_documents(tmp_path / "t")


def test_a_missing_text_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            text_documents(path)


def test_a_source_without_a_path_is_an_error_that_names_the_option() -> None:
    with pytest.raises(InputError, match="--text FILE"):
        read_documents(Corpus(kind="text", sha256="a" * 64))
    with pytest.raises(InputError, match="--tokenizer DIR"):
        load_tokenizer(Tokenizer(kind="huggingface", sha256="a" * 64))


@given(st.text())
def test_bytes_read_back_as_their_text(content: str) -> None:
    ids = ByteTokenizer().encode([content])[0]
    assert bytes(ids.astype(np.uint8)).decode() == content
    assert ids.dtype == np.int32 and not (ids >= EOD).any()


def test_documents_are_packed_in_order_with_an_end_after_each(tmp_path: Path) -> None:
    batches = draw_batches(case_of(text(tmp_path, " = A = \n \nx\n \n = B = \n \ny\n")))
    stream = [*b" = A = \n \nx\n \n", EOD, *b" = B = \n \ny\n", EOD]
    assert batches.tokens.shape == (2, 2, 5) and batches.loss_mask.shape == (2, 2, 4)
    assert batches.tokens.reshape(4, 5).tolist() == [stream[start : start + 5] for start in (0, 4, 8, 12)]
    assert batches.loss_mask.all() and (batches.tokens.dtype, batches.loss_mask.dtype) == (np.int32, np.uint8)
    assert (batches.epochs, batches.corpus_tokens, batches.tokenizer_sha256) == (1, 26, None)


def test_a_small_corpus_is_repeated_and_its_epochs_are_counted(tmp_path: Path) -> None:
    batches = draw_batches(case_of(text(tmp_path, "abcdefgh")))
    rows = batches.tokens.reshape(4, 5).tolist()
    assert rows == [[*b"abcde"], [*b"efgh", EOD], [*b"abcde"], [*b"efgh", EOD]]
    assert batches.epochs == 2


def test_eod_mask_hides_only_the_targets_after_the_end_of_a_document(tmp_path: Path) -> None:
    batches = draw_batches(case_of(text(tmp_path, " \n = A = \n \n = B = \n \n"), eod_mask_loss=True))
    assert np.array_equal(batches.loss_mask == 0, batches.tokens[..., :-1] == EOD)
    assert (batches.loss_mask == 0).any()


@pytest.mark.parametrize("eod_mask_loss", [False, True])
def test_paragraphs_are_padded_rows_of_their_own(tmp_path: Path, eod_mask_loss: bool) -> None:
    path = text(tmp_path, "abc\n\nabcdefgh\n \nxy\n\n\n\nz1\n")
    batches = draw_batches(case_of(path, packing="paragraph", eod_mask_loss=eod_mask_loss))
    assert batches.tokens.reshape(4, 5).tolist() == [
        [*b"abc", EOD, EOD], [*b"abcde"], [*b"xy", EOD, EOD, EOD], [*b"z1", EOD, EOD, EOD],
    ]  # fmt: skip
    assert batches.loss_mask.reshape(4, 4).tolist() == [[1, 1, 1, 0], [1] * 4, [1, 1, 0, 0], [1, 1, 0, 0]]


def test_a_step_without_a_target_is_an_error(tmp_path: Path) -> None:
    prefix = write_data_set(tmp_path, data=np.zeros(13, "<i4").tobytes())
    with pytest.raises(InputError, match="no target token in the loss"):
        draw_batches(case_of(prefix, "megatron", eod=0, eod_mask_loss=True))


def test_too_little_text_for_a_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has 4 tokens; one row of data\.seq_length 4 needs 5"):
        draw_batches(case_of(text(tmp_path, "abc")))


def test_the_same_case_draws_the_same_batches_and_another_text_others(tmp_path: Path) -> None:
    first, again = (draw_batches(case_of(text(tmp_path, "abcdefgh" * 9))) for _ in range(2))
    other = draw_batches(case_of(text(tmp_path, "abcdefgi" * 9)))
    assert np.array_equal(first.tokens, again.tokens) and not np.array_equal(first.tokens, other.tokens)
    assert first.corpus_sha256 == again.corpus_sha256 != other.corpus_sha256


def test_megatron_rows_follow_the_stream_of_tokens(tmp_path: Path) -> None:
    case = case_of(write_data_set(tmp_path), "megatron")
    case = case.with_changes(model={**case.model.to_hf(), "vocab_size": 320})
    batches = draw_batches(case)
    assert batches.tokens.reshape(4, 5).tolist() == [IDS[start : start + 5] for start in (0, 4, 8, 0)]
    assert (batches.corpus_tokens, batches.epochs) == (len(IDS), 2)


@pytest.mark.parametrize(
    ("code", "token", "message"),
    [(4, 320, "token id 320"), (4, -1, "token id -1"), (5, 2**32 + 1, "token id 4294967297")],
)
def test_an_id_outside_the_vocabulary_is_an_error(tmp_path: Path, code: int, token: int, message: str) -> None:
    tokens = np.array([*IDS[:6], token, *IDS[7:]], STORED[code]).tobytes()
    with pytest.raises(InputError, match=message):
        draw_batches(case_of(write_data_set(tmp_path, code, data=tokens), "megatron"))


def test_paragraphs_need_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="paragraphs"):
        draw_batches(case_of(write_data_set(tmp_path), "megatron", packing="paragraph"))


def test_a_position_after_the_end_of_a_document_counts_unless_it_is_masked(tmp_path: Path) -> None:
    case = case_of(write_data_set(tmp_path), "megatron", eod=0, eod_mask_loss=True)
    case = case.with_changes(model={**case.model.to_hf(), "vocab_size": 320})
    batches = draw_batches(case)
    assert np.array_equal(batches.loss_mask == 0, batches.tokens[..., :-1] == 0)


@pytest.mark.parametrize("name", [name for name in shipped_cases() if "b-" not in name])
def test_drawn_weights_have_the_stated_names_and_shapes(name: str) -> None:
    case = load_case(name)
    weights = draw_weights(case)
    assert {key: tensor.shape for key, tensor in weights.items()} == dict(parameter_shapes(case.model))
    assert all(tensor.dtype == np.float32 and np.isfinite(tensor).all() for tensor in weights.values())
    assert ("lm_head.weight" in weights) is not case.model.tie_word_embeddings


@pytest.mark.parametrize(
    ("size", "parameters"), [("0.6B", 596_049_920), ("8B", 8_190_735_360), ("32B", 32_762_123_264)]
)
def test_published_sizes_have_the_published_number_of_parameters(size: str, parameters: int) -> None:
    shapes = dict(parameter_shapes(PUBLISHED[size]))
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters


CHANGES: list[Callable[[Case], Case]] = [
    lambda case: case.with_changes(initialization={"seed": 43}),
    lambda case: case.with_changes(initialization={"norm_std": 0.1}),
    lambda case: case.with_changes(model={**case.model.to_hf(), "initializer_range": 0.03}),
]


@pytest.mark.parametrize("change", CHANGES)
def test_weights_depend_on_the_case_only(change: Callable[[Case], Case]) -> None:
    case = small_case()
    assert digest_tensors(draw_weights(case)) == digest_tensors(draw_weights(case))
    assert digest_tensors(draw_weights(change(case))) != digest_tensors(draw_weights(case))


def test_each_tensor_has_its_own_random_stream() -> None:
    case = small_case()
    fewer = case.with_changes(model={**case.model.to_hf(), "num_hidden_layers": 1})
    one, other = draw_weights(case), draw_weights(fewer)
    assert all(np.array_equal(one[name], other[name]) for name in other)
    assert not np.array_equal(one["model.layers.0.mlp.up_proj.weight"], one["model.layers.1.mlp.up_proj.weight"])


def test_drawn_weights_are_the_recorded_ones() -> None:
    """Another digest means that NumPy or the rule changed, and every recorded trace with it."""
    weights = draw_weights(small_case())
    assert weights["model.norm.weight"][:3].tolist() == pytest.approx(RECORDED, abs=0)
    assert weights["model.embed_tokens.weight"].std() == pytest.approx(0.02, rel=0.02)


RECORDED = [1.033771276473999, 1.0111119747161865, 0.9588188529014587]
