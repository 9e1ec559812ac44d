"""The byte tokenizer, and checks of Qwen's vocabulary that need no tokenizer library."""

import base64
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import InputError, MissingPrerequisite
from harness.corpus.qwen import find_qwen_vocabulary, merge, read_ranks, write_qwen_tokenizer
from harness.corpus.tokenizers import ByteTokenizer

VOCABULARY_SIZE = 151_643


def line(token: bytes, rank: int) -> bytes:
    return base64.b64encode(token) + f" {rank}\n".encode()


def tokens(number: int) -> list[bytes]:
    """`number` different tokens: the single bytes, then tokens of three bytes."""
    return [bytes([value]) for value in range(256)] + [value.to_bytes(3, "big") for value in range(number - 256)]


@given(st.text())
def test_bytes_decode_to_the_text(text: str) -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.decode(tokenizer.encode([text])[0]) == text


def test_decoding_shows_the_end_of_a_document_and_replaces_invalid_bytes() -> None:
    ids = np.array([256, 104, 256, 0xC3, 256, 256, 105], np.uint16)
    assert ByteTokenizer().decode(ids) == "<eod>h<eod>\ufffd<eod><eod>i"
    assert ByteTokenizer().decode(np.array([], np.int32)) == ""


def test_the_byte_tokenizer_has_no_special_tokens() -> None:
    plain, special = (ByteTokenizer().encode(["a", ""], add_special_tokens=flag) for flag in (False, True))
    assert [ids.tolist() for ids in plain] == [ids.tolist() for ids in special] == [[97], []]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [b"\x00\xff\xfe\n", *lines[1:]], "line 1: expected a token in base64"),
        (lambda lines: [*lines[:9], b"IQ==\n", *lines[10:]], "line 10: expected a token in base64"),
        (lambda lines: [*lines[:9], b"I 9\n", *lines[10:]], "line 10: expected a token in base64"),
        (lambda lines: [*lines[:9], line(b"a", 9), *lines[10:]], "line 98: the token b'a'"),
        (lambda lines: [*lines[:9], line(b"", 9), *lines[10:]], "line 10: the token b'' with rank 9 is empty"),
        (lambda lines: [*lines[:9], line(b"new", 10), *lines[10:]], "its rank is not 9"),
        (lambda lines: lines[:-1], "holds 151,642 tokens"),
        (lambda lines: [*lines, line(b"more", VOCABULARY_SIZE)], "holds 151,644 tokens"),
        (lambda lines: [*lines[:9], line(b"more", 9), *lines[10:]], "lacks 1 of the 256 bytes"),
        (lambda lines: [], "holds 0 tokens"),
    ],
)
def test_a_vocabulary_that_is_not_qwens_is_an_error(
    tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], message: str
) -> None:
    vocabulary = tmp_path / "qwen.tiktoken"
    lines = [line(token, rank) for rank, token in enumerate(tokens(VOCABULARY_SIZE))]
    vocabulary.write_bytes(b"".join(change(lines)))
    with pytest.raises(InputError) as error:
        read_ranks(vocabulary)
    assert str(vocabulary) in str(error.value)
    assert message in str(error.value)


def test_a_vocabulary_of_the_right_form_is_read_in_order(tmp_path: Path) -> None:
    vocabulary = tmp_path / "qwen.tiktoken"
    vocabulary.write_bytes(b"".join(line(token, rank) for rank, token in enumerate(tokens(VOCABULARY_SIZE))))
    assert list(read_ranks(vocabulary).items()) == [(token, rank) for rank, token in enumerate(tokens(VOCABULARY_SIZE))]


def test_a_vocabulary_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_ranks(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_ranks(tmp_path)


def test_a_merge_joins_the_last_two_pieces_of_merging_by_rank() -> None:
    ranks = {token: rank for rank, token in enumerate([b"a", b"b", b"c", b"bc", b"ab", b"abc", b"aa", b"aaa"])}
    assert merge(b"ab", ranks) == (b"a", b"b")
    assert merge(b"abc", ranks) == (b"a", b"bc")
    assert merge(b"aaa", ranks) == (b"aa", b"a")


def test_a_token_that_no_merge_reaches_is_an_error() -> None:
    with pytest.raises(InputError, match="b'xyz' of the vocabulary cannot be reached"):
        merge(b"xyz", {b"x": 0, b"y": 1, b"z": 2, b"xyz": 3})


def test_the_package_is_found_without_being_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resources = tmp_path / "dashscope" / "resources"
    resources.mkdir(parents=True)
    (tmp_path / "dashscope" / "__init__.py").write_text("raise AssertionError('imported')")
    vocabulary = resources / "qwen.tiktoken"
    vocabulary.write_bytes(b"")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_qwen_vocabulary() == vocabulary
    assert "dashscope" not in sys.modules
    vocabulary.unlink()
    with pytest.raises(MissingPrerequisite):
        find_qwen_vocabulary()


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPrerequisite, match="pip install --no-deps dashscope"):
        find_qwen_vocabulary()


def test_writing_a_tokenizer_without_transformers_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingPrerequisite, match="needs transformers"):
        write_qwen_tokenizer(tmp_path / "qwen.tiktoken", tmp_path / "directory")
    assert not (tmp_path / "directory").exists()
