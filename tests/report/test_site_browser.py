"""The site in a real browser: from a file, in both languages, by keyboard, on a phone, and for a screen reader."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from harness.site import write_site
from tests.report.conftest import BUNDLES, WITH_FONT, WITHOUT_FONT, Opened
from tests.support.bundles import write_example
from tests.support.examples import ROOT, small_case

AT = datetime(2026, 2, 1, tzinfo=UTC)
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cell with a history, one that failed, one that is no evidence, and a study."""
    place = tmp_path_factory.mktemp("site")
    for night in (1, 2, 3):
        write_example(
            place / "bundles" / f"night-{night}", occasion={"started": f"2026-01-{28 + night}T02:00:00+00:00"}
        )
    bad = small_case().model_copy(update={"name": "failing", "title": "</script><script>alert(1)</script>"})
    write_example(place / "bundles" / "failing", case=bad, change=BUNDLES["nan"]["change"])
    edited = write_example(place / "bundles" / "edited").path / "case.json"
    edited.write_bytes(edited.read_bytes().replace(b"2", b"3", 1))
    write_site([place / "bundles"], place / "site", [ROOT / "reports" / "power-qwen3-tiny-fp32.json"], None, AT)
    return place / "site"


@pytest.fixture
def open_site(browser: Browser, site: Path) -> Iterator[Callable[..., Opened]]:
    contexts = []

    def open_(
        width: int = 1280, height: int = 900, fonts: str = WITH_FONT, at: str = "index.html", **options: Any
    ) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(fonts)
        opened = Opened(page=page, requests=[], complaints=[])
        page.on("request", lambda request: opened.requests.append(request.url))
        page.on("console", lambda message: opened.complaints.append(message.text))
        page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        page.on("dialog", lambda dialog: opened.complaints.append(f"dialog: {dialog.message}"))
        page.goto((site / at).as_uri())
        return opened

    yield open_
    for context in contexts:
        context.close()


def serious(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['target']}" for one in found if one["impact"] in SERIOUS]


