"""Whole diagnoses with both real frameworks: a clean subject differs nowhere, and a fault is named where it is.

Reference and oracle run once; of each fault only the subject does.
"""

import dataclasses
import functools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cases.case import load_case
from harness.certify.diagnose import PAGE, RECORD, jobs
from harness.certify.jobs import Options
from harness.diagnosis.diagnosis import Named, diagnose, run_name
from harness.runners.launcher import Launcher
from harness.runs.inputs import read_tensors
from tests.support.certify_process import certify
from tests.support.examples import ROOT
from tests.support.full import full
from tests.support.scenes import without_subject

NOTHING = 0
# What is named, and how: one fault of the forward pass and one of a gradient, and more for `full`.
FAULTS = {
    "harness.defects.rotary:RotaryBase": (
        "model.rotary_emb",
        "they are made with rope_theta 10000 instead of 1e+06",
    ),
    "tests.support.places_at_fault:MlpGradientScaled": (
        "model.layers.0.mlp.down_proj.weight",
        "gradient: every element is 1.01 times what it should be",
    ),
}
MORE = {
    "harness.defects.layers:LayerSharesMlp": ("model.layers.1.mlp.down_proj", "is never called in the step"),
    "tests.support.places_at_fault:IdleKeyNorm": (
        "model.layers.1.self_attn.k_norm",
        "output is identical to its input; missing norm?",
    ),
    "tests.support.places_at_fault:UpProjectionRounded": ("model.layers.1.mlp.up_proj", "rounded to bfloat16"),
}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    record = load_case("qwen3-tiny-fp32").record()
    record["data"].update(seq_length=16, global_batch_size=2)
    path = tmp_path_factory.mktemp("case") / "case.yaml"
    path.write_text(yaml.safe_dump(record))
    return path


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, case: Path) -> tuple["subprocess.CompletedProcess[str]", Path]:
    out = tmp_path_factory.mktemp("clean") / "out"
    return certify("diagnose", case, "--out", out, "--json"), out


@pytest.fixture(scope="module")
def named(clean: Any, case: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Named | None]]:
    """What is named for each of some faults, which run together."""
    return functools.cache(lambda *faults: names_of(faults, clean[1], case, tmp_path_factory.mktemp("faults")))


def names_of(faults: tuple[str, ...], clean: Path, case: Path, base: Path) -> dict[str, Named | None]:
    waiting, loaded = [], load_case(str(case))
    for fault in faults:
        out = base / fault.replace(":", "-")
        without_subject(clean, out)
        options = Options(
            out=out, resume=False, device="CPU", threads=1, workers=2, subject=fault,
            reference="torch", oracle="oracle", command=(),
        )  # fmt: skip
        record = json.loads((out / "case.json").read_text())
        subject = next(job for job in jobs(loaded, options) if job.side == "subject")
        waiting.append(dataclasses.replace(subject, case=record))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        Launcher(workers=2).execute(waiting, loaded)
    return {fault: diagnose(base / fault.replace(":", "-")).named for fault in faults}


@full(
    held_by="tests/unit/diagnosis/test_diagnosis.py::test_correct_sides_differ_nowhere, "
    "tests/unit/diagnosis/test_diagnosis.py::test_three_finished_runs_are_judged_from_their_directory, "
    "tests/parity/test_taps.py::test_looking_changes_no_bit"
)
def test_a_clean_subject_differs_nowhere_and_tapping_changes_no_bit(clean: Any) -> None:
    done, out = clean
    assert done.returncode == NOTHING, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["sentence"] == "nothing differs"
    assert {reading["state"] for reading in found["readings"]} == {"agrees"}
    assert {check["state"] for check in found["checks"]} == {"agrees"}
    for taps in found["taps"].values():
        assert (taps["missing"], taps["differing"]) == (None, [])
        assert taps["cost"] > 0
    assert (out / PAGE).is_file() and (out / RECORD).is_file()
    assert sorted(path.name for path in (out / "runs").iterdir()) == sorted(
        run_name(side) for side in ("reference", "subject", "oracle")
    )


@full(
    held_by="tests/unit/diagnosis/test_diagnosis.py::test_a_fault_is_named_and_not_its_consequences, "
    "tests/unit/diagnosis/test_clues.py::test_a_planted_fault_is_recognised"
)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_where_it_is(named: Callable[..., dict[str, Named | None]], fault: str) -> None:
    place, words = FAULTS[fault]
    found = named(*FAULTS)[fault]
    assert found is not None
    assert found.place == place
    assert words in found.sentence


@full(
    held_by="tests/end_to_end/test_diagnose.py::test_a_fault_is_named_where_it_is, "
    "tests/unit/diagnosis/test_diagnosis.py::"
    "test_a_module_that_is_never_called_is_named_for_the_place_after_it, "
    "tests/unit/diagnosis/test_clues.py::test_a_planted_fault_is_recognised, "
    "tests/unit/diagnosis/test_clues.py::test_a_tensor_that_is_its_input_is_recognised_in_another_layout"
)
@pytest.mark.parametrize("fault", MORE)
def test_another_fault_is_named_where_it_is(named: Callable[..., dict[str, Named | None]], fault: str) -> None:
    place, words = MORE[fault]
    found = named(*MORE)[fault]
    assert found is not None
    assert found.place == place
    assert words in found.sentence


@full(
    held_by="tests/end_to_end/test_diagnose.py::test_a_fault_is_named_where_it_is, "
    "tests/unit/diagnosis/test_diagnosis.py::"
    "test_sketches_name_the_place_and_the_tensors_around_it_give_the_clue"
)
def test_a_case_that_keeps_no_tensors_is_diagnosed_by_sketches_and_the_tensors_around_the_fault(
    case: Path, tmp_path: Path
) -> None:
    record = yaml.safe_load(case.read_text())
    record["evidence"], record["training"]["oracle"] = "sketches", "probe"
    record["standards"] = ["official", "strict-probe-fp32"]
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(record))
    fault = next(iter(FAULTS))
    done = certify("diagnose", tmp_path / "case.yaml", "--subject", fault, "--out", tmp_path / "out", "--json")
    place, words = FAULTS[fault]
    found = json.loads(done.stdout)
    assert (found["named"]["place"], found["evidence"]) == (place, "sketches")
    assert words in found["sentence"]
    assert {taps["missing"] for taps in found["taps"].values()} == {None}
    assert [taps["differing"] for taps in found["taps"].values()] == [[], [], []]
    left = read_tensors(tmp_path / "out" / "tensors" / f"{run_name('subject')}.safetensors")
    assert "forward.lm_head#sketch" in left and "forward.lm_head" not in left
