"""Whether code is what a revision of its repository holds, found without what a repository can be told to overlook.

`git status` believes the index, the configuration, the environment and lists of exceptions. Here git only names a
revision and the content of its files; every file is read and compared, and so is each name with what it names.
"""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from harness.base.code import BYTECODE, is_of_reference
from harness.base.digest import digest_bytes, digest_json

SYSTEM = f"/usr/bin:/bin:/usr/local/bin:{os.defpath}"  # where git is taken from, if it is there
SYMLINK, TREE = b"120000", b"tree"
# Nothing of the user, of the machine or of the environment; no replaced objects.
ALONE = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "LC_ALL": "C",
}
# Another owner's repository is read like one's own: nothing of it is executed.
COMMAND = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
HASHES = {40: hashlib.sha1, 64: hashlib.sha256}


@dataclass(frozen=True, kw_only=True)
class State:
    """The revision that is checked out, None where there is none; and whether the code differs from it."""

    revision: str | None
    dirty: bool


def state(root: Path, rooms: Iterable[str], files: Iterable[str]) -> State:
    """The state of the directories `rooms` and of single `files` of a checkout at `root`."""
    if not (root / ".git").exists():
        return State(revision=None, dirty=False)
    revision = _git(root, "rev-parse", "--verify", "HEAD^{commit}")
    if not revision:
        return State(revision=None, dirty=False)
    rooms, files = tuple(rooms), tuple(files)
    held = _held(root, revision, (*rooms, *files))
    return State(revision=revision, dirty=held is None or held != _present(root, rooms, files, len(revision)))


def committed_at(root: Path) -> str | None:
    """When the revision of a checkout was committed (ISO 8601, with the zone of who did); None outside of one."""
    revision = _git(root, "rev-parse", "--verify", "HEAD^{commit}") if (root / ".git").exists() else None
    commit = _commit(root, revision) if revision else None
    stated = re.search(rb"^committer .*> (-?\d+) ([+-])(\d\d)(\d\d)$", commit or b"", re.M)
    if stated is None:
        return None
    ahead = timedelta(hours=int(stated[3]), minutes=int(stated[4])) * (1 if stated[2] == b"+" else -1)
    try:
        return datetime.fromtimestamp(int(stated[1]), timezone(ahead)).isoformat()
    except (ValueError, OverflowError, OSError):  # no time of the calendar
        return None


def reference_digest_at(root: Path, revision: str) -> str | None:
    """`reference_digest` of a revision of a checkout; None where it is no checkout, or has no such revision."""
    if not (root / ".git").exists():
        return None
    listed = _git(root, "ls-tree", "--name-only", "-z", "--full-tree", revision, "--", "harness/runners/")
    paths = [path for path in (listed or "").split("\0") if is_of_reference(path.rpartition("/")[2])]
    contents = {path.rpartition("/")[2]: _git_bytes(root, "show", f"{revision}:{path}") for path in paths}
    found = {name: digest_bytes(content) for name, content in contents.items() if content is not None}
    return digest_json(found) if found else None


def _held(root: Path, revision: str, paths: Iterable[str]) -> Mapping[str, str] | None:
    """The identity of each file of a revision below some paths; None if git does not say, if one is no plain file, or
    if what git lists is not what the revision names: git believes what lies among its objects."""
    listed = _git_bytes(root, "ls-tree", "-r", "-t", "-z", "--full-tree", revision)
    commit = _commit(root, revision)
    if listed is None or commit is None:
        return None
    entries = [_entry(line) for line in filter(None, listed.split(b"\0"))]
    if not _follows(entries, commit.partition(b"\n")[0].removeprefix(b"tree ").decode(), len(revision)):
        return None
    found = {}
    for mode, what, identity, name in entries:
        path = name.decode(errors="surrogateescape")
        if not any(path == one or path.startswith(f"{one}/") for one in paths) or what == TREE:
            continue
        if what != b"blob" or mode == SYMLINK:
            return None
        found[path] = identity
    return found


Entry = tuple[bytes, bytes, str, bytes]  # mode, kind, identity and path of a file or a tree


def _entry(line: bytes) -> Entry:
    kind, _, path = line.partition(b"\t")
    mode, what, identity = kind.split(b" ")
    return mode, what, identity.decode(), path


def _follows(entries: Iterable[Entry], top: str, length: int) -> bool:
    """Whether the identity of each tree is that of what is listed in it, and the whole is `top`.

    Source: Git, "Git Internals - Git Objects": a tree is `MODE NAME NUL IDENTITY` of each entry, in the listed order.
    """
    content: dict[bytes, bytes] = {b"": b""}
    stated = {b"": top}
    for mode, what, identity, path in entries:
        parent, _, name = path.rpartition(b"/")
        if parent not in content:
            return False
        content[parent] += mode.lstrip(b"0") + b" " + name + b"\0" + bytes.fromhex(identity)
        if what == TREE:
            content.setdefault(path, b"")
            stated[path] = identity
    return all(_named(TREE, content[path], length) == identity for path, identity in stated.items())


def _commit(root: Path, revision: str) -> bytes | None:
    """The content of a commit; None if its name is not that of this content."""
    content = _git_bytes(root, "cat-file", "commit", revision)
    return content if content is not None and _named(b"commit", content, len(revision)) == revision else None


def _named(kind: bytes, content: bytes, length: int) -> str:
    """The name of an object as git computes it."""
    return HASHES[length](kind + b" %d\0" % len(content) + content).hexdigest()


def _present(root: Path, rooms: Iterable[str], files: Iterable[str], length: int) -> Mapping[str, str] | None:
    """The same of the files that are there; None if one may hide another: a link, or bytecode that Python does not
    compare with its source."""
    found = {}
    every = [path for room in rooms for path in (root / room).rglob("*")]
    for path in (*every, *(root / name for name in files)):
        if path.is_symlink():
            return None
        if not path.is_file():
            continue
        if {path.suffix, *path.relative_to(root).parts} & BYTECODE:
            if _unchecked(path):
                return None
            continue
        found[path.relative_to(root).as_posix()] = _identity(path, length)
    return found


def _identity(path: Path, length: int) -> str:
    """The name of a file's content as git computes it."""
    return _named(b"blob", path.read_bytes(), length)


def _unchecked(path: Path) -> bool:
    """Whether Python would run a file of bytecode without looking at its source (PEP 552), or without there being
    one."""
    if path.suffix != ".pyc":
        return False
    if path.parent.name != "__pycache__":
        return True
    with path.open("rb") as file:
        flags = file.read(8)[4:]
    return flags[:1] == b"\x01"


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints, as text."""
    printed = _git_bytes(root, *arguments)
    return None if printed is None else printed.decode(errors="surrogateescape").strip()


def _git_bytes(root: Path, *arguments: str) -> bytes | None:
    """What git prints; None where it fails or is missing."""
    program = shutil.which("git", path=SYSTEM) or shutil.which("git")
    if program is None:
        return None
    command = [program, f"--git-dir={root / '.git'}", *COMMAND, *arguments]
    variables = {**ALONE, "PATH": SYSTEM}
    done = subprocess.run(command, cwd=root, env=variables, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None
