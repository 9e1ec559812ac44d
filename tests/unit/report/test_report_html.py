"""The page as text: its content and order, and that no content of a bundle is taken for markup."""

import dataclasses
import json
import math
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import EvidenceError
from harness.cases.case import load_case
from harness.evidence.bundle import Bundle, read_bundle
from harness.report.languages import chinese
from harness.report.page import embed_json
from harness.runs.trace import RunOutcome, Step, TraceHeader
from harness.standards import Standard, load_standard, parse_standard
from tests.support.bundles import (
    certified,
    edit_json,
    example_parameters,
    page_of,
    view_of,
    write_example,
    write_page_of,
)

HOSTILE = "</script><script>alert('x')</script>&<b onload=\"1\">\u2028"
VOID = {"meta", "link", "br", "img", "input", "hr", "wbr"}


class Outline(HTMLParser):
    """Headings in order, script elements by type, and the tags that are left open or closed out of order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.headings: list[int] = []
        self.scripts: list[str | None] = []
        self.unscoped = 0
        self.stack: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "script":
            self.scripts.append(dict(attrs).get("type"))
        if tag == "th" and "scope" not in dict(attrs):
            self.unscoped += 1
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack.pop() != tag:
            self.unbalanced.append(tag)


def without_plotly(html: str) -> str:
    return re.sub(r'id="plotly">[A-Za-z0-9+/=]+', 'id="plotly">', html)


def embedded(html: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.S).group(1))


def nan_at_57(run: str, step: Step) -> Step:
    bad = run in ("subject-1", "subject-2") and step.step == 57
    return dataclasses.replace(step, loss=math.nan, grad_norm=math.inf) if bad else step


def killed_after_83(run: str, step: Step) -> Step | None:
    return None if run == "subject-1" and step.step > 83 else step


@pytest.fixture(scope="module")
def passing(tmp_path_factory: pytest.TempPathFactory) -> str:
    return without_plotly(page_of(write_example(tmp_path_factory.mktemp("passing"))))


def test_verdict_and_level_come_first(passing: str) -> None:
    body = passing[passing.index("<main>") :]
    assert body.index("Preliminary") < body.index("Why this level") < body.index("Every criterion")
    assert re.search(r"<h1>.*Preliminary.*64 of 65 criteria pass, none fails; 1 inconclusive\.", body, re.S)


def test_a_cpu_result_states_that_it_is_no_level_on_an_npu(passing: str) -> None:
    assert "CPU, one process, float32" in passing
    assert "This is not a level on an NPU" in passing


def test_every_criterion_is_shown_with_limit_reason_and_source(tmp_path: Path) -> None:
    bundle = write_example(tmp_path)
    text = page_of(bundle).replace("&#39;", "'").replace("&#34;", '"').replace("&lt;", "<")
    for standard in bundle.standards:
        assert f"{standard.name} version {standard.version}" in text
        assert standard.digest() in text
        for criterion in standard.criteria:
            assert criterion.title in text
            assert all(limit.reason in text and limit.source in text for limit in criterion.limits)


def test_every_requirement_of_every_level_is_shown(tmp_path: Path) -> None:
    bundle = write_example(tmp_path)
    text = page_of(bundle).replace("&#39;", "'")
    assert all(requirement.text in text for requirement in certified(bundle).requirements)


def test_all_digests_of_the_inputs_are_shown(tmp_path: Path) -> None:
    bundle = write_example(tmp_path)
    text = page_of(bundle)
    inputs = bundle.inputs
    for digest in (bundle.digest, bundle.case.digest(), inputs.weights, inputs.batches, inputs.corpus_sha256):
        assert digest in text


def test_the_same_bundle_gives_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    pages = {page_of(write_example(tmp_path / name)) for name in ("here", "elsewhere") if _made(tmp_path / name)}
    assert len(pages) == 1


def _made(path: Path) -> bool:
    path.mkdir()
    return True


def test_hostile_strings_are_text(tmp_path: Path) -> None:
    case = load_case("qwen3-tiny-fp32").with_changes(title=HOSTILE)
    crash = RunOutcome(status="crashed", last_step=83, detail=HOSTILE, log_tail=HOSTILE)
    bundle = write_example(tmp_path, case=case, change=killed_after_83, outcomes={"subject-1": crash})
    edit_json(tmp_path / "run.json", lambda run: run.update(command=[HOSTILE], started=HOSTILE, host=HOSTILE))
    html = without_plotly(page_of(bundle))
    assert "<script>alert" not in html
    assert "<b onload" not in html
    assert "&lt;/script&gt;&lt;script&gt;alert" in html
    assert Outline(html).scripts == ["application/json", "application/octet-stream", None, None]
    assert HOSTILE in json.dumps(embedded(html), ensure_ascii=False).replace('\\"', '"')


MARKUP = "</script></style><hostile onhostile=1>\"'><a href=javascript:x>[x](javascript:y){{7*7}}{0}&lt;\u2028\u202e"


class Elements(HTMLParser):
    """The names of elements, of their attributes, and the values of those that lead somewhere or are styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.values = set[str](), set[str](), set[str]()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.values |= {value or "" for name, value in attrs if name in ("href", "src", "style", "class", "id")}


