"""A small study of a model that is asked, with both real frameworks: planted faults are refused, clean runs are not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness.cases.case import Case, load_case
from harness.cases.task import INFERENCE
from harness.certify.case_options import load_standards
from harness.certify.jobs import Options
from harness.defects import load_defect
from harness.power.page import build_page
from harness.power.record import PowerStudy, first_sightings, read_power
from harness.runners.launcher import Launcher
from harness.runners.starting import variables
from harness.runs.files import TRACE
from harness.studies.bench import judge_subject, set_up
from harness.studies.forks import PRELOADED, WITHOUT_THREADS, Forks
from tests.support.certify_process import certify
from tests.support.examples import ROOT
from tests.support.full import full

CLEAN = 3
# Of the cache, of padding, of what is drawn, of a decode step and of what a model reads; each with what sees it first.
DEFECTS = {
    "cache-float16": "cache",
    "left-padding-unmasked": "cache",
    "drawn-without-seed": "sampled",
    "first-decoded-position-off": "decoded",
    "system-message-added": "prompt-tokens",
}
REFUSED = full(
    held_by="tests/defects/test_catalogue_of_inference.py::test_a_defect_changes_what_its_subject_answers, "
    "tests/unit/evidence/test_fooling_answers.py::test_it_is_not_fooled_by"
)
CERTIFIED = full(held_by="tests/end_to_end/test_inference.py::test_a_model_that_is_trained_and_asked_is_certified")
FORKED = full(
    held_by="tests/end_to_end/test_power.py::test_a_forked_run_with_a_kept_graph_leaves_the_bits_of_a_fresh_process"
)
PAGE = full(held_by="tests/unit/power/test_power.py::test_a_study_of_inference_has_its_own_rules_and_no_places")


def small() -> Case:
    """The shipped case, trained for seconds and asked little: few shapes are compiled."""
    case = load_case("qwen3-tiny-inference")
    assert case.inference is not None
    asked = {"rows": 2, "prompts": [3, 5], "max_new_tokens": 12, "sampled_tokens": 12, "texts": 10, "documents": 20}
    asked |= {"borders": [16], "decoded_tokens": 2}
    return case.with_changes(
        data={**case.data.model_dump(), "seq_length": 16, "global_batch_size": 8},
        lr_schedule={**case.lr_schedule.model_dump(), "warmup_steps": 2},
        training={**case.training.model_dump(), "steps": 40, "lr_zero_steps": 1},
        inference={**case.inference.model_dump(), **asked},
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> PowerStudy:
    inside = tmp_path_factory.mktemp("power")
    (inside / "case.yaml").write_text(yaml.safe_dump(small().record()))
    planted = [word for defect in DEFECTS for word in ("--defects", defect)]
    done = certify("power", *planted, "--clean", CLEAN, "--case", "case.yaml", "--out", "power.json", inside=inside)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "it/s]" not in done.stderr, "what lm-eval says is in a log"
    return read_power(inside / "power.json")


@REFUSED
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_fault_is_refused(study: PowerStudy, defect: str) -> None:
    (planted,) = [one for one in study.planted if one.defect.id == defect]
    assert DEFECTS[defect] in {one.criterion.rpartition("/")[2] for one in first_sightings(planted.sightings)}
    assert planted.named is None


@CERTIFIED
def test_no_clean_run_is_refused(study: PowerStudy) -> None:
    assert len({run.variation for run in study.clean}) == CLEAN, "each is of another kind"
    assert [run for run in study.clean if run.sightings] == []
    assert all(run.used is not None and run.used < 1 for run in study.clean), (
        "what shows too little is near to no limit"
    )


@PAGE
def test_its_page_has_the_rules_of_inference(study: PowerStudy) -> None:
    page = build_page(study)
    assert (page.headline, page.tone, page.located) == ("5 of 5", "good", False)
    assert set(study.rules) < {row.name for row in page.rates}


@full(held_by="tests/defects/test_catalogue_of_inference.py::test_a_defect_changes_what_its_subject_answers")
def test_what_a_process_has_imported_has_started_no_thread() -> None:
    """Otherwise forking it would not be sound."""
    for preloaded in PRELOADED.values():
        code = f"import os, {preloaded}; print(len(os.listdir('/proc/self/task')))"
        environment = {**os.environ, **variables(1), **WITHOUT_THREADS, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split()[-1] == "1"


@FORKED
def test_a_forked_answer_with_a_kept_graph_has_the_bits_of_a_fresh_process(tmp_path: Path) -> None:
    case, runner, launcher = small(), load_defect("cache-float16").runner, Launcher(workers=2)
    bench = set_up(case, load_standards(case.standards, case), Options(out=tmp_path / "shared", command=()), launcher)
    left = {}
    with Forks(1, INFERENCE) as forks:
        for way in ("fresh", "forked"):
            directory = tmp_path / way / "plain"
            judge_subject(bench, runner, directory, forks if way == "forked" else launcher)
            left[way] = [(directory / "runs" / f"subject-{n}" / TRACE).read_bytes() for n in (1, 2)]
    assert (tmp_path / "forked" / "compiled").is_dir() and not (tmp_path / "fresh" / "compiled").exists()
    assert left["forked"] == left["fresh"]
