"""The page of an inference bundle: its sections, and that no content of a bundle is taken for markup."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import EvidenceError
from harness.cases.case import Case
from harness.evidence.bundle import Bundle, read_bundle
from harness.evidence.judge import statistic
from harness.report.documents import document_columns, document_tables
from harness.report.inference import InferencePart
from harness.report.languages import CHINESE
from harness.report.token_text import read_token_text
from harness.report.view import SECTIONS
from harness.report.words import number
from harness.runs.evaluation import TOKENIZER
from harness.runs.trace import RunOutcome, Scored
from tests.support.answering import Tensors, example_answers
from tests.support.bundles import edit_json, page_of, view_of, write_example, write_page_of
from tests.support.examples import inference_case

SHARED = ("criteria", "provenance", "repeat", "numbers")
HOSTILE = b"</script><script>alert('x')</script>&<b onload=1>"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_example(tmp_path_factory.mktemp("inference") / "bundle", case=inference_case())


def shown(bundle: Bundle) -> InferencePart:
    found = view_of(bundle).part
    assert isinstance(found, InferencePart)
    return found


def leaving(directory: Path, change: Any) -> Bundle:
    """The example, where `change` edits what a run left, by the run's name."""

    def answers(run: str, case: Case) -> Tensors:
        left = example_answers(run, case)
        change(run, left)
        return left

    return write_example(directory / "bundle", case=inference_case(), answers=answers)


def without_plotly(html: str) -> str:
    return re.sub(r'id="plotly">[A-Za-z0-9+/=]+', 'id="plotly">', html)


def test_a_page_has_the_parts_of_its_task_alone(bundle: Bundle) -> None:
    text = page_of(bundle)
    sections = re.findall(r'<section id="(\w+)"', text)
    assert sections == ["verdict", "level", "scores", "exact", "continuations", "itself", *SHARED]
    assert set(sections) <= set(re.findall(r'href="#(\w+)"', text))
    assert not re.search(r'id="(curves|parameters)"|learning rate 0|certify diagnose', text)


def test_every_task_is_shown_with_its_limit(bundle: Bundle) -> None:
    rows = {row.task: row for row in shown(bundle).scores}
    assert list(rows) == ["Texts", "Last words", "Endings"]
    trace = bundle.runs["subject-1"].trace
    assert trace is not None
    texts = [line for line in trace.scored if line.task == "text"]
    nats = -math.fsum(line.score for line in texts) / sum(line.words for line in texts)
    assert rows["Texts"].subject == f"{math.exp(nats):.6g}" == rows["Texts"].exact
    right = [line.score for line in trace.scored if line.task == "ending"]
    assert rows["Endings"].subject == f"{100 * sum(right) / len(right):.2f} %"
    assert rows["Endings"].exact == "" and rows["Endings"].documents == "20"
    assert {row.allowed for row in rows.values()} == {"0.4 %"}


def test_a_bound_beyond_the_limit_is_open_and_not_a_failure(bundle: Bundle) -> None:
    rows = {row.task: row for row in shown(bundle).scores}
    assert rows["Endings"].bound_open and not rows["Texts"].bound_open
    assert rows["Endings"].bar is not None and not rows["Endings"].bar.over


def test_errors_are_listed_by_row_with_the_highest_ratio_first(bundle: Bundle) -> None:
    rows, ratio = shown(bundle).rows, bundle.comparison["oracle.logits.ratio"]
    worst = sorted(zip(ratio.values, ratio.places, strict=True), key=lambda pair: -pair[0])
    assert [(row.row, row.ratio) for row in rows] == [(place, number(value)) for value, place in worst]
    largest = shown(bundle).errors.rows[-1]
    assert largest.ratio == number(statistic("maximum", ratio.values)) and largest.bar is not None
    assert {row.top1 for row in rows} == {"100 %"} and {row.regret for row in rows} == {"0"}


