"""The input files: drawn files are read, edited ones are an error."""

from pathlib import Path

import numpy as np
import pytest

from harness.base.digest import digest_json, digest_tensors
from harness.base.errors import EvidenceError, InputError
from harness.certify.flow import prepare
from harness.corpus.draw import draw_weights, write_weights
from harness.runs import inputs as files
from harness.runs.inputs import BATCHES, WEIGHTS, read_inputs, read_tensors, read_weights, weights_files
from tests.support.examples import options, small_case, text_case


def test_drawn_inputs_have_the_stated_digests(tmp_path: Path) -> None:
    case, inputs = prepare(text_case(tmp_path), (), options(tmp_path / "out"))
    weights, batches = (read_tensors(tmp_path / "out" / "inputs" / name) for name in (WEIGHTS, BATCHES))
    assert (digest_tensors(weights), digest_tensors(batches)) == (inputs.weights, inputs.batches)
    assert inputs.parameters == sum(tensor.size for tensor in weights.values())
    assert inputs.target_tokens == batches["loss_mask"].sum() == 8 * 2 * 16
    assert case.data.corpus.sha256 == inputs.corpus_sha256
    assert read_inputs(tmp_path / "out" / "inputs", inputs).keys() == weights.keys()


@pytest.mark.parametrize("name", [WEIGHTS, BATCHES])
def test_edited_inputs_are_an_error(tmp_path: Path, name: str) -> None:
    _, inputs = prepare(text_case(tmp_path), (), options(tmp_path / "out"))
    path = tmp_path / "out" / "inputs" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(EvidenceError, match="was changed since it was drawn"):
        read_inputs(path.parent, inputs)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff" * 100])
def test_a_file_without_tensors_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / WEIGHTS
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EvidenceError, match="cannot be read"):
        read_tensors(path)


def test_a_corpus_with_another_digest_is_an_error(tmp_path: Path) -> None:
    case = text_case(tmp_path)
    corpus = {**case.data.corpus.model_dump(), "sha256": "f" * 64}
    with pytest.raises(InputError, match="it is another file"):
        prepare(case.with_changes(data={**case.data.model_dump(), "corpus": corpus}), (), options(tmp_path / "out"))
    assert not np.any(list((tmp_path / "out").rglob("*.safetensors")))


def test_large_weights_are_written_in_files_and_read_one_tensor_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = small_case()
    whole = draw_weights(case)
    monkeypatch.setattr(files, "FILE_BYTES", sum(tensor.nbytes for tensor in whole.values()) // 5)
    digests = write_weights(case, tmp_path)
    written = weights_files(tmp_path / WEIGHTS)
    assert len(written) > 4 and written[0].name == f"weights-00001-of-{len(written):05d}.safetensors"
    read = read_weights(tmp_path / WEIGHTS)
    assert set(read) == set(whole) and all(np.array_equal(read[name], whole[name]) for name in whole)
    assert digest_json(digests) == digest_tensors(whole) == digest_tensors(read)


def test_a_missing_file_of_weights_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=WEIGHTS):
        read_weights(tmp_path / WEIGHTS)