def test_every_link_leads_somewhere_and_no_network_is_used(open_site: Callable[..., Opened], site: Path) -> None:
    opened = open_site()
    links = opened.page.eval_on_selector_all("a[href]", "all => all.map(one => one.getAttribute('href'))")
    for link in set(links):
        if link.startswith("#"):
            assert opened.page.locator(link).count() == 1, link
        else:
            assert (site / link.partition("#")[0]).is_file(), link
    opened.page.click(".support a.stamp >> nth=0")
    assert "/cells/" in opened.page.url
    for link in opened.page.eval_on_selector_all("a[href]", "all => all.map(one => one.getAttribute('href'))"):
        assert link.startswith("#") or (site / "cells" / link).resolve().is_file(), link
    opened.page.click("#history td a >> nth=0")
    opened.page.wait_for_selector("html[data-charts=drawn]", timeout=20_000)
    assert "certificates/" in opened.page.url
    assert [url for url in opened.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert opened.complaints == []


def test_the_language_is_switched_and_remembered(open_site: Callable[..., Opened]) -> None:
    page = open_site().page
    assert page.locator("h1").inner_text() == "Levels of models" and page.title() == "Levels of models"
    page.click("#language")
    assert page.locator("h1").inner_text() == "模型等级" and page.title() == "模型等级"
    assert page.locator("nav").get_attribute("aria-label") == "章节"
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    page.reload()
    assert page.locator("h1").inner_text() == "模型等级"


def test_a_chinese_browser_begins_in_chinese(open_site: Callable[..., Opened]) -> None:
    assert open_site(locale="zh-CN").page.locator("h1").inner_text() == "模型等级"


def test_dark_mode_follows_the_system_and_the_button(open_site: Callable[..., Opened]) -> None:
    dark = open_site(color_scheme="dark").page.evaluate(BACKGROUND)
    page = open_site(color_scheme="light").page
    light = page.evaluate(BACKGROUND)
    page.click("#theme")
    assert light != dark == page.evaluate(BACKGROUND)


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_a_phone_scrolls_in_one_direction_only(open_site: Callable[..., Opened], language: str) -> None:
    page = open_site(390, 844, locale=language).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_on_a_desktop_no_table_is_cut_off(open_site: Callable[..., Opened], language: str) -> None:
    page = open_site(1280, 900, locale=language).page
    wide = "all => all.filter(one => one.scrollWidth > one.clientWidth).map(one => one.ariaLabel)"
    assert page.eval_on_selector_all(".table", wide) == []


@pytest.mark.parametrize(("language", "name"), [("en", "Stated level"), ("zh-CN", "声明等级")])
def test_a_phone_shows_the_name_of_every_value(open_site: Callable[..., Opened], language: str, name: str) -> None:
    page = open_site(390, 844, locale=language).page
    said = "all => all.map(one => getComputedStyle(one, '::before').content)"
    names = page.eval_on_selector_all("#levels td, #versions td, #power td", said)
    assert any(one.endswith(f'{name} "') for one in names) and '"MindSpore "' in names
    assert "none" not in names


def test_everything_can_be_reached_with_the_keyboard(open_site: Callable[..., Opened]) -> None:
    page = open_site().page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('href')"))
    assert {"language", "theme", "#versions", "#check"} <= reached
    page.locator("#language").focus()
    page.keyboard.press("Enter")
    assert page.locator("html").get_attribute("lang") == "zh-CN"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_no_serious_barrier_is_found_by_axe(open_site: Callable[..., Opened], scheme: str, language: str) -> None:
    assert serious(open_site(color_scheme=scheme, locale=language).page) == []


def test_no_serious_barrier_is_found_on_a_certificate(open_page: Callable[..., Opened]) -> None:
    assert serious(open_page("failing").page) == []


def test_it_can_be_printed(open_site: Callable[..., Opened], tmp_path: Path) -> None:
    page = open_site(color_scheme="dark").page
    page.pdf(path=tmp_path / "site.pdf")
    assert (tmp_path / "site.pdf").stat().st_size > 10_000


def test_without_scripts_it_is_english_and_whole(open_site: Callable[..., Opened]) -> None:
    page = open_site(java_script_enabled=False).page
    assert page.locator("h1").inner_text() == "Levels of models"
    rows = {section: page.locator(f"#{section} tbody tr").count() for section in ("levels", "differences")}
    assert rows == {"levels": 24, "differences": 2}
    assert not page.locator("#filters").is_visible()


def test_a_choice_leaves_the_rows_that_fit(open_site: Callable[..., Opened]) -> None:
    page = open_site().page
    rows = page.locator("#levels tbody tr:visible")
    assert rows.count() == 24 and page.locator("#shown").inner_text() == "24 / 24"
    page.select_option("select[name=stated]", "Released")
    assert rows.count() == 2 and page.locator("#shown").inner_text() == "2 / 24"
    page.select_option("select[name=size]", "32B")
    assert rows.count() == 1
    page.click("#filters button")
    page.wait_for_function("document.querySelector('#shown').innerText === '24 / 24'")
    assert rows.count() == 24


def test_a_choice_is_named_in_the_language_of_the_page(open_site: Callable[..., Opened]) -> None:
    names = open_site(locale="zh-CN").page.locator("select[name=task] option").all_inner_texts()
    assert names[0] == "全部" and "预训练" in names and "inference" not in names


def test_without_a_font_for_chinese_a_page_stays_in_english_and_states_it(open_site: Callable[..., Opened]) -> None:
    page = open_site(locale="zh-CN", fonts=WITHOUT_FONT).page
    assert page.locator("h1").inner_text() == "Levels of models" and page.locator("html").get_attribute("lang") == "en"
    button = page.locator("#language")
    assert button.inner_text() == "English only" and button.is_disabled()
    visible = page.evaluate("document.body.innerText")
    assert not [one for one in visible if "\u4e00" <= one <= "\u9fff"]


@pytest.mark.parametrize("language", ["en", "zh-CN"])
def test_the_page_of_a_cell_fits_a_phone_and_has_no_serious_barrier(
    open_site: Callable[..., Opened], site: Path, language: str
) -> None:
    for at in sorted(path.relative_to(site).as_posix() for path in (site / "cells").iterdir())[::12]:
        page = open_site(390, 844, at=at, locale=language).page
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, at
        assert serious(page) == [], at
