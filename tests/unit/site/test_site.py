"""A site is a function of its bundles: the same bytes, every level with its evidence, no level from edited files."""

import dataclasses
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from harness.attestation import Trust
from harness.base.errors import InputError
from harness.evidence.bundle import read_bundle
from harness.levels.rule import Level
from harness.report.languages import CHINESE
from harness.report.words import number
from harness.site import write_site
from harness.site.badge import badge
from harness.site.differences import differences
from tests.support.bundles import write_example
from tests.support.command_line import Call, caller
from tests.support.examples import ROOT, inference_case, small_case

AT = datetime(2026, 2, 1, tzinfo=UTC)
STUDY = ROOT / "reports" / "power-qwen3-tiny-fp32.json"


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """Two nights of one case, and another case that failed."""
    place = tmp_path / "bundles"
    write_example(place / "night-1")
    write_example(place / "night-2", occasion={"started": "2026-01-31T12:00:00+00:00"}, source={"revision": "f" * 16})
    write_example(place / "small", case=small_case().model_copy(update={"name": "small"}), change=_nan)
    return place


def _nan(run: str, step: Any) -> Any:
    return dataclasses.replace(step, loss=float("nan")) if run == "subject-1" and step.step == 3 else step


def written(bundles: Path, out: Path, *studies: Path, trust: Trust | None = None) -> dict[str, Any]:
    write_site([bundles], out, studies, trust, AT)
    return json.loads((out / "index.json").read_text())


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_the_same_bundles_give_the_same_bytes(bundles: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        written(bundles, tmp_path / name, STUDY)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_every_level_is_linked_to_its_evidence(bundles: Path, tmp_path: Path) -> None:
    index = written(bundles, tmp_path / "site")
    page = (tmp_path / "site" / "index.html").read_text()
    assert {cell["case"]: cell["level"] for cell in index["cells"]} == {
        "qwen3-tiny-fp32": "Preliminary",
        "small": "none",
    }
    for cell in index["cells"]:
        assert f'href="{cell["certificate"]}"' in page
        certificate = (tmp_path / "site" / cell["certificate"]).read_text()
        assert cell["bundle_digest"] in certificate
        assert cell["level"] in (tmp_path / "site" / cell["badge"]).read_text()


def files_of_badges(bundles: Path, out: Path) -> dict[str, str]:
    return {one["badge"]: (out / one["badge"]).read_text() for one in written(bundles, out)["cells"]}


def test_a_trained_model_is_shown_with_its_differences_time_and_memory(tmp_path: Path) -> None:
    place = tmp_path / "bundles"
    trained = write_example(place / "trained", change=_off_at_7, occasion={"seconds": 150.0})
    asked = write_example(place / "asked", case=inference_case())
    (row,) = differences([trained, asked])
    assert (row.model, row.case, row.steps, row.took) == ("Qwen3 tiny", "qwen3-tiny-fp32", "200", "2 min 30 s")
    assert row.loss == (number(trained.comparison["train.loss.relative"].values[0]), "0.25")
    assert row.gradient == number(max(trained.comparison["oracle.gradients.ratio"].values))
    assert row.parameter in trained.comparison["oracle.gradients.ratio"].places
    written(place, tmp_path / "site")
    shown = set(re.findall(r">([^<>]+)<", (tmp_path / "site" / "index.html").read_text()))
    assert {*row.loss, *row.grad_norm, row.gradient, row.parameter, row.took, row.memory} <= shown
    for run, peak in (("subject-1", 2560), ("reference-1", 1024)):
        with (trained.path / "runs" / run / "timing.jsonl").open("a") as timing:
            timing.write(f'{{"peak_mib": {peak}}}\n')
    assert next(differences([trained])).memory == "2.5 GiB"


def test_a_bundle_in_which_nothing_was_compared_states_no_difference(tmp_path: Path) -> None:
    nothing = write_example(tmp_path / "b", change=lambda run, step: None if run.startswith("subject") else step)
    (row,) = differences([nothing])
    assert row.loss == row.grad_norm == ("–", "–") and row.memory == "–"


def _off_at_7(run: str, step: Any) -> Any:
    return dataclasses.replace(step, loss=step.loss * 1.25) if run == "subject-1" and step.step == 7 else step


def test_a_cell_shows_its_newest_run_and_the_history_of_all(bundles: Path, tmp_path: Path) -> None:
    (cell,) = [one for one in written(bundles, tmp_path / "site")["cells"] if one["case"] == "qwen3-tiny-fp32"]
    assert cell["bundle_digest"] == read_bundle(bundles / "night-2").digest
    assert [one["bundle_digest"] for one in cell["history"]] == [
        read_bundle(bundles / name).digest for name in ("night-1", "night-2")
    ]
    assert all(0 < one["worst_ratio"] < 1 for one in cell["history"])


def test_the_level_of_a_cell_is_that_of_its_newest_run(bundles: Path, tmp_path: Path) -> None:
    assert "was Preliminary" not in str(files_of_badges(bundles, tmp_path / "before"))
    write_example(bundles / "night-3", occasion={"started": "2026-01-31T20:00:00+00:00"}, change=_nan)
    (cell,) = [one for one in written(bundles, tmp_path / "site")["cells"] if one["case"] == "qwen3-tiny-fp32"]
    assert (cell["level"], cell["valid_until"]) == ("none", None)
    assert "none, was Preliminary" in (tmp_path / "site" / cell["badge"]).read_text()
    page = " ".join((tmp_path / "site" / "index.html").read_text().split())
    assert page.count(">before</span>") == 1 and "Cells whose newest run is below the level" in page


def test_an_edited_bundle_gives_no_level_and_is_listed(bundles: Path, tmp_path: Path) -> None:
    trace = bundles / "night-2" / "runs" / "subject-1" / "trace.jsonl"
    trace.write_bytes(trace.read_bytes().replace(b"5", b"4", 1))
    index = written(bundles, tmp_path / "site")
    (refused,) = index["refused"]
    assert refused["bundle"] == "night-2" and str(tmp_path) not in refused["reason"]
    assert "night-2" in (tmp_path / "site" / "index.html").read_text()
    (cell,) = [one for one in index["cells"] if one["case"] == "qwen3-tiny-fp32"]
    assert cell["bundle_digest"] == read_bundle(bundles / "night-1").digest


def test_a_level_expires_on_the_site(bundles: Path, tmp_path: Path) -> None:
    write_site([bundles], tmp_path / "site", [], None, datetime(2026, 11, 1, tzinfo=UTC))
    (cell,) = [one for one in json.loads((tmp_path / "site" / "index.json").read_text())["cells"] if one["passed"] > 40]
    assert cell["level"] == "Untested" and cell["history"][-1]["level"] == "Preliminary"


def test_texts_of_a_bundle_never_become_markup(tmp_path: Path) -> None:
    hostile = '</script><script>alert("x")</script><img src=x onerror=alert(1)>{{ 7*7 }}'
    case = small_case().model_copy(update={"title": hostile})
    write_example(tmp_path / "bundles" / "one", case=case, source={"revision": "<b>1</b>"})
    written(tmp_path / "bundles", tmp_path / "site")
    for path in (tmp_path / "site").rglob("*.html"):
        text = path.read_text()
        assert "<script>alert" not in text and "<img src=x" not in text and "<b>1</b>" not in text
    assert "<svg" in badge(hostile, "none") and "<script>" not in badge(hostile, "none")


def test_no_page_loads_anything_from_outside(bundles: Path, tmp_path: Path) -> None:
    written(bundles, tmp_path / "site", STUDY)
    for path in (tmp_path / "site").rglob("*.html"):
        markup = re.sub(r"<script.*?</script>", "", path.read_text(), flags=re.S)
        assert (
            re.findall(r"<(?:link|img|iframe|object|script)[^>]+(?:src|href)=\"(?!data:)[^\"]*|@import|url\(", markup)
            == []
        )


@pytest.mark.parametrize("name", ["site", "page", "parts", "training", "inference"])
def test_every_text_of_a_page_has_a_chinese_translation(name: str) -> None:
    template = (ROOT / "harness" / "report" / "templates" / f"{name}.html.j2").read_text()
    used = re.findall(r'\b(?:t|label)\("([^"]+)"\)', template)
    assert len(used) > 10 and [text for text in used if text not in CHINESE] == []
    assert {str(level) for level in Level} <= set(CHINESE)


def test_training_and_inference_of_one_model_are_two_cells(tmp_path: Path) -> None:
    place = tmp_path / "bundles"
    write_example(place / "training")
    write_example(place / "answers-1", case=inference_case())
    write_example(place / "answers-2", case=inference_case(), occasion={"started": "2026-01-31T12:00:00+00:00"})
    index = written(place, tmp_path / "site")
    training, inference = index["cells"]
    assert (training["task"], inference["task"]) == ("training", "inference")
    assert (training["size"], training["architecture"]) == (inference["size"], inference["architecture"])
    assert training["architecture"] == "qwen3_model" and inference["level"] == "Preliminary"
    assert [len(cell["history"]) for cell in index["cells"]] == [1, 2]
    page = (tmp_path / "site" / "index.html").read_text()
    assert '<span lang="zh-CN">推理</span>' in page and "certify run qwen3-tiny-inference" in page
    assert "· inference · CPU" in (tmp_path / "site" / inference["badge"]).read_text()
    assert 'id="continuations"' in (tmp_path / "site" / inference["certificate"]).read_text()


def test_another_inference_runner_is_named_as_the_architecture(tmp_path: Path) -> None:
    def by(header: Any) -> Any:
        infers = header.side == "subject" and header.arm == "infer"
        return dataclasses.replace(header, runner="mine.py:Mine") if infers else header

    write_example(tmp_path / "bundles" / "one", case=inference_case(), header=by)
    (cell,) = written(tmp_path / "bundles", tmp_path / "site")["cells"]
    assert cell["architecture"] == "mine.py:Mine" and cell["id"].endswith("-mine.py-mine")


def test_detection_power_is_on_the_first_page(bundles: Path, tmp_path: Path) -> None:
    written(bundles, tmp_path / "site", STUDY)
    page = (tmp_path / "site" / "index.html").read_text()
    assert "planted defects rejected" in page and (tmp_path / "site" / "power").is_dir()


def test_a_site_replaces_only_a_site(bundles: Path, tmp_path: Path) -> None:
    written(bundles, tmp_path / "site")
    (tmp_path / "site" / "certificates" / "stale.html").write_text("old")
    written(bundles, tmp_path / "site")
    assert not (tmp_path / "site" / "certificates" / "stale.html").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files that are not a site"):
        written(bundles, other)
    assert [path.name for path in other.iterdir()] == ["precious.txt"]


def test_the_command_reports_its_levels(
    bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    certify_: Call = caller(capsys, monkeypatch)
    result = certify_("site", bundles, "--out", tmp_path / "site", "--at", "2026-02-01")
    assert result.code == 0 and "Preliminary: qwen3-tiny-fp32 on CPU" in result.out
    nothing = certify_("site", tmp_path / "nowhere", "--out", tmp_path / "site2")
    assert nothing.code == 2 and "no finished bundle" in nothing.err and not (tmp_path / "site2").exists()
