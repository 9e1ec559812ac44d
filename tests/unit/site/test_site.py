"""A site is a function of its bundles: the same bytes, every level with its evidence, no level from edited files."""

import dataclasses
import json
import re
import shutil
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from harness.attestation import Trust
from harness.base.errors import InputError
from harness.cases.task import PRETRAIN
from harness.evidence.bundle import read_bundle
from harness.levels.certificate import Level
from harness.levels.stated import load_stated
from harness.report.languages import CHINESE, chinese
from harness.report.words import number
from harness.site import write_site
from harness.site.badge import badge
from harness.site.differences import differences
from harness.site.index import Index
from harness.standards import load_standard, shipped_standards
from tests.support.bundles import ENVIRONMENT, write_example
from tests.support.command_line import Call, caller
from tests.support.examples import ROOT, inference_case, small_case

AT = datetime(2026, 2, 1, tzinfo=UTC)
NIGHT = small_case().model_copy(update={"name": "qwen3-tiny-fp32"})
SMALL = small_case(lr_zero_steps=4).model_copy(update={"name": "small"})  # a name alone is no other case
STUDY = ROOT / "reports" / "power-qwen3-tiny-fp32.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nights of one case, and another case that failed."""
    place = tmp_path_factory.mktemp("made")
    later = {"started": "2026-01-31T12:00:00+00:00"}
    write_example(place / "night-1", case=NIGHT)
    write_example(place / "night-2", case=NIGHT, occasion=later, source={"revision": "f" * 16})
    write_example(place / "small", case=SMALL, change=_nan)
    return place


