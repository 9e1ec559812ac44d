"""Token ids word by word against the `tokenizers` library, whatever the text."""

import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors

from harness.corpus import fast_bpe
from harness.corpus.fast_bpe import GPT2_SPLIT, LLAMA_SPLIT, QWEN_SPLIT, BackendEncoder
from harness.corpus.tokenizers import HuggingFaceTokenizer
from tests.support.full import full
from tests.support.properties import examples
from tests.support.tokenizers import is_known, split_by, template, trained

LAST_CODE_POINT = sys.maxunicode

SURROGATES = range(0xD800, 0xE000)

# What the patterns treat in its own way, beside any text.
PIECES = st.one_of(
    st.text(),
    st.text("\r\n\t\x0b\x0c \x00\x85\xa0\u1680\u2003\u2028\u202f\u3000", min_size=1),
    st.sampled_from(["'s", "'S", "'\u017f", "'LL", "'rE", "'t", "'", "don't", "  \n\n  ", "\r\n\r\n", " " * 40]),
    st.sampled_from(["12345", "1\u00b2\u2167\u0663", "e\u0301", "\u1e9b\u0323", "\uac00\u11a8", "\u212b", "中文字"]),
    st.sampled_from(["\U0001f9d1\u200d\U0001f680", "\U0001fac1"]),
    st.sampled_from(["<|endoftext|>", "<|im_start|>", "<think>", "<|end", "<", "<added>", "a\u0301dded"]),
)  # fmt: skip

TEXTS = st.lists(PIECES, max_size=12).map("".join)


@pytest.fixture(scope="module")
def backend(qwen: Path) -> Tokenizer:
    return Tokenizer.from_file(str(qwen / "tokenizer.json"))


class Watched:
    """A backend that remembers which texts it was handed."""

    def __init__(self, backend: Tokenizer) -> None:
        self.backend = backend
        self.handed: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        if texts:
            self.handed.append(sorted(texts))
        return self.backend.encode_batch_fast(texts, **options)


def check_equal(backend: Tokenizer, texts: Sequence[str], *, encoder: BackendEncoder | None = None) -> None:
    encoder = encoder or BackendEncoder(backend)
    for special in (False, True):
        expected = [one.ids for one in backend.encode_batch(list(texts), add_special_tokens=special)]
        # the second time from the dictionary
        for _ in range(2):
            found = encoder.encode(texts, add_special_tokens=special)
            assert [ids.tolist() for ids in found] == expected
            assert {ids.dtype for ids in found} <= {np.dtype(np.int32)}


@given(st.lists(TEXTS, max_size=5))
@settings(deadline=None, max_examples=examples(300))
def test_the_dictionary_gives_the_ids_of_the_library(
    loaded: HuggingFaceTokenizer, backend: Tokenizer, texts: list[str]
) -> None:
    found = loaded.encode(texts)
    assert [ids.tolist() for ids in found] == [backend.encode(text, add_special_tokens=False).ids for text in texts]


def contexts(character: str) -> str:
    """A character beside each kind that a pattern tells apart."""
    c = character
    return f"a{c}b {c} {c}a{c}{c}1{c}23{c}4 '{c} '{c}{c}'r{c}'l{c} !{c}!{c}\n\n{c}  {c}\r{c}   {c}{c}\t{c}123{c}"


def known_characters() -> Iterator[str]:
    """Without those of private use, which are as many again and are in the blocks of every code point below."""
    for character in map(chr, range(LAST_CODE_POINT + 1)):
        if is_known(character) and unicodedata.category(character) != "Co":
            yield character


PATTERNS = {"qwen": QWEN_SPLIT, "llama": LLAMA_SPLIT, "gpt2": GPT2_SPLIT}
DRAWN = full(held_by="tests/parity/test_fast_bpe.py::test_every_normal_form_gives_the_ids_of_the_library")


@DRAWN
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_the_two_engines_split_every_known_character_alike(pattern: str) -> None:
    backend = trained(pattern, "NFC")
    texts = [contexts(character) for character in known_characters()]
    encoder = BackendEncoder(backend)
    for start in range(0, len(texts), 10_000):
        part = texts[start : start + 10_000]
        expected = [one.ids for one in backend.encode_batch_fast(part, add_special_tokens=False)]
        assert [ids.tolist() for ids in encoder.encode(part, add_special_tokens=False)] == expected