def everywhere(directory: Path) -> Bundle:
    """A bundle in which every free text is hostile."""

    def standard(name: str) -> Standard:
        content = load_standard(name).model_dump(mode="json")
        for criterion in content["criteria"]:
            criterion["title"] = MARKUP
            for limit in criterion["limits"]:
                limit["reason"] = limit["source"] = MARKUP
        return parse_standard(content, name)

    def header(asked: TraceHeader) -> TraceHeader:
        more = {"started_by_site": {MARKUP: MARKUP}, MARKUP: MARKUP, "runner_file": "a" * 64}
        runner = MARKUP if asked.side == "subject" else asked.runner
        return dataclasses.replace(asked, provenance={**asked.provenance, **more}, runner=runner)

    def change(run: str, step: Step) -> Step | None:
        if run == "subject-2" and step.step > 83:
            return None
        return dataclasses.replace(step, loss=step.loss * 1.1) if run == "subject-1" else step

    def parameters(run: str) -> dict[str, Any]:
        return {**example_parameters(run), MARKUP: example_parameters(run)["model.norm.weight"]}

    case = load_case("qwen3-tiny-fp32").with_changes(title=MARKUP)
    crash = RunOutcome(status="crashed", last_step=83, detail=MARKUP, log_tail=MARKUP)
    return write_example(
        directory,
        case=case,
        change=change,
        header=header,
        parameters=parameters,
        outcomes={"subject-2": crash},
        standards=tuple(map(standard, case.standards)),
        environment={"packages": {MARKUP: MARKUP}, "variables": {MARKUP: MARKUP}, "machine": {MARKUP: MARKUP},
                     "untried": (MARKUP,)},
        source={"runners": {MARKUP: "a" * 64}},
        occasion={"command": ["certify", MARKUP], "host": MARKUP},
    )  # fmt: skip


def test_no_free_text_of_a_bundle_is_markup_style_or_link(tmp_path: Path, passing: str) -> None:
    html = without_plotly(page_of(everywhere(tmp_path / "bundle")))
    honest, hostile = Elements(passing), Elements(html)
    assert html.count("&lt;hostile onhostile=1&gt;") > 100
    assert "hostile" not in hostile.tags and hostile.attributes <= honest.attributes | {"open"}
    assert not [value for value in hostile.values if "script:" in value or "hostile" in value]
    assert Outline(html).scripts == Outline(passing).scripts and Outline(html).unbalanced == []


@pytest.mark.parametrize(
    "text", [": (); ", ": ", "; ", ", ", " has ", ": a (b); first beyond the limit at step ", "<one>; ", "{0}"]
)
def test_no_text_takes_longer_to_translate_than_anyone_waits(text: str) -> None:
    """Sentences are patterns of parts that are sentences, and a hostile one matches in very many ways."""
    begun = time.process_time()
    for length in (100, 300, 999):
        chinese((text * length)[:length])
    assert time.process_time() - begun < 3


def test_embedded_json_reads_back_and_cannot_end_its_script() -> None:
    text = embed_json({"title": HOSTILE})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"title": HOSTILE}


def test_an_unnamed_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        embed_json({"loss": math.nan})


def test_a_number_that_is_not_finite_is_shown_and_kept(tmp_path: Path) -> None:
    html = page_of(write_example(tmp_path, change=nan_at_57))
    assert "not finite at step 57: loss not a number, grad norm infinite" in html
    columns = embedded(html)["columns"]
    assert columns["train.subject.loss"][56:58] == ["NaN", None]
    assert columns["train.subject.grad_norm"][56] == "Infinity"
    assert columns["train.loss.relative"][56:58] == ["NaN", None]


def test_a_broken_run_comes_before_any_number_with_the_end_of_its_log(tmp_path: Path) -> None:
    crash = RunOutcome(status="crashed", last_step=83, detail="killed by signal 9", log_tail="first\nOut of memory")
    html = page_of(write_example(tmp_path, change=killed_after_83, outcomes={"subject-1": crash}))
    body = html[html.index("What went wrong") :]
    assert (
        body.index("killed by signal 9") < body.index("Out of memory") < body.index("Every run took all of its steps")
    )
    assert "subject-1 did not finish" in html


def test_a_log_that_ends_alike_in_several_runs_is_shown_once(tmp_path: Path) -> None:
    crash = RunOutcome(status="crashed", last_step=83, detail="killed by signal 9", log_tail="first\nOut of memory")
    html = page_of(write_example(tmp_path, change=killed_after_83, outcomes={"subject-1": crash, "subject-2": crash}))
    assert html.count("Out of memory") == 1 and html.count("its log ends like that of subject-1") == 1


