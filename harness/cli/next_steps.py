"""What to do with a finished bundle, as commands that can be pasted as they are: sign, compare, publish."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from harness.evidence.again import RUN, without_place
from harness.evidence.bundle import Bundle
from harness.evidence.bundle_files import CASE, MANIFEST
from harness.levels.verdict_words import NextCommand

KEY, SITE = "developer", "site"


def next_steps(bundle: Bundle, here: Path) -> Iterator[NextCommand]:
    """The next commands for a bundle, to be run in a directory; a key that is there is used."""
    if not (here / f"{KEY}.key").exists():
        yield _command("keygen", KEY, result="makes a pair of keys to sign with, once")
    sign = ("attest", str(bundle.path), "--role", "developer", "--key", f"{KEY}.key")
    yield _command(*sign, result="signs exactly what this bundle shows")
    if (earlier := _earlier(bundle)) is not None:
        yield _command("diff", str(earlier), str(bundle.path), result="compares it with the run before")
    elif bundle.occasion.command[:2] == RUN:
        again = f"{bundle.path}-again"
        second = (*without_place(bundle.occasion.command), "--out", again)
        yield NextCommand(command=shlex.join(second), result="makes a second run")
        yield _command("diff", str(bundle.path), again, result="compares the two runs")
    yield _command("site", str(bundle.path), "--out", SITE, result="publishes the table of levels as a static site")


def _command(*words: str, result: str) -> NextCommand:
    return NextCommand(command=shlex.join(("certify", *words)), result=result)


def _earlier(bundle: Bundle) -> Path | None:
    """The newest bundle of the same case next to this one."""
    case = (bundle.path / CASE).read_bytes()
    siblings = sorted(path.parent for path in bundle.path.parent.glob(f"*/{MANIFEST}"))
    others = [path for path in siblings if path.resolve() != bundle.path.resolve()]
    same = [path for path in others if (path / CASE).is_file() and (path / CASE).read_bytes() == case]
    return max(same, key=lambda path: (path / MANIFEST).stat().st_mtime, default=None)
