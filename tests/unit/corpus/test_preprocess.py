"""From jsonl to Megatron files: every line becomes a document, or nothing is written and the error names the line."""

import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import InputError
from harness.corpus.indexed import open_indexed
from harness.corpus.preprocess import BLOCK_BYTES, PreprocessedData, PreprocessOptions, preprocess
from harness.corpus.tokenizers import ByteTokenizer
from tests.support.examples import ROOT
from tests.support.processes import until
from tests.support.properties import examples

EOD = 256


def lines(*documents: Any) -> bytes:
    return b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in documents)


def run(directory: Path, content: bytes, **options: Any) -> tuple[PreprocessedData, ...]:
    source = directory / "in.jsonl"
    source.write_bytes(content)
    return preprocess(PreprocessOptions(source=source, output_prefix=directory / "out", **options), ByteTokenizer())


def documents(prefix: Path) -> list[list[list[int]]]:
    """The ids of each sequence of each document."""
    dataset = open_indexed(prefix)
    ends = np.concatenate([[0], np.cumsum(dataset.lengths)])
    sequences = [dataset.tokens[a:b].tolist() for a, b in itertools.pairwise(ends)]
    return [sequences[a:b] for a, b in itertools.pairwise(dataset.boundaries)]


def written(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != "in.jsonl")


def test_each_line_becomes_its_document_in_order(tmp_path: Path) -> None:
    (one,) = run(tmp_path, lines({"text": "ab"}, {"id": "7", "text": "é"}, {"text": ""}, {"text": "c"}))
    assert one == PreprocessedData(prefix=tmp_path / "out_text_document", documents=4, sequences=4, tokens=5)
    assert documents(one.prefix) == [[[97, 98]], [[0xC3, 0xA9]], [[]], [[99]]]


def test_the_end_of_a_document_is_added_to_documents_with_tokens_only(tmp_path: Path) -> None:
    (one,) = run(tmp_path, lines({"text": "ab"}, {"text": ""}, {"text": ["c", ""]}), append_eod=True)
    assert documents(one.prefix) == [[[97, 98, EOD]], [[]], [[99], [EOD]]]


def test_a_list_of_texts_is_a_document_of_as_many_sequences(tmp_path: Path) -> None:
    (one,) = run(tmp_path, lines({"text": ["ab", "c"]}, {"text": []}, {"text": "d"}))
    assert documents(one.prefix) == [[[97, 98], [99]], [], [[100]]]


