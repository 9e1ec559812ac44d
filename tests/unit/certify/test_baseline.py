"""Baselines: judged as if the reference had run, refused when anything about them is not what was recorded.

No framework is installed where these tests run, so a judgement against a baseline needs none.
"""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.base.digest import digest_json
from harness.base.errors import EvidenceError, InputError
from harness.base.records import read_json, write_json
from harness.cases.case import Case
from harness.certify import case_options, flow
from harness.certify.baseline import BaselineState, Statement, check_baseline, find_baseline
from harness.evidence.bundle import Bundle, read_bundle
from harness.evidence.bundle_files import FINDINGS, MANIFEST
from harness.evidence.provenance import BASELINE, Baseline, Source, read_baseline
from harness.runs.trace import Trace
from tests.support.bundles import edit_json
from tests.support.command_line import caller
from tests.support.examples import FAKES, ROOT, TEXT, options, small_case, text_case
from tests.support.processes import until
from tests.support.properties import examples

pytestmark = pytest.mark.usefixtures("forked_runs")
STATEMENT = Statement(author="A. Writer", reason="first recording", command=("certify", "baseline", "record"))
RECORDED_RUNS = {"reference-1", "reference-2", "reference-lr0", "oracle-1", "reference-probe", "oracle-probe"}


def unheard(run: str, trace: Trace) -> None:
    """Nobody watches."""


def record(case: Case, directory: Path, reference: str = "Fake", *, replace: bool = False) -> Baseline:
    asked = options(directory, reference=reference)
    return flow.record(case, asked, STATEMENT, directory, unheard, replace=replace)


def judge(case: Case, out: Path, baselines: Path | None, **more: Any) -> Bundle:
    standards = case_options.load_standards(case.standards, case)
    return flow.run(case, standards, options(out, baselines=baselines, **more), unheard)[0]


@pytest.fixture(autouse=True, scope="module")
def importable() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return text_case(tmp_path_factory.mktemp("text"), steps=6)


