"""Tokenizer directories as users have them: loaded as `transformers` loads them, or refused in words."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast

from harness.base.errors import InputError
from harness.corpus.fast_bpe import GPT2_SPLIT
from harness.corpus.tokenizers import HuggingFaceTokenizer
from tests.support.tokenizers import template, trained


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


FORKED = """
import multiprocessing, os, sys
from pathlib import Path
from harness.corpus.tokenizers import HuggingFaceTokenizer

def threads(): return len(os.listdir("/proc/self/task"))
def encode(text): return (threads(), [ids.tolist() for ids in tokenizer.encode([text, "<|im_start|>" + text])])

# What is installed beside it may start a thread of its own when transformers imports it.
from transformers import AutoTokenizer
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
    with pytest.raises(InputError, match="has no eos_token"):
        HuggingFaceTokenizer(tmp_path)


def test_a_tokenizer_of_vocabulary_and_merges_is_converted_and_gives_the_same_ids(tmp_path: Path) -> None:
    """The older form, with the configuration of a model or of a tokenizer alone; in the inputs it is complete."""
    fast, older, again = tmp_path / "fast", tmp_path / "older", tmp_path / "again"
    PreTrainedTokenizerFast(tokenizer_object=trained(), eos_token="<|endoftext|>").save_pretrained(fast)
    older.mkdir()
    trained().model.save(str(older))
    (older / "config.json").write_text('{"model_type": "qwen3"}')
    tokenizer = HuggingFaceTokenizer(older)
    tokenizer.save(again)
    assert {"tokenizer.json", "tokenizer_config.json"} <= {path.name for path in again.iterdir()}
    texts = ["one two", "don't", "", "f(x) -> 12\n"]
    for read in (HuggingFaceTokenizer(again), HuggingFaceTokenizer(fast)):
        assert [ids.tolist() for ids in read.encode(texts)] == [ids.tolist() for ids in tokenizer.encode(texts)]
    assert len(tokenizer.encode(["one two"])[0]) < len("one two"), "not byte by byte"


def test_code_of_a_directory_never_runs_whatever_is_answered(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["mine.Mine", null]}}')
    program = (
        "import sys; from pathlib import Path; from harness.corpus import tokenizers\n"
        "if sys.argv[2] == 'unchecked': tokenizers.check_directory = lambda *_: None\n"
        "tokenizers.HuggingFaceTokenizer(Path(sys.argv[1]))"
    )
    for how in ("checked", "unchecked"):
        words = [sys.executable, "-c", program, str(tmp_path), how]
        done = subprocess.run(words, input="y\n" * 9, capture_output=True, text=True)
        assert done.returncode == 1 and "InputError" in done.stderr and not (tmp_path / "ran").exists()
