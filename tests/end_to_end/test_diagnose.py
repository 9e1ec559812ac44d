"""Whole diagnoses with both real frameworks: a clean subject differs nowhere, and a fault is named where it is.

Reference and oracle run once; of each fault only the subject does.
"""

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cases.case import load_case
from harness.certify.diagnose import PAGE, RECORD, jobs
from harness.certify.jobs import Options
from harness.diagnosis.diagnosis import Named, diagnose, run_name
from harness.runners.launcher import run_jobs
from tests.support.certify_process import certify
from tests.support.examples import ROOT

NOTHING = 0
FAULTS = {
    "harness.defects.rotary:RotaryBase": (
        "model.rotary_emb",
        "they are made with rope_theta 10000 in place of 1e+06",
    ),
    "harness.defects.layers:LayerSharesMlp": ("model.layers.1.mlp.down_proj", "the step never comes by it"),
    "tests.support.places_at_fault:IdleKeyNorm": (
        "model.layers.1.self_attn.k_norm",
        "output is identical to its input; missing norm?",
    ),
    "tests.support.places_at_fault:MlpGradientScaled": (
        "model.layers.0.mlp.down_proj.weight",
        "gradient: every element is 1.01 times what it should be",
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
def named(clean: Any, case: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Named | None]:
    base, waiting, asked = tmp_path_factory.mktemp("faults"), [], load_case(str(case))
    for fault in FAULTS:
        out = base / fault.replace(":", "-")
        shutil.copytree(clean[1], out)
        options = Options(
            out=out, resume=False, device="CPU", threads=1, workers=2, subject=fault,
            reference="torch", oracle="oracle", command=(),
        )  # fmt: skip
        record = json.loads((out / "case.json").read_text())
        subject = next(job for job in jobs(asked, options) if job.side == "subject")
        waiting.append(dataclasses.replace(subject, case=record))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        run_jobs(waiting, asked, workers=2, listener=lambda run, trace: None)
    return {fault: diagnose(base / fault.replace(":", "-")).named for fault in FAULTS}


def test_a_clean_subject_differs_nowhere_and_looking_changes_no_bit(clean: Any) -> None:
    done, out = clean
    assert done.returncode == NOTHING, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["sentence"] == "nothing differs"
    assert {reading["state"] for reading in found["readings"]} == {"agrees"}
    assert {check["state"] for check in found["checks"]} == {"agrees"}
    for look in found["looks"].values():
        assert (look["missing"], look["differing"]) == (None, [])
        assert look["cost"] > 0
    assert (out / PAGE).is_file() and (out / RECORD).is_file()
    assert sorted(path.name for path in (out / "runs").iterdir()) == sorted(
        run_name(side) for side in ("reference", "subject", "oracle")
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_where_it_is(named: dict[str, Named | None], fault: str) -> None:
    place, words = FAULTS[fault]
    found = named[fault]
    assert found is not None
    assert found.place == place
    assert words in found.sentence