def test_a_continuation_is_text_and_its_prompt_too(bundle: Bundle) -> None:
    first = shown(bundle).continuations.prompts[0]
    assert (first.title, first.text) == ("Prompt 0, 4 tokens", "Snow")
    assert first.sentence == "Both sides continue with the same 256 tokens."
    assert all(side.shared.startswith("s on the hill") and side.alone == "" for side in first.sides)
    assert {side.remark for side in first.sides} == {"The oracle continues with the same 256 tokens."}
    stopped, drawn = first.others
    assert stopped.what == "Ends before the stop token 'h'" and "subject after 6 tokens" in stopped.detail
    assert {message.mark.word for message in (stopped, drawn)} == {"same tokens"}


def test_where_two_continuations_part_is_shown_and_whether_at_a_near_tie(tmp_path: Path) -> None:
    def part(run: str, left: Tensors) -> None:
        if run.startswith("subject"):
            left["greedy.0"][90:] = left["greedy.1"][40:] = ord("q")
        if run == "oracle-1":
            left["greedy_logits.1"][40, ord("q")] = left["greedy_logits.1"][40].max() - 1e-5

    far, near = shown(leaving(tmp_path, part)).continuations.prompts
    assert (far.mark.word, near.mark.word) == ("differ", "differ at a near tie")
    assert far.sides[1].alone == "q" * 166 and far.sides[0].shared == far.sides[1].shared
    assert near.sides[1].remark == (
        "Shares 40 tokens with the oracle. The logit of the oracle's next token is 1e-05 above that of this side's "
        "token: a near tie."
    )
    assert "near tie" not in far.sides[1].remark


def test_hostile_tokens_are_text(tmp_path: Path) -> None:
    def spoil(run: str, left: Tensors) -> None:
        if run.startswith("subject"):
            left["greedy.0"][: len(HOSTILE)] = np.frombuffer(HOSTILE, np.uint8)

    html = without_plotly(page_of(leaving(tmp_path, spoil)))
    assert "<script>alert" not in html and "<b onload" not in html
    assert "&lt;/script&gt;&lt;script&gt;alert" in html


def test_ids_without_text_are_shown_by_number_or_name(bundle: Bundle, tmp_path: Path) -> None:
    text = read_token_text(bundle.path / "inputs" / TOKENIZER)
    assert text.text([72, 105, 256, 300, 0, 255, 10]) == "Hi<eod> 300 ␀\ufffd\n"
    assert text.text(list("雪<".encode())) == "雪<"
    assert read_token_text(tmp_path).text([72, 105]) == " 72  105 "


OTHER_TOKENIZERS = (
    "[]", "{}", "{",
    '{"model": {"vocab": ["a"]}, "decoder": {"type": "ByteLevel"}}',
    '{"model": {"vocab": {"a": "b"}}, "added_tokens": [1], "decoder": "ByteLevel"}',
)  # fmt: skip