@DRAWN
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_every_code_point_has_the_ids_of_the_library(pattern: str) -> None:
    points = [number for number in range(LAST_CODE_POINT + 1) if number not in SURROGATES]
    blocks = [" ".join(map(chr, points[start : start + 64])) for start in range(0, len(points), 64)]
    backend = trained(pattern, "NFC")
    expected = [one.ids for one in backend.encode_batch_fast(blocks, add_special_tokens=False)]
    found = BackendEncoder(backend).encode(blocks, add_special_tokens=False)
    assert [ids.tolist() for ids in found] == expected


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD", None])
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_every_normal_form_gives_the_ids_of_the_library(pattern: str, form: str | None) -> None:
    backend = trained(pattern, form)
    encoder = BackendEncoder(backend)

    @given(st.lists(TEXTS, max_size=4))
    @settings(deadline=None, max_examples=examples(60))
    def law(texts: list[str]) -> None:
        check_equal(backend, texts, encoder=encoder)

    law()


def test_a_word_is_encoded_once() -> None:
    watched = Watched(trained())
    encoder = BackendEncoder(watched)
    for _ in range(2):
        encoder.encode(["one two two", "three two"], add_special_tokens=False)
    assert watched.handed == [[" two", "one"], ["three"]]


@pytest.mark.parametrize(
    "text", ["an <added> token", "a <|endoftext|> token", "a\u0301dded", "since Unicode 13: \U0001fac1"]
)
def test_a_text_that_could_be_split_otherwise_goes_to_the_library_whole(text: str) -> None:
    backend = trained(form="NFC")
    watched = Watched(backend)
    encoder = BackendEncoder(watched)
    found = encoder.encode(["one", text, "one"], add_special_tokens=False)
    assert [ids.tolist() for ids in found] == [backend.encode(one).ids for one in ("one", text, "one")]
    assert watched.handed == [["one"], [text]]


def add_prefix_space(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)


def another_pattern(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = split_by(r"\w+|\W")


def removed_matches(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="merged_with_next"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def lower_case(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Lowercase()


def no_split(tokenizer: Tokenizer) -> None:
    tokenizer.pre_tokenizer = None


@pytest.mark.parametrize("change", [add_prefix_space, another_pattern, removed_matches, lower_case, no_split])
def test_another_structure_is_left_to_the_library(change: Callable[[Tokenizer], None]) -> None:
    backend = trained()
    change(backend)
    texts = ["One two, don't <added>", " 12 Three\n\n", ""]
    check_equal(backend, texts)
    watched = Watched(backend)
    BackendEncoder(watched).encode(texts, add_special_tokens=False)
    assert watched.handed == [sorted(texts)]


def test_dropout_is_left_to_the_library() -> None:
    backend = trained()
    backend.model.dropout = 0.5
    watched = Watched(backend)
    BackendEncoder(watched).encode(["one two"], add_special_tokens=False)
    assert watched.handed == [["one two"]]


@pytest.mark.parametrize(
    "processor",
    [
        None,
        processors.ByteLevel(),
        template("<bos> $A"),
        template("<bos> <bos> $A <|endoftext|>"),
        processors.Sequence([processors.ByteLevel(), template("<bos> $A")]),
        processors.Sequence([template("$A <bos>"), template("<bos> $A <|endoftext|>")]),
        template("$A $A"),
        processors.RobertaProcessing(("<|endoftext|>", 2000), ("<bos>", 2001)),
    ],
    ids=["none", "bytes", "bos", "both", "sequence", "nested", "twice", "unknown"],
)
def test_special_tokens_are_those_of_the_post_processor(processor: Any) -> None:
    backend = trained()
    if processor is not None:
        backend.post_processor = processor
    check_equal(backend, ["", "one two", "an <added> token", "\U0001fac1"])


def test_a_full_dictionary_is_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_bpe, "MOST_CHARACTERS", 500)
    watched = Watched(trained())
    encoder = BackendEncoder(watched)
    for text in ("a b", "c d", "e f", "g a", "h b", "e f"):
        check_equal(watched.backend, [text], encoder=encoder)
    assert [" b", "a"] in watched.handed
    assert watched.handed.count([" f", "e"]) == 2
