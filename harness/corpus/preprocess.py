"""From jsonl to Megatron's files: tokenizes documents on all cores and writes `PREFIX_KEY_document.bin` and `.idx`.

The files equal those of mindformers' `preprocess_indexed_dataset.py` with the same tokenizer: one sequence per text (or
per text of a list), the tokenizer's special tokens added, an end-of-document token only if requested and the document
has a token. The order is that of the input. Memory depends on the number of workers and the longest document, not on
the size of the input: workers get blocks of whole lines, and only as many blocks are read as are in work.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.errors import InputError
from harness.base.foreign_json import parse_foreign
from harness.base.text import is_text
from harness.corpus.indexed import IndexedWriter, paths
from harness.corpus.tokenizers import TextTokenizer

BLOCK_BYTES = 1 << 20
DTYPES = ("int32", "uint16")


@dataclass(frozen=True, kw_only=True)
class PreprocessOptions:
    """Options of `preprocess`. `json_keys` are the fields that hold text; each becomes a data set of its own."""

    source: Path
    output_prefix: Path
    json_keys: tuple[str, ...] = ("text",)
    append_eod: bool = False
    dtype: str = "int32"
    workers: int = 1
    overwrite: bool = False

    def prefix(self, key: str) -> Path:
        """The prefix of a field's data set."""
        return Path(f"{self.output_prefix}_{key}_document")


@dataclass(frozen=True, kw_only=True)
class PreprocessedData:
    """A written data set: its prefix and its counts."""

    prefix: Path
    documents: int
    sequences: int
    tokens: int


@dataclass(frozen=True)
class _Texts:
    """The token ids of one field over a block of lines: ids, length of each sequence, sequences of each document."""

    ids: npt.NDArray[np.int32]
    lengths: list[int]
    sequences: list[int]


def preprocess(
    options: PreprocessOptions, tokenizer: TextTokenizer, progress: Callable[[int], object] = lambda done: None
) -> tuple[PreprocessedData, ...]:
    """Writes the data set of each field: all of them, or none.

    Args:
        progress: called with the number of bytes of the source that are done.

    Raises:
        InputError: the source cannot be read, a line is not a document, or an output exists or cannot be written.
    """
    _check(options, tokenizer)
    counted = {key: [0, 0, 0] for key in options.json_keys}
    with contextlib.ExitStack() as writers:
        by_key = {
            key: writers.enter_context(IndexedWriter(options.prefix(key), options.dtype, overwrite=options.overwrite))
            for key in options.json_keys
        }
        for done, block in _encoded_blocks(options, tokenizer):
            for key, texts in block.items():
                by_key[key].add(texts.ids, texts.lengths, texts.sequences)
                for place, number in enumerate((len(texts.sequences), len(texts.lengths), len(texts.ids))):
                    counted[key][place] += number
            progress(done)
        for key, (_, _, tokens) in counted.items():
            if not tokens:
                raise InputError(f"{options.source}: no document has a token in its field {key!r}; nothing is written.")
    return tuple(
        PreprocessedData(prefix=options.prefix(key), documents=documents, sequences=sequences, tokens=tokens)
        for key, (documents, sequences, tokens) in counted.items()
    )


def _check(options: PreprocessOptions, tokenizer: TextTokenizer) -> None:
    if options.dtype not in DTYPES:
        raise InputError(f"There is no dtype {options.dtype!r}: choose {' or '.join(DTYPES)}.")
    if options.dtype == "uint16" and tokenizer.vocab_size > np.iinfo(np.uint16).max + 1:
        raise InputError(f"{tokenizer.vocab_size} token ids do not fit uint16. Choose --dtype int32.")
    if len(set(options.json_keys)) < len(options.json_keys):
        raise InputError(f"A field is named twice: {', '.join(options.json_keys)}.")
    for key in options.json_keys:
        for path in paths(options.prefix(key)):
            if path.exists() and not options.overwrite:
                raise InputError(f"{path} exists. Choose another --output-prefix, or replace it with --overwrite.")


