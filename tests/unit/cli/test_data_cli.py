"""`certify data`: each stage is a command; what is wrong is named with exit code 2 and nothing is lost."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from harness.corpus.indexed import open_indexed
from tests.support.command_line import Call, caller
from tests.support.examples import TEXT
from tests.support.megatron import CORRUPTIONS, write_data_set

OK, BAD = 0, 2


@pytest.fixture
def data(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    monkeypatch.chdir(tmp_path)
    return caller(capsys, monkeypatch, "data")


@pytest.fixture
def articles(tmp_path: Path) -> Path:
    path = tmp_path / "wiki.tokens"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_text_becomes_jsonl_becomes_megatron_files_becomes_batches(data: Call, articles: Path, tmp_path: Path) -> None:
    made = data("jsonl", articles, "wiki.jsonl")
    assert made.code == OK and "80 articles" in made.out
    made = data(
        "preprocess", "--input", "wiki.jsonl", "--output-prefix", "wiki", "--tokenizer", "bytes", "--append-eod"
    )
    assert made.code == OK and "certify data inspect wiki_text_document" in made.out
    found = json.loads(data("inspect", "wiki_text_document", "--tokenizer", "bytes", "--json").out)
    assert (found["documents"], found["highest_id"]) == (80, 256)
    assert found["first_documents"][0].startswith("Snow")
    assert sum(one["documents"] for one in found["histogram"]) == 80
    made = data("batches", "qwen3-tiny-fp32", "--data", "wiki_text_document", "--out", "batches.safetensors", "--json")
    assert made.code == OK
    drawn, tensors = json.loads(made.out), load_file(tmp_path / "batches.safetensors")
    assert list(tensors["tokens"].shape) == [*drawn["shape"][:2], drawn["shape"][2] + 1]
    stream = np.array(open_indexed(tmp_path / "wiki_text_document").tokens)
    assert tensors["tokens"][0, 0].tolist() == stream[: drawn["shape"][2] + 1].tolist()
    assert len(drawn["steps"]) == drawn["shape"][0]


def test_an_inspection_shows_a_person_the_counts_and_the_first_documents(data: Call, tmp_path: Path) -> None:
    shown = data("inspect", write_data_set(tmp_path))
    assert shown.code == OK
    for part in (
        "13 int32",
        "4 (1 empty)",
        "0 to 300",
        "document 0: 1 2 3 300 0",
        open_indexed(tmp_path / "data").sha256,
    ):
        assert part in shown.out


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_damaged_data_set_is_exit_code_2_for_every_command(data: Call, tmp_path: Path, name: str) -> None:
    prefix = write_data_set(tmp_path)
    spoil, message = CORRUPTIONS[name]
    spoil(prefix)
    inspected = data("inspect", prefix, "--vocab-size", 320)
    assert inspected.code == BAD and " ".join(message.split()) in inspected.err
    drawn = data("batches", "qwen3-tiny-fp32", "--data", prefix, "--out", tmp_path / "batches.safetensors")
    assert drawn.code == BAD
    assert not (tmp_path / "batches.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Give a tokenizer"),
        (("--tokenizer-type", "HuggingFaceTokenizer"), "Give a tokenizer"),
        (("--tokenizer-type", "AutoRegister", "--tokenizer-dir", "."), "save_pretrained"),
        (("--tokenizer", "bytes", "--tokenizer-dir", "."), "name another tokenizer"),
        (("--tokenizer", "bytes", "--dtype", "int16"), "no dtype 'int16'"),
        (("--tokenizer", "bytes", "--json-keys", "body"), "has no field 'body'; it has 'text'"),
        (("--tokenizer", "bytes", "--workers", "0"), "Invalid value for '--workers'"),
        (("--tokenizer", "bytes", "--split-sentences"), "No such option"),
    ],
)
def test_an_impossible_preprocess_is_an_error_with_the_reason(
    data: Call, tmp_path: Path, arguments: Any, message: str
) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    refused = data("preprocess", "--input", "in.jsonl", "--output-prefix", "out", *arguments)
    assert refused.code == BAD and message in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("command", ["jsonl", "preprocess", "batches"])
def test_no_command_overwrites_without_the_option(data: Call, articles: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
    arguments, output = {
        "jsonl": ((articles, "out.jsonl"), "out.jsonl"),
        "preprocess": (
            ("--input", "in.jsonl", "--output-prefix", "out", "--tokenizer", "bytes"),
            "out_text_document.bin",
        ),
        "batches": (("qwen3-tiny-fp32", "--text", articles, "--out", "out.safetensors"), "out.safetensors"),
    }[command]
    (tmp_path / output).write_bytes(b"precious")
    refused = data(command, *arguments)
    assert refused.code == BAD and f"{output} exists" in refused.err and "--overwrite" in refused.err
    assert (tmp_path / output).read_bytes() == b"precious"
    assert data(command, *arguments, "--overwrite").code == OK
    assert (tmp_path / output).read_bytes() != b"precious"
    assert not list(tmp_path.glob("*.partial"))