def test_a_run_that_differs_is_to_be_diagnosed_and_one_that_broke_to_be_run_again(tmp_path: Path) -> None:
    def off(run: str, step: Step) -> Step:
        return dataclasses.replace(step, loss=step.loss * 1.001) if run == "subject-1" else step

    differs = page_of(write_example(tmp_path / "differs", change=off))
    assert "Next: <code>certify diagnose BUNDLE</code>" in differs
    crash = RunOutcome(status="crashed", last_step=83, detail="killed by signal 9")
    broke = page_of(write_example(tmp_path / "broke", change=killed_after_83, outcomes={"subject-1": crash}))
    assert "Next: <code>certify run" in broke and "Next: <code>certify diagnose" not in broke


def test_the_log_of_a_bundle_is_shown_if_no_tail_was_recorded(tmp_path: Path) -> None:
    crash = RunOutcome(status="hung", last_step=83, detail="no step for 120 s")
    bundle = write_example(tmp_path, change=killed_after_83, outcomes={"subject-1": crash})
    (tmp_path / "runs/subject-1/log.txt").write_text("waiting for a lock\n")
    assert "waiting for a lock" in page_of(bundle)


def test_logs_and_timings_are_optional(tmp_path: Path) -> None:
    bundle = write_example(tmp_path)
    (tmp_path / "run.json").unlink()
    for timing in tmp_path.glob("runs/*/timing.jsonl"):
        timing.unlink()
    html = page_of(bundle)
    assert "No times were recorded." in html
    assert "not recorded" in html


def test_the_time_of_compiling_is_shown_and_is_no_time_of_a_step(tmp_path: Path) -> None:
    bundle = write_example(tmp_path)
    timing = tmp_path / "runs/subject-1/timing.jsonl"
    before = view_of(bundle).provenance.runs
    timing.write_text('{"compile_seconds": 42.0}\n' + timing.read_text())
    after = view_of(bundle).provenance.runs
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert [(run.name, run.compiled) for run in changed] == [("subject-1", "42 s")]
    assert {(run.total, run.per_step) for run in after} == {(run.total, run.per_step) for run in before}
    assert re.search(r"after compiling for<.*?> 42 s</span>", page_of(bundle))


def test_the_most_memory_of_a_run_is_shown(tmp_path: Path) -> None:
    bundle = write_example(tmp_path)
    with (tmp_path / "runs/subject-1/timing.jsonl").open("a") as timing:
        timing.write('{"phase": "gradients", "peak_mib": 2048}\n{"phase": "final parameters", "peak_mib": 1024}\n')
    assert [(run.name, run.memory) for run in view_of(bundle).provenance.runs if run.memory] == [
        ("subject-1", "2.0 GiB")
    ]
    assert re.search(r"with at most<.*?> 2.0 GiB</span>", page_of(bundle))


@pytest.mark.parametrize("junk", ["[]", "{", '{"command": 3, "seconds": "soon", "started": null}', "\x00"])
def test_edited_logs_and_timings_never_break_the_page(tmp_path: Path, junk: str) -> None:
    bundle = write_example(tmp_path)
    (tmp_path / "run.json").write_text(junk)
    (tmp_path / "runs/subject-1/timing.jsonl").write_text(junk)
    assert "not recorded" in page_of(bundle)


def test_html_is_balanced_headings_are_in_order_and_table_headers_scoped(passing: str) -> None:
    outline = Outline(passing)
    assert outline.unbalanced == [] and outline.stack == []
    assert outline.headings[0] == 1 and outline.headings.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(outline.headings, outline.headings[1:], strict=False))
    assert outline.unscoped == 0
    assert '<html lang="en">' in passing


def test_nothing_is_loaded_from_elsewhere(passing: str) -> None:
    assert not re.search(r'(?:src|href)="(?!#|data:,)', passing)
    assert "url(" not in passing and "@import" not in passing


def test_the_numbers_are_embedded_once(passing: str) -> None:
    loss = embedded(passing)["columns"]["train.reference.loss"][10]
    assert passing.count(repr(loss)) == 1


def test_write_report_leaves_the_bundle_valid(tmp_path: Path) -> None:
    bundle = write_example(tmp_path)
    path = write_page_of(bundle)
    assert path == tmp_path / "report.html"
    assert read_bundle(tmp_path).digest == bundle.digest
    assert not list(tmp_path.glob("*.part"))


def test_a_bundle_whose_findings_are_gone_is_an_error_not_an_empty_page(tmp_path: Path) -> None:
    bundle = write_example(tmp_path)
    (tmp_path / "findings.json").unlink()
    with pytest.raises(EvidenceError):
        page_of(bundle)


def test_rendering_imports_no_framework() -> None:
    code = "import sys, harness.report; print([m for m in ('torch', 'mindspore', 'transformers') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
