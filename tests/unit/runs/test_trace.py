"""The trace file: a written trace is read, an edited one is an error."""

import dataclasses
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.digest import canonical_json
from harness.base.errors import EvidenceError
from harness.runs.trace import Scored, Step, Trace, TraceHeader, TraceWriter, read_trace
from tests.support.properties import examples

HEADER = TraceHeader(
    run="subject-1", side="subject", arm="train", case="c", weights="w", batches="b", steps=3, runner="fake",
    provenance={"threads": 1},
)  # fmt: skip
ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True, width=64)
Records = list[dict[str, Any]]


def step(number: int, **changes: Any) -> Step:
    values = {"loss": 5.0 / number, "grad_norm": 1.0, "learning_rate": 1e-4, "tokens": 64, "batch": f"{number:04x}"}
    return Step(step=number, **{**values, **changes})


def write(path: Path, steps: list[Step], header: TraceHeader = HEADER, end: bool = True) -> Path:
    with TraceWriter.create(path, header) as writer:
        for one in steps:
            writer.append(one)
        if end:
            writer.finish({"model.norm.weight": "d" * 64})
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "trace.jsonl", [step(1), step(2), step(3)])


def unfinished(path: Path, edit: Callable[[Records], Any]) -> Path:
    """Drops the footer, which would not match after an edit, and edits the header and the steps."""
    records = [json.loads(line) for line in path.read_bytes().splitlines()[:-1]]
    edit(records)
    path.write_text("".join(canonical_json(record) + "\n" for record in records))
    return path


def same(a: float, b: float) -> bool:
    return (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))


STEPS = st.lists(
    st.tuples(ANY_FLOAT, ANY_FLOAT, ANY_FLOAT, st.integers(0, 2**40), st.text(max_size=5)), max_size=6
).map(
    lambda rows: [
        Step(step=n, loss=a, grad_norm=b, learning_rate=c, tokens=d, batch=e)
        for n, (a, b, c, d, e) in enumerate(rows, 1)
    ]
)


@given(STEPS, st.booleans())
@settings(max_examples=examples(60))
def test_a_trace_reads_back_as_it_was_written(steps: list[Step], end: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        header = dataclasses.replace(HEADER, steps=6)
        read = read_trace(write(Path(directory) / "t", steps, header, end))
    assert read.header == header and (read.footer is not None) is end
    for wrote, found in zip(steps, read.steps, strict=True):
        assert all(same(getattr(wrote, n), getattr(found, n)) for n in ("loss", "grad_norm", "learning_rate"))
        assert (wrote.step, wrote.tokens, wrote.batch) == (found.step, found.tokens, found.batch)
    assert read.complete is (end and len(steps) == 6)


@given(st.data())
@settings(max_examples=examples(150))
def test_a_flipped_byte_is_an_error_or_leaves_a_trace_without_a_footer(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = write(Path(directory) / "t", [step(1), step(2), step(3)])
        raw = bytearray(path.read_bytes())
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(raw)
        try:
            found: Trace | None = read_trace(path)
        except EvidenceError:
            found = None
    # the digest in the footer covers all lines before it; the footer itself is covered by the bundle's manifest
    assert found is None or found.footer is None or found.steps == (step(1), step(2), step(3))


def test_a_trace_without_a_footer_is_never_complete(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path / "t", [step(1), step(2), step(3)], end=False))
    assert (len(trace.steps), trace.footer, trace.complete) == (3, None, False)


def test_a_short_run_is_not_complete(tmp_path: Path) -> None:
    assert not read_trace(write(tmp_path / "t", [step(1), step(2)])).complete


def test_an_empty_trace_is_not_complete(tmp_path: Path) -> None:
    assert not read_trace(write(tmp_path / "t", [])).complete


@pytest.mark.parametrize("content", [b"", b'{"run":"subject-1"'])
def test_a_file_without_a_line_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(EvidenceError, match="is empty"):
        read_trace(tmp_path / "t")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="cannot be read"):
        read_trace(tmp_path / "t")


