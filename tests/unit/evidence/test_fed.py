"""Evidence is of its inputs: batches fit the case, and each step of each run was made with its own."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from harness.base.digest import digest_tensors
from harness.base.errors import EvidenceError
from harness.evidence.bundle import Bundle, finish_bundle
from tests.support.bundles import edit_json, write_example
from tests.support.examples import small_case


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_example(tmp_path_factory.mktemp("fed") / "bundle", case=small_case())


@pytest.mark.parametrize("run", ["subject-1", "reference-1", "oracle-1", "subject-probe", "reference-lr0"])
@pytest.mark.parametrize("batch", ["0" * 64, "another step's"])
def test_a_step_that_states_another_batch_is_refused(tmp_path: Path, bundle: Bundle, run: str, batch: str) -> None:
    made = {name: one.trace.steps for name, one in bundle.runs.items() if one.trace is not None}
    given = made["reference-2"][4].batch if len(batch) < 64 else batch

    def change(name: str, step: Any) -> Any:
        return dataclasses.replace(step, batch=given) if (name, step.step) == (run, 1) else step

    with pytest.raises(EvidenceError, match=f"step 1 of {run} was not made with its batch"):
        write_example(tmp_path / "bundle", case=small_case(), change=change)


def test_that_both_sides_state_the_same_other_batch_does_not_help(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match=r"step 2 of .* was not made with its batch"):
        write_example(
            tmp_path / "bundle",
            case=small_case(),
            change=lambda run, step: dataclasses.replace(step, batch="0" * 64) if step.step == 2 else step,
        )


def cut(name: str, at: tuple[slice, ...]) -> Any:
    return lambda batches: {**batches, name: np.ascontiguousarray(batches[name][at])}


@pytest.mark.parametrize(
    "change",
    [
        cut("tokens", (slice(7),)),
        cut("tokens", (slice(None), slice(1))),
        cut("tokens", (slice(None), slice(None), slice(9))),
        cut("loss_mask", (slice(None), slice(None), slice(8))),
        lambda batches: {"tokens": batches["tokens"]},
    ],
    ids=["fewer steps", "fewer rows", "shorter rows", "a shorter mask", "no mask"],
)
def test_batches_of_another_shape_than_the_case_has_are_refused(tmp_path: Path, bundle: Bundle, change: Any) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle.path, copy)
    batches = change(load_file(copy / "inputs" / "batches.safetensors"))
    save_file(batches, copy / "inputs" / "batches.safetensors")
    edit_json(copy / "inputs.json", lambda inputs: inputs.update(batches=digest_tensors(batches)))
    with pytest.raises(EvidenceError, match="the batches have the shapes"):
        finish_bundle(copy)
