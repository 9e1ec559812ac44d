"""What recording a baseline takes: states follow from shapes, more GPUs need less each, bytes are those of files."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from harness.cases.case import Case, load_case
from harness.certify.case_options import with_fields
from harness.evidence.bundle import read_bundle
from harness.planning.memory import GIB
from harness.planning.reference import bytes_of_a_baseline, memory_of_a_process, plan_reference
from harness.runners.leaving import Leaving
from harness.runs.files import GRADIENT, UPDATED
from qwen3_model.configuration_qwen3 import parameter_shapes
from tests.support.command_line import Call, caller
from tests.support.examples import ROOT

LARGE = load_case("qwen3-8b-bf16")
SHIPPED = ROOT / "reports" / "qwen3-tiny-fp32-cpu"


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


@pytest.mark.parametrize("name", ["qwen3-8b-bf16", "qwen3-0.6b-fp32", "qwen3-tied-fp32"])
def test_weights_gradients_and_moments_are_shared_and_nothing_is_gathered_by_one(name: str) -> None:
    case = load_case(name)
    parameters = sum(int(np.prod(shape)) for _, shape in parameter_shapes(case.model))
    for count in (1, 2, 4):
        planned = memory_of_a_process(case, count)
        assert planned.state == pytest.approx(16 * parameters / count, abs=1)
        assert (planned.whole == 0) == (count == 1)
        assert planned.total == sum((planned.state, planned.whole, planned.copies, planned.saved, planned.logits))


def test_more_gpus_need_less_each_until_each_has_a_row() -> None:
    totals = [memory_of_a_process(LARGE, count).total for count in (1, 2, 4, 8)]
    assert totals == sorted(totals, reverse=True)
    assert [memory_of_a_process(LARGE, count).rows for count in (1, 2, 4, 8)] == [4, 2, 1, 1]
    probed = with_fields(LARGE, {"training": {"oracle": "probe"}})
    hours = [plan_reference(probed, count).hours for count in (1, 2, 4, 8)]
    assert hours[0] > hours[1] > hours[2] == hours[3], "of eight processes four have no row"
    assert plan_reference(probed, 1, tera=40.0).hours < hours[0]


def test_recompute_and_micro_batches_save_memory() -> None:
    plain, again, parts = (
        memory_of_a_process(with_fields(LARGE.with_changes(parallel={}), {"training": fields}), 1)
        for fields in ({"recompute": False}, {"recompute": True}, {"recompute": True, "gradient_accumulation_steps": 4})
    )
    assert plain.saved > 10 * again.saved and again.saved == pytest.approx(4 * parts.saved)


def test_the_bytes_of_a_baseline_are_those_of_the_files_of_its_runs() -> None:
    bundle = read_bundle(SHIPPED)
    of_reference = [name for name, run in bundle.runs.items() if run.trace and run.trace.header.side != "subject"]
    files = [SHIPPED / "runs" / name / "trace.jsonl" for name in of_reference]
    files += [SHIPPED / "tensors" / f"{name}.safetensors" for name in of_reference]
    there = sum(path.stat().st_size for path in files if path.is_file())
    assert bytes_of_a_baseline(bundle.case) == pytest.approx(there, rel=0.05)


def probe_of(case: Case, path: Path) -> int:
    """Bytes of the file that a probe leaves."""
    left = Leaving(case)
    tensors = {name: np.ones(shape, np.float32) for name, shape in parameter_shapes(case.model)}
    left.add(GRADIENT, tensors.items(), tensors)
    left.add(UPDATED, tensors.items(), tensors, change=True)
    save_file(left.left, path)
    return path.stat().st_size


def test_the_bytes_of_sketches_are_those_of_a_file_and_hardly_grow_with_the_model(tmp_path: Path) -> None:
    plain = {"examined_steps": (), "resume_after": None, "oracle": "probe"}
    case = with_fields(load_case("qwen3-tiny-fp32"), {"training": plain}).with_changes(evidence="sketches")
    few = with_fields(case, {"training": {"steps": 3, "lr_zero_steps": 1}, "lr_schedule": {"warmup_steps": 1}})
    without_probes = 100_000  # traces and final parameters
    assert bytes_of_a_baseline(few) == pytest.approx(2 * probe_of(case, tmp_path / "probe"), abs=without_probes)
    assert bytes_of_a_baseline(LARGE) < 1e8 < bytes_of_a_baseline(LARGE.with_changes(evidence="tensors"))


def test_a_baseline_that_nobody_can_keep_is_said_with_the_fields_that_make_it_small(
    certify_: Call, tmp_path: Path
) -> None:
    whole = with_fields(LARGE, {"training": {"oracle": None}}).with_changes(evidence="tensors")
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(whole.record()))
    shown = certify_("plan", tmp_path / "case.yaml", "--reference")
    assert "evidence: sketches" in shown.out and "oracle: probe" in shown.out


def test_the_command_states_memory_hours_and_bytes_and_whether_it_fits(certify_: Call) -> None:
    shown = certify_("plan", "qwen3-8b-bf16", "--reference", "--memory", "80GB")
    assert shown.code == 0 and "evidence: sketches" not in shown.out
    assert certify_("plan", "qwen3-8b-bf16", "--reference", "--memory", "30GB").code == 1
    found = json.loads(certify_("plan", "qwen3-8b-bf16", "--reference", "--reference-processes", 8, "--json").out)
    (planned,) = found["plans"]
    assert planned["total"] == memory_of_a_process(LARGE, 8).total < 80 * GIB


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("qwen3-8b-bf16", "--reference", "--cards", 8), "omit --compile and --cards"),
        (("qwen3-8b-bf16", "--reference-processes", 8), "give --reference too"),
        (("qwen3-8b-bf16", "--tflops", 8, "--cards", 8), "omit --compile and --cards"),
        (("qwen3-tiny-inference", "--reference"), "is a case of inference"),
    ],
)
def test_what_cannot_be_planned_is_refused(certify_: Call, words: tuple[object, ...], why: str) -> None:
    refused = certify_("plan", *words)
    assert refused.code == 2 and why in refused.err
