"""Token ids against the libraries that define them: `tokenizers` for every text, tiktoken for Qwen's vocabulary."""

import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast, Qwen2TokenizerFast

from harness.corpus import fast_bpe
from harness.corpus.fast_bpe import GPT2_SPLIT, LLAMA_SPLIT, QWEN_SPLIT, BackendEncoder
from harness.corpus.qwen import ADDED_TOKENS, SPECIAL_TOKENS, find_qwen_vocabulary, read_ranks, write_qwen_tokenizer
from harness.corpus.tokenizers import HuggingFaceTokenizer
from harness.digest import digest_file
from harness.errors import InputError

SOURCES = sorted(Path(transformers.__file__).parent.glob("*.py"))
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
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tokenizers") / "qwen"
    write_qwen_tokenizer(find_qwen_vocabulary(), directory)
    return directory


@pytest.fixture(scope="module")
def loaded(qwen: Path) -> HuggingFaceTokenizer:
    return HuggingFaceTokenizer(qwen)


@pytest.fixture(scope="module")
def backend(qwen: Path) -> Tokenizer:
    return Tokenizer.from_file(str(qwen / "tokenizer.json"))


@pytest.fixture(scope="module")
def published() -> tiktoken.Encoding:
    ranks = read_ranks(find_qwen_vocabulary())
    added = {token: len(ranks) + place for place, token in enumerate(SPECIAL_TOKENS + ADDED_TOKENS)}
    return tiktoken.Encoding("qwen", pat_str=QWEN_SPLIT, mergeable_ranks=ranks, special_tokens=added)