@pytest.fixture
def bundles(made: Path, tmp_path: Path) -> Path:
    """Bundles that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "bundles"))


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
        assert f'href="{cell["page"]}"' in page
        assert f'href="../{cell["certificate"]}"' in (tmp_path / "site" / cell["page"]).read_text()
        certificate = (tmp_path / "site" / cell["certificate"]).read_text()
        assert cell["bundle_digest"] in certificate
        assert cell["level"] in (tmp_path / "site" / cell["badge"]).read_text()


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
    write_example(bundles / "night-3", case=NIGHT, occasion={"started": "2026-01-31T20:00:00+00:00"}, change=_nan)
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
    own = r"data:|plotly\.js\"|\.\./|feed\.atom"
    loaded = rf'<(?:link|img|iframe|object|script)[^>]+(?:src|href)="(?!{own})[^"]*|@import|url\('
    for path in (tmp_path / "site").rglob("*.html"):
        markup = re.sub(r"<script>.*?</script>", "", path.read_text(), flags=re.S)
        assert re.findall(loaded, markup) == []


@pytest.mark.parametrize("name", ["site", "cell", "page", "parts", "training", "inference"])
def test_every_text_of_a_page_has_a_chinese_translation(name: str) -> None:
    template = (ROOT / "harness" / "report" / "templates" / f"{name}.html.j2").read_text()
    used = re.findall(r'\b(?:t|label)\("([^"]+)"\)', template)
    assert len(used) > 10 and [text for text in used if chinese(text) == text] == []
    assert {str(level) for level in Level} <= set(CHINESE)


def test_training_and_inference_of_one_model_are_two_cells(tmp_path: Path) -> None:
    place = tmp_path / "bundles"
    write_example(place / "training")
    write_example(place / "answers-1", case=inference_case())
    write_example(place / "answers-2", case=inference_case(), occasion={"started": "2026-01-31T12:00:00+00:00"})
    index = written(place, tmp_path / "site")
    training, inference = index["cells"]
    assert [cell["scope"]["task"] for cell in index["cells"]] == ["training", "inference"]
    assert training["scope"]["size"] == inference["scope"]["size"]
    assert training["scope"]["implementation"] == "qwen3_model" and inference["level"] == "Preliminary"
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
    assert cell["scope"]["implementation"] == "mine.py:Mine" and "-mine.py-mine-" in cell["id"]


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
    assert result.code == 0 and "Preliminary: qwen3-tiny-fp32 (" in result.out
    nothing = certify_("site", tmp_path / "nowhere", "--out", tmp_path / "site2")
    assert nothing.code == 2 and "no finished bundle" in nothing.err and not (tmp_path / "site2").exists()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """Two nights of one case, the same with another text, one that failed, and inference."""
    place = tmp_path_factory.mktemp("shown")
    case = NIGHT
    text = {**case.data.model_dump(), "corpus": {"kind": "text", "sha256": "a" * 64}}
    write_example(place / "bundles" / "night-1", case=case)
    write_example(place / "bundles" / "night-2", case=case, occasion={"started": "2026-01-31T12:00:00+00:00"})
    write_example(place / "bundles" / "text", case=case.with_changes(data=text))
    write_example(place / "bundles" / "small", case=SMALL, change=_nan)
    write_example(place / "bundles" / "inference", case=inference_case())
    return written(place / "bundles", place / "site", STUDY), place / "site"


def test_every_stated_level_has_a_row_and_a_cpu_never_fills_one(shown: tuple[dict[str, Any], Path]) -> None:
    index, out = shown
    stated = [row for row in index["rows"] if row["stated"]]
    assert len(stated) == len(load_stated().levels)
    assert {(row["level"], row["cell"], row["next_level"]) for row in stated} == {("no evidence", None, "Untested")}
    assert all(row["stated"]["source"] and row["stated"]["read_on"] and row["missing"] for row in stated)
    assert all(row["stated"] is None for row in index["rows"] if row["cell"])
    moe = {row["size"]: row["missing"][0] for row in stated if "A" in row["size"]}
    assert set(moe) == {"30B-A3B", "235B-A22B"} and all("no mixture of experts" in why for why in moe.values())
    page = " ".join((out / next(row["page"] for row in stated if row["size"] == "32B")).read_text().split())
    assert "recompute_slice_activation" in page and "mindformers configs/qwen3/README.md@27998af" in page


def test_no_two_rows_read_the_same(shown: tuple[dict[str, Any], Path]) -> None:
    page = (shown[1] / "index.html").read_text()
    rows = [re.sub(r"<[^>]+>|\s+", " ", row) for row in re.findall(r"<tr data-size.*?</tr>", page, re.S)]
    assert len(rows) == len(set(rows)) == len(shown[0]["rows"])
    assert sum("data.corpus.kind text, shipped generated" in row for row in rows) == 1


def test_each_set_of_versions_is_a_row(tmp_path: Path) -> None:
    for version in ("2.7.2", "2.9.0"):
        packages = {**ENVIRONMENT["packages"], "mindspore": version}
        write_example(tmp_path / "bundles" / version, environment={"packages": packages}, case=small_case())
    cells = written(tmp_path / "bundles", tmp_path / "site")["cells"]
    assert {cell["scope"]["mindspore"] for cell in cells} == {"2.7.2", "2.9.0"}
    page = (tmp_path / "site" / "index.html").read_text()
    assert "MindSpore 2.7.2" in page and "MindSpore 2.9.0" in page


def _on_npu(**chip: Any) -> Any:
    return {"device": "Ascend", "machine": {**ENVIRONMENT["machine"], "ascend": chip}}


@pytest.mark.parametrize(
    ("environment", "runner", "joined"),
    [
        (_on_npu(soc="910B3"), "mindformers", True),
        (_on_npu(soc="910B3"), "own", False),
        ({}, "mindformers", False),
    ],
)
def test_a_stated_level_is_joined_by_evidence_of_its_own_cell_alone(
    tmp_path: Path, environment: dict[str, Any], runner: str, joined: bool
) -> None:
    by = {"mindformers": "harness.runners.mindformers_subject:MindFormersSubject", "own": PRETRAIN.subject}[runner]

    def header(one: Any) -> Any:
        return dataclasses.replace(one, runner=by) if one.side == "subject" else one

    layout = {"model_parallel": 4, "pipeline_stage": 4, "micro_batch_num": 4, "vocab_emb_dp": True}
    small = small_case()
    case = small.with_changes(
        name="the-32b",
        model={"size": "32B"},
        parallel=layout,
        evidence="sketches",
        data={**small.data.model_dump(), "global_batch_size": 4, "seq_length": 4096},
        training={**small.training.model_dump(), "recompute": True, "gradient_accumulation_steps": 1},
        standards=("official", "layout-fp32"),
    )
    write_example(tmp_path / "bundles" / "one", case=case, environment=environment, header=header)
    index = written(tmp_path / "bundles", tmp_path / "site")
    rows = [row for row in index["rows"] if row["cell"]]
    assert [row["stated"] is not None for row in rows] == [joined]
    assert len(index["rows"]) == len(load_stated().levels) + (not joined)


def test_a_cell_has_a_page_with_all_its_certificates(shown: tuple[dict[str, Any], Path]) -> None:
    index, out = shown
    (cell,) = [one for one in index["cells"] if len(one["history"]) == 2]
    page = (out / cell["page"]).read_text()
    for run in cell["history"]:
        assert f'href="../{run["certificate"]}"' in page
        assert run["bundle_digest"] in (out / run["certificate"]).read_text()
    assert all((out / row["page"]).is_file() and (out / row["badge"]).is_file() for row in index["rows"])
    assert "not stated" in page and "not used by this implementation" in page and "none on a CPU" in page


def test_two_runs_with_the_same_bits_have_a_page_each(tmp_path: Path) -> None:
    """The second run that makes a level Released is often the same in every bit."""
    began = ["2026-01-31T12:00:00+00:00", "2026-01-31T13:00:00+00:00"]
    for at, started in enumerate(began):
        write_example(tmp_path / "bundles" / str(at), case=NIGHT, occasion={"started": started})
    (cell,) = written(tmp_path / "bundles", tmp_path / "site")["cells"]
    pages = [run["certificate"] for run in cell["history"]]
    assert len({run["bundle_digest"] for run in cell["history"]}) == 1 and len(set(pages)) == 2
    for started in began:
        assert sum(started in (tmp_path / "site" / page).read_text() for page in pages) == 1


def test_the_feed_lists_every_change_of_a_level_newest_first(bundles: Path, tmp_path: Path) -> None:
    write_example(bundles / "night-3", case=NIGHT, occasion={"started": "2026-01-31T20:00:00+00:00"}, change=_nan)
    index = written(bundles, tmp_path / "site")
    feed = ElementTree.parse(tmp_path / "site" / index["feed"])
    atom = "{http://www.w3.org/2005/Atom}"
    entries = feed.findall(f"{atom}entry")
    assert [one.findtext(f"{atom}title", "").rpartition(": ")[2] for one in entries] == [
        "Preliminary → none",
        "none → Preliminary",
    ]
    assert [one.findtext(f"{atom}updated") for one in entries] == [
        "2026-01-31T20:00:00+00:00",
        "2026-01-31T02:00:00+00:00",
    ]
    assert len({one.findtext(f"{atom}id") for one in (*entries, feed.getroot())}) == 3
    links = [link.get("href") for one in entries for link in one.iter(f"{atom}link")]
    assert len(links) == len(entries)
    assert all((tmp_path / "site" / str(link)).is_file() for link in links)


def test_the_index_is_what_its_schema_describes(shown: tuple[dict[str, Any], Path]) -> None:
    index, out = shown
    schema = json.loads((out / index["$schema"]).read_text())
    assert Index.model_validate(index).format == "certify-site/2"
    assert set(schema["required"]) <= set(index) <= set(schema["properties"])
    assert set(schema["$defs"]["IndexCell"]["properties"]) == set(index["cells"][0])
    with pytest.raises(ValueError, match="Extra inputs"):
        Index.model_validate({**index, "more": 1})


def test_every_sentence_of_table_and_cells_is_in_both_languages(shown: tuple[dict[str, Any], Path]) -> None:
    out = shown[1]
    left = {text for path in (out / "index.html", *(out / "cells").iterdir()) for text in in_one_language(path)}
    names = r"Qwen3 [\w.-]+( \(\w+\))?( ·)?|MindSpore Transformers|Atlas 800T A2, Atlas 800I A2, Atlas 900 A3 SuperPoD"
    assert {text for text in left if not re.fullmatch(names, text)} == set()


@pytest.mark.parametrize("name", list(shipped_standards()))
def test_every_criterion_has_a_chinese_title(name: str) -> None:
    standard = load_standard(name)
    titles = (standard.title, *(one.title for one in standard.criteria))
    assert [title for title in titles if chinese(title) == title] == []


def test_a_sentence_is_translated_with_its_parts() -> None:
    assert chinese("Signed by the developer: no valid signature") == "由开发者签署:没有有效签名"
    found = chinese("Loss of every step: largest 0.2, at most 1e-05 allowed (strict-fp32); worst: subject-1")
    assert found == "每一步的 loss:最大 0.2,至多 1e-05(strict-fp32);最差:subject-1"
    for name in ("subject-1: {0} {name}", "x" * 5000, "a; b"):
        assert chinese(name) == name


class _OneLanguage(HTMLParser):
    """Collects the texts outside code that stand in one language alone and read as English."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "img", "path", "line", "polyline"):
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        text = " ".join(data.split())
        quoted = {"script", "style", "pre", "code", "title", "option", "button"}
        for tag, attrs in self.open:
            if tag in quoted or (tag == "span" and "lang" in attrs) or "code" in (attrs.get("class") or "").split():
                return
        if re.search(r"[A-Za-z]{2,}.* .*[a-z]{2,}", text):
            self.found.append(text)