def test_a_trace_truncated_at_any_byte_can_be_read(path: Path) -> None:
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        trace = read_trace(path)
        assert trace.footer is None and [one.step for one in trace.steps] == list(range(1, len(trace.steps) + 1))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda r: r.pop(2), "step 3, expected step 2"),
        (lambda r: r.insert(2, r[2]), "step 2, expected step 3"),
        (lambda r: r.reverse() or r.insert(0, r.pop()), "step 3, expected step 1"),
        (lambda r: r.pop(1), "step 2, expected step 1"),
    ],
    ids=["missing", "repeated", "reordered", "first-missing"],
)
def test_a_missing_repeated_or_reordered_step_is_an_error(
    path: Path, edit: Callable[[Records], Any], message: str
) -> None:
    with pytest.raises(EvidenceError, match=message):
        read_trace(unfinished(path, edit))


def test_an_extra_step_is_an_error(path: Path) -> None:
    with pytest.raises(EvidenceError, match="4 steps"):
        read_trace(unfinished(path, lambda records: records.append({**records[-1], "step": 4})))


def test_an_extra_step_before_a_footer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EvidenceError, match="4 steps"):
        read_trace(write(tmp_path / "t", [step(number) for number in range(1, 5)]))


@pytest.mark.parametrize(
    "change",
    [
        {"step": "2"}, {"step": 2.0}, {"step": True}, {"tokens": 64.0}, {"tokens": None}, {"batch": 7}, {"loss": None},
        {"loss": "5.0"}, {"loss": True}, {"loss": [5.0]}, {"grad_norm": "nan"}, {"learning_rate": {}},
        {"loss": 10**400}, {"tokens": 10**400}, {"tokens": -1}, {"unknown": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_field_of_another_type_is_an_error(path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError, match="line 3"):
        read_trace(unfinished(path, lambda records: records[2].update(change)))


@pytest.mark.parametrize("missing", ["step", "loss", "grad_norm", "learning_rate", "tokens", "batch"])
def test_a_missing_field_is_an_error(path: Path, missing: str) -> None:
    with pytest.raises(EvidenceError, match="expected the keys"):
        read_trace(unfinished(path, lambda records: records[1].pop(missing)))


@pytest.mark.parametrize(
    "change",
    [
        {"steps": "3"}, {"steps": 3.0}, {"steps": True}, {"steps": -1}, {"steps": 0}, {"steps": None},
        {"side": "other"},
        {"arm": 1}, {"case": 5}, {"provenance": []}, {"format": "certify-trace/1"}, {"run": None}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_header_with_a_wrong_field_is_an_error(path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(EvidenceError):
        read_trace(unfinished(path, lambda records: records[0].update(change)))


@pytest.mark.parametrize(
    "change",
    [{"last_step": 2}, {"last_step": "3"}, {"parameters": []}, {"parameters": {"a": 1}}, {"lines": None}, {"more": 1}],
    ids=str,
)
def test_a_footer_with_a_wrong_field_is_an_error(path: Path, change: dict[str, Any]) -> None:
    lines = path.read_bytes().splitlines()
    footer = {**json.loads(lines[-1]), **change}
    path.write_bytes(b"\n".join(lines[:-1]) + b"\n" + json.dumps(footer).encode() + b"\n")
    with pytest.raises(EvidenceError):
        read_trace(path)


def test_lines_after_the_footer_are_an_error(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b'{"step"')
    with pytest.raises(EvidenceError, match="changed after its run ended"):
        read_trace(path)


def test_an_edited_digit_is_an_error(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"2.5", b"2.4"))
    with pytest.raises(EvidenceError, match="changed after its run ended"):
        read_trace(path)


def test_a_step_with_a_number_that_is_not_finite_is_found(tmp_path: Path) -> None:
    for number in ("loss", "grad_norm", "learning_rate"):
        for value in (math.nan, math.inf, -math.inf):
            trace = read_trace(write(tmp_path / "t", [step(1), step(2, **{number: value}), step(3)]))
            assert trace.first_non_finite is not None and trace.first_non_finite.step == 2


def test_resume_keeps_the_bytes_up_to_its_step(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", [step(1), step(2), step(3)]).read_bytes()
    part = write(tmp_path / "part", [step(1), step(2, loss=9.0)], end=False)
    with TraceWriter.resume(part, HEADER, 1) as writer:
        writer.append(step(2))
        writer.append(step(3))
        writer.finish({"model.norm.weight": "d" * 64})
    assert part.read_bytes() == whole


def test_resuming_another_run_is_an_error(tmp_path: Path) -> None:
    part = write(tmp_path / "part", [step(1), step(2)], end=False)
    before = part.read_bytes()
    for header, after in ((dataclasses.replace(HEADER, weights="other"), 1), (HEADER, 3)):
        with pytest.raises(EvidenceError, match="not the beginning of this run"):
            TraceWriter.resume(part, header, after)
    assert part.read_bytes() == before


INFERENCE = dataclasses.replace(HEADER, arm="infer")


def scored(number: int, **changes: Any) -> Scored:
    values = {"task": "ending", "log_likelihoods": (-1.5, -2.5), "score": 1.0, "words": 1, "document": f"{number:04x}"}
    return Scored(step=number, **{**values, **changes})


def write_scored(path: Path, lines: list[Scored], header: TraceHeader = INFERENCE) -> Path:
    with TraceWriter.create(path, header) as writer:
        for line in lines:
            writer.append(line)
        writer.finish({"logits.0": "d" * 64})
    return path


@pytest.fixture
def inferred(tmp_path: Path) -> Path:
    return write_scored(tmp_path / "trace.jsonl", [scored(1, task="text"), scored(2, task="last_word"), scored(3)])


SCORED = st.lists(
    st.tuples(
        st.sampled_from(["text", "last_word", "ending"]),
        st.lists(ANY_FLOAT, max_size=4),
        ANY_FLOAT,
        st.integers(1, 2**40),
        st.text(max_size=5),
    ),
    max_size=6,
)


@given(SCORED)
@settings(max_examples=examples(60))
def test_scored_documents_read_back_as_they_were_written(rows: list[Any]) -> None:
    lines = [
        Scored(step=n, task=task, log_likelihoods=tuple(likelihoods), score=score, words=words, document=document)
        for n, (task, likelihoods, score, words, document) in enumerate(rows, 1)
    ]
    with tempfile.TemporaryDirectory() as directory:
        header = dataclasses.replace(INFERENCE, steps=max(1, len(lines)))
        trace = read_trace(write_scored(Path(directory) / "trace.jsonl", lines, header))
    assert trace.steps == () and trace.lines == trace.scored and len(trace.scored) == len(lines)
    for read, written in zip(trace.scored, lines, strict=True):
        assert (read.task, read.words, read.document) == (written.task, written.words, written.document)
        pairs = zip((read.score, *read.log_likelihoods), (written.score, *written.log_likelihoods), strict=True)
        assert all(same(a, b) for a, b in pairs)
        assert read.finite == written.finite
    assert trace.complete is bool(lines)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_first_document_with_a_number_that_is_not_finite_is_found(tmp_path: Path, value: float) -> None:
    lines = [scored(1), scored(2, log_likelihoods=(-1.0, value)), scored(3, score=value)]
    bad = read_trace(write_scored(tmp_path / "trace.jsonl", lines)).first_non_finite
    assert bad is not None and bad.step == 2


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda records: records.pop(2), "holds step 3, expected step 2"),
        (lambda records: records.append({**records[3], "step": 4}), "holds 4 steps; its header states 3"),
        (lambda records: records[1].update(task="poem"), "task"),
        (lambda records: records[1].update(words=0), "words"),
        (lambda records: records[1].update(words=1.0), "words"),
        (lambda records: records[1].update(log_likelihoods="-1.5"), "not a list of numbers"),
        (lambda records: records[1].update(log_likelihoods=["-1.5"]), "not a number"),
        (lambda records: records[1].update(score=None), "not a number"),
        (lambda records: records[1].update(score=True), "not a number"),
        (lambda records: records[1].pop("document"), "expected the keys"),
        (lambda records: records[1].update(loss=1.0), "expected the keys"),
        (lambda records: records[0].update(arm="train"), "expected the keys"),
        (lambda records: records[0].update(arm="guess"), "arm"),
    ],
)
def test_an_invalid_scored_document_is_an_error(inferred: Path, edit: Callable[[Records], Any], message: str) -> None:
    with pytest.raises(EvidenceError, match=message):
        read_trace(unfinished(inferred, edit))


def test_an_edited_digit_of_a_likelihood_is_an_error(inferred: Path) -> None:
    inferred.write_bytes(inferred.read_bytes().replace(b"-2.5", b"-2.4", 1))
    with pytest.raises(EvidenceError, match="changed after its run ended"):
        read_trace(inferred)


def test_a_truncated_run_is_not_complete(inferred: Path) -> None:
    trace = read_trace(unfinished(inferred, lambda records: records.pop()))
    assert len(trace.scored) == 2 and not trace.complete and trace.footer is None
