"""The command line: exit codes, messages without tracebacks, and nothing lost."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.errors import InputError
from harness.cases.case import load_case, shipped_cases
from harness.cases.runs_of_a_case import REQUIRED_RUNS
from harness.certify import flow
from tests.support.bundles import edit_json, write_example
from tests.support.command_line import Call, caller
from tests.support.examples import FAKES, ROOT, TEXT, small_case
from tests.support.fake_runners import FLAG
from tests.support.full import full

pytestmark = pytest.mark.usefixtures("forked_runs")
RUNNERS = [word for side in ("subject", "reference", "oracle") for word in (f"--{side}", f"{FAKES}:Fake")]


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv(FLAG, str(tmp_path / "happened"))


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_example(tmp_path_factory.mktemp("example") / "bundle", case=small_case()).path


@pytest.fixture
def bundle(example: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(example, tmp_path / "bundle"))


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


def case_file(directory: Path, **changes: Any) -> Path:
    path = directory / "case.yaml"
    path.write_text(yaml.safe_dump({**small_case().record(), **changes}))
    return path


def text_file(directory: Path) -> Path:
    path = directory / "text.txt"
    path.write_text(TEXT)
    return path


def run_command(directory: Path, *more: object, subject: str = "Fake", reference: str = "Fake") -> list[str]:
    text = text_file(directory)
    runners = ["--subject", f"{FAKES}:{subject}", "--reference", f"{FAKES}:{reference}", "--oracle", f"{FAKES}:Fake"]
    return ["run", str(case_file(directory)), "--text", str(text), *runners, *map(str, more)]


def test_cases_lists_every_shipped_case(certify_: Call) -> None:
    result = certify_("cases")
    assert result.code == 0 and all(name in result.out for name in shipped_cases())


def test_cases_as_json_gives_the_digests(certify_: Call) -> None:
    found = json.loads(certify_("cases", "--json").out)
    assert {name: one["digest"] for name, one in found.items()} == {
        name: load_case(name).digest() for name in shipped_cases()
    }


def test_a_shown_case_can_be_loaded_again(certify_: Call, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(certify_("cases", "--show", "qwen3-tied-fp32").out)
    assert load_case(str(path)).digest() == load_case("qwen3-tied-fp32").digest()


def test_env_works_without_a_framework(certify_: Call) -> None:
    found = json.loads(certify_("env", "--json").out)
    assert {"device", "python", "machine", "packages", "variables", "source"} <= set(found)
    assert certify_("env").code == 0


def test_help_names_the_first_command() -> None:
    done = subprocess.run([sys.executable, "-m", "harness.cli", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "certify run" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--no-such-option"],
        ["no-such-command"],
        ["run", "--level", "Perfect"],
        ["run", "--threads", "0"],
        ["run", "no-such-case"],
        ["run", "--device", "GPU"],
        ["run", "--standard", "no-such-standard"],
        ["run", "--subject", "no-such-runner"],
        [
            "run",
            "--text",
            "no-such-file.txt",
            "--subject",
            f"{FAKES}:Fake",
            "--reference",
            f"{FAKES}:Fake",
            "--oracle",
            f"{FAKES}:Fake",
        ],
        [
            "run",
            "--data",
            "no-such-prefix",
            "--subject",
            f"{FAKES}:Fake",
            "--reference",
            f"{FAKES}:Fake",
            "--oracle",
            f"{FAKES}:Fake",
        ],
        ["run", "--text", "a", "--data", "b"],
        ["run", "--data", "a", "--tokenizer", "b"],
        ["run", "--tokenizer", "no-such-directory"],
        ["run", "a" * 300],
        ["run", "--standard", "a" * 300],
        ["cases", "--show", "no-such-case"],
        ["report", "no-such-bundle"],
        ["compare", "no-such-trace", "no-such-trace"],
        ["compare", "one"],
        ["report"],
        [],
    ],
    ids=lambda arguments: " ".join(arguments)[:60],
)
def test_bad_input_is_exit_code_2_and_a_message(
    certify_: Call, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = certify_(*arguments)
    assert result.code == 2 and result.err + result.out


def test_every_problem_of_a_case_is_reported_at_once(certify_: Call, tmp_path: Path) -> None:
    record = small_case().record()
    del record["model"]
    record["trainning"] = record.pop("training")
    record["data"]["seq_lenght"] = 16
    record["optimizer"]["eps"] = 0
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump(record))
    result = certify_("run", path)
    assert result.code == 2 and "is not a valid case (5 problems)" in result.err
    for problem in (
        "trainning: unknown key; did you mean 'training'?",
        "data.seq_lenght: unknown key; did you mean 'seq_length'?",
        "optimizer.eps: Input should be greater than 0",
        "model: Field required",
        "training: Field required",
    ):
        assert problem in result.err


@pytest.mark.parametrize("content", ["[1, 2]", "just words", "", "a: [", "\0", "model: {size: [1]}", "1: 2"])
def test_a_file_that_is_no_case_is_exit_code_2(certify_: Call, tmp_path: Path, content: str) -> None:
    path = tmp_path / "case.yaml"
    path.write_text(content)
    assert certify_("run", path).code == 2
    path.write_bytes(b"\xff\xfe\x00")
    assert certify_("run", path).code == 2


def test_a_run_certifies_and_writes_a_page(certify_: Call, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = certify_(*run_command(tmp_path, "--out", out, "--json"))
    summary = json.loads(result.out)
    assert result.code == 0, summary
    assert (summary["level"], summary["bundle"]) == ("Preliminary", str(out))
    assert (out / "report.html").is_file()
    assert set(summary["runs"]) == {
        *REQUIRED_RUNS,
    }  # fmt: skip
    again = certify_("report", out, "--json")
    assert again.code == 0 and json.loads(again.out)["bundle_digest"] == summary["bundle_digest"]


def test_a_level_that_is_not_met_is_exit_code_1(certify_: Call, tmp_path: Path) -> None:
    result = certify_(*run_command(tmp_path, "--out", tmp_path / "out", "--level", "Validated"))
    assert result.code == 1
    assert "Level: Preliminary" in result.out and "Missing for Validated" in result.out


OTHER_FAULTS = full(
    held_by="tests/unit/cli/test_cli.py::test_a_fault_of_the_subject_is_never_exit_code_0, "
    "tests/unit/evidence/test_fooling.py::test_it_is_not_fooled_by"
)


@pytest.mark.parametrize(
    ("fake", "code", "message"),
    [
        ("WrongRate", 1, "first beyond the limit at step 5"),
        ("Killed", 3, "killed by SIGKILL after step 4 of 8"),
        pytest.param("NotANumber", 1, "stopped at step 5", marks=OTHER_FAULTS),
        pytest.param("LacksATensor", 1, "model.norm.weight", marks=OTHER_FAULTS),
        pytest.param("HasAnotherTensor", 1, "model.extra.weight", marks=OTHER_FAULTS),
        pytest.param("Random", 1, "first beyond the limit at step 5", marks=OTHER_FAULTS),
        pytest.param("Crashes", 3, "the device is on fire", marks=OTHER_FAULTS),
    ],
)
def test_a_fault_of_the_subject_is_never_exit_code_0(
    certify_: Call, tmp_path: Path, fake: str, code: int, message: str
) -> None:
    result = certify_(*run_command(tmp_path, "--out", tmp_path / "out", subject=fake))
    assert (result.code, "Level: Preliminary" in result.out, "\nNext:\n" in result.out) == (code, False, False)
    assert message in " ".join(result.out.split())


def test_only_the_chosen_runners_are_required(certify_: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow.environment, "packages", lambda: dict.fromkeys(("torch", "transformers", "mindspore")))
    both = certify_("run", case_file(tmp_path), "--out", tmp_path / "a")
    assert both.code == 2 and "torch: not installed. Install it: pip install '.[torch]' (the runner 'torch'" in both.err
    command = run_command(tmp_path, "--out", tmp_path / "b", "--subject", "mindspore")
    one = certify_(*command)
    assert one.code == 2 and "package mindspore: not installed." in one.err and "torch" not in one.err
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_a_case_that_mindformers_cannot_train_is_refused_before_anything_runs(
    certify_: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow.environment, "packages", lambda: defaultdict(lambda: "1"))
    out = tmp_path / "b"
    for case, why in (
        ("qwen3-tiny-bf16", "it trains in float32 alone"),
        ("qwen3-tiny-tp2", "it trains in one process"),
    ):
        done = certify_("run", case, "--subject", "mindformers", "--out", out)
        assert done.code == 2 and why in done.err and not out.exists()


def test_an_output_directory_that_holds_something_is_refused_and_kept(certify_: Call, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "runs" / "subject-1").mkdir(parents=True)
    thesis = out / "runs" / "subject-1" / "thesis.txt"
    thesis.write_text("ten years of work")
    for more in ([], ["--resume"]):
        result = certify_(*run_command(tmp_path, "--out", out, *more))
        assert result.code == 2
        assert [path for path in out.rglob("*") if path.is_file()] == [thesis], more
        assert thesis.read_text() == "ten years of work"


def test_a_finished_bundle_is_not_written_over(certify_: Call, tmp_path: Path, bundle: Path) -> None:
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    for more in ([], ["--resume"]):
        result = certify_(*run_command(tmp_path, "--out", bundle, *more))
        assert result.code == 2 and "holds a finished bundle" in result.err
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "out, reason",
    [
        *((out, "cannot be written") for out in ("file", "file/below", "a" * 300)),
        ("/proc/nowhere", "/proc cannot be written"),
    ],
)
def test_an_output_directory_that_cannot_be_made_is_exit_code_2(
    certify_: Call, tmp_path: Path, out: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("kept")
    result = certify_(*run_command(tmp_path, "--out", out))
    assert result.code == 2 and reason in result.err
    assert Path("file").read_text() == "kept"


def test_an_interrupt_prints_the_command_that_resumes(certify_: Call, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # in namespaces no run could see that an earlier one hung
    command = run_command(tmp_path, "--out", out, "--protection", "order", subject="HangsOnce")
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.cli", *command], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    while not Path(os.environ[FLAG]).exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=120)
    assert process.returncode == 130 and "--resume" in message and "Traceback" not in message
    assert certify_(*command, "--resume").code == 0


def test_compare_of_equal_traces_is_exit_code_0(certify_: Call, bundle: Path) -> None:
    trace = bundle / "runs" / "reference-1" / "trace.jsonl"
    assert certify_("compare", trace, bundle / "runs" / "reference-2" / "trace.jsonl").code == 0
    assert json.loads(certify_("compare", trace, trace, "--json").out)["same"] is True


def test_compare_names_the_first_step_that_differs(certify_: Call, bundle: Path) -> None:
    result = certify_("compare", *(bundle / "runs" / run / "trace.jsonl" for run in ("reference-1", "subject-1")))
    assert result.code == 1 and "step 1" in result.out


def truncated(trace: Path, lines: int) -> Path:
    trace.write_bytes(b"".join(trace.read_bytes().splitlines(keepends=True)[:lines]))
    return trace


@pytest.mark.parametrize("lines", [1, 4, 9])
def test_compare_never_calls_an_unfinished_trace_the_same(certify_: Call, bundle: Path, lines: int) -> None:
    whole = bundle / "runs" / "reference-1" / "trace.jsonl"
    cut = truncated(bundle / "runs" / "reference-2" / "trace.jsonl", lines)
    for pair in ((whole, cut), (cut, whole), (cut, cut)):
        result = certify_("compare", *pair)
        assert result.code in (1, 2)
        assert certify_("compare", *pair, "--json").code == result.code


@pytest.mark.parametrize("edit", [b"", b"{}\n", b"[[[[" * 50_000 + b"\n", b'{"loss": NaN}\n'])
def test_compare_of_no_trace_is_exit_code_2(certify_: Call, bundle: Path, edit: bytes) -> None:
    trace = bundle / "runs" / "reference-1" / "trace.jsonl"
    trace.write_bytes(edit)
    assert certify_("compare", trace, trace).code == 2


def test_an_edited_trace_is_exit_code_2(certify_: Call, bundle: Path) -> None:
    trace = bundle / "runs" / "reference-1" / "trace.jsonl"
    trace.write_bytes(trace.read_bytes().replace(b'"tokens":', b'"tokens":9', 1))
    compared, reported = certify_("compare", trace, trace), certify_("report", bundle)
    assert compared.code == 2 and "was changed after its run ended" in compared.err
    assert reported.code == 2 and "changed: runs/reference-1/trace.jsonl" in reported.err


@pytest.mark.parametrize("lines", [0, 1, 5, 9])
def test_a_truncated_trace_in_a_bundle_is_exit_code_2(certify_: Call, bundle: Path, lines: int) -> None:
    truncated(bundle / "runs" / "subject-1" / "trace.jsonl", lines)
    assert certify_("report", bundle).code == 2


def test_an_edited_bundle_is_exit_code_2_and_its_page_stays(certify_: Call, bundle: Path) -> None:
    assert certify_("report", bundle).code == 0
    page = (bundle / "report.html").read_bytes()
    edit_json(bundle / "findings.json", lambda findings: findings[0].update(outcome="FAIL"))
    result = certify_("report", bundle)
    assert result.code == 2 and "changed: findings.json" in result.err
    assert (bundle / "report.html").read_bytes() == page


def test_a_page_that_cannot_be_written_is_exit_code_2(certify_: Call, bundle: Path) -> None:
    (bundle / "report.html").mkdir()
    assert certify_("report", bundle).code == 2


def test_resume_on_another_device_or_with_other_threads_is_refused(tmp_path: Path) -> None:
    from tests.support.examples import options, text_case

    out, case = tmp_path / "out", text_case(tmp_path)
    _, inputs = flow.prepare(case, (), options(out))
    flow.write_json(out / "inputs.json", vars(inputs))
    flow.prepare(case, (), options(out, resume=True))
    for change in ({"device": "Ascend"}, {"threads": 2}):
        with pytest.raises(InputError, match="another device, number of threads"):
            flow.prepare(case, (), options(out, resume=True, **change))


def test_resume_with_another_runner_is_refused_with_the_names_of_both(tmp_path: Path) -> None:
    from tests.support.examples import options, text_case

    out, case = tmp_path / "out", text_case(tmp_path)
    mine = tmp_path / "mine.py"
    mine.write_text("from tests.support.fake_runners import Fake\n\n\nclass Mine(Fake):\n    pass\n")
    _, inputs = flow.prepare(case, (), options(out))
    flow.write_json(out / "inputs.json", vars(inputs))
    with pytest.raises(InputError, match=r"started with other runners.*fake_runners.*then.*mine\.py.*now"):
        flow.prepare(case, (), dataclasses.replace(options(out, resume=True), subject=f"{mine}:Mine"))