def split_by(pattern: str) -> Any:
    if pattern == GPT2_SPLIT:
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def trained(pattern: str = QWEN_SPLIT, form: str | None = None) -> Tokenizer:
    """A small byte-level BPE over the sources, with an added token of each kind."""
    tokenizer = Tokenizer(models.BPE())
    if form is not None:
        tokenizer.normalizer = getattr(normalizers, form)()
    tokenizer.pre_tokenizer = split_by(pattern)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([path.read_text("utf-8") for path in SOURCES[:5]], trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<bos>"])
    tokenizer.add_tokens([AddedToken("<added>", normalized=True), AddedToken("\u00e1dded", normalized=True)])
    return tokenizer


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


def is_known(character: str) -> bool:
    """Whether every version of Unicode since 3.2 knows it: each engine for regular expressions has its own version."""
    return unicodedata.ucd_3_2_0.category(character) not in {"Cn", "Cs"}


@given(st.text(st.characters(exclude_categories=["Cs", "Cn"]).filter(is_known)))
@settings(deadline=None)
def test_qwens_ids_of_any_text_are_those_of_tiktoken(
    loaded: HuggingFaceTokenizer, published: tiktoken.Encoding, text: str
) -> None:
    text = unicodedata.normalize("NFC", text)
    ids = loaded.encode([text])[0]
    assert ids.tolist() == published.encode(text, allowed_special="all")
    assert loaded.decode(ids) == text


@given(st.lists(TEXTS, max_size=5))
@settings(deadline=None, max_examples=300)
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


@pytest.mark.parametrize("pattern", [QWEN_SPLIT, LLAMA_SPLIT, GPT2_SPLIT], ids=["qwen", "llama", "gpt2"])
def test_the_two_engines_split_every_known_character_alike(pattern: str) -> None:
    backend = trained(pattern, "NFC")
    texts = [contexts(character) for character in known_characters()]
    encoder = BackendEncoder(backend)
    for start in range(0, len(texts), 10_000):
        part = texts[start : start + 10_000]
        expected = [one.ids for one in backend.encode_batch_fast(part, add_special_tokens=False)]
        assert [ids.tolist() for ids in encoder.encode(part, add_special_tokens=False)] == expected


@pytest.mark.parametrize("pattern", [QWEN_SPLIT, LLAMA_SPLIT, GPT2_SPLIT], ids=["qwen", "llama", "gpt2"])
def test_every_code_point_has_the_ids_of_the_library(pattern: str) -> None:
    points = [number for number in range(LAST_CODE_POINT + 1) if number not in SURROGATES]
    blocks = [" ".join(map(chr, points[start : start + 64])) for start in range(0, len(points), 64)]
    backend = trained(pattern, "NFC")
    expected = [one.ids for one in backend.encode_batch_fast(blocks, add_special_tokens=False)]
    found = BackendEncoder(backend).encode(blocks, add_special_tokens=False)
    assert [ids.tolist() for ids in found] == expected


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD", None])
@pytest.mark.parametrize("pattern", [QWEN_SPLIT, LLAMA_SPLIT, GPT2_SPLIT], ids=["qwen", "llama", "gpt2"])
def test_every_normal_form_gives_the_ids_of_the_library(pattern: str, form: str | None) -> None:
    backend = trained(pattern, form)
    encoder = BackendEncoder(backend)

    @given(st.lists(TEXTS, max_size=4))
    @settings(deadline=None, max_examples=60)
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


def template(single: str) -> Any:
    return processors.TemplateProcessing(single=single, special_tokens=[("<bos>", 2001), ("<|endoftext|>", 2000)])


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


def test_ids_are_those_of_the_plain_call_with_a_truncating_and_padding_file(tmp_path: Path) -> None:
    backend = trained()
    backend.post_processor = template("<bos> $A")
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>").save_pretrained(tmp_path)
    plain = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    tokenizer = HuggingFaceTokenizer(tmp_path)
    texts = ["one two three four five six", "", "a <|endoftext|> b"]
    for special in (False, True):
        found = tokenizer.encode(texts, add_special_tokens=special)
        assert [ids.tolist() for ids in found] == plain(texts, add_special_tokens=special)["input_ids"]


def test_a_tokenizer_in_python_alone_is_called_as_it_is(tmp_path: Path) -> None:
    backend = trained(GPT2_SPLIT)
    backend.model.save(str(tmp_path))
    slow = GPT2Tokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"), bos_token="<|endoftext|>")
    config = {"tokenizer_class": "GPT2Tokenizer", "use_fast": False, "eos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = HuggingFaceTokenizer(tmp_path)
    texts = ["one two", "don't", ""]
    assert [ids.tolist() for ids in tokenizer.encode(texts)] == slow(texts)["input_ids"]
    assert tokenizer.encode([]) == []
    assert tokenizer.decode(tokenizer.encode(["one two"])[0]) == "one two"


def test_documents_are_shown_with_their_end(loaded: HuggingFaceTokenizer) -> None:
    ids = np.concatenate([loaded.encode(["one , two"])[0], [loaded.eod]])
    assert loaded.decode(ids) == "one , two<|endoftext|>"


FORKED = """
import multiprocessing, os, sys
from pathlib import Path
from harness.corpus.tokenizers import HuggingFaceTokenizer

def threads(): return len(os.listdir("/proc/self/task"))
def encode(text): return (threads(), [ids.tolist() for ids in tokenizer.encode([text, "<|im_start|>" + text])])

import transformers
before = threads()
tokenizer = HuggingFaceTokenizer(Path(sys.argv[1]))
texts = [f"one {number} two" for number in range(200)]
tokenizer.encode(texts + ["<|im_end|>" + text for text in texts])
assert threads() == before, "the parent has more threads"
expected = [encode(text)[1] for text in texts + ["new words"]]
with multiprocessing.get_context("fork").Pool(2) as pool:
    found = pool.map(encode, texts + ["new words"])
assert [ids for _, ids in found] == expected
assert {number for number, _ in found} == {1}, "a child has more threads"
"""


def test_a_tokenizer_is_used_after_a_fork_without_threads_or_warnings(qwen: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run([sys.executable, "-c", FORKED, qwen], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text[: len(text) // 2], "EOF"),
        (lambda text: "", "EOF"),
        (lambda text: "[]", "invalid type"),
        (lambda text: text.replace('"merges": [', '"merges": [["qq", "zz"],'), "out of vocabulary"),
        (lambda text: text.replace("(?i:", "((", 1), "Oniguruma"),
    ],
)
def test_a_damaged_tokenizer_is_refused(tmp_path: Path, change: Callable[[str], str], said: str) -> None:
    PreTrainedTokenizerFast(tokenizer_object=trained(), eos_token="<|endoftext|>").save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(change(file.read_text("utf-8")), "utf-8")
    with pytest.raises(InputError, match=f"holds no Hugging Face tokenizer that can be loaded: .*{said}"):
        HuggingFaceTokenizer(tmp_path)


def test_a_template_with_an_unknown_token_is_refused(tmp_path: Path) -> None:
    backend = trained()
    backend.post_processor = template("<bos> $A")
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>").save_pretrained(tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text("utf-8"))
    content["post_processor"]["special_tokens"] = {}
    file.write_text(json.dumps(content), "utf-8")
    with pytest.raises(InputError, match=r"can be loaded: .*<bos>"):
        HuggingFaceTokenizer(tmp_path)


def test_a_tokenizer_without_an_end_of_document_is_refused(tmp_path: Path) -> None:
    PreTrainedTokenizerFast(tokenizer_object=trained()).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="names no eos_token"):
        HuggingFaceTokenizer(tmp_path)


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
