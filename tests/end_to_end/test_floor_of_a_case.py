"""The floor of a case through the command line, with the real reference and oracle."""

import json
from pathlib import Path

import pytest
import yaml

from harness.evidence.floor import SAFETY_FACTOR, read_study
from harness.studies import floor
from harness.studies.floor import ATTENTION
from tests.support.command_line import caller
from tests.support.examples import small_case
from tests.support.full import full


@full(
    held_by="tests/unit/studies/test_floor.py::test_a_study_of_shapes_holds_each_and_keeps_them_apart_from_the_case, "
    "tests/unit/studies/test_floor.py::test_a_repeat_that_is_not_moved_is_no_distance_away_and_a_moved_one_is"
)
def test_the_floor_of_a_case_is_measured_and_recorded_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(small_case().record()))
    out = tmp_path / "floors" / "mine.json"
    certify = caller(capsys, monkeypatch)
    monkeypatch.setattr(floor, "SHAPES", ("batch-1",))
    done = certify(
        "floor", tmp_path / "case.yaml", "--seeds", 0, "--shapes", "--reference-processes", 2, "--out", out, "--json"
    )
    assert done.code == 0, done.said
    study = read_study(out)
    told = {(q["measurement"], q["statistic"]): q for q in json.loads(done.out)["quantities"]}
    assert json.loads(done.out)["repeats"] == len(study.repeats) == 3 + 2 + 4
    assert len(study.of_its_case().repeats) == 3 + 2
    kinds = json.loads(done.out)["kinds"]
    assert set(kinds) == {
        f"CPU, {over}, {attention}" for over in ("1 process", "2 processes") for attention in ATTENTION
    }
    for distances in kinds.values():
        assert (
            0 <= distances["maximum of train.loss.relative"] < 1e-6
            and distances["maximum of oracle.gradients.ratio"] < 4
        )
    for number in ("loss", "grad_norm"):
        row = told[f"train.{number}.relative", "maximum"]
        assert 0 < row["highest"] < 1e-5 and row["limit"] >= SAFETY_FACTOR * row["highest"]
    for repeat, value in zip(study.repeats, study.values["mean of train.loss.relative"], strict=True):
        moved = repeat.attention == "sdpa" or repeat.seed is not None
        assert not moved or value > 0, "another attention or other weights give another loss"


def test_a_recorded_floor_is_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (out := tmp_path / "mine.json").write_text("recorded")
    refused = caller(capsys, monkeypatch)("floor", "qwen3-tiny-fp32", "--seeds", 0, "--out", out)
    assert (refused.code, out.read_text()) == (2, "recorded") and "is never overwritten" in refused.said
