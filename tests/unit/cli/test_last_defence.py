"""What is bad, too large or unforeseen ends with a message and a documented exit code, and never with a verdict's."""

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from harness.base.errors import InputError
from harness.base.locks import locked
from harness.base.records import read_json
from harness.certify import flow
from harness.certify.baseline import Statement
from harness.certify.jobs import Options
from harness.cli import level as level_command
from harness.cli.terminal import DEFECT
from harness.evidence.bundle import finish_bundle
from harness.runners import resuming
from harness.runs.trace import RunOutcome, Step, TraceHeader
from qwen3_model.weights import WeightsError, load_safetensors
from tests.support.bundles import edit_json, write_example
from tests.support.command_line import Call, caller
from tests.support.examples import inference_case, small_case
from tests.support.fooling import forge

TRUST = """
keys:
  - person: A
    public_key: |
      -----BEGIN PUBLIC KEY-----
      MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
      -----END PUBLIC KEY-----
    roles: [developer]
    valid_from: 2026-01-01
    valid_until: 2026-12-31
"""


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example(tmp_path_factory.mktemp("made") / "bundle", case=small_case()).path


@pytest.fixture
def bundle(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(made, "bundle"))


@pytest.mark.parametrize(
    "error", [RuntimeError("[/x] boom"), RecursionError("deep"), KeyError("k"), UnicodeError("\ud800")]
)
def test_what_no_one_foresaw_is_exit_code_4_with_a_file_that_holds_the_traceback(
    certify_: Call, bundle: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, tmp_path: Path
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(level_command, "read_submission", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = certify_("level", "bundle", "--json")
    (kept,) = tmp_path.glob("certify-defect-*.txt")
    assert result.code == DEFECT == 4 and str(kept) in result.err and "defect of this program" in result.err
    assert json.loads(result.out)["exit_code"] == 4
    text = kept.read_text()
    assert "certify level bundle --json" in text and "Traceback" in text and type(error).__name__ in text


def test_a_defect_on_a_full_disk_is_still_exit_code_4(
    certify_: Call, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(level_command, "read_submission", fail)
    monkeypatch.setattr("tempfile.mkstemp", full)
    result = certify_("level", "bundle")
    assert result.code == 4 and "could not be written" in result.err


def test_a_full_disk_is_bad_input(certify_: Call, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "page")

    monkeypatch.setattr("harness.cli.report.write_report", full)
    result = certify_("report", "bundle")
    assert result.code == 2 and "page: No space left on device" in result.err


def test_too_little_memory_is_bad_input(certify_: Call, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("harness.cli.report.write_report", full)
    assert certify_("report", "bundle").code == 2


def test_the_last_day_of_the_calendar_is_a_day(certify_: Call, bundle: Path) -> None:
    assert "Untested" in certify_("level", "bundle", "--at", "9999-12-31").out
    assert certify_("level", "bundle", "--at", "0001-01-01").code == 0


def test_a_run_on_the_last_day_of_the_calendar_expires_with_it(certify_: Call, bundle: Path) -> None:
    edit_json(bundle / "run.json", lambda run: run.update(started="9999-12-31T00:00:00+00:00"))
    finish_bundle(bundle)
    for command in (("level", "bundle"), ("report", "bundle"), ("site", "bundle", "--out", "site")):
        assert certify_(*command).code == 0, command


@pytest.mark.parametrize("name", ["[/x]", "[bold]", "[", ":smile:", "[/red]:Subject"])
def test_a_name_that_looks_like_markup_is_printed_as_it_is(certify_: Call, tmp_path: Path, name: str) -> None:
    def named(header: TraceHeader) -> TraceHeader:
        return dataclasses.replace(header, runner=f"{name}:Class") if header.side != "oracle" else header

    path = write_example(tmp_path / "b", case=small_case(), header=named).path
    result = certify_("level", path)
    assert result.code == 0 and f"{name}:Class" in result.out
    assert certify_("report", path).code == 0


def test_losses_of_exactly_0_give_a_verdict_and_a_page(certify_: Call, tmp_path: Path) -> None:
    def nothing(run: str, step: Step) -> Step:
        return dataclasses.replace(step, loss=0.0, grad_norm=0.0)

    path = write_example(tmp_path / "b", case=small_case(), change=nothing).path
    for command in (("level", path), ("report", path), ("verify", path), ("site", path, "--out", tmp_path / "site")):
        assert certify_(*command).code == 0, command


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F16"])
def test_a_tensor_of_another_type_is_refused(certify_: Call, bundle: Path, dtype: str) -> None:
    size = {"BF16": 2, "F8_E4M3": 1, "F16": 2}[dtype]
    for path in ("inputs/weights.safetensors", "inputs/batches.safetensors", "tensors/subject-1.safetensors"):
        here = Path(shutil.copytree(bundle, f"{bundle}-{path.replace('/', '-')}"))
        header = json.dumps({"tokens": {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, 4 * size]}}).encode()
        (here / path).write_bytes(len(header).to_bytes(8, "little") + header + b"\1" * size * 4)
        forge(here)
        result = certify_("verify", here)
        assert result.code == 2 and path in result.err


@pytest.mark.parametrize(
    "name", ["attestations/large.json", "report.html", "findings.json", "runs/subject-1/trace.jsonl", "case.json",
             "runs/subject-1/timing.jsonl", "manifest.json", "record.json"],
)  # fmt: skip
def test_a_file_of_holes_is_refused_before_it_is_read(
    certify_: Call, bundle: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A file of 20 GB that takes no disk. Its digest is never computed here, since that takes time and no memory."""
    path = bundle / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    os.truncate(path, 20 << 30)
    monkeypatch.setattr("harness.base.records.digest_file", lambda path: "0" * 64)
    monkeypatch.setattr("harness.evidence.bundle_files.check_list", lambda *_: None)
    monkeypatch.setattr(
        "harness.evidence.bundle_files.digest_file", lambda path: read_json(bundle / "record.json")["manifest"]
    )
    Path("trust.yaml").write_text(TRUST)
    result = certify_("verify", "bundle", "--trust", "trust.yaml")
    assert result.code == 2 and ("bytes" in result.said), result


def test_a_case_of_ten_million_steps_is_refused_before_anything_is_measured(certify_: Call, bundle: Path) -> None:
    edit_json(bundle / "case.json", lambda case: case["training"].update(steps=10_000_000))
    forge(bundle)
    result = certify_("verify", "bundle")
    assert result.code == 2 and "training.steps: Input should be less than or equal to 100000" in result.err


@pytest.mark.parametrize("field", ["pipeline_stage", "data_parallel", "model_parallel", "micro_batch_num"])
def test_a_layout_of_a_million_millions_is_refused(certify_: Call, tmp_path: Path, field: str) -> None:
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump({**small_case().model_dump(mode="json"), "parallel": {field: 10**12}}))
    result = certify_("plan", path)
    assert result.code == 2 and f"parallel.{field}" in result.err


def test_a_misspelt_key_of_inference_is_named(certify_: Call, tmp_path: Path) -> None:
    content = inference_case(20).model_dump(mode="json")
    content["inference"]["rowz"] = content["inference"].pop("rows")
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump(content))
    result = certify_("plan", path)
    assert result.code == 2 and "inference.rowz: unknown key; did you mean 'rows'?" in result.err


@pytest.mark.parametrize(
    "text",
    [
        "x: 2026-02-30", "2026-01-01: x", "? [a, b]\n: c", "!!python/object:os.system x", "x: !!timestamp foo",
        "!!set {a, b}", 'x: !!binary "/w=="', 'x: !!binary "\u00e9"', 'x: "\\ud800"', "x: !!omap [a: 1]", "- 1", "1",
        ".inf: 1",
        'x: !!int ""', 'x: !!int "_"', 'x: !!float ""', 'x: !!float "."', 'x: !!bool "z"', "x: 1:2:3", "x: !!null q",
        "x: !!pairs [1]", "x: !!map [1]", "x: !!seq {a: 1}", "x: !!str {a: 1}", "x: 99999999999-01-01", "x: 0000-00-00",
        "x: 2026-01-01T25:00:00Z", "x: 2026-01-01T00:00:00+99:99", "=: 1", "x: =", "<<: 1", "x: !<!> 1", "x: ! 1",
    ],
)  # fmt: skip
def test_no_date_or_tag_in_yaml_is_a_traceback(certify_: Call, tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(text)
    for command in (
        ("plan", path),
        ("level", tmp_path, "--trust", path),
        ("nightly", path, "--history", tmp_path / "h"),
    ):
        assert certify_(*command).code == 2, command
    content = yaml.safe_dump(small_case().model_dump(mode="json"))
    path.write_text(f"{content}\n{text}\n")
    assert certify_("plan", path).code == 2


def test_truncated_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": np.zeros((64, 64), np.float32)}, path)
    whole = path.read_bytes()
    for length in (0, 4, 8, 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match=r"model\.safetensors"):
            load_safetensors(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', "[" * 10_000,
                                  '{"weight_map": {"a": "../model.safetensors"}}',
                                  '{"weight_map": {"a": "1.safetensors", "a": "2.safetensors"}}'])  # fmt: skip
def test_an_index_of_weights_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(WeightsError, match="weight_map"):
        load_safetensors(tmp_path)


def test_a_bad_bundle_is_named_and_the_others_are_shown(certify_: Call, bundle: Path) -> None:
    shutil.copytree(bundle, "other")
    Path("other/notes.txt").write_text("hello")
    result = certify_("level", ".")
    assert result.code == 2 and "extra: notes.txt" in result.out and "Untested: " in result.out
    found = json.loads(certify_("level", ".", "--json").out)
    assert [one["bundle"] for one in found["levels"]] == ["bundle"] and list(found["refused"]) == ["other"]
    result = certify_("site", ".", "--out", "../site")
    assert result.code == 0 and "not valid evidence: other" in result.out and "Untested: " in result.out


def test_a_newer_run_that_left_no_trace_takes_the_level_away(certify_: Call, bundle: Path) -> None:
    def in_graph_mode(header: TraceHeader) -> TraceHeader:
        return dataclasses.replace(header, provenance={**header.provenance, "mode": "GRAPH"})

    shutil.rmtree(bundle)
    write_example(Path("older"), case=small_case(), header=in_graph_mode)
    newer = write_example(
        Path("newer"), case=small_case(), header=in_graph_mode, occasion={"started": "2026-02-01T02:00:00+00:00"},
        outcomes={"subject-1": RunOutcome(status="crashed", last_step=0, detail="killed")},
    )  # fmt: skip
    (newer.path / "runs" / "subject-1" / "trace.jsonl").unlink()
    for left in newer.path.glob("tensors/subject-1.safetensors"):
        left.unlink()
    finish_bundle(newer.path)
    found = json.loads(certify_("level", ".", "--at", "2026-02-03", "--json").out)["levels"]
    assert [(one["bundle"], one["level"]) for one in found] == [("newer", "none")]


def test_two_recordings_of_one_case_at_once_are_refused(tmp_path: Path) -> None:
    case = small_case()
    statement = Statement(author="A", reason="R", command=())
    options = Options(out=tmp_path, command=())
    held = locked(tmp_path / f".{case.name}.lock", user="recording of this case", option="--baselines")
    with pytest.MonkeyPatch.context() as patch, held, pytest.raises(InputError, match="Another recording of this case"):
        patch.setattr(flow.prerequisites, "check", lambda *_: None)
        patch.setattr(flow, "check_new", lambda *_, **__: None)
        flow.record(case, options, statement, tmp_path, lambda *_: None, replace=False)


def test_of_the_checkpoints_of_a_run_only_the_newest_stays(tmp_path: Path) -> None:
    class Saving:
        def save(self, directory: Path) -> None:
            directory.mkdir(parents=True)
            (directory / "state").write_bytes(b"state")

    for step in (5, 10, 15):
        resuming.save_checkpoint(Saving(), None, tmp_path, step)  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["15", "step.json"]
    assert resuming.resume_step(tmp_path) == 15


def test_a_checkpoint_that_is_not_as_it_was_written_begins_its_run_again(tmp_path: Path) -> None:
    class Saving:
        def save(self, directory: Path) -> None:
            directory.mkdir(parents=True)
            (directory / "state").write_bytes(b"state")

    for spoil in (
        lambda: (tmp_path / "5" / "state").write_bytes(b"stat"),
        lambda: (tmp_path / "5" / "state").write_bytes(b"\0\0\0\0\0"),
        lambda: (tmp_path / "5" / "state").unlink(),
        lambda: (tmp_path / "step.json").write_bytes(b""),
        lambda: (tmp_path / "step.json").write_bytes(b"5"),
        lambda: (tmp_path / "step.json").write_bytes(b"[" * 10_000),
    ):
        shutil.rmtree(tmp_path / "5", ignore_errors=True)
        resuming.save_checkpoint(Saving(), None, tmp_path, 5)  # type: ignore[arg-type]
        assert resuming.resume_step(tmp_path) == 5
        spoil()
        assert resuming.resume_step(tmp_path) == 0
