"""The catalogue of measurements: what is measured is in it, and what is in it is measured and documented."""

import dataclasses
import math
from pathlib import Path

import pytest

from harness.cases.case import Case
from harness.cases.task import TASKS, TaskName
from harness.comparison import document
from harness.comparison.catalogue import CATALOGUE, KINDS, in_errors_of_the_reference, names_of
from harness.comparison.measurement import Measurement, Series
from harness.evidence.bundle import Bundle, read_bundle
from harness.standards import load_standard, shipped_standards
from tests.support.bundles import write_example
from tests.support.examples import ROOT, inference_case, small_case

PAGE = ROOT / "docs" / "measurements.md"
PUBLISHED = ROOT / "reports" / "qwen3-tiny-fp32-cpu"
WITH_FLOOR = small_case(floor_repeats=2)
WITH_LAYOUT = small_case().model_copy(update={"standards": ("official", "strict-fp32", "layout-fp32")})


def check(bundle: Bundle) -> None:
    """A bundle has exactly the measurements of its task, under their own names, at the places that they have."""
    task = bundle.case.task.name
    assert set(bundle.comparison.measurements) == names_of(task)
    for name, one in bundle.comparison.measurements.items():
        assert one.name == name
        assert {isinstance(place, int) for place in one.places} <= {one.kind.places[task] == "step"}, name
        assert not one.kind.differs or set(one.values) <= {0.0, 1.0}, name


@pytest.mark.parametrize("case", [WITH_FLOOR, WITH_LAYOUT, inference_case()], ids=["floor", "layout", "inference"])
def test_everything_that_is_measured_is_in_the_catalogue_and_nothing_else_is(case: Case, tmp_path: Path) -> None:
    check(write_example(tmp_path / "bundle", case=case))


def test_a_recorded_bundle_has_the_measurements_of_the_catalogue() -> None:
    check(read_bundle(PUBLISHED))


def test_a_measurement_that_is_not_in_the_catalogue_cannot_be_made() -> None:
    with pytest.raises(ValueError, match=r"describes no measurement 'train\.los\.relative'"):
        Series(values=(1.0,), places=(1,)).named("train.los.relative")
    measured = Measurement(name="train.loss.relative", missing="not run")
    with pytest.raises(ValueError, match="describes no measurement"):
        dataclasses.replace(measured, name="pair.loss.relative")


def test_a_name_belongs_to_one_kind() -> None:
    assert len(CATALOGUE) == len(KINDS)


def test_every_kind_is_complete_and_names_what_exists() -> None:
    for kind in KINDS:
        assert kind.places and set(kind.places) <= set(TASKS), kind
        assert kind.meaning.endswith(".") and "|" not in kind.meaning, kind
        others = [CATALOGUE[name] for name in (kind.unsigned, kind.scales, kind.scaled_by) if name is not None]
        assert all(set(kind.places) <= set(other.places) for other in others), kind
        assert (kind.scales is None) == (kind.scaled_by is None), kind


def test_the_catalogue_is_the_words_of_the_names() -> None:
    """Messages of recorded findings list what differs for these names, and bundles are verified by their messages."""
    assert {kind.name for kind in KINDS if kind.differs} == {name for name in CATALOGUE if name.endswith(".differs")}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_knows_something_before_its_first_step(task: TaskName) -> None:
    assert any(kind.known_at == 0 for kind in KINDS if task in kind.places)


@pytest.mark.parametrize("source", ["train.loss.relative", "lr_zero.grad_norm.relative", "oracle.loss.subject"])
def test_a_scaled_measurement_is_its_source_in_the_unit(source: str, tmp_path: Path) -> None:
    comparison = write_example(tmp_path / "bundle", case=small_case()).comparison
    kind = in_errors_of_the_reference(source)
    assert kind is not None and kind.scaled_by is not None
    (unit,) = comparison[kind.scaled_by].values
    pairs = zip(comparison[source].values, comparison[kind.name].values, strict=True)
    assert all(math.isclose(before / unit, after) for before, after in pairs)


def test_what_has_no_unit_of_its_own_is_not_scaled() -> None:
    assert in_errors_of_the_reference("train.loss.signed") is None
    assert in_errors_of_the_reference("subject.steps") is None


@pytest.mark.parametrize("name", shipped_standards())
def test_a_shipped_standard_limits_measurements_of_its_task(name: str) -> None:
    standard = load_standard(name)
    limits = [limit for criterion in standard.criteria for limit in criterion.limits]
    assert {limit.measurement for limit in limits} <= names_of(standard.task)


def test_the_documented_table_is_that_of_the_catalogue() -> None:
    assert PAGE.read_text(encoding="utf-8") == document.page(), f"Write it again: {document.COMMAND}"


def test_every_measurement_is_in_the_document() -> None:
    assert [kind.name for kind in KINDS if f"| `{kind.pattern}`" not in document.page()] == []
