"""A changed file is never committed code, whatever the repository, its configuration or the environment says."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.base.code import reference_digest
from harness.certify.committed import State, reference_digest_at, state

ROOMS, FILES = ("harness", "qwen3_model"), ("pyproject.toml",)
AUTHOR = ("-c", "user.name=somebody", "-c", "user.email=nobody@example.com")
CHANGED = "x = 2  # not what was committed\n"


def git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *AUTHOR, *words], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A checkout of two rooms, clean."""
    root = tmp_path / "checkout"
    for name in ("harness/a.py", "harness/deep/er/b.py", "qwen3_model/c.py", "pyproject.toml", "docs/d.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"x = 1  # {name}\n")
    git(tmp_path, "init", "-q", str(root))
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return root


def found(root: Path) -> State:
    return state(root, ROOMS, FILES)


def test_a_checkout_as_it_was_committed_is_clean(root: Path) -> None:
    (root / "docs" / "d.md").write_text("other words\n")
    (root / "notes.txt").write_text("mine\n")
    assert found(root) == State(revision=git(root, "rev-parse", "HEAD"), dirty=False)


@pytest.mark.parametrize("name", ["harness/a.py", "harness/deep/er/b.py", "qwen3_model/c.py", "pyproject.toml"])
def test_a_changed_and_a_removed_file_are_seen(root: Path, name: str) -> None:
    (root / name).write_text(CHANGED)
    assert found(root).dirty
    (root / name).unlink()
    assert found(root).dirty


def test_an_added_file_is_seen_also_where_it_is_ignored(root: Path) -> None:
    (root / ".git" / "info" / "exclude").write_text("*\n")
    (root / "harness" / "more.py").write_text(CHANGED)
    assert git(root, "status", "--porcelain") == "" and found(root).dirty


def test_the_code_of_the_reference_at_a_revision_is_that_of_its_checkout(root: Path) -> None:
    runners = root / "harness" / "runners"
    runners.mkdir()
    for name in ("oracle.py", "torch_training.py", "hugging_face.py", "worker.py"):
        (runners / name).write_text(f"x = 1  # {name}\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "second")
    before, at = git(root, "rev-parse", "HEAD"), reference_digest(root)
    (runners / "worker.py").write_text(CHANGED)
    assert reference_digest_at(root, before) == at == reference_digest(root)
    (runners / "oracle.py").write_text(CHANGED)
    assert reference_digest_at(root, before) == at != reference_digest(root)
    assert reference_digest_at(root, "f" * 40) is None and reference_digest_at(root / "docs", before) is None


def assume_unchanged(root: Path, outside: Path) -> None:
    git(root, "update-index", "--assume-unchanged", "harness/a.py")


def skip_worktree(root: Path, outside: Path) -> None:
    git(root, "update-index", "--skip-worktree", "harness/a.py")


def worktree_elsewhere(root: Path, outside: Path) -> None:
    git(root.parent, "clone", "-q", str(root), str(outside))
    git(root, "config", "core.worktree", str(outside))


def monitor_that_sees_nothing(root: Path, outside: Path) -> None:
    outside.write_text("#!/bin/sh\nprintf 'token\\0'\n")
    outside.chmod(0o755)
    git(root, "config", "core.fsmonitor", str(outside))


def index_that_does_not_exist(root: Path, outside: Path) -> None:
    (root / ".git" / "index").write_bytes(b"no index")


def replaced_object(root: Path, outside: Path) -> None:
    before = git(root, "rev-parse", "HEAD")
    (root / "harness" / "a.py").write_text(CHANGED)
    git(root, "commit", "-q", "-a", "-m", "changed")
    changed = git(root, "rev-parse", "HEAD")
    git(root, "reset", "-q", "--soft", before)
    git(root, "replace", before, changed)


def filter_that_gives_what_was_committed(root: Path, outside: Path) -> None:
    (root / ".git" / "info" / "attributes").write_text("harness/a.py filter=same\n")
    git(root, "config", "filter.same.clean", "echo 'x = 1  # harness/a.py'")


def link_to_what_was_committed(root: Path, outside: Path) -> None:
    (root / "harness" / "a.py").rename(outside)
    (root / "harness" / "a.py").symlink_to(outside)


TRICKS = (
    assume_unchanged, skip_worktree, worktree_elsewhere, monitor_that_sees_nothing, index_that_does_not_exist,
    replaced_object, filter_that_gives_what_was_committed, link_to_what_was_committed,
)  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
def test_no_state_of_the_repository_hides_a_change(
    root: Path, tmp_path: Path, trick: Callable[[Path, Path], None]
) -> None:
    trick(root, tmp_path / "outside")
    (root / "harness" / "a.py").write_text(CHANGED)
    assert found(root).dirty


VARIABLES = {
    "GIT_DIR": "other/.git",
    "GIT_WORK_TREE": "other",
    "GIT_INDEX_FILE": "other/.git/index",
    "GIT_OBJECT_DIRECTORY": "other/.git/objects",
    "GIT_CEILING_DIRECTORIES": "/",
    "GIT_CONFIG_PARAMETERS": "'core.worktree=other'",
}


@pytest.mark.parametrize("name", VARIABLES)
def test_no_variable_hides_a_change(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    git(tmp_path, "clone", "-q", str(root), str(tmp_path / "other"))
    revision = git(root, "rev-parse", "HEAD")
    monkeypatch.setenv(name, VARIABLES[name].replace("other", str(tmp_path / "other")))
    assert found(root) == State(revision=revision, dirty=False)
    (root / "harness" / "a.py").write_text(CHANGED)
    assert found(root) == State(revision=revision, dirty=True)


@pytest.mark.parametrize("what", ["tree", "commit"])
def test_an_object_that_has_other_content_than_its_name_says_leaves_nothing_committed(root: Path, what: str) -> None:
    before = git(root, "rev-parse", "HEAD:harness" if what == "tree" else "HEAD")
    (root / "harness" / "a.py").write_text(CHANGED)
    git(root, "add", ".")
    whole = git(root, "write-tree")
    after = git(root, "rev-parse", f"{whole}:harness") if what == "tree" else git(root, "commit-tree", whole, "-m", "x")
    git(root, "read-tree", "HEAD")
    forged, other = (root / ".git" / "objects" / name[:2] / name[2:] for name in (before, after))
    forged.chmod(0o644)
    forged.write_bytes(other.read_bytes())
    assert found(root).dirty or found(root).revision is None


def test_another_git_first_on_the_path_is_not_asked(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "bin" / "git"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\nexit 0\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", f"{other.parent}{os.pathsep}{os.environ['PATH']}")
    (root / "harness" / "a.py").write_text(CHANGED)
    assert found(root).dirty


def test_a_git_that_does_not_say_what_was_committed_leaves_nothing_committed(root: Path) -> None:
    tree = git(root, "rev-parse", "HEAD^{tree}")
    (root / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    assert found(root) == State(revision=git(root, "rev-parse", "HEAD"), dirty=True)


def test_bytecode_that_is_not_compared_with_its_source_is_a_change(root: Path) -> None:
    source = root / "harness" / "a.py"
    compile_ = [sys.executable, "-m", "compileall", "-q", str(source)]
    subprocess.run([*compile_, "--invalidation-mode", "checked-hash"], check=True)
    assert not found(root).dirty
    subprocess.run([*compile_, "-f", "--invalidation-mode", "unchecked-hash"], check=True)
    assert found(root).dirty


def test_bytecode_without_a_source_is_a_change(root: Path) -> None:
    (root / "harness" / "alone.pyc").write_bytes(b"\0" * 16)
    assert found(root).dirty


def test_a_directory_that_is_no_checkout_has_no_revision(tmp_path: Path) -> None:
    assert found(tmp_path) == State(revision=None, dirty=False)