@pytest.mark.parametrize("content", OTHER_TOKENIZERS)
def test_a_tokenizer_of_another_kind_leaves_the_ids(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    assert read_token_text(tmp_path).text([7]) == " 7 "


def test_a_side_is_compared_with_itself_and_its_limit(bundle: Bundle) -> None:
    rows = {(row.side, row.what.partition(",")[0]): row for row in shown(bundle).selves}
    assert len(rows) == 4
    assert rows["subject", "With a cache"].bar is not None
    assert rows["reference", "With a cache"].allowed == "" and rows["reference", "With a cache"].bar is None
    assert rows["subject", "In a batch"].where in ("prompt 0", "prompt 1")


def test_repeats_are_shown_by_documents_and_tensors(bundle: Bundle) -> None:
    rows = {(row.side, row.what): row for row in view_of(bundle).part.repeats}
    assert rows["subject", "Every document's scores"].detail == "in 52 of 52 documents"
    assert rows["subject", "Logits and tokens"].mark.word == "identical bits"


def test_columns_hold_every_digit_of_every_document(bundle: Bundle) -> None:
    columns = document_columns(bundle)
    trace = bundle.runs["subject-1"].trace
    assert trace is not None
    endings = [line for line in trace.scored if line.task == "ending"]
    for n in range(4):
        assert columns[f"ending.subject.log_likelihood.{n + 1}"] == [line.log_likelihoods[n] for line in endings]
    assert columns["text.subject.document"] == "text.reference.document"
    assert columns["last_word.step"] == list(range(13, 33))
    assert columns["text.oracle.score"] and "ending.oracle.score" not in columns
    assert [table.ending for table in document_tables(columns)] == [
        "text-documents.csv",
        "last-word-documents.csv",
        "ending-documents.csv",
    ]
    assert all(
        len(columns[name]) == 20 for name in columns if name.startswith("ending.") and isinstance(columns[name], list)
    )


def nan_at_40(run: str, line: Any) -> Any:
    bad = run == "subject-1" and isinstance(line, Scored) and line.step == 40
    return dataclasses.replace(line, log_likelihoods=(math.nan,) * 4) if bad else line


def test_a_document_without_a_number_is_named_and_what_follows_is_empty(tmp_path: Path) -> None:
    made = write_example(tmp_path / "b", case=inference_case(), change=nan_at_40)
    columns = document_columns(made)
    assert columns["ending.subject.log_likelihood.1"][7:9] == ["NaN", None]
    text = page_of(made)
    assert "not finite at step 40" in text
    assert {row.task: row.difference for row in shown(made).scores}["Endings"] == "not a number"


@pytest.mark.parametrize("run", ["subject-1", "reference-1", "oracle-1", "training"])
def test_a_failed_run_is_shown_and_the_page_is_there(tmp_path: Path, run: str) -> None:
    crash = RunOutcome(status="crashed", last_step=0, detail="killed by signal 9", log_tail="Out of memory")
    made = write_example(
        tmp_path / "b",
        case=inference_case(),
        change=lambda name, line: None if name == run else line,
        outcomes={run: crash},
    )
    text = page_of(made)
    assert f"{run} did not finish" in text and "Out of memory" in text
    assert "Next: <code>certify run" in text


def test_the_same_bundle_gives_the_same_page_and_the_page_is_part_of_it(tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        made = write_example(tmp_path / name, case=inference_case())
        pages.append(write_page_of(made).read_bytes())
        assert read_bundle(made.path).digest == made.digest
    assert pages[0] == pages[1]


def test_questions_that_were_edited_are_no_page(tmp_path: Path) -> None:
    made = write_example(tmp_path / "b", case=inference_case())
    edit_json(made.path / "inputs" / "evaluation.json", lambda asked: asked.update(prompts=[["<b>"]]))
    with pytest.raises(EvidenceError):
        page_of(made)


def test_the_inputs_of_inference_are_shown(bundle: Bundle) -> None:
    provenance = view_of(bundle).provenance
    facts = {fact.term: fact.text for fact in provenance.inputs}
    assert facts["Size of the evaluation"] == "2 rows, 2 prompts and 12 texts; 20 documents of each other task"
    assert {run.name: run.steps for run in provenance.runs}["subject-1"] == "52 of 52"
    assert provenance.commands[0].line == "certify run qwen3-tiny-inference"


def test_titles_that_come_from_the_view_are_there_in_chinese(bundle: Bundle) -> None:
    view = shown(bundle)
    words = [word for row in view.scores for word in (row.task, row.score)]
    words += [chart.title for chart in view.charts] + ["reference", "subject"]
    words += [title for sections in SECTIONS.values() for _, title in sections.links]
    assert [word for word in words if word not in CHINESE] == []


def test_charts_name_columns_that_are_there(bundle: Bundle) -> None:
    data = view_of(bundle).data
    named = {
        name
        for figure in data["figures"].values()
        for one in figure["data"]
        for name in (one["meta"]["x"], one["meta"]["y"])
    }
    assert named <= set(data["columns"]) and len(data["figures"]) == 2
    json.dumps(data, allow_nan=False)
