"""Evidence of a model whose tensors are too large to keep: sketches in their place, judged by the same criteria."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from harness.base.digest import digest_tensors
from harness.base.errors import EvidenceError
from harness.cases.case import Case, load_case
from harness.cases.runs_of_a_case import ORACLE, required_runs
from harness.comparison.left import change_difference, difference, norm_of
from harness.evidence.bundle import Bundle, finish_bundle, read_bundle
from harness.runs.files import GRADIENT, UPDATED
from harness.runs.trace import read_trace
from tests.support.bundles import edit_json, example_parameters, leave, page_of, write_example
from tests.support.examples import small_case


def sketched(**training: object) -> Case:
    case = small_case()
    return case.with_changes(evidence="sketches", training={**case.training.model_dump(), **training})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_example(tmp_path_factory.mktemp("sketched") / "bundle", case=sketched())


def test_the_findings_are_those_of_the_tensors_themselves(made: Bundle, tmp_path: Path) -> None:
    """The example's tensors are no larger than a sketch, so both measure the same."""
    whole = write_example(tmp_path / "whole", case=small_case())
    assert [(one.criterion, one.outcome) for one in made.findings] == [
        (one.criterion, one.outcome) for one in whole.findings
    ]
    for name in ("oracle.gradients.ratio", "oracle.updates.ratio", "train.parameters.relative", "runs.probe_norm"):
        assert made.comparison[name].places == whole.comparison[name].places
        assert made.comparison[name].values == pytest.approx(whole.comparison[name].values, rel=1e-6, abs=1e-12)


def test_no_tensor_and_no_weight_is_in_it(made: Bundle) -> None:
    assert not (made.path / "inputs" / "weights.safetensors").exists()
    names = {name for path in (made.path / "tensors").iterdir() for name in load_file(path)}
    assert names and all("#" in name for name in names)


def test_what_was_not_kept_is_stated_and_measures_nothing(made: Bundle) -> None:
    measured = made.comparison["train.parameters.maximum"]
    assert not measured.values and measured.missing is not None and "sketches" in measured.missing
    assert "not kept" in page_of(made)


def test_a_large_tensor_is_measured_within_the_deviation_of_a_sketch() -> None:
    random, weights = np.random.RandomState(0), {"w": np.ones((300, 200), np.float32)}
    gradient = random.standard_normal((300, 200))
    sides = [
        {
            "gradient.w": (gradient + error * random.standard_normal(gradient.shape)).astype(np.float32),
            "updated.w": (weights["w"] + gradient + error * random.standard_normal(gradient.shape)).astype(np.float32),
        }
        for error in (0.0, 1e-4)
    ]
    left = []
    for side in sides:
        leaving = leave(sketched(), {})
        leaving.add(GRADIENT, [("w", side["gradient.w"])])
        leaving.add(UPDATED, [("w", side["updated.w"])], weights, change=True)
        left.append(leaving.left)
    for name in ("gradient.w", "updated.w"):
        exact = change_difference if name.startswith(UPDATED) else lambda n, a, b, _: difference(n, a, b)[0]
        assert exact(name, *left, weights) == pytest.approx(exact(name, *sides, weights), rel=0.25)
    assert norm_of(left[0], GRADIENT) == pytest.approx(norm_of(sides[0], GRADIENT), rel=1e-12)
    assert sum(one.nbytes for one in left[0].values()) < sum(one.nbytes for one in sides[0].values()) / 20


def sketch_file(directory: Path, run: str = "subject-probe") -> Path:
    return directory / "tensors" / f"{run}.safetensors"


def scaled(directory: Path) -> None:
    """The subject's sketches, as if they were the oracle's."""
    shutil.copyfile(sketch_file(directory, "oracle-probe"), sketch_file(directory))


def replaced_by_tensors(directory: Path) -> None:
    save_file(example_parameters("subject-1"), sketch_file(directory, "subject-1"))


def without_its_digest(directory: Path) -> None:
    path = directory / "runs" / "subject-probe" / "trace.jsonl"
    *lines, footer = path.read_text().splitlines()
    content = json.loads(footer)
    del content["kept"]
    path.write_text("\n".join([*lines, json.dumps(content, sort_keys=True, separators=(",", ":"))]) + "\n")


