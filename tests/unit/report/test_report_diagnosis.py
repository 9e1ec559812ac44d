"""The page of a diagnosis: the named place is first, the map has every place, and nothing is taken for markup."""

import dataclasses
import re

import pytest

from harness.diagnosis.diagnosis import Diagnosis, judge_sides
from harness.report.diagnosis import build_page, render_diagnosis
from harness.runs.taps import TapRecord
from tests.support.tapped import CASE_OF_ALL, WEIGHTS_OF_ALL, batches, tapped, three


def diagnosis(*, by: float = 1.0, taps: TapRecord | None = None) -> Diagnosis:
    sides = three(lambda tensors: tensors.update({"forward.model.norm": by * tensors["forward.model.norm"]}))
    sides["subject"] = tapped("subject", sides["subject"].tensors, taps, runner="<script>alert(1)</script>:Subject")
    return judge_sides(CASE_OF_ALL, sides, WEIGHTS_OF_ALL, batches(), {})


@pytest.fixture(scope="module")
def wrong() -> Diagnosis:
    return diagnosis(by=2.0)


def test_the_named_place_is_first_and_is_outlined_once(wrong: Diagnosis) -> None:
    page = build_page(wrong)
    assert (page.place, page.sentence) == ("model.norm", "every element is 2 times what it should be")
    outlined = [(row.name, cell) for map_ in page.maps for row in map_.rows for cell in row.cells if cell.named]
    assert [name for name, _ in outlined] == ["model.norm"]
    assert outlined[0][1].shade == "far"


def test_every_place_is_in_a_map_once(wrong: Diagnosis) -> None:
    cells = [cell for map_ in build_page(wrong).maps for row in map_.rows for cell in row.cells]
    assert len(cells) == len(wrong.readings)
    for map_ in build_page(wrong).maps:
        assert {sum(cell.span for cell in row.cells) for row in map_.rows} == {len(map_.layers)}


def test_nothing_of_a_run_becomes_markup_and_nothing_is_fetched(wrong: Diagnosis) -> None:
    html = render_diagnosis(wrong)
    assert "<script" not in html and "&lt;script&gt;alert(1)" in html
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:,)""", html)


def test_a_clean_page_states_it_and_outlines_nothing() -> None:
    page = build_page(diagnosis())
    assert (page.place, page.tone) == ("Nothing differs", "good")
    assert "Nothing differs</span>" in render_diagnosis(diagnosis())


def test_other_bits_of_a_tapped_step_are_shown_in_capitals() -> None:
    taps = TapRecord(missing=None, differing=("lm_head.weight",), plain_seconds=1.0, tapped_seconds=2.5)
    texts = [fact.text for fact in build_page(diagnosis(taps=taps)).facts]
    assert "2.50 times a plain step; tapped and plain step gave OTHER BITS in 1 gradients" in texts


def test_a_run_that_broke_is_no_clean_page(wrong: Diagnosis) -> None:
    broken = dataclasses.replace(wrong, named=None, readings=(), checks=(), broken="the subject's run failed: killed")
    page = build_page(broken)
    assert (page.place, page.sentence, page.tone) == ("Failed", "the subject's run failed: killed", "bad")
    assert render_diagnosis(broken)
