"""The browser in which pages are tested, got by the first way that works on this machine.

In this order: a Chromium on the path, one that Playwright installed earlier, Playwright's download, Debian's package
where this process may install it. A browser counts only if it starts.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL_SECONDS, START_SECONDS = 600, 60


class NoBrowser(Exception):
    """No way gave a browser; the message names what was tried."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to a browser: commands that install it, none where it should be there already, and where it is then."""

    name: str
    commands: Sequence[Sequence[str]]
    candidates: Callable[[], Iterator[Path]]


def find() -> Path:
    """The executable of a browser that starts.

    Raises:
        NoBrowser: nothing that was tried gave one.
    """
    tried: list[str] = []
    for way in _ways():
        faults = (_fault(command, INSTALL_SECONDS) for command in way.commands)
        if failed := next(filter(None, faults), None):
            tried.append(f"{way.name}: {failed}")
            continue
        starts = {path: _fault((str(path), "--version"), START_SECONDS) for path in way.candidates()}
        if found := next((path for path, fault in starts.items() if fault is None), None):
            return found
        tried.append(f"{way.name}: {'; '.join(filter(None, starts.values())) or 'there is none'}")
    lines = "\n".join(f"  {one}" for one in tried)
    raise NoBrowser(
        f"The pages are tested in a real browser, and none could be found or installed. Tried in this order:\n{lines}\n"
        "Install Chromium or Chrome so that one of the names above is on the PATH."
    )


def _ways() -> Iterator[Way]:
    yield Way(name=f"on the PATH ({', '.join(NAMES)})", commands=(), candidates=_on_the_path)
    yield Way(name="installed by Playwright", commands=(), candidates=_of_playwright)
    download = (sys.executable, "-m", "playwright", "install", "chromium")
    yield Way(name="python -m playwright install chromium", commands=(download,), candidates=_of_playwright)
    if os.geteuid() == 0:
        install = (("apt-get", "update", "-qq"), ("apt-get", "install", "-y", "-qq", "chromium"))
        yield Way(name="apt-get install chromium", commands=install, candidates=_on_the_path)


def _on_the_path() -> Iterator[Path]:
    yield from (Path(path) for name in NAMES if (path := shutil.which(name)))


def _of_playwright() -> Iterator[Path]:
    base = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH") or Path.home() / ".cache" / "ms-playwright")
    yield from sorted(base.glob("chromium*/chrome-*/chrome"), reverse=True)


def _fault(command: Sequence[str], seconds: float) -> str | None:
    """Why a command did not succeed, in one line."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    except FileNotFoundError:
        return f"{command[0]} is not installed"
    except OSError as error:
        return f"{command[0]} does not start: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"{' '.join(command)} did not end within {seconds:g} s"
    if done.returncode == 0:
        return None
    lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
    reason = next((line.strip() for line in lines if "error" in line.lower()), lines[-1])
    return f"{' '.join(command)} ended with exit code {done.returncode}: {reason}"
