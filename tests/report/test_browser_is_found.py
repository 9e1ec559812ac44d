"""The browser for these tests: which way to it is tried first, and what is reported where none works."""

import os
import sys
from pathlib import Path

import pytest

from tests.support import browser

STARTS, BROKEN = "exit 0", "echo a library is missing >&2; exit 127"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nothing is installed and nothing can be: its PATH, where a test puts programs."""
    (path := tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "playwright"))
    monkeypatch.setattr(sys, "executable", program(path / "python", "echo no network >&2; exit 1"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return path


def program(path: Path, body: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def that_makes(path: Path) -> str:
    """The body of a program that installs a browser which starts."""
    directory, shell = path.parent, "/bin"
    return f"{shell}/mkdir -p {directory}; printf '#!/bin/sh\\nexit 0\\n' > {path}; {shell}/chmod +x {path}"


def of_playwright(machine: Path) -> Path:
    return machine.parent / "playwright" / "chromium-1200" / "chrome-linux" / "chrome"


def test_one_on_the_path_comes_first(machine: Path) -> None:
    program(of_playwright(machine), STARTS)
    chrome = program(machine / "google-chrome", STARTS)
    assert browser.find() == Path(chrome)


def test_one_that_does_not_start_is_passed_over(machine: Path) -> None:
    program(machine / "chromium", BROKEN)
    own = program(of_playwright(machine), STARTS)
    assert browser.find() == Path(own)


def test_playwrights_download_comes_before_debians_package(machine: Path) -> None:
    program(machine / "python", that_makes(of_playwright(machine)))
    program(machine / "apt-get", that_makes(machine / "chromium"))
    assert browser.find() == of_playwright(machine)


def test_debians_package_is_the_last_way(machine: Path) -> None:
    program(machine / "apt-get", that_makes(machine / "chromium"))
    assert browser.find() == machine / "chromium"


def test_a_download_that_does_not_start_is_followed_by_debians_package(machine: Path) -> None:
    program(machine / "python", f"{that_makes(of_playwright(machine))}; echo no program > {of_playwright(machine)}")
    program(machine / "apt-get", that_makes(machine / "chromium"))
    assert browser.find() == machine / "chromium"


def test_where_no_way_works_the_message_names_each(machine: Path) -> None:
    with pytest.raises(browser.NoBrowser) as refused:
        browser.find()
    assert [line.strip() for line in str(refused.value).splitlines()[1:-1]] == [
        "on the PATH (chromium, chromium-browser, google-chrome, google-chrome-stable): there is none",
        "installed by Playwright: there is none",
        f"python -m playwright install chromium: {machine}/python -m playwright install chromium "
        "ended with exit code 1: no network",
        "apt-get install chromium: apt-get is not installed",
    ]


def test_who_may_not_install_packages_does_not_try(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    program(machine / "apt-get", that_makes(machine / "chromium"))
    with pytest.raises(browser.NoBrowser) as refused:
        browser.find()
    assert "apt-get" not in str(refused.value) and not (machine / "chromium").exists()


def test_without_a_browser_no_test_begins_and_the_run_fails(machine: Path, pytester: pytest.Pytester) -> None:
    pytester.makeconftest("from tests.report.conftest import pytest_sessionstart")
    pytester.makepyfile("def test_that_is_not_begun(): pass")
    done = pytester.runpytest_inprocess()
    assert done.ret == 1
    assert "1 passed" not in done.stdout.str()
    done.stderr.fnmatch_lines(["*none could be found or installed*"])
