"""`certify import`, and `certify compare` with imported runs."""

import json
import os
from pathlib import Path

import pytest

from harness.logs import read_import
from tests.support.bundles import write_example
from tests.support.command_line import Call, caller
from tests.support.examples import small_case
from tests.support.logs import lines, megatron, mindformers


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    monkeypatch.chdir(tmp_path)
    return caller(capsys, monkeypatch)


def log(path: Path, *losses: float) -> Path:
    path.write_text(lines([mindformers(n, loss, of=len(losses)) for n, loss in enumerate(losses, 1)]))
    return path


def test_an_import_reports_its_steps_and_writes_a_file(certify_: Call, tmp_path: Path) -> None:
    result = certify_("import", log(tmp_path / "worker_0.log", 5.0, 4.9))
    assert result.code == 0 and "mindformers, worker_0.log: 2 steps, 1 to 2 of 2" in result.out
    assert "loss: 2 steps, known to 5e-07" in result.out
    assert (tmp_path / "worker_0.log.import.json").is_file()


def test_an_import_is_not_overwritten_and_the_same_one_succeeds_again(certify_: Call, tmp_path: Path) -> None:
    path = log(tmp_path / "worker_0.log", 5.0, 4.9)
    assert certify_("import", path).code == 0
    before = (tmp_path / "worker_0.log.import.json").read_bytes()
    assert certify_("import", path).code == 0
    log(path, 5.0, 4.8)
    again = certify_("import", path)
    assert again.code == 2 and "exists, with other content. Choose another name with --out" in again.err
    assert "--overwrite" not in again.err and (tmp_path / "worker_0.log.import.json").read_bytes() == before
    assert certify_("import", path, "--out", "other.json").code == 0


def test_an_import_that_contradicts_its_case_is_exit_code_1(certify_: Call, tmp_path: Path) -> None:
    path = log(tmp_path / "worker_0.log", 5.0, 4.9)
    result = certify_("import", path, "--case", "qwen3-tiny-fp32", "--json")
    output = json.loads(result.out)
    assert result.code == 1 and any("to a run of 2 steps" in text for text in output["against"])


def test_a_comparison_of_logs_names_the_first_step_that_differs(certify_: Call, tmp_path: Path) -> None:
    for name, losses in (("a", (5.0, 4.9, 4.8)), ("b", (5.0, 4.9, 4.7))):
        assert certify_("import", log(tmp_path / f"{name}.log", *losses), "--out", f"{name}.json").code == 0
    result = certify_("compare", "a.json", "b.json")
    assert result.code == 1 and "differs from step 3" in result.out
    alike = certify_("compare", "a.json", "a.json")
    assert alike.code == 1 and "INCONCLUSIVE" in alike.out and "digits can hide" in alike.out


def test_a_trace_is_compared_with_the_log_of_the_same_run(certify_: Call, tmp_path: Path) -> None:
    bundle = write_example(tmp_path / "bundle", case=small_case())
    trace = bundle.path / "runs" / "subject-1" / "trace.jsonl"
    steps = bundle.runs["subject-1"].trace.steps
    printed = lines([megatron(s.step, s.loss, of=len(steps), norm=f"{s.grad_norm:.3f}") for s in steps])
    (tmp_path / "run.log").write_text(printed)
    assert certify_("import", "run.log").code == 0
    found = json.loads(certify_("compare", trace, "run.log.import.json", "--json").out)
    assert found["numbers"]["loss"]["result"] == "INCONCLUSIVE" and found["numbers"]["loss"]["alone"] == 0
    assert found["numbers"]["learning_rate"]["result"] == "differs", "the line shows another rate"


@pytest.mark.parametrize("words", [["import", "none.log"], ["import", "a.log", "--format", "csv"], ["import", "a.log"]])
def test_a_failed_import_is_exit_code_2(certify_: Call, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "a.log").write_text("nothing\n")
    result = certify_(*words)
    assert result.code == 2 and result.err.startswith("Error:") and not list(tmp_path.glob("*.json"))


def test_a_log_in_place_of_an_import_is_named_with_the_command_that_imports_it(certify_: Call, tmp_path: Path) -> None:
    path = log(tmp_path / "worker_0.log", 5.0, 4.9)
    assert certify_("import", path, "--out", "a.json").code == 0
    (tmp_path / "trainer_state.json").write_text('{"log_history": [{"loss": 3.5, "step": 1}]}')
    for one, kind in ((path, "mindformers"), (tmp_path / "trainer_state.json", "hf-trainer")):
        for result in (certify_("compare", "a.json", one), certify_("compare", one, one)):
            assert (
                result.code == 2
                and f"is a log of {kind}, and no trace. Import it first: certify import {one}" in result.err
            )
    (tmp_path / "edited.json").write_text('{"steps": []}')
    assert "is a log of" not in certify_("compare", "a.json", "edited.json").err


def test_a_log_may_have_a_name_that_is_no_text(certify_: Call) -> None:
    name = os.fsdecode(b"worker_\xff.log")
    Path(name).write_text(lines(megatron(1, 5.0)))
    assert certify_("import", name, "--out", "run.json").code == 0
    assert list(read_import(Path("run.json")).files) == [r"worker_\udcff.log"]
