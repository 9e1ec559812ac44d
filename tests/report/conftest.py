"""A real browser, pages of example bundles, and a record of the requests of a page."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from harness.cases.case import Case, load_case
from harness.runs.trace import RunOutcome, Step, TraceHeader
from tests.support.answering import example_answers
from tests.support.browser import NoBrowser, find
from tests.support.bundles import example_parameters, write_example, write_page_of
from tests.support.examples import inference_case

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# Whether this machine has a font for Chinese must not decide a test: with one, no two characters are drawn alike.
WITH_FONT = """
  let drawn = 0;
  CanvasRenderingContext2D.prototype.getImageData = () => ({ data: [drawn++] });
"""
WITHOUT_FONT = "CanvasRenderingContext2D.prototype.getImageData = () => ({ data: [0] });"
CRASH = RunOutcome(
    status="crashed", last_step=83, detail="killed by signal 9", log_tail="</script><script>alert(1)</script>"
)


def off_from_17(run: str, step: Step) -> Step:
    bad = run in ("subject-1", "subject-2", "subject-resumed") and step.step >= 17
    return dataclasses.replace(step, loss=step.loss * 1.0058) if bad else step


def nan_at_57(run: str, step: Step) -> Step:
    bad = run in ("subject-1", "subject-2") and step.step == 57
    return dataclasses.replace(step, loss=float("nan")) if bad else step


def spike_at_4321(run: str, step: Step) -> Step:
    return dataclasses.replace(step, loss=step.loss * 1.02) if run == "subject-1" and step.step == 4321 else step


def long_case() -> Case:
    case = load_case("qwen3-tiny-fp32")
    return case.with_changes(training={**case.training.model_dump(), "steps": 6000})


def wrong_base(header: TraceHeader) -> TraceHeader:
    changed = {**header.alignment, "model.rope_theta": 1e4}
    return dataclasses.replace(header, alignment=changed) if header.side == "subject" else header


def deep(run: str) -> dict[str, Any]:
    """More parameters than a table shows at once, with names as long as real ones."""
    tensors = example_parameters(run)
    one = next(iter(tensors.values()))
    return tensors | {f"model.layers.{n}.post_attention_layernorm.weight": one for n in range(12)}


def parted(run: str, case: Case) -> dict[str, Any]:
    """A subject that goes on with tokens of its own, of which some would be markup."""
    left = example_answers(run, case)
    if run.startswith("subject"):
        own = left["greedy.1"].copy()
        own[40:] = np.frombuffer((b"<script>alert(1)</script>\x00" * 20)[: len(own) - 40], np.uint8)
        left["greedy.1"] = own
    return left


BUNDLES: dict[str, dict[str, Any]] = {
    "passing": {},
    "deep": {"parameters": deep},
    "failing": {"change": off_from_17},
    "nan": {"change": nan_at_57},
    "killed": {
        "change": lambda run, step: None if run == "subject-1" and step.step > 83 else step,
        "outcomes": {"subject-1": CRASH},
    },
    "floored": {"case": load_case("qwen3-tiny-bf16"), "floor": 8},
    "long": {"case": long_case(), "change": spike_at_4321},
    "misaligned": {"change": off_from_17, "header": wrong_base},
    "inference": {"case": inference_case(60)},
    "parted": {"case": inference_case(60), "answers": parted},
    "unanswered": {"case": inference_case(60), "change": lambda run, step: None if run == "subject-1" else step},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """A page in the browser, its network requests, and its errors."""

    page: Page
    requests: list[str]
    complaints: list[str]

    def chart(self, id_: str) -> Locator:
        """A chart, which is drawn when a reader comes to it."""
        return drawn(self.page, id_)


def drawn(page: Page, id_: str) -> Locator:
    """Scrolls to a chart and waits until it is drawn."""
    chart = page.locator(f"#{id_}")
    chart.scroll_into_view_if_needed()
    chart.locator(".main-svg").first.wait_for()
    return chart


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """A machine without a browser fails before the first test, with one message. It is found, and where it has to be
    installed, before pytest-xdist starts its processes, which would all install it."""
    if session.config.option.collectonly or hasattr(session.config, "workerinput"):
        return
    try:
        find()
    except NoBrowser as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.TESTS_FAILED)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find(), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The page of one of `BUNDLES`, written once."""
    written: dict[str, Path] = {}

    def write(name: str) -> Path:
        if name not in written:
            written[name] = write_page_of(write_example(tmp_path_factory.mktemp(name), **BUNDLES[name]))
        return written[name]

    return write


@pytest.fixture
def open_page(browser: Browser, page_of: Callable[[str], Path]) -> Iterator[Callable[..., Opened]]:
    """Opens a page and waits until the charts that are near the window are drawn."""
    contexts = []

    def open_(name: str, width: int = 1280, height: int = 900, **options: Any) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        page = context.new_page()
        opened = Opened(page=page, requests=[], complaints=[])
        page.on("request", lambda request: opened.requests.append(request.url))
        page.on("console", lambda message: opened.complaints.append(message.text))
        page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        page.on("dialog", lambda dialog: opened.complaints.append(f"dialog: {dialog.message}"))
        page.goto(page_of(name).as_uri())
        page.wait_for_selector("html[data-charts=drawn]", timeout=20_000)
        return opened

    yield open_
    for context in contexts:
        context.close()