def _encoded_blocks(options: PreprocessOptions, tokenizer: TextTokenizer) -> Iterator[tuple[int, dict[str, _Texts]]]:
    """Blocks in the order of the source, each with the number of bytes up to its end."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(options.source.open("rb"))
        except OSError as error:
            raise InputError(f"{options.source} cannot be read: {error.strerror}.") from None
        # fork, so that every worker has the tokenizer without loading it again
        pool = ProcessPoolExecutor(
            options.workers, multiprocessing.get_context("fork"), _begin_worker, (options, tokenizer)
        )
        stack.callback(pool.shutdown, cancel_futures=True)
        waiting: deque[tuple[int, Future[dict[str, _Texts]]]] = deque()
        line, done = 1, 0
        try:
            while lines := file.readlines(BLOCK_BYTES):
                done += sum(map(len, lines))
                waiting.append((done, pool.submit(_encode_block, lines, line)))
                line += len(lines)
                if len(waiting) > options.workers:
                    yield _first(waiting)
            while waiting:
                yield _first(waiting)
        except BrokenProcessPool:
            raise InputError(
                f"A worker was killed while it read {options.source}, probably because memory ran out; nothing is "
                "written. Try again with fewer --workers."
            ) from None


def _first(waiting: "deque[tuple[int, Future[Any]]]") -> tuple[int, Any]:
    done, future = waiting.popleft()
    return done, future.result()


_work: tuple[PreprocessOptions, TextTokenizer]


def _begin_worker(options: PreprocessOptions, tokenizer: TextTokenizer) -> None:
    global _work
    _work = (options, tokenizer)
    # Ctrl-C reaches the whole process group; only the parent handles it, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this, a worker whose parent was killed would wait for its next block forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _encode_block(lines: Sequence[bytes], first_line: int) -> dict[str, _Texts]:
    options, tokenizer = _work
    documents = [_read_line(options, line, first_line + number) for number, line in enumerate(lines)]
    return {
        key: _encode_field([document[key] for document in documents], options, tokenizer) for key in options.json_keys
    }


def _encode_field(documents: Sequence[Sequence[str]], options: PreprocessOptions, tokenizer: TextTokenizer) -> _Texts:
    encoded = tokenizer.encode([text for texts in documents for text in texts], add_special_tokens=True)
    lengths, end = [len(ids) for ids in encoded], np.array([tokenizer.eod], np.int32)
    pieces: list[npt.NDArray[np.int32]] = []
    reached = 0
    for texts in documents:
        last = reached + len(texts)
        pieces.extend(encoded[reached:last])
        if options.append_eod and any(lengths[reached:last]):
            pieces.append(end)
            lengths[last - 1] += 1
        reached = last
    ids = np.concatenate(pieces) if pieces else np.empty(0, np.int32)
    return _Texts(ids, lengths, [len(texts) for texts in documents])


def _read_line(options: PreprocessOptions, line: bytes, number: int) -> dict[str, list[str]]:
    """The texts of each field.

    Raises:
        InputError: the line is not a JSON object with these fields.
    """
    where = f"{options.source}, line {number}"
    try:
        document = parse_foreign(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8: {error.reason} at byte {error.start} of the line.") from None
    except (ValueError, RecursionError) as error:
        what = "is empty" if not line.strip() else f"is not JSON: {error}"
        raise InputError(f"{where} {what}. Each line must be one JSON object.") from None
    if not isinstance(document, dict):
        raise InputError(f"{where} holds a {type(document).__name__}, not an object with the field 'text'.")
    return {key: _texts(document, key, where) for key in options.json_keys}


def _texts(document: dict[str, Any], key: str, where: str) -> list[str]:
    if key not in document:
        raise InputError(
            f"{where} has no field {key!r}; it has {', '.join(map(repr, document)) or 'none'}. "
            "Name the field that holds the text with --json-keys."
        )
    texts = document[key] if isinstance(document[key], list) else [document[key]]
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"{where}: the field {key!r} holds {text!r}, which is not a text.")
        if not is_text(text):
            raise InputError(f"{where}: the field {key!r} holds half of a surrogate pair, which is not a character.")
    return texts