def with_other_weights(directory: Path) -> None:
    edit_json(directory / "inputs" / "weights.json", lambda digests: digests.update({"model.norm.weight": "0" * 64}))


@pytest.mark.parametrize("spoil", [scaled, replaced_by_tensors, without_its_digest, with_other_weights])
def test_sketches_and_weights_are_those_that_the_runs_stated(
    made: Bundle, tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    directory = Path(shutil.copytree(made.path, tmp_path / "bundle"))
    assert read_bundle(directory).digest == made.digest
    spoil(directory)
    with pytest.raises(EvidenceError):
        finish_bundle(directory)


def test_a_bundle_of_tensors_cannot_leave_sketches(tmp_path: Path) -> None:
    """They would measure less sharply than the case states."""
    whole = write_example(tmp_path / "whole", case=small_case())
    path = sketch_file(whole.path)
    left = leave(sketched(), load_file(path)).left
    save_file(left, path)
    trace = whole.path / "runs" / "subject-probe" / "trace.jsonl"
    *lines, footer = trace.read_text().splitlines()
    content = {**json.loads(footer), "kept": digest_tensors(left)}
    trace.write_text("\n".join([*lines, json.dumps(content, sort_keys=True, separators=(",", ":"))]) + "\n")
    assert read_trace(trace).footer is not None
    with pytest.raises(EvidenceError, match="digests of its tensors"):
        finish_bundle(whole.path)


def test_an_oracle_that_is_only_probed_gives_the_error_of_the_first_step(tmp_path: Path) -> None:
    case = sketched(oracle="probe")
    assert ORACLE not in required_runs(case)
    found = write_example(tmp_path / "probed", case=case).comparison
    for name in ("oracle.loss.reference", "oracle.loss.subject", "oracle.loss.ratio"):
        assert found[name].places == (1,) and np.isfinite(found[name].values).all()


def test_an_oracle_of_a_few_steps_is_compared_in_those(tmp_path: Path) -> None:
    found = write_example(tmp_path / "few", case=sketched(oracle=3)).comparison
    assert found["oracle.loss.ratio"].places == (1, 2, 3) and np.isfinite(found["oracle.loss.ratio"].values).all()
    assert len(found["train.loss.relative"].places) == sketched().training.steps


def test_the_digest_of_a_case_is_as_before_where_nothing_of_this_is_used() -> None:
    case = load_case("qwen3-tiny-fp32")
    assert "evidence" not in case.record() and "oracle" not in case.record()["training"]
    others = [case.with_changes(evidence="sketches"), sketched(oracle=3), sketched(oracle="probe"), sketched()]
    assert len({one.digest() for one in others} | {case.digest(), small_case().digest()}) == 6


def test_dataclasses_of_a_footer_are_written_without_what_is_not_there(made: Bundle) -> None:
    probe, repeat = (made.runs[name].trace for name in ("subject-probe", "subject-2"))
    assert probe is not None and probe.footer is not None and probe.footer.kept is not None
    assert repeat is not None and repeat.footer is not None and dataclasses.asdict(repeat.footer)["kept"] is None
    assert '"kept"' not in (made.path / "runs" / "subject-2" / "trace.jsonl").read_text()


@pytest.mark.parametrize(
    "tensors",
    [
        {"other": np.zeros(3)},
        {"tokens": np.zeros(3), "loss_mask": np.zeros(3)},
        {"tokens": np.zeros((2, 2, 5), np.int32), "loss_mask": np.ones((2, 2, 5), np.uint8)},
    ],
)
def test_batches_that_are_none_are_an_error_and_no_traceback(
    made: Bundle, tmp_path: Path, tensors: dict[str, np.ndarray]
) -> None:
    """Their digest can be stated by whoever writes the bundle. This one is older, and has no start."""
    directory = Path(shutil.copytree(made.path, tmp_path / "bundle"))
    (directory / "start.json").unlink()
    save_file(tensors, directory / "inputs" / "batches.safetensors")
    edit_json(directory / "inputs.json", lambda inputs: inputs.update(batches=digest_tensors(tensors)))
    with pytest.raises(EvidenceError, match="does not hold the tokens and the loss mask"):
        finish_bundle(directory)