def in_one_language(path: Path) -> list[str]:
    parser = _OneLanguage()
    parser.feed(path.read_text())
    return parser.found


@pytest.mark.parametrize(
    "foreign",
    [
        {"occasion": {"started": "0001-01-01T00:00:00+00:00"}},
        {"environment": {"packages": {**ENVIRONMENT["packages"], "mindspore": "2.²"}}},
        {"environment": {"packages": {**ENVIRONMENT["packages"], "mindspore": "9" * 5000}}},
        {"environment": _on_npu(soc="910B3", cann=[8], driver={"version": 25}, board=[], product=1)},
        {"environment": {"machine": {"ascend": {"soc": 5, "product": ["800T A2"]}}}},
        {"header": lambda header: dataclasses.replace(header, provenance={**header.provenance, "mode": ["GRAPH"]})},
    ],
    ids=["year", "digit", "digits", "lists", "numbers", "mode"],
)
def test_what_a_foreign_bundle_states_of_its_machine_ends_no_site(tmp_path: Path, foreign: dict[str, Any]) -> None:
    write_example(tmp_path / "bundles" / "foreign", case=NIGHT, **foreign)
    index = written(tmp_path / "bundles", tmp_path / "site")
    assert [cell["scope"]["device"] for cell in index["cells"]] in (["CPU"], ["Ascend"])
