"""Tokenizer directories by their files alone: nothing of one is executed, and what is missing is named at once."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import InputError
from harness.cases.case import load_case
from harness.certify.case_options import with_model
from harness.corpus.tokenizers import HuggingFaceTokenizer, check_directory
from tests.support.command_line import caller

CODE = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
class Mine: ...
"""


def directory(path: Path, **files: Any) -> Path:
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        name = name.replace("__", ".")
        (path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config__json": {"auto_map": {"AutoTokenizer": ["mine.Mine", None]}}},
        {"tokenizer_config__json": {"auto_map": ["mine.Mine", None]}},
        {"tokenizer_config__json": {"auto_map": "mine.Mine", "tokenizer_class": "Mine"}},
        {"config__json": {"auto_map": {"AutoTokenizer": "mine.Mine"}, "model_type": "mine"}},
        {"config__json": {"auto_map": {"AutoConfig": "mine.Mine"}}, "tokenizer__json": "{}"},
        {
            "tokenizer_config__json": {
                "auto_map": {"AutoTokenizer": ["", "mine.Mine"]},
                "tokenizer_class": "Qwen2Tokenizer",
            }
        },
    ],
)
def test_a_directory_with_code_is_refused_and_nothing_of_it_is_executed(files: dict[str, Any], tmp_path: Path) -> None:
    path = directory(tmp_path / "tokenizer", mine__py=CODE, **files)
    for act in (check_directory, HuggingFaceTokenizer):
        with pytest.raises(InputError, match=r"has auto_map: .* no code of a directory is ever executed\. Save"):
            act(path)
    assert not (path / "ran").exists()


def test_no_command_asks_about_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = directory(
        tmp_path / "tokenizer",
        mine__py=CODE,
        tokenizer_config__json={"auto_map": {"AutoTokenizer": ["mine.Mine", None]}},
    )
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on standard input"))
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    certify = caller(capsys, monkeypatch)
    for words in (
        [
            "data",
            "preprocess",
            "--input",
            tmp_path / "a.jsonl",
            "--output-prefix",
            tmp_path / "a",
            "--tokenizer-dir",
            path,
        ],
        ["run", "qwen3-tiny-fp32", "--tokenizer", path, "--out", tmp_path / "out"],
    ):
        done = certify(*words)
        assert done.code == 2 and "auto_map" in done.said
    assert not (path / "ran").exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json"])
def test_a_pointer_of_git_lfs_is_named(name: str, tmp_path: Path) -> None:
    path = directory(
        tmp_path / "tokenizer", **{name.replace(".", "__"): "version https://git-lfs.github.com/spec/v1\n"}
    )
    with pytest.raises(InputError, match=rf"{name} is a Git LFS pointer, not the file\. Run 'git lfs pull' there"):
        check_directory(path)


def test_code_of_a_model_alone_does_not_concern_its_tokenizer(tmp_path: Path) -> None:
    check_directory(directory(tmp_path / "t", config__json={"auto_map": {"AutoModelForCausalLM": "mine.Mine"}}))


def test_inference_of_a_checkpoint_without_a_chat_template_is_refused_at_once(tmp_path: Path) -> None:
    case = load_case("qwen3-tiny-inference")
    config = case.model.to_hf()
    path = directory(tmp_path / "model", config__json=config, tokenizer__json="{}", tokenizer_config__json={})
    with pytest.raises(InputError, match=r"has no chat template.* Inference and fine-tuning need one"):
        with_model(case, path)
    assert with_model(load_case("qwen3-tiny-fp32"), path).data.tokenizer.path == str(path), "pretraining needs none"


@pytest.mark.parametrize("files", [("vocab.json", "merges.txt"), ("tokenizer.model",), ("tokenizer.json",)])
def test_the_tokenizer_of_a_checkpoint_is_used_in_whatever_form_it_is(files: tuple[str, ...], tmp_path: Path) -> None:
    case = load_case("qwen3-tiny-fp32")
    path = directory(
        tmp_path / "model", config__json=case.model.to_hf(), **{name.replace(".", "__"): "" for name in files}
    )
    assert with_model(case, path).data.tokenizer.kind == "huggingface"


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "it has neither tokenizer.json, nor vocab.json and merges.txt"),
        ({"tokenizer_config__json": {}}, "it has neither tokenizer.json, nor vocab.json and merges.txt"),
        ({"vocab__json": {"a": 0}, "tokenizer_config__json": {}}, "it has vocab.json and lacks merges.txt"),
        ({"merges__txt": "a b\n", "config__json": {}}, "it has merges.txt and lacks vocab.json"),
        ({"tokenizer__json": {}}, "has no tokenizer_config.json, which names the class and the end of a document"),
        ({"vocab__json": {"a": 0}, "merges__txt": "a b\n"}, "has no tokenizer_config.json"),
        ({"vocab__json": "", "merges__txt": "a b\n", "config__json": {}}, "vocab.json is not JSON in UTF-8"),
        ({"tokenizer__json": {}, "tokenizer_config__json": '{"tokenizer_cl'}, "tokenizer_config.json is not JSON"),
        ({"tokenizer__json": {}, "tokenizer_config__json": [1]}, "tokenizer_config.json holds no JSON object"),
        ({"tokenizer__json": {}, "tokenizer_config__json": {}, "added_tokens__json": "x"}, "added_tokens.json is not"),
    ],
)
def test_what_a_directory_lacks_is_named_by_its_files_alone(files: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        HuggingFaceTokenizer(directory(tmp_path / "tokenizer", **files))
    assert why in str(refused.value) and str(tmp_path / "tokenizer") in str(refused.value)


def test_a_vocabulary_in_the_form_of_tiktoken_is_named_with_the_command_that_converts_it(tmp_path: Path) -> None:
    path = directory(tmp_path / "tokenizer", tokenizer_config__json={"tokenizer_class": "QWenTokenizer"})
    (path / "qwen.tiktoken").write_text("aGVsbG8= 0\n")
    with pytest.raises(InputError) as refused:
        HuggingFaceTokenizer(path)
    assert f"certify data tokenizer NEW --vocabulary {path / 'qwen.tiktoken'}" in str(refused.value)