def test_each_field_becomes_a_data_set(tmp_path: Path) -> None:
    found = run(tmp_path, lines({"text": "a", "title": "b"}, {"text": "c", "title": "d"}), json_keys=("text", "title"))
    assert [documents(one.prefix) for one in found] == [[[[97]], [[99]]], [[[98]], [[100]]]]
    assert [one.prefix.name for one in found] == ["out_text_document", "out_title_document"]


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), min_size=1, max_size=12).filter(any),
    st.integers(1, 3),
)
@settings(max_examples=15)
def test_the_files_do_not_depend_on_the_number_of_workers(texts: list[str], workers: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        (one,) = run(Path(directory), lines(*({"text": text} for text in texts)), workers=workers)
        assert documents(one.prefix) == [[list(text.encode())] for text in texts]


def test_many_blocks_keep_their_order(tmp_path: Path) -> None:
    texts = [f"{number:06d}" + "x" * 994 for number in range(4 * BLOCK_BYTES // 1000)]
    (one,) = run(tmp_path, lines(*({"text": text} for text in texts)), workers=3)
    dataset = open_indexed(one.prefix)
    assert bytes(dataset.tokens.astype(np.uint8)).decode() == "".join(texts)


def test_progress_ends_at_the_size_of_the_file(tmp_path: Path) -> None:
    source, seen = tmp_path / "in.jsonl", []
    source.write_bytes(lines(*({"text": "x" * 1000} for _ in range(3000))))
    preprocess(PreprocessOptions(source=source, output_prefix=tmp_path / "out"), ByteTokenizer(), seen.append)
    assert seen == sorted(seen) and len(seen) > 1 and seen[-1] == source.stat().st_size


BAD_LINES: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{text: 1}\n", "line 3 is not JSON"),
    "a cut line": (b'{"text": "a', "line 3 is not JSON"),
    "an empty line": (b"\n", "line 3 is empty"),
    "a field twice": (b'{"text": "a", "text": "b"}\n', "line 3 is not JSON: 'text' is stated twice"),
    "two objects": (b'{"text": "a"} {"text": "b"}\n', "line 3 is not JSON"),
    "a number": (b"7\n", "line 3 holds a int"),
    "a list": (b'["a"]\n', "line 3 holds a list"),
    "no such field": (b'{"txt": "a"}\n', "line 3 has no field 'text'; it has 'txt'"),
    "an empty object": (b"{}\n", "line 3 has no field 'text'; it has none"),
    "null": (b'{"text": null}\n', "holds None, which is not a text"),
    "a number for text": (b'{"text": ["a", 7]}\n', "holds 7, which is not a text"),
    "half of a surrogate pair": (b'{"text": "\\ud800"}\n', "half of a surrogate pair"),
    "no UTF-8": (b'{"text": "\xff"}\n', "line 3 is not UTF-8: invalid start byte at byte 10"),
    "nested too deeply": (b'{"text": ' + b"[" * 100_000 + b"\n", "line 3 is not JSON"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_bad_line_is_named_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    line, message = BAD_LINES[name]
    with pytest.raises(InputError) as refused:
        run(tmp_path, lines({"text": "a"}, {"text": "b"}) + line)
    assert message in str(refused.value) and "in.jsonl" in str(refused.value)
    assert written(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"", {}, "no document has a token"),
        (lines({"text": ""}, {"text": []}), {"append_eod": True}, "no document has a token"),
        (lines({"text": "a"}), {"dtype": "float32"}, "no dtype 'float32'"),
        (lines({"text": "a"}), {"json_keys": ("text", "text")}, "named twice"),
    ],
)
def test_input_that_gives_no_data_set_is_an_error(
    tmp_path: Path, content: bytes, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path, content, **options)
    assert written(tmp_path) == []


@pytest.mark.parametrize("suffix", ["bin", "idx"])
def test_an_existing_output_is_kept_unless_overwrite_is_set(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"out_text_document.{suffix}").write_bytes(b"precious")
    with pytest.raises(InputError, match=f"{suffix} exists"):
        run(tmp_path, lines({"text": "a"}))
    assert (tmp_path / f"out_text_document.{suffix}").read_bytes() == b"precious"
    (one,) = run(tmp_path, lines({"text": "a"}), overwrite=True)
    assert documents(one.prefix) == [[[97]]]


def test_a_missing_source_is_an_error(tmp_path: Path) -> None:
    options = PreprocessOptions(source=tmp_path / "none.jsonl", output_prefix=tmp_path / "out")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        preprocess(options, ByteTokenizer())
    assert written(tmp_path) == []


@given(st.data())
@settings(max_examples=examples(60))
def test_a_flipped_or_missing_byte_is_an_error_or_keeps_every_document(data: st.DataObject) -> None:
    content = lines({"text": "abc", "title": "T"}, {"text": ["é", ""]}, {"text": "d\n"})
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        spoiled = content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
    else:
        spoiled = content[:place]
    with tempfile.TemporaryDirectory() as directory:
        try:
            (one,) = run(Path(directory), spoiled)
        except InputError:
            assert written(Path(directory)) == []
            return
        # what is left is JSON on every line, so each line is a document
        count = spoiled.count(b"\n") + (not spoiled.endswith(b"\n"))
        assert len(documents(one.prefix)) == one.documents == count


SLOW = """
import sys, time
from pathlib import Path
from harness.corpus.preprocess import Options, preprocess
from harness.corpus.tokenizers import ByteTokenizer
class Slow(ByteTokenizer):
    def encode(self, texts, add_special_tokens=False):
        time.sleep(0.2)
        return super().encode(texts, add_special_tokens=add_special_tokens)
options = Options(source=Path(sys.argv[1]), output_prefix=Path(sys.argv[2]), workers=2)
preprocess(options, Slow(), lambda done: print(done, flush=True))
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_preprocess_leaves_no_output_and_no_process(tmp_path: Path, how: signal.Signals) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(lines(*({"text": "x" * 1000} for _ in range(60_000))))
    command = [sys.executable, "-c", SLOW, str(source), str(tmp_path / "out")]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(how)
    assert process.wait(120) != 0
    assert [name for name in written(tmp_path) if name.endswith((".bin", ".idx"))] == []
    until(lambda: not group_lives(process.pid), "no worker outlives the command")


def group_lives(group: int) -> bool:
    """Whether a process of a session's group runs; a zombie does not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


def test_a_worker_that_is_killed_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    class Killed(ByteTokenizer):
        def encode(self, texts: Any, add_special_tokens: bool = False) -> Any:
            os.kill(os.getpid(), signal.SIGKILL)

    source = tmp_path / "in.jsonl"
    source.write_bytes(lines({"text": "a"}))
    with pytest.raises(InputError, match="A worker was killed"):
        preprocess(PreprocessOptions(source=source, output_prefix=tmp_path / "out"), Killed())
    assert written(tmp_path) == []
