"""What is published under `reports/` holds: its bytes, its numbers, and the standards that are shipped beside it."""

import re
from pathlib import Path

import pytest

from harness.evidence.bundle import read_bundle
from harness.power.page import render_power
from harness.power.rates import false_alarms, found, misses, places_named
from harness.power.record import PowerStudy, read_power
from harness.standards import load_standard
from tests.support.examples import ROOT

REPORTS = ROOT / "reports"
BUNDLES = sorted(path.parent for path in REPORTS.glob("*/manifest.json"))
STUDIES = sorted(REPORTS.glob("power-*.json"))


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.name)
def test_a_published_bundle_is_whole_and_of_a_clean_checkout(path: Path) -> None:
    bundle = read_bundle(path)
    assert not bundle.source.dirty
    for standard in bundle.standards:
        assert standard.digest() == load_standard(standard.name).digest(), "published again when a standard changes"


def test_a_certificate_and_a_study_are_published() -> None:
    assert BUNDLES and REPORTS / "power-qwen3-tiny-fp32.json" in STUDIES


@pytest.fixture(scope="module", params=STUDIES, ids=lambda path: path.stem)
def study(request: pytest.FixtureRequest) -> PowerStudy:
    return read_power(request.param)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_published_study_is_of_a_clean_checkout_and_names_each_standard_that_has_changed_since(path: Path) -> None:
    study = read_power(path)
    assert not study.source.dirty and study.source.revision
    changed = [name for name, digest in study.standards.items() if digest != load_standard(name).digest()]
    (row,) = [line for line in (REPORTS / "README.md").read_text().splitlines() if f"({path.stem}.html)" in line]
    earlier = re.findall(r"under version (\d+) of `([\w-]+)`", row)
    assert [name for _, name in earlier] == changed
    assert all(int(version) < load_standard(name).version for version, name in earlier)


def test_the_command_of_a_published_study_can_be_given_on_any_machine(study: PowerStudy) -> None:
    assert study.command[0] == "certify" and not any(Path(word).is_absolute() for word in study.command)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_page_of_a_study_is_that_of_its_file(path: Path) -> None:
    assert path.with_suffix(".html").read_text(encoding="utf-8") == render_power(read_power(path))


def test_the_float32_study_holds_what_is_claimed_of_it() -> None:
    study = read_power(REPORTS / "power-qwen3-tiny-fp32.json")
    assert len(study.planted) >= 60 and found(study).count >= 0.98 * len(study.planted)
    assert len(study.clean) >= 400 and false_alarms(study).count == 0
    assert places_named(study).count >= 0.9 * places_named(study).total
    assert all(one.defect.note for one in misses(study)), "every miss is explained"


def test_the_study_of_inference_holds_what_is_claimed_of_it() -> None:
    study = read_power(REPORTS / "power-qwen3-tiny-inference.json")
    assert len(study.planted) >= 40 and found(study).count == len(study.planted)
    assert len(study.clean) >= 60 and false_alarms(study).count == 0


def test_the_study_of_fine_tuning_holds_what_is_claimed_of_it() -> None:
    study = read_power(REPORTS / "power-qwen3-tiny-sft-fp32.json")
    assert len(study.planted) == found(study).count >= 19
    assert len(study.clean) >= 88 and false_alarms(study).count == 0
    assert places_named(study).count == places_named(study).total


def test_the_study_of_layouts_holds_what_is_claimed_of_it() -> None:
    study = read_power(REPORTS / "power-layouts.json")
    assert len(study.planted) == found(study).count >= 14
    assert len(study.clean) >= 111 and false_alarms(study).count == 0
