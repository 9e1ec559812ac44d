"""Megatron files against the tools that read and write them elsewhere: the same bytes, read by either.

`megatron-core` imports on a CPU as it is. So does mindformers' `blended_datasets.indexed_dataset`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from megatron.core.datasets import indexed_dataset as megatron
from mindformers.dataset.blended_datasets import indexed_dataset as mindformers

from harness.corpus.indexed import IndexedWriter, open_indexed
from harness.corpus.preprocess import PreprocessOptions, preprocess
from harness.corpus.tokenizers import ByteTokenizer

DTYPES = {"int32": np.int32, "uint16": np.uint16}
BUILDERS = {"megatron-core": megatron, "mindformers": mindformers}
DOCUMENTS: dict[str, list[list[list[int]]]] = {
    "one document": [[[1, 2, 3]]],
    "several": [[[1, 2, 3]], [[4]], [[5, 6]]],
    "the largest ids": [[[0, 65535]], [[65534]]],
    "an empty document first, between and last": [[[]], [[1, 2]], [[]], [[3]], [[]]],
    "documents of several sentences": [[[1, 2], [3], [4, 5, 6]], [[7]], [[8], [9]]],
    "empty sentences": [[[1], [], [2]], [[], []], [[3]]],
    "documents without a sentence": [[], [[1]], [], [[2]]],
    "many": [[list(range(n % 7 * 3))] for n in range(200)] + [[[1]]],
}


def build(builders: Any, prefix: Path, documents: list[list[list[int]]], dtype: Any) -> None:
    builder = builders.IndexedDatasetBuilder(f"{prefix}.bin", dtype=dtype)
    for document in documents:
        ids = np.array([token for sequence in document for token in sequence], dtype=dtype)
        builder.add_document(ids, [len(sequence) for sequence in document])
    builder.finalize(f"{prefix}.idx")


def write(prefix: Path, documents: list[list[list[int]]], dtype: str) -> None:
    with IndexedWriter(prefix, dtype) as writer:
        for document in documents:
            ids = np.array([token for sequence in document for token in sequence], np.int64)
            writer.add(ids, [len(sequence) for sequence in document], [len(document)])


def same_bytes(one: Path, other: Path) -> bool:
    return all(Path(f"{one}.{s}").read_bytes() == Path(f"{other}.{s}").read_bytes() for s in ("bin", "idx"))


@pytest.mark.parametrize("documents", DOCUMENTS.values(), ids=DOCUMENTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("builders", BUILDERS.values(), ids=BUILDERS)
def test_our_bytes_are_those_of_their_builder(
    tmp_path: Path, builders: Any, dtype: str, documents: list[list[list[int]]]
) -> None:
    build(builders, tmp_path / "theirs", documents, DTYPES[dtype])
    write(tmp_path / "ours", documents, dtype)
    assert same_bytes(tmp_path / "theirs", tmp_path / "ours")


@pytest.mark.parametrize("documents", DOCUMENTS.values(), ids=DOCUMENTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("readers", BUILDERS.values(), ids=BUILDERS)
def test_their_reader_reads_ours(tmp_path: Path, readers: Any, dtype: str, documents: list[list[list[int]]]) -> None:
    write(tmp_path / "ours", documents, dtype)
    dataset = readers.IndexedDataset(str(tmp_path / "ours"), mmap=True)
    sequences = [sequence for document in documents for sequence in document]
    assert [dataset[number].tolist() for number in range(len(dataset))] == sequences
    assert np.diff(dataset.document_indices).tolist() == [len(document) for document in documents]


@pytest.mark.parametrize("documents", DOCUMENTS.values(), ids=DOCUMENTS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("builders", BUILDERS.values(), ids=BUILDERS)
def test_our_reader_reads_theirs(tmp_path: Path, builders: Any, dtype: str, documents: list[list[list[int]]]) -> None:
    build(builders, tmp_path / "theirs", documents, DTYPES[dtype])
    dataset = open_indexed(tmp_path / "theirs")
    assert dataset.tokens.tolist() == [t for document in documents for sequence in document for t in sequence]
    assert dataset.lengths.tolist() == [len(sequence) for document in documents for sequence in document]


@pytest.mark.parametrize("dtype", DTYPES)
def test_megatrons_item_by_item_building_gives_the_same(tmp_path: Path, dtype: str) -> None:
    documents = DOCUMENTS["documents of several sentences"]
    builder = megatron.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=DTYPES[dtype])
    for document in documents:
        for sequence in document:
            builder.add_item(torch.tensor(sequence))
        builder.end_document()
    builder.finalize(str(tmp_path / "theirs.idx"))
    write(tmp_path / "ours", documents, dtype)
    assert same_bytes(tmp_path / "theirs", tmp_path / "ours")


@pytest.mark.parametrize("append_eod", [False, True])
def test_a_preprocessed_file_has_the_bytes_of_the_loop_over_its_lines(tmp_path: Path, append_eod: bool) -> None:
    """mindformers' preprocessing script is not in its wheel: a loop over lines, texts and its builder stands for it."""
    lines = [{"text": text} for text in ("Snow falls.", "", ["Ice", "", "melts."], ["", ""], "é" * 700)]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    builder = mindformers.IndexedDatasetBuilder(str(tmp_path / "theirs.bin"), dtype=np.int32)
    for line in lines:
        texts = line["text"] if isinstance(line["text"], list) else [line["text"]]
        sentences = [list(text.encode()) for text in texts]
        if append_eod and any(sentences):
            sentences[-1].append(256)
        builder.add_document(
            np.array([token for sentence in sentences for token in sentence], dtype=np.int32),
            [len(sentence) for sentence in sentences],
        )
    builder.finalize(str(tmp_path / "theirs.idx"))
    options = PreprocessOptions(source=source, output_prefix=tmp_path / "ours", append_eod=append_eod)
    (written,) = preprocess(options, ByteTokenizer())
    assert same_bytes(tmp_path / "theirs", written.prefix)
