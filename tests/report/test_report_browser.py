"""The page in a real browser, from a file and without a network."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from harness.cases.runs_of_a_case import REFERENCE, SUBJECT
from harness.evidence.bundle import read_bundle
from harness.runs.trace import Trace
from tests.report.conftest import drawn

Opener = Callable[..., Any]
WIDTH = "document.documentElement.scrollWidth"
RANGE = "id => document.getElementById(id)._fullLayout.xaxis.range"
SCROLLING_TABLES = """[...document.querySelectorAll('.table')].filter(one => one.scrollWidth > one.clientWidth)
    .map(one => one.getAttribute('aria-label'))"""
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


def axis_range(page: Page) -> list[float]:
    return page.evaluate(RANGE, "chart-loss")


def zoom_on_error(page: Page) -> tuple[list[float], list[float]]:
    """Drags over the lower plot; the range of the shared axis before and after."""
    drawn(page, "chart-loss")
    before = axis_range(page)
    plot = page.locator("#chart-loss .nsewdrag[data-subplot=xy2]")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] * 0.2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] / 2, steps=5)
    page.mouse.up()
    page.wait_for_function(f"({RANGE})('chart-loss')[1] !== {before[1]}")
    return before, axis_range(page)


CHARTS = {"passing": 5, "failing": 5, "nan": 5, "killed": 5, "floored": 5, "inference": 2, "parted": 2, "unanswered": 0}


@pytest.mark.parametrize("name", CHARTS)
def test_a_page_has_no_request_no_error_and_draws_every_chart(open_page: Opener, name: str) -> None:
    opened = open_page(name)
    assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert len([url for url in opened.requests if url.startswith("file:")]) == 1
    assert opened.complaints == []
    charts = opened.page.locator(".chart").evaluate_all("all => all.map(one => one.id)")
    assert len(charts) == CHARTS[name]
    for chart in charts:
        opened.chart(chart)
    assert opened.complaints == []


def test_a_chart_out_of_sight_is_drawn_when_a_reader_comes_to_it_or_has_begun_to_read(open_page: Opener) -> None:
    page = open_page("passing", 1280, 200).page
    assert page.locator(".chart .main-svg").count() == 0
    height = page.locator("#chart-loss").bounding_box()["height"]
    page.wait_for_selector("#chart-oracle .main-svg")
    assert page.locator("#chart-loss").bounding_box()["height"] == height


@pytest.mark.parametrize("name", ["failing", "killed", "floored", "misaligned", "deep", "inference", "parted"])
def test_a_phone_scrolls_in_one_direction_only(open_page: Opener, name: str) -> None:
    page = open_page(name, 390, 844).page
    page.evaluate("document.querySelectorAll('details').forEach(details => (details.open = true))")
    assert page.evaluate(WIDTH) <= 390
    assert page.evaluate(SCROLLING_TABLES) == []


@pytest.mark.parametrize("locale", ["en", "zh-CN"])
def test_on_a_phone_the_name_of_a_level_stays_on_its_rung(open_page: Opener, locale: str) -> None:
    page = open_page("passing", 390, 844, locale=locale).page
    wide = "all => all.map(one => one.scrollWidth - one.clientWidth)"
    assert page.eval_on_selector_all(".ladder li", wide) == [0, 0, 0, 0]


@pytest.mark.parametrize("locale", ["en", "zh-CN"])
def test_on_a_phone_a_long_name_of_a_case_breaks_no_button(open_page: Opener, locale: str) -> None:
    page = open_page("passing", 390, 844, locale=locale).page
    heights = "all => all.map(one => one.clientHeight)"
    before = page.eval_on_selector_all(".bar button", heights)
    page.eval_on_selector(
        ".case-name", "one => (one.textContent = 'qwen3-of-a-rather-long-name-' + 'and-more-'.repeat(4))"
    )
    assert page.eval_on_selector_all(".bar button", heights) == before and len(before) == 2
    assert page.evaluate(WIDTH) <= 390


@pytest.mark.parametrize("name", ["failing", "floored", "inference"])
def test_on_a_phone_the_buttons_of_a_chart_do_not_lie_on_its_legend(open_page: Opener, name: str) -> None:
    page = open_page(name, 390, 844, is_mobile=True, has_touch=True).page
    for chart in page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
        chart.locator(".legend").first.wait_for()
        buttons, legends = chart.locator(".modebar"), chart.locator(".legend").all()
        bar = buttons.bounding_box()
        assert bar is not None and buttons.is_visible()
        for box in filter(None, (legend.bounding_box() for legend in legends)):
            assert bar["y"] + bar["height"] <= box["y"]


@pytest.mark.parametrize("name", ["passing", "failing", "misaligned"])
def test_groups_in_which_all_pass_are_folded_and_open(open_page: Opener, name: str) -> None:
    opened = open_page(name)
    groups = opened.page.locator("#criteria details.group")
    for group in groups.all():
        passes = group.locator("summary .mark").text_content().endswith("PASS")
        assert (group.get_attribute("open") is None) == passes
        if passes:
            group.locator("summary").click()
        assert group.locator(".criteria").is_visible()
    assert opened.complaints == []


def test_the_other_final_parameters_unfold(open_page: Opener) -> None:
    opened = open_page("deep")
    rest = opened.page.locator("#parameters details")
    assert not rest.locator("table").is_visible()
    rest.locator("summary").click()
    assert rest.locator("table").is_visible()
    assert opened.complaints == []


def test_the_errors_of_both_sides_are_drawn(open_page: Opener) -> None:
    opened = open_page("passing")
    page = opened.page
    opened.chart("chart-oracle")
    names = "document.getElementById('chart-oracle').data.filter(t => t.y.some(y => y > 0)).map(t => t.name)"
    assert {"reference’s error", "subject’s error"} <= set(page.evaluate(names))
    assert page.locator("#exact .errors .track").count() == 9


def test_a_wrong_configuration_is_shown_first(open_page: Opener) -> None:
    trouble = open_page("misaligned").page.locator(".trouble")
    assert "rope_theta" in trouble.locator(".finding").first.text_content()
    assert "the subject has 10000.0, the case has 1000000" in trouble.locator(".keys li").first.text_content()


def test_zoom_on_the_error_moves_the_curve_above_it_too(open_page: Opener) -> None:
    page = open_page("failing").page
    before, after = zoom_on_error(page)
    assert after[1] - after[0] < (before[1] - before[0]) / 2
    assert page.evaluate("document.getElementById('chart-loss')._fullLayout.yaxis.anchor") == "x"


def test_hover_shows_exactly_how_much_the_sides_differ(open_page: Opener) -> None:
    page = open_page("passing").page
    drawn(page, "chart-loss")
    plot = page.locator("#chart-loss .nsewdrag").first
    plot.scroll_into_view_if_needed()
    plot.hover()
    label = page.locator("#chart-loss .hoverlayer")
    label.get_by_text("reference").first.wait_for()
    assert "subject" in label.text_content()
    assert "e-7" in label.text_content() or "e-8" in label.text_content()


def test_the_toggle_changes_page_and_charts_and_is_remembered(open_page: Opener) -> None:
    page = open_page("passing", color_scheme="light").page
    drawn(page, "chart-loss")
    tick = "getComputedStyle(document.querySelector('#chart-loss .xtick text')).fill"
    light, light_tick = page.evaluate(BACKGROUND), page.evaluate(tick)
    page.get_by_role("button", name="Use dark colours").press("Enter")
    assert page.evaluate(BACKGROUND) != light
    assert page.evaluate(tick) != light_tick
    dark = page.evaluate(BACKGROUND)
    page.reload()
    page.wait_for_selector("html[data-charts=drawn]")
    assert page.evaluate(BACKGROUND) == dark


def test_the_zoom_survives_a_change_of_colours(open_page: Opener) -> None:
    page = open_page("passing").page
    _, zoomed = zoom_on_error(page)
    page.locator("#theme").click()
    assert axis_range(page) == zoomed


def test_a_dark_desktop_gets_a_dark_page(open_page: Opener) -> None:
    page = open_page("passing", color_scheme="light").page
    light = page.evaluate(BACKGROUND)
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(BACKGROUND) != light
    expect(page.locator("#theme")).to_have_text("Light")  # a page hears of it with its next frame


def download(page: Page, label: str, path: Path) -> str:
    with page.expect_download() as waiting:
        page.get_by_role("link", name=label, exact=True).click()
    waiting.value.save_as(path / waiting.value.suggested_filename)
    return (path / waiting.value.suggested_filename).read_text()


def test_the_csv_holds_every_step_with_the_very_bits(
    open_page: Opener, page_of: Callable[[str], Path], tmp_path: Path
) -> None:
    bundle = read_bundle(page_of("failing").parent)
    rows = list(csv.DictReader(download(open_page("failing").page, "Every step, CSV", tmp_path).splitlines()))
    for side, run in (("reference", REFERENCE), ("subject", SUBJECT)):
        trace = bundle.runs[run].trace
        assert isinstance(trace, Trace)
        assert [int(row["train.step"]) for row in rows] == [step.step for step in trace.steps]
        for field in ("loss", "grad_norm", "learning_rate"):
            assert [float(row[f"train.{side}.{field}"]) for row in rows] == [getattr(s, field) for s in trace.steps]
        assert [row[f"train.{side}.batch"] for row in rows] == [step.batch for step in trace.steps]
    assert [float(row["train.loss.relative"]) for row in rows] == list(bundle.comparison["train.loss.relative"].values)


def test_chart_and_csv_distinguish_not_a_number_and_not_taken(open_page: Opener, tmp_path: Path) -> None:
    page = open_page("nan").page
    drawn(page, "chart-loss")
    traces = "document.getElementById('chart-loss').data"
    assert page.evaluate(f"{traces}.find(t => t.name.endsWith('not finite')).y.filter(y => y).length") == 1
    rows = list(csv.DictReader(download(page, "Every step, CSV", tmp_path).splitlines()))
    assert [rows[i]["train.subject.loss"] for i in (56, 57)] == ["NaN", ""]
    assert rows[199]["train.reference.loss"] != ""


def test_the_findings_download_is_what_the_bundle_holds(
    open_page: Opener, page_of: Callable[[str], Path], tmp_path: Path
) -> None:
    found = json.loads(download(open_page("failing").page, "Findings, JSON", tmp_path))
    assert found == json.loads((page_of("failing").parent / "findings.json").read_text())


def test_print_is_light_opens_everything_and_keeps_the_charts(open_page: Opener) -> None:
    page = open_page("failing", color_scheme="dark").page
    drawn(page, "chart-loss")
    page.emulate_media(media="print", color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate(BACKGROUND) == "rgb(255, 255, 255)"
    assert not page.locator("#theme").is_visible()
    for chart in page.locator(".chart").all():  # those too that nobody came near
        assert 0 < chart.locator(".main-svg").first.bounding_box()["width"] <= 680
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 0


def test_the_first_tab_stop_skips_to_the_verdict(open_page: Opener) -> None:
    page = open_page("passing").page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#verdict"


LONG, SPIKE = 6000, 4321
DRAWN = "id => document.getElementById(id).data.filter(one => one.yaxis === 'y2').map(one => [one.x, one.y])"


def test_a_long_curve_is_thinned_and_keeps_a_single_spike(open_page: Opener) -> None:
    opened = open_page("long")
    page = opened.page
    opened.chart("chart-loss")
    x, y = max(page.evaluate(DRAWN, "chart-loss"), key=lambda one: len(one[0]))
    assert len(x) < LONG and y[x.index(SPIKE)] == max(value for value in y if value is not None)
    before, after = zoom_on_error(page)
    assert after[1] - after[0] < before[1] - before[0]
    whole = "([x]) => x.every((step, at) => at === 0 || step === x[at - 1] + 1)"
    page.wait_for_function(f"({DRAWN})('chart-loss').every({whole})")  # what was left out is drawn a moment later
    assert opened.complaints == []


def test_every_document_is_drawn_on_both_sides(open_page: Opener) -> None:
    page = open_page("inference").page
    drawn(page, "chart-likelihood")
    drawn(page, "chart-difference")
    found = "document.getElementById('chart-likelihood').data.map(one => one.y.filter(y => y > 0).length)"
    assert page.evaluate(found) == [12, 60, 60, 60, 60, 60]
    apart = "document.getElementById('chart-difference').data.map(one => one.y.filter(y => y > 0).length)"
    assert sum(page.evaluate(apart)) == 132


def test_the_part_of_one_side_only_is_marked_text(open_page: Opener) -> None:
    opened = open_page("parted")
    alone = opened.page.locator("#continuations mark")
    assert alone.count() == 2
    assert alone.nth(1).text_content().startswith("<script>alert(1)</script>␀<script>")
    assert opened.complaints == []


def test_the_csv_of_a_task_holds_every_document_with_the_very_bits(
    open_page: Opener, page_of: Callable[[str], Path], tmp_path: Path
) -> None:
    bundle = read_bundle(page_of("inference").parent)
    text = download(open_page("inference").page, "Endings, every document, CSV", tmp_path)
    rows = list(csv.DictReader(text.splitlines()))
    for side, run in (("reference", REFERENCE), ("subject", SUBJECT)):
        trace = bundle.runs[run].trace
        assert isinstance(trace, Trace)
        lines = [line for line in trace.scored if line.task == "ending"]
        assert [int(row["ending.step"]) for row in rows] == [line.step for line in lines]
        for n in range(4):
            found = [float(row[f"ending.{side}.log_likelihood.{n + 1}"]) for row in rows]
            assert found == [line.log_likelihoods[n] for line in lines]
