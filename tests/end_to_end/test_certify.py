"""Whole runs from case to level, with both real frameworks, through the command line.

The clean run is made once; another run of the same case takes over its reference half by hard links.
"""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cases.case import load_case
from harness.cases.runs_of_a_case import REQUIRED_RUNS
from harness.comparison.measurement import Measurement
from harness.defects import load_defect
from harness.evidence.bundle import Bundle, read_bundle
from harness.evidence.judge import Finding, Outcome
from harness.runs.files import OUTCOME, TRACE
from tests.support.bundles import edit_json
from tests.support.certify_process import certify, start_certify
from tests.support.examples import shorter
from tests.support.full import full
from tests.support.processes import until
from tests.support.scenes import without_subject

STEPS = 30
FAULTS = "tests.support.faults"
MET, NOT_MET, BROKEN, INTERRUPTED = 0, 1, 3, 130


def write_case(path: Path, name: str, **training: Any) -> Path:
    """A shipped case with fewer steps, and a checkpoint every tenth."""
    case = shorter(load_case(name), STEPS, lr_zero_steps=12, checkpoint_every=10, **training)
    path.write_text(yaml.safe_dump(case.record()))
    return path


def worker_processes(out: Path) -> list[str]:
    """The command lines of processes that were started for a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if "harness.runners.worker" in line and str(out) in line:
            found.append(line)
    return found


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_case(tmp_path_factory.mktemp("case") / "case.yaml", "qwen3-tiny-fp32")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, case: Path) -> tuple["subprocess.CompletedProcess[str]", Path]:
    out = tmp_path_factory.mktemp("clean") / "bundle"
    return certify("run", case, "--out", out), out


def finding(bundle: Bundle, criterion: str) -> Finding:
    return next(one for one in bundle.findings if one.criterion == criterion)


def largest(measurement: Measurement) -> float:
    assert measurement.values
    return max(measurement.values)


def test_a_clean_run_meets_preliminary_and_every_criterion_it_is_long_enough_for(clean: Any) -> None:
    done, out = clean
    assert done.returncode == MET, done.stdout + done.stderr
    open_ = [one.criterion for one in read_bundle(out).findings if one.outcome is not Outcome.PASS]
    assert open_ == ["official-steps"]
    assert "Level: Preliminary (Qwen3 tiny, training on CPU, one process, float32)" in done.stdout
    assert (out / "report.html").stat().st_size > 100_000


def test_a_clean_run_stays_far_inside_the_strict_limits(clean: Any) -> None:
    comparison = read_bundle(clean[1]).comparison
    assert comparison["train.loss.relative"].values[0] <= 1e-6
    assert largest(comparison["train.loss.relative"]) <= 2e-6
    assert comparison["train.grad_norm.relative"].values[0] <= 1e-6
    assert largest(comparison["train.grad_norm.relative"]) <= 1e-5
    assert largest(comparison["lr_zero.loss.relative"]) <= 1e-6


@pytest.mark.parametrize("side", ["reference", "subject"])
def test_two_fresh_processes_give_the_same_bits(clean: Any, side: str) -> None:
    runs = read_bundle(clean[1]).runs
    first, second = runs[f"{side}-1"].trace, runs[f"{side}-2"].trace
    assert first is not None and second is not None and first.footer is not None and second.footer is not None
    assert first.steps == second.steps
    assert first.footer.parameters == second.footer.parameters


# defect: criterion that must refuse it, and the last step at which it may first be seen; test_power.py has more of them
DEFECTS = {
    "missing-key-norm": ("first-loss", 1),
    "decay-on-norms": ("grad-norm", STEPS),
    "schedule-late": ("learning-rate", 2),
}


@full(
    held_by="tests/defects/test_catalogue.py::test_a_defect_changes_what_its_subject_records, "
    "tests/unit/evidence/test_fooling.py::test_it_is_not_fooled_by"
)
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_refused_and_its_first_step_named(
    clean: Any, case: Path, tmp_path: Path, defect: str
) -> None:
    out = without_subject(clean[1], tmp_path / "bundle")
    done = certify("run", case, "--out", out, "--resume", "--subject", load_defect(defect).runner)
    assert done.returncode == NOT_MET, done.stdout + done.stderr
    criterion, latest = DEFECTS[defect]
    found = finding(read_bundle(out), criterion)
    first = found.judged[0].first_beyond
    assert found.outcome is Outcome.FAIL
    assert isinstance(first, int) and first <= latest
    assert f"first beyond the limit at step {first}" in done.stdout.replace("\n", " ")


@full(
    held_by="tests/unit/runners/test_launcher.py::test_a_run_ends_at_its_first_number_that_is_not_finite, "
    "tests/unit/evidence/test_failing_runs.py::test_not_a_number_is_a_failure"
)
def test_a_loss_that_is_not_a_number_is_never_a_pass(clean: Any, case: Path, tmp_path: Path) -> None:
    out = without_subject(clean[1], tmp_path / "bundle", f"{FAULTS}:NotANumber")
    done = certify("run", case, "--out", out, "--resume", "--subject", f"{FAULTS}:NotANumber")
    assert done.returncode == NOT_MET, done.stderr
    assert "stopped at step 12, which is not finite" in done.stdout
    assert "Level: No level (Qwen3 tiny by tests.support.faults:NotANumber, training on CPU," in done.stdout
    assert finding(read_bundle(out), "loss").judged[0].first_beyond == 12


@full(held_by="tests/unit/runners/test_launcher.py::test_a_run_that_hangs_is_ended_with_all_that_it_started")
def test_a_run_that_hangs_is_ended_and_said_to_hang(clean: Any, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    case = write_case(tmp_path / "case.yaml", "qwen3-tiny-fp32", step_timeout_s=4.0)
    without_subject(clean[1], out, f"{FAULTS}:Hangs")
    edit_json(out / "case.json", lambda record: record["training"].update(step_timeout_s=4.0))
    done = certify("run", case, "--out", out, "--resume", "--subject", f"{FAULTS}:Hangs")
    assert done.returncode == BROKEN, done.stdout + done.stderr
    assert "hung: no step within 4 s after step 11" in done.stdout
    assert worker_processes(out) == []


@full(
    held_by="tests/unit/runners/test_launcher.py::test_resume_after_a_kill_gives_the_bytes_of_an_uninterrupted_run, "
    "tests/model/test_qwen3_training.py::test_resuming_continues_bit_for_bit"
)
def test_a_killed_run_goes_on_from_its_checkpoint_with_the_same_bits(clean: Any, case: Path, tmp_path: Path) -> None:
    out = without_subject(clean[1], tmp_path / "bundle", f"{FAULTS}:KilledOnce")
    again = ["run", case, "--out", out, "--resume", "--subject", f"{FAULTS}:KilledOnce"]
    first = certify(*again)
    assert first.returncode == BROKEN, first.stdout + first.stderr
    assert "killed by SIGKILL after step 11 of 30" in first.stdout
    second = certify(*again)
    assert second.returncode == MET, second.stdout + second.stderr
    bundle = read_bundle(out)
    assert bundle.runs["subject-1"].outcome.resumed_after == (10,)
    resumed, whole = bundle.runs["subject-1"].trace, bundle.runs["subject-2"].trace
    assert resumed is not None and whole is not None and resumed.footer is not None and whole.footer is not None
    assert resumed.steps == whole.steps
    assert resumed.footer.parameters == whole.footer.parameters


@full(
    held_by="tests/unit/runners/test_launcher.py::test_an_interrupt_leaves_no_process_and_a_run_that_goes_on, "
    "tests/unit/cli/test_cli.py::test_an_interrupt_prints_the_command_that_resumes"
)
def test_ctrl_c_leaves_no_process_and_resume_goes_on(case: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    running = start_certify("run", case, "--out", out)
    trace = out / "runs" / "reference-1" / TRACE
    until(lambda: trace.is_file() and trace.read_bytes().count(b"\n") > 3, "the first run has steps", seconds=600)
    running.send_signal(signal.SIGINT)
    text = "".join(running.communicate(timeout=120))
    assert running.returncode == INTERRUPTED, text
    assert "--resume" in text
    assert worker_processes(out) == []
    done = certify("run", case, "--out", out, "--resume")
    assert done.returncode == MET, done.stdout + done.stderr


@full(
    held_by="tests/parity/test_qwen3_model_parity.py::test_one_optimizer_step, "
    "tests/model/test_qwen3_training.py::test_accumulation_gives_the_step_of_the_whole_batch, "
    "tests/model/test_qwen3_training.py::test_recomputation_changes_no_bit"
)
def test_a_tied_head_with_ragged_micro_batches_and_recompute_is_certified(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case.yaml", "qwen3-tied-fp32")
    done = certify("run", case, "--out", tmp_path / "bundle")
    assert done.returncode == MET, done.stdout + done.stderr
    trace = read_bundle(tmp_path / "bundle").runs["subject-1"].trace
    assert trace is not None
    tokens = {step.tokens for step in trace.steps}
    assert len(tokens) > 1


@full(
    held_by="tests/parity/test_qwen3_bfloat16_parity.py::test_loss_is_as_near_as_autocast_is_to_itself, "
    "tests/parity/test_qwen3_bfloat16_parity.py::test_every_gradient_is_as_near_as_autocast_is_to_itself"
)
def test_a_bfloat16_run_shows_its_differences_beside_the_floor(tmp_path: Path) -> None:
    case = write_case(tmp_path / "case.yaml", "qwen3-tiny-bf16", floor_repeats=2)
    done = certify("run", case, "--out", tmp_path / "bundle")
    assert done.returncode == MET, done.stdout + done.stderr
    comparison = read_bundle(tmp_path / "bundle").comparison
    floor, subject = comparison["floor.loss.relative"], comparison["train.loss.relative"]
    assert len(floor.values) == len(subject.values) == STEPS
    # like is compared with like, so the subject is about as far from the reference as the reference from itself
    assert 0 < largest(subject) <= 5 * largest(floor)


def test_every_outcome_is_recorded_beside_its_trace(clean: Any) -> None:
    for run in REQUIRED_RUNS:
        outcome = json.loads((clean[1] / "runs" / run / OUTCOME).read_text())
        assert outcome["status"] == "completed"
