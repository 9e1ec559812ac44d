"""The revisions between a good and a bad one, halved by `git bisect` in a worktree of its own.

A worktree has its own files, its own HEAD and its own bisection, so neither the files of the checkout nor a bisection
that its user has begun are touched. It is removed in the end.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from harness.base.errors import InputError, MissingPrerequisite

Verdict = Literal["good", "bad", "skip"]
FIRST, ONLY_SKIPPED, POSSIBLE = (
    "# first bad commit: ",
    "# only skipped commits left to test",
    "# possible first bad commit: ",
)
COMMIT = re.compile(r"\[([0-9a-f]{40,64})\] (.*)")
# What git is told in the environment is about the checkout of its user, and its words are read.
NOT_PASSED = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A revision, with the first line of its message."""

    revision: str
    subject: str

    def __str__(self) -> str:
        return f"{self.revision[:12]} {self.subject}"


class Bisection:
    """A bisection of the revisions of a repository, in a worktree at `place`, which must not hold anything else."""

    def __init__(self, repository: Path, place: Path, good: str, bad: str) -> None:
        self._repository, self.place = repository, place
        self.good, self.bad = (commit_of(repository, revision) for revision in (good, bad))

    def __enter__(self) -> Self:
        self._remove()  # of an attempt that was killed
        _git(self._repository, "worktree", "add", "--quiet", "--detach", str(self.place.absolute()), self.bad.revision)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        if self.place.exists():
            shutil.rmtree(self.place)
        _git(self._repository, "worktree", "prune")

    def checkout(self, commit: Commit) -> None:
        """Has the worktree hold a revision."""
        _git(self.place, "checkout", "--quiet", "--detach", "--force", commit.revision)

    def start(self) -> None:
        """Begins to halve; the worktree then holds the first midpoint."""
        _git(self.place, "bisect", "start", self.bad.revision, self.good.revision)

    def now(self) -> Commit:
        """The revision that the worktree holds."""
        return commit_of(self.place, "HEAD")

    def found(self) -> tuple[Commit, ...] | None:
        """The first bad commit; several where those that are left were skipped; None while there is more to try."""
        log = _git(self.place, "bisect", "log").splitlines()
        if first := [_commit(line) for line in log if line.startswith(FIRST)]:
            return tuple(first)
        if ONLY_SKIPPED in log:
            return tuple(_commit(line) for line in log if line.startswith(POSSIBLE))
        return None

    def judge(self, verdict: Verdict) -> None:
        """States what the worktree's revision is; the worktree then holds the next midpoint, if there is one."""
        # Its exit code is 2 where only skipped revisions are left, which `found` reads.
        _git(self.place, "bisect", verdict, accepted=(0, 2))


def commit_of(repository: Path, revision: str) -> Commit:
    """The commit of a revision.

    Raises:
        InputError: the repository has none.
    """
    found = _git(repository, "log", "--max-count=1", "--format=%H %s", "--end-of-options", f"{revision}^{{commit}}")
    number, _, subject = found.partition(" ")
    return Commit(revision=number, subject=subject)


def _commit(line: str) -> Commit:
    found = COMMIT.search(line)
    assert found is not None, line
    return Commit(revision=found[1], subject=found[2])


def _git(directory: Path, *arguments: str, accepted: Sequence[int] = (0,)) -> str:
    variables = {name: value for name, value in os.environ.items() if name not in NOT_PASSED}
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env={**variables, "LC_ALL": "C", "LANGUAGE": ""}, check=False
        )
    except FileNotFoundError:
        raise MissingPrerequisite("'certify bisect' needs git: apt-get install git") from None
    if done.returncode not in accepted:
        said = " ".join((done.stderr.strip() or done.stdout.strip() or "refused").split())
        raise InputError(f"git {arguments[0]} in {directory.absolute()}: {said}")
    return done.stdout.strip()