@pytest.fixture(scope="module")
def recorded(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("recorded") / "baselines"
    record(case, directory)
    return directory


@pytest.fixture(scope="module")
def judged(case: Case, recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return judge(case, tmp_path_factory.mktemp("judged") / "bundle", recorded).path


@pytest.fixture(scope="module")
def full(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose reference ran with its subject."""
    return judge(case, tmp_path_factory.mktemp("full") / "bundle", None).path


@pytest.fixture
def baselines(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "baselines"))


def seal_again(path: Path, **changes: Any) -> None:
    """Changes the record of a baseline as someone would who knows its format."""
    fields = {key: value for key, value in read_json(path).items() if key != "seal"} | changes
    write_json(path, {**fields, "seal": digest_json(fields)})


def contents(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def test_a_baseline_gives_the_findings_of_a_full_run(judged: Path, full: Path) -> None:
    for name in (FINDINGS, "inputs.json", "case.json"):
        assert (judged / name).read_bytes() == (full / name).read_bytes()
    ran = {path.name for path in (full / "runs").iterdir()}
    assert {path.name for path in (judged / "runs").iterdir()} == ran
    for run in ran:
        assert (judged / "runs" / run / "trace.jsonl").read_bytes() == (
            full / "runs" / run / "trace.jsonl"
        ).read_bytes()


def test_a_baseline_holds_the_reference_half_and_no_inputs(case: Case, recorded: Path) -> None:
    found = contents(recorded / case.name)
    assert {name.split("/")[1] for name in found if name.startswith("runs/")} == RECORDED_RUNS
    assert not any(name.startswith("inputs") for name in found)
    assert os.listdir(recorded) == [case.name]


def extract(bundle: Path, directory: Path, *, replace: bool = False) -> Baseline:
    return flow.extract(read_bundle(bundle), STATEMENT, directory, replace=replace)


def test_the_reference_half_of_a_bundle_is_the_baseline_that_a_recording_gives(
    case: Case, recorded: Path, full: Path, tmp_path: Path
) -> None:
    made = extract(full, tmp_path)
    of_bundle = read_bundle(full)
    assert made.files.keys() == read_baseline(recorded / case.name).files.keys()
    assert (made.environment, made.source, made.inputs) == (of_bundle.environment, of_bundle.source, of_bundle.inputs)
    assert (made.recorded, made.command) == (of_bundle.occasion.started, of_bundle.occasion.command)
    again = judge(case, tmp_path / "again", tmp_path).path
    assert (again / FINDINGS).read_bytes() == (full / FINDINGS).read_bytes()


def test_a_bundle_that_was_judged_by_a_baseline_gives_none(judged: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"was judged by a baseline, recorded .* Copy the directory of that one"):
        extract(judged, tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_baseline_of_a_bundle_replaces_none_unasked(case: Case, full: Path, baselines: Path) -> None:
    before = contents(baselines)
    with pytest.raises(InputError, match=r"exists\. To replace it"):
        extract(full, baselines)
    assert contents(baselines) == before
    assert extract(full, baselines, replace=True) == read_baseline(baselines / case.name)


@pytest.mark.parametrize("revision", [None, "f" * 40])
def test_a_bundle_of_code_that_is_not_known_gives_no_baseline(full: Path, tmp_path: Path, revision: str | None) -> None:
    foreign = dataclasses.replace(read_bundle(full), source=Source(revision=revision, dirty=False, sha256="f" * 64))
    with pytest.raises(InputError, match="not known which code made its reference"):
        flow.extract(foreign, STATEMENT, tmp_path / "baselines", replace=False)
    assert not (tmp_path / "baselines").exists()


def test_a_bundle_without_a_good_reference_gives_no_baseline(case: Case, tmp_path: Path) -> None:
    broken = judge(case, tmp_path / "bundle", None, reference="Random").path
    with pytest.raises(InputError, match="reference-2 differs from reference-1"):
        extract(broken, tmp_path / "baselines")
    assert not (tmp_path / "baselines").exists()


def test_a_bundle_says_which_baseline_it_was_judged_by(case: Case, recorded: Path, judged: Path) -> None:
    used = read_bundle(judged).baseline
    assert used == read_baseline(recorded / case.name)
    assert used is not None and (used.author, used.reason) == ("A. Writer", "first recording")
    assert BASELINE in read_json(judged / MANIFEST)["files"]


def test_the_page_says_that_a_baseline_stood_in_and_whose(judged: Path) -> None:
    page, baseline = (judged / "report.html").read_text(encoding="utf-8"), read_bundle(judged).baseline
    assert baseline is not None
    first_screen = page[page.index('id="verdict"') : page.index('id="level"')]
    assert f"did not run with the subject: A. Writer recorded them on {baseline.recorded}." in unescape(first_screen)
    provenance = page[page.index('<section id="provenance"') :]
    assert 'lang="en">Baseline</span>' in provenance and baseline.seal in provenance and STATEMENT.reason in provenance


def test_only_the_subject_runs_against_a_baseline(judged: Path) -> None:
    timed = {path.parent.name for path in judged.glob("runs/*/timing.jsonl")}
    assert timed == {"subject-1", "subject-2", "subject-lr0", "subject-resumed", "subject-probe"}


def test_a_bundle_whose_reference_is_not_the_baselines_is_refused(judged: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(judged, tmp_path / "bundle"))
    files = read_json(bundle / BASELINE)["files"]
    seal_again(bundle / BASELINE, files={**files, "runs/reference-2/trace.jsonl": "0" * 64})
    with pytest.raises(EvidenceError, match="reference-2"):
        flow.finish_bundle(bundle)


@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_byte_anywhere_is_refused(case: Case, recorded: Path, data: st.DataObject) -> None:
    directory = recorded / case.name
    path = directory / data.draw(st.sampled_from(sorted(contents(directory))))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    other = bytes([whole[place] ^ data.draw(st.integers(1, 255))])
    try:
        path.write_bytes(whole[:place] + other + whole[place + 1 :])
        with pytest.raises(EvidenceError):
            read_baseline(directory)
        with pytest.raises(InputError, match="certify baseline record"):
            find_baseline(recorded, case, [])
    finally:
        path.write_bytes(whole)


def test_an_extra_file_is_refused(case: Case, baselines: Path) -> None:
    (baselines / case.name / "more.txt").write_text("more")
    with pytest.raises(EvidenceError, match=r"extra: more\.txt"):
        read_baseline(baselines / case.name)


def test_a_missing_file_is_refused(case: Case, baselines: Path) -> None:
    (baselines / case.name / "runs" / "oracle-1" / "outcome.json").unlink()
    with pytest.raises(EvidenceError, match=r"missing: runs/oracle-1/outcome\.json"):
        read_baseline(baselines / case.name)


def test_a_link_is_refused(case: Case, baselines: Path) -> None:
    (baselines / case.name / "case.json").rename(baselines / "case.json")
    (baselines / case.name / "case.json").symlink_to(baselines / "case.json")
    with pytest.raises(EvidenceError, match="link"):
        read_baseline(baselines / case.name)


def test_another_case_is_refused_before_anything_is_written(case: Case, recorded: Path, tmp_path: Path) -> None:
    other = case.with_changes(initialization={"seed": case.initialization.seed + 1})
    with pytest.raises(InputError, match="another case"):
        judge(other, tmp_path / "out", recorded)
    assert not (tmp_path / "out").exists()


def test_another_corpus_is_refused(case: Case, recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text(TEXT.replace("snow", "hail").replace("rain", "wind") * 2)
    other = case_options.with_sources(case, tmp_path / "other.txt", None, None)
    with pytest.raises(InputError, match="The corpus of"):
        judge(other, tmp_path / "out", recorded)


def test_another_reference_is_refused(case: Case, recorded: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"was run by tests\.support\.fake_runners:Fake"):
        judge(case, tmp_path / "out", recorded, reference="WrongRate")


def test_a_baseline_without_an_asked_floor_is_refused(case: Case, recorded: Path, tmp_path: Path) -> None:
    asking = case.with_changes(training={**case.training.model_dump(), "floor_repeats": 1})
    with pytest.raises(InputError, match="holds no floor-1"):
        judge(asking, tmp_path / "out", recorded)


def test_no_baseline_names_the_command_that_records_one(case: Case, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"certify baseline record {case.name} --baselines"):
        judge(case, tmp_path / "out", tmp_path)


@pytest.mark.parametrize(
    ("days", "state"),
    [(364, BaselineState.USABLE), (366, BaselineState.STALE), (-0.5, BaselineState.USABLE), (-2, BaselineState.STALE)],
)
def test_a_baseline_grows_stale(case: Case, baselines: Path, days: float, state: BaselineState) -> None:
    then = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
    seal_again(baselines / case.name / BASELINE, recorded=then)
    found = check_baseline(baselines, case.name, case, datetime.now(UTC), 365)
    assert found.state is state
    assert (check_baseline(baselines, case.name, case, datetime.now(UTC), 10**12).state is state) == (days != 366)


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_baseline_of_another_version_is_usable_and_the_version_is_named(
    case: Case, baselines: Path, package: str
) -> None:
    path = baselines / case.name / BASELINE
    environment = read_json(path)["environment"]
    seal_again(path, environment={**environment, "packages": {**environment["packages"], package: "0.0.1"}})
    found = check_baseline(baselines, case.name, case, datetime.now(UTC), 365)
    assert found.state is BaselineState.USABLE
    assert re.search(f"other versions than the published evidence: {package} 0.0.1 instead of", found.detail)


def test_a_baseline_of_other_code_of_the_reference_is_stale(case: Case, baselines: Path) -> None:
    seal_again(baselines / case.name / BASELINE, reference_code="f" * 64)
    found = check_baseline(baselines, case.name, case, datetime.now(UTC), 365)
    assert found.state is BaselineState.STALE and "other code of reference and oracle" in found.detail


@pytest.mark.parametrize(
    ("reference", "why"),
    [
        ("Crashes", "did not complete.*on fire"),
        ("NotANumber", "did not complete.*not finite"),
        ("Random", "reference-2 differs from reference-1 at step 5"),
    ],
)
def test_no_good_run_is_no_baseline(case: Case, tmp_path: Path, reference: str, why: str) -> None:
    with pytest.raises(InputError, match=f"(?s){why}"):
        record(case, tmp_path, reference)
    assert os.listdir(tmp_path) == []


def test_a_baseline_is_not_replaced_unasked(case: Case, baselines: Path) -> None:
    before = contents(baselines)
    with pytest.raises(InputError, match="--replace"):
        record(case, baselines)
    assert contents(baselines) == before


def test_a_failed_replacement_leaves_the_old_one(case: Case, baselines: Path) -> None:
    before = contents(baselines)
    with pytest.raises(InputError, match="differs"):
        record(case, baselines, "Random", replace=True)
    assert contents(baselines) == before


def test_a_replacement_takes_the_place(case: Case, baselines: Path) -> None:
    record(case, baselines, "WrongRate", replace=True)
    trace = (baselines / case.name / "runs" / "reference-1" / "trace.jsonl").read_text()
    assert "WrongRate" in trace and os.listdir(baselines) == [case.name]


def test_what_is_no_baseline_is_not_replaced(case: Case, tmp_path: Path) -> None:
    (tmp_path / case.name).mkdir()
    (tmp_path / case.name / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="is no baseline"):
        record(case, tmp_path, replace=True)
    assert contents(tmp_path) == {f"{case.name}/mine.txt": b"mine"}


@pytest.mark.parametrize("empty", ["author", "reason"])
def test_a_baseline_needs_an_author_and_a_reason(case: Case, tmp_path: Path, empty: str) -> None:
    said = Statement(**{**vars(STATEMENT), empty: " "})
    with pytest.raises(InputError, match=empty):
        flow.record(case, options(tmp_path), said, tmp_path, unheard, replace=False)


def test_a_run_does_not_go_on_with_another_reference(case: Case, recorded: Path, judged: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(judged, tmp_path / "out"))
    (out / MANIFEST).unlink()
    with pytest.raises(InputError, match="started with another baseline"):
        judge(case, out, None, resume=True)
    assert judge(case, out, recorded, resume=True).digest == read_bundle(judged).digest


# The command line.


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Exit code and all that was printed."""
    call = caller(capsys, monkeypatch)

    def said(*words: object) -> tuple[int, str]:
        result = call(*words)
        return result.code, result.said

    return said


def command(directory: Path, reference: str = "Fake") -> list[str]:
    """The words that name a case file, its text and the runners of what is recorded."""
    (directory / "case.yaml").write_text(yaml.safe_dump(small_case(steps=6).record()))
    (directory / "text.txt").write_text(TEXT)
    runners = ["--reference", f"{FAKES}:{reference}", "--oracle", f"{FAKES}:Fake"]
    return [str(directory / "case.yaml"), "--text", str(directory / "text.txt"), *runners]


def test_verify_passes_what_was_recorded(certify_: Any, case: Case, recorded: Path, tmp_path: Path) -> None:
    path = Path(command(tmp_path)[0])
    assert certify_("baseline", "verify", path, "--baselines", recorded)[0] == 0


def test_verify_fails_a_stale_one_and_names_the_command(certify_: Any, case: Case, baselines: Path) -> None:
    then = (datetime.now(UTC) - timedelta(days=2)).isoformat(timespec="seconds")
    seal_again(baselines / case.name / BASELINE, recorded=then)
    code, said = certify_(
        "baseline", "verify", Path(command(baselines.parent)[0]), "--baselines", baselines, "--max-age", 1
    )
    assert code == 1 and "stale" in said and "certify baseline record" in said


def test_verify_fails_an_unused_one(certify_: Any, case: Case, baselines: Path) -> None:
    code, said = certify_("baseline", "verify", "--baselines", baselines)
    assert code == 1 and "unused" in said and "another case" in said
    (baselines / case.name).rename(baselines / "a-case-of-before")
    code, said = certify_("baseline", "verify", "--baselines", baselines)
    assert code == 1 and "no shipped case" in said


def test_verify_refuses_a_changed_one(certify_: Any, case: Case, baselines: Path) -> None:
    edit_json(baselines / case.name / BASELINE, lambda value: value.update(author="B. Writer"))
    code, said = certify_("baseline", "verify", "--baselines", baselines)
    assert code == 2 and "unverified" in said and "certify baseline record" in said


def test_verifying_nothing_is_no_success(certify_: Any, tmp_path: Path) -> None:
    code, said = certify_("baseline", "verify", "--baselines", tmp_path)
    assert code == 2 and "No baseline is recorded" in said
    code, said = certify_("baseline", "list", "--baselines", tmp_path)
    assert code == 0 and "No baseline is recorded" in said


def test_list_shows_state_author_and_reason(certify_: Any, case: Case, recorded: Path) -> None:
    code, said = certify_("baseline", "list", "--baselines", recorded)
    assert code == 0 and all(word in said for word in (case.name, "A. Writer", "first recording"))


def test_a_missing_baseline_has_exit_code_2(certify_: Any, tmp_path: Path) -> None:
    words = [*command(tmp_path), "--subject", f"{FAKES}:Fake", "--out", tmp_path / "out"]
    code, said = certify_("run", *words, "--baseline", tmp_path / "none")
    assert code == 2 and "certify baseline record" in said and not (tmp_path / "out").exists()


def test_recorded_and_judged_from_the_command_line(certify_: Any, tmp_path: Path) -> None:
    words, where = command(tmp_path), ["--baselines", tmp_path / "baselines"]
    code, said = certify_("baseline", "record", *words, *where, "--author", "A", "--reason", "R")
    assert code == 0 and "Recorded" in said
    runs = [*words, "--subject", f"{FAKES}:Fake", "--out", tmp_path / "out", "--baseline", where[-1]]
    code, said = certify_("run", *runs)
    seal = read_baseline(tmp_path / "baselines" / "qwen3-tiny-fp32").seal
    assert code in (0, 1) and f"Reference and oracle: baseline {seal[:12]}" in said
    assert read_bundle(tmp_path / "out").baseline is not None


def test_an_interrupted_recording_leaves_no_baseline(tmp_path: Path) -> None:
    baselines = tmp_path / "baselines"
    words = [*command(tmp_path, "Hangs"), "--baselines", str(baselines), "--author", "A", "--reason", "R"]
    process = subprocess.Popen([sys.executable, "-m", "harness.cli", "baseline", "record", *words], cwd=ROOT)
    until(lambda: bool(list(baselines.glob(".*/runs/runs/*/trace.jsonl"))), "a run has begun")
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    assert not baselines.exists()
