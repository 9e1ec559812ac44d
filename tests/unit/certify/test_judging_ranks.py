"""Weights of several ranks are judged as those of one process: each rank states its parts, and all are compared.

Each rank holds what a rank of the layout holds, cut from the whole weights of the case.
"""

import dataclasses
import functools
import shutil
from pathlib import Path

import numpy as np
import pytest

from harness.certify import judging
from harness.certify.case_options import judged_by
from harness.certify.judging import judge_collected
from harness.evidence.bundle import Bundle, read_bundle
from harness.evidence.collected_parts import PartsOfCase
from harness.evidence.judge import Finding, Outcome
from harness.levels.certificate import Certificate, Level
from harness.runs.collected import PARTS
from harness.runs.inputs import WEIGHTS
from qwen3_model.parallel_config import ParallelConfig
from tests.support.collected import Array, Stated, Trainer, drawn, train
from tests.support.fooling_collected import as_another_run, judged_as

REFERENCE = Trainer(run="reference-1", trainer="hugging-face")
TWO_HALVES = ParallelConfig(model_parallel=2)
LAYOUTS = {
    "two halves": TWO_HALVES,
    "two stages": ParallelConfig(pipeline_stage=2, micro_batch_num=2),
    "two stages of two halves": ParallelConfig(model_parallel=2, pipeline_stage=2, micro_batch_num=2),
    "two replicas": ParallelConfig(data_parallel=2),
}
SOURCE = functools.cache(judging.environment.source)


@pytest.fixture(autouse=True)
def only_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    """No page is written, and the state of the checkout is looked up once: most of the time goes there."""
    monkeypatch.setattr(judging, "write_report", lambda *_: None)
    monkeypatch.setattr(judging.environment, "source", SOURCE)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("reference") / "run", REFERENCE)


def judged(
    out: Path, reference: Path, *subjects: Path, layout: ParallelConfig = TWO_HALVES, evidence: str = "tensors"
) -> tuple[Bundle, Certificate]:
    case, standards = judged_as(layout)
    if evidence != case.evidence:
        case, standards = judged_by(case.with_changes(evidence=evidence), ())
    return judge_collected(case, standards, [reference], subjects, out, ("certify", "judge", "CASE"))


def findings(bundle: Bundle) -> dict[str, Finding]:
    return {one.criterion: one for one in bundle.findings}


@pytest.mark.parametrize("name", LAYOUTS)
def test_weights_in_parts_count_as_whole_ones(tmp_path: Path, reference: Path, name: str) -> None:
    layout = LAYOUTS[name]
    subject = train(tmp_path / "subject", Trainer(layout=layout))
    bundle, certificate = judged(tmp_path / "out", reference, subject, layout=layout)
    found = findings(bundle)
    assert found["weights-subject"].outcome is found["alignment-subject"].outcome is Outcome.PASS
    assert [one.message for one in bundle.findings if one.outcome in (Outcome.FAIL, Outcome.ERROR)] == []
    assert certificate.level is Level.PRELIMINARY
    assert bundle.runs["subject-1"].trace is not None
    assert bundle.runs["subject-1"].trace.header.weights == drawn().inputs.weights


def test_where_the_weights_are_not_kept_the_bundle_lists_the_parts(tmp_path: Path, reference: Path) -> None:
    subject = train(tmp_path / "subject", Trainer(layout=TWO_HALVES))
    bundle, certificate = judged(tmp_path / "out", reference, subject, evidence="sketches")
    assert findings(bundle)["weights-subject"].outcome is Outcome.PASS and certificate.level is Level.PRELIMINARY
    assert not (bundle.path / "inputs" / WEIGHTS).exists() and (bundle.path / "inputs" / PartsOfCase.FILE).is_file()
    assert read_bundle(bundle.path).digest == bundle.digest


def changed(rank: int, name: str, when: str, change: dict[int, float]) -> Trainer:
    """A trainer of which one rank holds another number in one part."""

    def of_rank(here: int, now: str, parts: list[Stated]) -> list[Stated]:
        return [
            (one, part, spoilt(array, change) if (here, one, now) == (rank, name, when) else array)
            for one, part, array in parts
        ]

    return Trainer(layout=TWO_HALVES, parts=of_rank)


def spoilt(array: Array, change: dict[int, float]) -> Array:
    found = array.copy()
    for place, value in change.items():
        found.reshape(-1)[place] += np.float32(value)
    return found


def test_a_finding_names_the_part_and_the_rank(tmp_path: Path, reference: Path) -> None:
    name = "model.layers.1.mlp.down_proj.weight"
    subject = train(tmp_path / "subject", changed(1, name, "initial", {0: 1e-3}))
    bundle, certificate = judged(tmp_path / "out", reference, subject)
    found = findings(bundle)["weights-subject"]
    assert found.outcome is Outcome.FAIL and certificate.level is Level.UNTESTED
    assert name in found.message
    assert "part 1 of 2 along axis 1, on rank 1, is not that of the case" in found.message


@pytest.mark.parametrize("differs", [False, True])
def test_a_repeat_has_the_same_final_parts(tmp_path: Path, reference: Path, differs: bool) -> None:
    first = train(tmp_path / "first", Trainer(layout=TWO_HALVES))
    how = changed(1, "model.layers.0.mlp.up_proj.weight", "final", {0: 1e-3 * differs})
    second = train(tmp_path / "second", how)
    as_another_run(second)
    bundle, _ = judged(tmp_path / "out", reference, first, second)
    wanted = Outcome.FAIL if differs else Outcome.PASS
    assert findings(bundle)["subject-parameters-deterministic"].outcome is wanted


def test_a_rank_that_cannot_state_its_parts_leaves_the_weights_not_collected(tmp_path: Path, reference: Path) -> None:
    how = Trainer(layout=TWO_HALVES, parts=lambda rank, when, parts: parts if rank else None)
    bundle, certificate = judged(tmp_path / "out", reference, train(tmp_path / "subject", how))
    found = findings(bundle)["weights-subject"]
    assert found.outcome is Outcome.INCONCLUSIVE and "weights of subject-1: not collected" in found.message
    assert certificate.level is Level.UNTESTED


def test_what_the_other_ranks_state_is_compared_all_the_same(tmp_path: Path, reference: Path) -> None:
    wrong = changed(1, "model.norm.weight", "initial", {0: 1e-3})
    how = dataclasses.replace(wrong, parts=lambda rank, *stated: wrong.parts(rank, *stated) if rank else None)
    bundle, _ = judged(tmp_path / "out", reference, train(tmp_path / "subject", how))
    assert findings(bundle)["weights-subject"].outcome is Outcome.FAIL


def test_a_run_that_was_collected_before_parts_were_is_read_as_before(tmp_path: Path, reference: Path) -> None:
    subject = train(tmp_path / "subject", Trainer(layout=TWO_HALVES, parts=lambda *_: None))
    shutil.rmtree(subject / PARTS)
    bundle, certificate = judged(tmp_path / "out", reference, subject)
    assert findings(bundle)["weights-subject"].outcome is Outcome.INCONCLUSIVE
    assert certificate.level is Level.UNTESTED and not (bundle.path / "runs" / "subject-1" / PARTS).exists()
