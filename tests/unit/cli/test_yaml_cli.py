"""YAML files on the command line: what is wrong in one is exit code 2, with its file and its line, before any run."""

import shutil
from pathlib import Path

import pytest
import yaml

from harness.attestation import keygen
from tests.support.bundles import write_example
from tests.support.command_line import Call, caller
from tests.support.examples import ROOT, small_case
from tests.support.signing import entry

GUIDE = ROOT / "qwen3_model" / "configs" / "pretrain_qwen3_32b_4k.yaml"
STANDARD = """\
name: mine
version: 1
title: Mine
criteria:
  - id: loss
    title: Loss of every step
    limits:
      - measurement: train.loss.relative
        statistic: maximum
        value: 1.0e-5
        reason: Why.
        source: Where.
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of a user who has a case, a standard, a matrix, a mindformers configuration and a trust file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(small_case().record(), sort_keys=False))
    (tmp_path / "standard.yaml").write_text(STANDARD)
    (tmp_path / "matrix.yaml").write_text("name: mine\ncells:\n  - case: case.yaml\n")
    shutil.copyfile(GUIDE, tmp_path / "guide.yaml")
    keygen(tmp_path / "li")
    (tmp_path / "trust.yaml").write_text(yaml.safe_dump({"keys": [entry("li")], "withdrawn": []}, sort_keys=False))
    return tmp_path


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example(tmp_path_factory.mktemp("example") / "bundle", case=small_case()).path


def again(path: Path, line: str) -> int:
    """Writes a line of a file a second time below it; gives the number of the second."""
    lines = path.read_text().splitlines()
    at = next(index for index, text in enumerate(lines) if text.lstrip().startswith(line))
    lines.insert(at + 1, lines[at])
    path.write_text("\n".join(lines))
    return at + 2


# The file, a line of it that is written twice, its key, and the command that reads the file.
TWICE: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "case": ("case.yaml", "seq_length:", ("run", "case.yaml", "--out", "out")),
    "case to plan": ("case.yaml", "seq_length:", ("plan", "case.yaml")),
    "standard": ("standard.yaml", "value:", ("run", "case.yaml", "--standard", "standard.yaml", "--out", "out")),
    "trust file": ("trust.yaml", "withdrawn:", ("verify", "BUNDLE", "--trust", "trust.yaml")),
    "matrix": ("matrix.yaml", "name:", ("nightly", "matrix.yaml", "--history", "out")),
    "mindformers": ("guide.yaml", "run_mode:", ("run", "--config", "guide.yaml", "--out", "out")),
    "mindformers to plan": ("guide.yaml", "run_mode:", ("plan", "guide.yaml")),
    "mindformers to compile": ("guide.yaml", "run_mode:", ("plan", "guide.yaml", "--compile")),
}


@pytest.mark.parametrize("kind", TWICE)
def test_a_key_that_is_given_twice_is_exit_code_2_with_its_line(
    certify_: Call, place: Path, bundle: Path, kind: str
) -> None:
    name, line, command = TWICE[kind]
    second = again(place / name, line)
    result = certify_(*(bundle if word == "BUNDLE" else word for word in command))
    key = line.removesuffix(":")
    assert result.code == 2 and not (place / "out").exists()
    assert f"{name}:{second}: the key '{key}' is given twice, first in line {second - 1}" in result.err


def test_a_misspelt_measurement_is_exit_code_2_with_its_line(certify_: Call, place: Path) -> None:
    path = place / "standard.yaml"
    path.write_text(STANDARD.replace("train.loss.relative", "train.los.relative"))
    result = certify_("run", "case.yaml", "--standard", path.name, "--out", "out")
    assert result.code == 2 and not (place / "out").exists()
    told = "criteria.0.limits.0.measurement: nothing measures 'train.los.relative'. Did you mean 'train.loss.relative'?"
    assert f"standard.yaml:8: {told}" in result.err


SPOILT: dict[str, bytes] = {
    "not UTF-8": b"name: x\ntitle: \xff\n",
    "UTF-16": "name: x\n".encode("utf-16"),
    "a control character": b"name: x\ntitle: \x07\n",
    "no YAML": b"name: x\ntitle: [\n",
    "an alias in itself": b"name: x\ntitle: &a [*a]\n",
    "aliases that multiply": b"a0: &a0 [x]\n" + b"".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n".encode() for n in range(1, 60)
    ),
    "brackets without end": b"[" * 4000,
    "a day that is none": b"name: x\ntitle: 2026-02-30\n",
}  # fmt: skip
READERS: dict[str, tuple[str, ...]] = {
    "case.yaml": ("run", "case.yaml"),
    "standard.yaml": ("run", "case.yaml", "--standard", "standard.yaml"),
    "trust.yaml": ("verify", "BUNDLE", "--trust", "trust.yaml"),
    "matrix.yaml": ("nightly", "matrix.yaml"),
    "guide.yaml": ("plan", "guide.yaml", "--compile"),
}


@pytest.mark.parametrize(
    ("name", "spoilt"), [*(("case.yaml", spoilt) for spoilt in SPOILT), *((name, "no YAML") for name in READERS)]
)
def test_a_file_that_is_no_yaml_is_exit_code_2_and_names_the_file(
    certify_: Call, place: Path, bundle: Path, name: str, spoilt: str
) -> None:
    (place / name).write_bytes(SPOILT[spoilt])
    result = certify_(*(bundle if word == "BUNDLE" else word for word in READERS[name]))
    assert result.code == 2 and f"{name} cannot be read as YAML (1 problem): " in result.err


@pytest.mark.parametrize("name", READERS)
def test_a_file_with_a_byte_order_mark_is_read_like_one_without(
    certify_: Call, place: Path, bundle: Path, name: str
) -> None:
    path = place / name
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"\nwrong_key: 1\n")
    result = certify_(*(bundle if word == "BUNDLE" else word for word in READERS[name]))
    line = path.read_text().count("\n")
    assert result.code == 2 and f"{name}:{line}: wrong_key: unknown key" in result.err


@pytest.mark.parametrize("name", READERS)
def test_a_file_that_is_a_directory_is_exit_code_2_and_named(
    certify_: Call, place: Path, bundle: Path, name: str
) -> None:
    (place / name).unlink()
    (place / name).mkdir()
    result = certify_(*(bundle if word == "BUNDLE" else word for word in READERS[name]))
    assert result.code == 2 and name in result.err
