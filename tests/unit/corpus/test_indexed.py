"""Megatron files: what is written reads back, and a damaged pair of files is an error."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import CertifyError, InputError
from harness.corpus.indexed import HEADER, IndexedWriter, open_indexed
from harness.corpus.inspection import first_documents, inspect_indexed
from tests.support.megatron import BOUNDARIES, CORRUPTIONS, IDS, LENGTHS, STORED, index_bytes, write_data_set
from tests.support.properties import examples

IDENTIFIERS = st.integers(min_value=0, max_value=2**16 - 1)
DOCUMENTS = st.lists(st.lists(st.lists(IDENTIFIERS, max_size=5), max_size=3), max_size=6)


def write(prefix: Path, documents: list[list[list[int]]], dtype: str = "int32", overwrite: bool = False) -> None:
    with IndexedWriter(prefix, dtype, overwrite=overwrite) as writer:
        for document in documents:
            ids = np.array([token for sequence in document for token in sequence], np.int64)
            writer.add(ids, [len(sequence) for sequence in document], [len(document)])


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_header_has_the_34_bytes_of_megatron() -> None:
    assert HEADER.size == 9 + 8 + 1 + 8 + 8 == 34


@given(DOCUMENTS, st.sampled_from(["int32", "uint16"]))
@settings(max_examples=examples(60))
def test_a_data_set_reads_back_as_it_was_written(documents: list[list[list[int]]], dtype: str) -> None:
    ids = [token for document in documents for sequence in document for token in sequence]
    with tempfile.TemporaryDirectory() as directory:
        prefix = Path(directory) / "data"
        write(prefix, documents, dtype)
        if not ids:
            with pytest.raises(InputError, match="holds no token"):
                open_indexed(prefix)
            return
        dataset = open_indexed(prefix)
        assert dataset.tokens.tolist() == ids
        assert dataset.dtype == np.dtype(dtype)
        assert dataset.lengths.tolist() == [len(sequence) for document in documents for sequence in document]
        assert np.diff(dataset.boundaries).tolist() == [len(document) for document in documents]
        assert (dataset.lowest, dataset.highest) == (min(ids), max(ids))


@pytest.mark.parametrize("code", [4, 8])
def test_the_bytes_are_those_of_the_format(tmp_path: Path, code: int) -> None:
    expected = write_data_set(tmp_path / "hand", code)
    prefix = tmp_path / "data"
    write(prefix, [[[1, 2, 3, 300, 0]], [[5, 6, 0]], [[]], [[7, 8, 9, 10, 0]]], {4: "int32", 8: "uint16"}[code])
    for suffix in ("bin", "idx"):
        assert Path(f"{prefix}.{suffix}").read_bytes() == Path(f"{expected}.{suffix}").read_bytes()


@pytest.mark.parametrize("code", [1, 3, 4, 5, 8])
def test_every_integer_type_of_the_format_is_read(tmp_path: Path, code: int) -> None:
    ids = [token % 256 for token in IDS]
    dataset = open_indexed(write_data_set(tmp_path, code, data=np.array(ids, STORED[code]).tobytes()))
    assert dataset.tokens.tolist() == ids


def test_another_byte_changes_the_digest(tmp_path: Path) -> None:
    prefix = write_data_set(tmp_path)
    before = open_indexed(prefix).sha256
    Path(f"{prefix}.bin").write_bytes(np.array([*IDS[:-1], 1], "<i4").tobytes())
    assert open_indexed(prefix).sha256 != before


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_damaged_data_set_is_an_error_that_names_the_damage(tmp_path: Path, name: str) -> None:
    prefix = write_data_set(tmp_path)
    spoil, message = CORRUPTIONS[name]
    spoil(prefix)
    with pytest.raises(InputError) as refused:
        inspect_indexed(open_indexed(prefix), vocab_size=320)
    assert message in str(refused.value)


def test_a_file_in_place_of_a_prefix_is_an_error_that_names_the_prefix(tmp_path: Path) -> None:
    prefix = write_data_set(tmp_path)
    with pytest.raises(InputError, match=f"give their common prefix: {prefix}$"):
        open_indexed(Path(f"{prefix}.bin"))


GOOD = {"idx": index_bytes(), "bin": np.array(IDS, "<i4").tobytes()}


@given(st.data())
@settings(max_examples=examples(600))
def test_a_flipped_or_missing_byte_is_an_error_or_changes_the_digest(data: st.DataObject) -> None:
    suffix = data.draw(st.sampled_from(["idx", "bin"]))
    content = GOOD[suffix]
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        spoiled = content[:place] + bytes([content[place] ^ data.draw(st.integers(1, 255))]) + content[place + 1 :]
    else:
        spoiled = content[:place]
    with tempfile.TemporaryDirectory() as directory:
        prefix = write_data_set(Path(directory))
        good = open_indexed(prefix)
        Path(f"{prefix}.{suffix}").write_bytes(spoiled)
        try:
            found = open_indexed(prefix)
        except CertifyError:
            return
        # Another id or another boundary is a valid data set, but not this one, and never a shorter one.
        assert found.sha256 != good.sha256
        assert len(found.tokens) == len(good.tokens)
        assert int(found.lengths.sum()) == len(good.tokens)


def test_a_broken_write_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), IndexedWriter(tmp_path / "data", "int32") as writer:
        writer.add(np.array([1, 2]), [2], [1])
        raise KeyboardInterrupt
    assert files(tmp_path) == []


def test_a_broken_write_keeps_the_old_files(tmp_path: Path) -> None:
    prefix = tmp_path / "data"
    write(prefix, [[[1, 2]]])
    before = open_indexed(prefix).sha256
    with pytest.raises(KeyboardInterrupt), IndexedWriter(prefix, "int32", overwrite=True) as writer:
        writer.add(np.array([3]), [1], [1])
        raise KeyboardInterrupt
    assert open_indexed(prefix).sha256 == before
    write(prefix, [[[3]]], overwrite=True)
    assert open_indexed(prefix).tokens.tolist() == [3]
    assert files(tmp_path) == ["data.bin", "data.idx"]


def test_a_data_set_is_overwritten_only_on_request(tmp_path: Path) -> None:
    prefix = tmp_path / "data"
    write(prefix, [[[1, 2]]])
    with pytest.raises(InputError, match="exists"):
        write(prefix, [[[3]]])
    assert open_indexed(prefix).tokens.tolist() == [1, 2]


@pytest.mark.parametrize(("dtype", "token"), [("uint16", 2**16), ("int32", 2**31), ("uint16", -1)])
def test_an_id_that_does_not_fit_the_dtype_is_an_error(tmp_path: Path, dtype: str, token: int) -> None:
    with pytest.raises(InputError, match=f"{token} does not fit {dtype}"):
        write(tmp_path / "data", [[[token]]], dtype)
    assert files(tmp_path) == []


def test_an_inspection_counts_documents_sequences_and_tokens(tmp_path: Path) -> None:
    dataset = open_indexed(write_data_set(tmp_path))
    found = inspect_indexed(dataset)
    assert (found.documents, found.empty_documents, found.sequences, found.tokens) == (4, 1, 4, 13)
    assert (found.shortest, found.longest, found.mean, found.median) == (0, 5, 13 / 4, 4)
    assert (found.lowest_id, found.highest_id) == (0, 300)
    assert [(one.least, one.most, one.documents) for one in found.histogram] == [
        (0, 0, 1),
        (1, 1, 0),
        (2, 3, 1),
        (4, 7, 2),
    ]
    assert [ids.tolist() for ids in first_documents(dataset, 3, 4)] == [[1, 2, 3, 300], [5, 6, 0], []]


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=30).filter(any))
def test_the_histogram_counts_every_document_once(lengths: list[int]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        prefix = Path(directory) / "data"
        write(prefix, [[[0] * length] for length in lengths])
        histogram = inspect_indexed(open_indexed(prefix)).histogram
    for one in histogram:
        assert one.documents == sum(one.least <= length <= one.most for length in lengths)
    assert sum(one.documents for one in histogram) == len(lengths)


def test_a_document_may_have_several_sequences_or_none(tmp_path: Path) -> None:
    dataset = open_indexed(write_data_set(tmp_path, index=index_bytes(LENGTHS, [0, 2, 2, 4])))
    assert dataset.document_lengths.tolist() == [8, 0, 5]
    assert len(BOUNDARIES) != len(dataset.boundaries)
