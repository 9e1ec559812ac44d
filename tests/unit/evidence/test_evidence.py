"""Bundles: read back as written, and refused when anything in them is not what was recorded."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from harness.base.digest import digest_file
from harness.base.errors import CertifyError, EvidenceError
from harness.base.records import read_json, write_json
from harness.evidence.bundle import Bundle, finish_bundle, read_bundle
from harness.evidence.judge import Outcome
from harness.levels.certificate import Level
from harness.runs.trace import Step, TraceHeader
from harness.standards import load_standard
from tests.support.bundles import certified, edit_json, write_example, write_page_of
from tests.support.examples import small_case
from tests.support.properties import examples

RUNS = ("reference-1", "reference-2", "reference-lr0", "subject-1", "subject-2", "subject-lr0")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    bundle = write_example(tmp_path_factory.mktemp("example") / "bundle", case=small_case())
    write_page_of(bundle)
    return bundle


@pytest.fixture
def copy(example: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(example.path, tmp_path / "copy"))


def digested(directory: Path) -> list[str]:
    return sorted(read_json(directory / "manifest.json")["files"])


def recorded(directory: Path) -> list[str]:
    return sorted(read_json(directory / "record.json")["files"])


def forge(directory: Path) -> None:
    """Makes manifest and record match the files, as a forger would."""
    for name, listed in (("manifest.json", digested(directory)), ("record.json", recorded(directory))):
        content = read_json(directory / name)
        content["files"] = {file: digest_file(directory / file) for file in listed if (directory / file).is_file()}
        if name == "record.json":
            content["manifest"] = digest_file(directory / "manifest.json")
        write_json(directory / name, content)


def outcomes(bundle: Bundle) -> dict[str, Outcome]:
    return {finding.criterion: finding.outcome for finding in bundle.findings}


def test_a_bundle_reads_back_as_it_was_written(example: Bundle) -> None:
    again = read_bundle(example.path)
    assert (again.digest, again.findings, again.runs) == (example.digest, example.findings, example.runs)
    assert certified(again).level is Level.PRELIMINARY


def test_the_same_numbers_give_the_same_digest_wherever_they_lie(example: Bundle, tmp_path: Path) -> None:
    assert write_example(tmp_path / "elsewhere", case=small_case()).digest == example.digest


def test_time_host_and_logs_change_the_record_and_not_the_digest(copy: Path, example: Bundle) -> None:
    edit_json(copy / "run.json", lambda run: run.update(host="elsewhere"))
    (copy / "runs" / "subject-1" / "timing.jsonl").write_text("")
    again = finish_bundle(copy)
    assert again.digest == example.digest and again.record != example.record


@pytest.mark.parametrize("name", ["run.json", "runs/subject-1/timing.jsonl"])
def test_an_edited_record_of_a_run_is_refused(copy: Path, name: str) -> None:
    (copy / name).write_bytes((copy / name).read_bytes().replace(b"0", b"1", 1))
    with pytest.raises(EvidenceError, match=f"changed: {name}"):
        read_bundle(copy)


def test_a_record_of_another_manifest_is_refused(copy: Path) -> None:
    edit_json(copy / "record.json", lambda record: record.update(manifest="0" * 64))
    with pytest.raises(EvidenceError, match="belongs to another"):
        read_bundle(copy)


def all_files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)


@given(st.data())
@settings(max_examples=examples(2000), suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_flipped_byte_of_any_file_is_refused(example: Bundle, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(all_files(example.path)))
    before = path.read_bytes()
    flipped = bytearray(before)
    flipped[data.draw(st.integers(0, len(before) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        path.write_bytes(flipped)
        with pytest.raises(EvidenceError):
            read_bundle(example.path)
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("name", ["manifest.json", "record.json"])
def test_a_list_with_the_same_content_in_other_bytes_is_rejected(copy: Path, name: str) -> None:
    (copy / name).write_bytes((copy / name).read_bytes().replace(b'":', b'": '))
    with pytest.raises(EvidenceError, match="canonical"):
        read_bundle(copy)


def test_two_names_that_some_file_systems_take_for_one_are_refused(copy: Path) -> None:
    (copy / "runs" / "Subject-1").mkdir()
    with pytest.raises(EvidenceError, match="upper and lower case"):
        read_bundle(copy)


def test_a_page_may_be_left_out_but_not_cut(copy: Path) -> None:
    page = write_page_of(read_bundle(copy))
    page.write_bytes(page.read_bytes()[:-1])
    with pytest.raises(EvidenceError, match="certify report"):
        read_bundle(copy)
    page.unlink()
    assert read_bundle(copy).findings


@pytest.mark.parametrize("name", ["findings.json", "case.json", "inputs.json", "runs/subject-1/trace.jsonl"])
def test_a_file_that_is_gone_is_refused(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(EvidenceError, match=f"missing: {name}"):
        read_bundle(copy)


@pytest.mark.parametrize(
    "name",
    ["extra.txt", "standards/mine.json", "inputs/log.txt", "standards/run.json", "tensors/report.html",
     "runs/subject-1/manifest.json", "runs/log.txt", "job.json", "runs/subject-3/trace.jsonl", ".hidden"],
)  # fmt: skip
def test_an_extra_file_is_refused(copy: Path, name: str) -> None:
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text("{}")
    with pytest.raises(EvidenceError, match=f"extra: {name}"):
        read_bundle(copy)


@pytest.mark.parametrize("name", ["findings.json", "run.json", "runs/subject-1/log.txt", "link", "manifest.json"])
def test_a_symbolic_link_is_refused(copy: Path, tmp_path: Path, name: str) -> None:
    target = tmp_path / "target"
    target.write_bytes((copy / name).read_bytes() if (copy / name).exists() else b"{}")
    (copy / name).unlink(missing_ok=True)
    (copy / name).symlink_to(target)
    with pytest.raises(EvidenceError, match="links are not allowed"):
        read_bundle(copy)


def test_a_linked_directory_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "runs" / "subject-2").rename(tmp_path / "moved")
    (copy / "runs" / "subject-2").symlink_to(tmp_path / "moved")
    with pytest.raises(EvidenceError, match="links are not allowed"):
        read_bundle(copy)


def test_a_pipe_is_refused(copy: Path) -> None:
    (copy / "runs" / "subject-1" / "log.txt").unlink(missing_ok=True)
    os.mkfifo(copy / "runs" / "subject-1" / "log.txt")
    with pytest.raises(EvidenceError, match="not a plain file"):
        read_bundle(copy)


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"files":{},"format":"certify-bundle/1"}\n',
                                     '{"files":null,"format":"certify-bundle/2"}\n', "[" * 100_000,
                                     '{"files":[],"format":"certify-bundle/2"}\n', "\udcff"])  # fmt: skip
def test_what_is_no_manifest_is_refused(copy: Path, content: str) -> None:
    (copy / "manifest.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(EvidenceError):
        read_bundle(copy)


def test_findings_that_do_not_follow_from_the_traces_are_refused(copy: Path) -> None:
    edit_json(copy / "findings.json", lambda findings: findings[-1].update(outcome="PASS", message="fine"))
    edit_json(copy / "findings.json", lambda findings: findings[17].update(outcome="PASS"))
    forge(copy)
    with pytest.raises(EvidenceError, match="does not follow"):
        read_bundle(copy)


@pytest.mark.parametrize(("off", "follows"), [(1e-14, True), (1e-8, True), (1e-4, False)])
def test_a_number_that_another_machine_rounds_otherwise_is_the_same_number(
    copy: Path, off: float, follows: bool
) -> None:
    def elsewhere(findings: list[dict[str, Any]]) -> None:
        judged = next(one for one in findings if one["criterion"] == "loss")["judged"][0]
        judged["value"] *= 1 + off

    before = read_bundle(copy).findings
    edit_json(copy / "findings.json", elsewhere)
    forge(copy)
    if follows:
        assert read_bundle(copy).findings == before
    else:
        with pytest.raises(EvidenceError, match="does not follow from the traces"):
            read_bundle(copy)


def test_an_edited_digit_of_a_trace_is_refused_though_the_manifest_fits(copy: Path) -> None:
    trace = copy / "runs" / "subject-1" / "trace.jsonl"
    trace.write_bytes(trace.read_bytes().replace(b'"tokens":', b'"tokens":9', 1))
    forge(copy)
    with pytest.raises(EvidenceError, match="changed after its run ended"):
        read_bundle(copy)


def test_an_edited_standard_is_refused_though_the_manifest_fits(copy: Path) -> None:
    edit_json(copy / "standards" / "official.json", lambda s: s["criteria"][0]["limits"][0].update(value=1.0))
    forge(copy)
    with pytest.raises(EvidenceError, match="does not follow"):
        read_bundle(copy)


def test_a_standard_under_another_name_is_refused(copy: Path) -> None:
    shutil.copy(copy / "standards" / "strict-fp32.json", copy / "standards" / "official.json")
    with pytest.raises(EvidenceError, match="strict-fp32"):
        finish_bundle(copy)


def test_a_standard_outside_of_the_bundle_is_refused(copy: Path) -> None:
    shutil.copy(copy / "standards" / "official.json", copy.parent / "official.json")
    edit_json(copy / "case.json", lambda case: case.update(standards=["../../official"]))
    with pytest.raises(EvidenceError):
        finish_bundle(copy)


SWAPPED = [
    ("reference-1", "subject-1"),
    ("subject-2", "subject-1"),
    ("reference-lr0", "subject-lr0"),
    ("reference-2", "reference-1"),
]


@pytest.mark.parametrize(("one", "other"), SWAPPED)
def test_swapped_traces_are_refused(copy: Path, one: str, other: str) -> None:
    a, b, aside = (copy / "runs" / name for name in (one, other, "aside"))
    a.rename(aside)
    b.rename(a)
    aside.rename(b)
    with pytest.raises(EvidenceError, match="is the trace of"):
        finish_bundle(copy)


def test_one_trace_in_place_of_another_is_refused(copy: Path) -> None:
    shutil.copy(copy / "runs" / "reference-1" / "trace.jsonl", copy / "runs" / "subject-1" / "trace.jsonl")
    shutil.copy(copy / "tensors" / "reference-1.safetensors", copy / "tensors" / "subject-1.safetensors")
    with pytest.raises(EvidenceError, match="is the trace of"):
        finish_bundle(copy)


@pytest.mark.parametrize("change", [{"steps": 4}, {"steps": 9}, {"side": "reference"}, {"arm": "floor"}, {"run": "x"}])
def test_a_run_of_another_length_side_or_arm_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    def header(one: TraceHeader) -> TraceHeader:
        return dataclasses.replace(one, **change) if one.run == "subject-1" else one

    with pytest.raises(EvidenceError, match="not of subject-1"):
        write_example(tmp_path / "b", case=small_case(), header=header, change=ended_after_4)


def ended_after_4(run: str, step: Step) -> Step | None:
    return None if run == "subject-1" and step.step > 4 else step


def test_a_run_that_the_case_does_not_have_is_rejected(copy: Path) -> None:
    shutil.copytree(copy / "runs" / "subject-2", copy / "runs" / "subject-3")
    with pytest.raises(EvidenceError):
        finish_bundle(copy)


def test_other_parameters_than_those_of_the_trace_are_refused(copy: Path) -> None:
    path = copy / "tensors" / "subject-1.safetensors"
    tensors = load_file(path)
    next(iter(tensors.values()))[0, 0] += 1
    save_file(tensors, path)
    with pytest.raises(EvidenceError, match="the digests of its tensors differ"):
        finish_bundle(copy)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 64])
def test_a_file_of_parameters_that_is_none_is_refused(copy: Path, content: bytes) -> None:
    (copy / "tensors" / "subject-1.safetensors").write_bytes(content)
    with pytest.raises(EvidenceError, match="cannot be read"):
        finish_bundle(copy)


@pytest.mark.parametrize("name", ["case.json", "inputs.json", "source.json", "environment.json",
                                  "standards/official.json", "runs/subject-1/outcome.json"])  # fmt: skip
@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"unknown": 1}'])
def test_a_record_of_another_kind_is_refused(copy: Path, name: str, content: str) -> None:
    (copy / name).write_text(content)
    with pytest.raises(EvidenceError):
        finish_bundle(copy)


@pytest.mark.parametrize(("name", "values"), [
    ("environment.json", {"packages": 3}), ("environment.json", {"variables": ["A=1"]}),
    ("environment.json", {"machine": "big"}), ("environment.json", {"device": None}),
    ("environment.json", {"more": 1}), ("environment.json", {"threads": "1"}),
    ("source.json", {"dirty": "false"}), ("source.json", {"more": 1}), ("run.json", {"seconds": "1.0"}),
    ("run.json", {"more": 1}), ("inputs.json", {"epochs": 1.0}), ("inputs.json", {"more": 1}),
    ("runs/subject-1/outcome.json", {"last_step": "8"}), ("runs/subject-1/outcome.json", {"more": 1}),
])  # fmt: skip
def test_a_record_with_a_field_of_another_type_or_one_more_is_refused(
    copy: Path, name: str, values: dict[str, object]
) -> None:
    edit_json(copy / name, lambda record: record.update(values))
    with pytest.raises(EvidenceError, match="does not hold what it should"):
        finish_bundle(copy)


def test_a_run_that_is_gone_passes_nothing_that_needs_it(copy: Path) -> None:
    shutil.rmtree(copy / "runs" / "subject-2")
    bundle = finish_bundle(copy)
    assert outcomes(bundle)["subject-deterministic"] is Outcome.INCONCLUSIVE
    assert outcomes(bundle)["runs-complete"] is Outcome.ERROR
    assert certified(bundle).level is Level.NONE


def test_every_error_of_a_bundle_is_one_for_a_person(copy: Path) -> None:
    for name in digested(copy):
        before = (copy / name).read_bytes()
        (copy / name).write_bytes(before[: len(before) // 2])
        forge(copy)
        with pytest.raises(CertifyError):
            read_bundle(copy)
        (copy / name).write_bytes(before)


def test_writing_json_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError, match="JSON"):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_looser_standard_is_another_bundle(example: Bundle, tmp_path: Path) -> None:
    official = load_standard("official")
    first, *others = official.criteria
    loose = first.model_copy(update={"limits": (first.limits[0].model_copy(update={"value": 9.0}),)})
    standards = (official.model_copy(update={"criteria": (loose, *others)}),)
    bundle = write_example(tmp_path / "b", case=small_case(), standards=standards)
    assert bundle.digest != example.digest


def test_an_error_names_the_first_files_that_differ_and_how_many_more(tmp_path: Path) -> None:
    bundle = write_example(tmp_path / "bundle")
    for number in range(25):
        (bundle.path / f"more-{number:02}.txt").write_text("more")
    with pytest.raises(EvidenceError, match=r"extra: more-00\.txt, .*more-09\.txt and 15 more\.$"):
        read_bundle(bundle.path)
