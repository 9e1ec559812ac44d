"""Qwen's published vocabulary: its files and ids, against tiktoken, and how it is written."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, Qwen2TokenizerFast

from harness.base.digest import digest_file
from harness.base.errors import InputError
from harness.corpus.fast_bpe import QWEN_SPLIT
from harness.corpus.qwen import ADDED_TOKENS, SPECIAL_TOKENS, find_qwen_vocabulary, read_ranks, write_qwen_tokenizer
from harness.corpus.tokenizers import HuggingFaceTokenizer
from tests.support.tokenizers import SOURCES, is_known


@pytest.fixture(scope="module")
def published() -> tiktoken.Encoding:
    ranks = read_ranks(find_qwen_vocabulary())
    added = {token: len(ranks) + place for place, token in enumerate(SPECIAL_TOKENS + ADDED_TOKENS)}
    return tiktoken.Encoding("qwen", pat_str=QWEN_SPLIT, mergeable_ranks=ranks, special_tokens=added)


def test_the_files_are_those_that_qwen_publishes(qwen: Path) -> None:
    # Source: digests of the files of Qwen/Qwen3-0.6B, Qwen3-4B and Qwen3-8B, which share them.
    assert {name: digest_file(qwen / name) for name in ("tokenizer.json", "vocab.json", "merges.txt")} == {
        "tokenizer.json": "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4",
        "vocab.json": "ca10d7e9fb3ed18575dd1e277a2579c16d108e32f27439684afa0e10b1440910",
        "merges.txt": "8831e4f1a044471340f7c0a83d7bd71306a5b867e95fd870f74d0c5308a904d5",
    }


def test_qwens_special_and_added_tokens_have_their_ids(qwen: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(qwen, local_files_only=True)
    assert type(tokenizer) is Qwen2TokenizerFast
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.bos_token_id) == (151643, 151643, None)
    assert (tokenizer.unk_token, tokenizer.model_max_length, len(tokenizer)) == (None, 131072, 151669)
    special = [
        "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>",
        "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
        "<|image_pad|>", "<|video_pad|>",
    ]  # fmt: skip
    added = [
        "<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
        "<|repo_name|>", "<|file_sep|>", "<tool_response>", "</tool_response>", "<think>", "</think>",
    ]  # fmt: skip
    known = tokenizer.added_tokens_decoder
    assert [str(known[number]) for number in sorted(known)] == special + added
    assert sorted(known) == list(range(151643, 151669))
    assert [str(token) for number, token in sorted(known.items()) if token.special] == special
    assert sorted(tokenizer.all_special_tokens) == sorted(special)


def test_qwens_ids_of_real_text_are_those_of_tiktoken(
    loaded: HuggingFaceTokenizer, published: tiktoken.Encoding
) -> None:
    texts = [unicodedata.normalize("NFC", path.read_text("utf-8")) for path in SOURCES]
    for text, ids in zip(texts, loaded.encode(texts), strict=True):
        assert ids.tolist() == published.encode(text, allowed_special="all")
        assert loaded.decode(ids) == text


@given(st.text(st.characters(exclude_categories=["Cs", "Cn"]).filter(is_known)))
@settings(deadline=None)
def test_qwens_ids_of_any_text_are_those_of_tiktoken(
    loaded: HuggingFaceTokenizer, published: tiktoken.Encoding, text: str
) -> None:
    text = unicodedata.normalize("NFC", text)
    ids = loaded.encode([text])[0]
    assert ids.tolist() == published.encode(text, allowed_special="all")
    assert loaded.decode(ids) == text


def test_documents_are_shown_with_their_end(loaded: HuggingFaceTokenizer) -> None:
    ids = np.concatenate([loaded.encode(["one , two"])[0], [loaded.eod]])
    assert loaded.decode(ids) == "one , two<|endoftext|>"


def test_a_tokenizer_is_not_written_over_what_is_there(tmp_path: Path) -> None:
    kept = tmp_path / "directory" / "kept"
    kept.parent.mkdir()
    kept.write_text("kept")
    with pytest.raises(InputError, match="is not empty"):
        write_qwen_tokenizer(find_qwen_vocabulary(), kept.parent)
    with pytest.raises(InputError, match="Not a directory"):
        write_qwen_tokenizer(find_qwen_vocabulary(), kept)
    with pytest.raises(InputError, match="Not a directory"):
        write_qwen_tokenizer(find_qwen_vocabulary(), kept / "below")
    assert kept.read_text() == "kept"
    assert [path.name for path in tmp_path.rglob("*")] == ["directory", "kept"]


def test_a_tokenizer_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(self: Qwen2TokenizerFast, directory: Path) -> None:
        directory.mkdir()
        (directory / "vocab.json").write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Qwen2TokenizerFast, "save_pretrained", half)
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        write_qwen_tokenizer(find_qwen_vocabulary(), tmp_path / "qwen")
    assert list(tmp_path.iterdir()) == []
