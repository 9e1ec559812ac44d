"""The history of nights on a branch of its own, checked out next to the code: every night is a commit.

The branch starts empty, so that it holds nights and no code. The user of the nightly pushes it.
"""

import subprocess
from pathlib import Path

from harness.base.errors import InputError, MissingPrerequisite

IGNORED = ".lock\n*.part\n"  # files of a running night
AUTHOR = ("-c", "user.name=certify", "-c", "user.email=certify@localhost")


def attach(history: Path, branch: str) -> None:
    """Checks out a branch of the current repository in a directory.

    Raises:
        InputError: there is no repository, or the directory holds something else.
    """
    if (history / ".git").exists():
        held = _git(history, "rev-parse", "--abbrev-ref", "HEAD")
        if held != branch:
            raise InputError(f"{history} has the branch {held}, not {branch}. Choose another --history.")
        return
    if history.exists() and any(history.iterdir()):
        raise InputError(f"{history} has files that are on no branch. Choose another --history.")
    if not _ok("rev-parse", "--verify", "--quiet", f"refs/heads/{branch}"):
        if _ok("rev-parse", "--verify", "--quiet", f"refs/remotes/origin/{branch}"):
            _git(Path(), "branch", branch, f"origin/{branch}")
        else:
            empty = _git(Path(), "hash-object", "-t", "tree", "/dev/null")
            first = _git(Path(), *AUTHOR, "commit-tree", empty, "-m", "The history of nights begins")
            _git(Path(), "branch", branch, first)
    _git(Path(), "worktree", "add", "--quiet", str(history), branch)


def commit(history: Path, message: str) -> None:
    """Commits all files of a history.

    Raises:
        InputError: git fails.
    """
    (history / ".gitignore").write_text(IGNORED, encoding="utf-8")
    _git(history, "add", "--all")
    _git(history, *AUTHOR, "commit", "--quiet", "--allow-empty", "--no-verify", "-m", message)


def _ok(*arguments: str) -> bool:
    return subprocess.run(["git", *arguments], capture_output=True, check=False).returncode == 0


def _git(directory: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MissingPrerequisite("--branch needs git: apt-get install git") from None
    if done.returncode:
        raise InputError(f"git {arguments[0]} in {directory.absolute()}: {done.stderr.strip() or 'refused'}")
    return done.stdout.strip()
