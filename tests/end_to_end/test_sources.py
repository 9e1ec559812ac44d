"""Tokenizers that need transformers: Qwen's, and a tokenizer directory read offline."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from harness.base.errors import InputError
from harness.cases.case import load_case
from harness.certify.case_options import with_sources
from harness.corpus.batches import draw_batches

TEXT = " = A title = \n\n Some words of an article , some often . \n\n = Another = \n\n Other words . \n\n" * 200


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    trained.train_from_iterator(
        TEXT.splitlines(), trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>", "<eod>"])
    )
    directory = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=trained, unk_token="<unk>", eos_token="<eod>").save_pretrained(directory)
    return directory


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "wiki.tokens"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def read_by_qwens() -> npt.NDArray[np.int32]:
    """The tokens of a case with Qwen's tokenizer."""
    return draw_batches(load_case("qwen3-0.6b-fp32")).tokens


@pytest.mark.parametrize("shards", [2, 4, 8, 16])
def test_every_shard_of_qwens_vocabulary_owns_inputs_and_targets(
    read_by_qwens: npt.NDArray[np.int32], shards: int
) -> None:
    """Of the first steps already: with bytes, three of four shards would never own a token."""
    case, tokens = load_case("qwen3-0.6b-fp32"), read_by_qwens
    of_a_shard = case.model.vocab_size // shards
    for seen in (tokens[..., :-1], tokens[..., 1:]):
        assert np.bincount(seen.reshape(-1) // of_a_shard, minlength=shards).min() > 0


def test_articles_end_with_the_tokenizers_end_of_text(text: Path, tokenizer: Path) -> None:
    batches = draw_batches(with_sources(load_case("qwen3-tiny-fp32"), text, None, tokenizer))
    read = PreTrainedTokenizerFast.from_pretrained(tokenizer)
    articles = [
        a for a in TEXT.replace(" = Another", "\0 = Another").replace(" = A title", "\0 = A title").split("\0") if a
    ]
    expected = [token for a in articles for token in (*read(a)["input_ids"], read.eos_token_id)]
    assert batches.tokens[0, 0].tolist() == expected[: batches.tokens.shape[-1]]


def test_the_vocabulary_grows_to_the_tokenizers(tokenizer: Path) -> None:
    small = load_case("qwen3-tiny-fp32")
    model = {**small.model.to_hf(), "vocab_size": 257}
    grown = with_sources(small.with_changes(model=model), None, None, tokenizer)
    size = len(PreTrainedTokenizerFast.from_pretrained(tokenizer))
    assert grown.model.vocab_size == max(257, -(-size // 64) * 64)


def test_a_tokenizer_that_was_changed_is_refused(text: Path, tokenizer: Path) -> None:
    case = with_sources(load_case("qwen3-tiny-fp32"), text, None, tokenizer)
    data = case.data.model_dump()
    data["tokenizer"]["sha256"] = "0" * 64
    with pytest.raises(InputError, match="it is another file"):
        draw_batches(case.with_changes(data=data))


@pytest.mark.parametrize("content", ["", "{}", "not json"])
def test_a_directory_without_a_tokenizer_is_a_message(text: Path, tmp_path: Path, content: str) -> None:
    directory = tmp_path / "no-tokenizer"
    directory.mkdir()
    (directory / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match="holds no Hugging Face tokenizer"):
        with_sources(load_case("qwen3-tiny-fp32"), text, None, directory)


def test_a_cut_vocabulary_keeps_the_first_tokens_of_the_corpus_under_new_numbers(text: Path, tokenizer: Path) -> None:
    case = with_sources(load_case("qwen3-tiny-fp32"), text, None, tokenizer)
    whole = draw_batches(case).tokens.reshape(-1)
    kept = list(dict.fromkeys(whole.tolist()))
    kept = kept[: kept.index(PreTrainedTokenizerFast.from_pretrained(tokenizer).eos_token_id) + 1]
    cut_case = case.with_changes(
        data={**case.data.model_dump(), "cut_vocabulary": True}, model={**case.model.to_hf(), "vocab_size": len(kept)}
    )
    found = draw_batches(cut_case)
    seen = found.tokens.reshape(-1)
    assert set(seen) == set(range(len(kept)))
    _, first = np.unique(seen, return_index=True)
    assert (np.diff(first) > 0).all(), "numbered as they first occur"
    assert found.kept == tuple(kept)
    assert [kept[new] for new in seen[:40]] == [token for token in whole.tolist() if token in kept][:40]


def test_a_vocabulary_of_more_tokens_than_occur_is_refused_with_the_most_that_is_possible(
    text: Path, tokenizer: Path
) -> None:
    case = with_sources(load_case("qwen3-tiny-fp32"), text, None, tokenizer)
    with pytest.raises(InputError, match="different tokens, and the vocabulary is cut to 500"):
        draw_batches(
            case.with_changes(
                data={**case.data.model_dump(), "cut_vocabulary": True}, model={**case.model.to_hf(), "vocab_size": 500}
            )
        )
