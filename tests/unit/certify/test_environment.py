"""The source digest: any changed byte of any file of the code is another digest, and bytecode is none of the code."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness
from harness.base.code import ROOMS, source_digest
from harness.certify.environment import source

ROOT = Path(harness.__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code that a test may change."""
    root = tmp_path_factory.mktemp("copy")
    for room in ROOMS:
        shutil.copytree(ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def one_of_each_kind() -> Iterator[Path]:
    """The first file of every ending, and the floors, which are JSON with limits in them."""
    files = sorted(path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file())
    known = {path.suffix: path for path in reversed(files) if path.suffix != ".pyc"}
    yield from known.values()
    yield from (path for path in files if path.parent.name == "floors")


def test_a_copy_of_the_code_has_the_digest_that_a_run_records(tree: Path) -> None:
    assert source_digest(tree) == source().sha256


@pytest.mark.parametrize("file", list(one_of_each_kind()), ids=str)
def test_one_changed_byte_is_another_source(tree: Path, file: Path) -> None:
    whole, before = (tree / file).read_bytes(), source_digest(tree)
    (tree / file).write_bytes(bytes([whole[0] ^ 1]) + whole[1:] if whole else b"\n")
    changed = source_digest(tree)
    (tree / file).write_bytes(whole)
    assert changed != before and source_digest(tree) == before


def test_the_kinds_of_files_that_decide_something_are_among_those_that_are_tried() -> None:
    kinds = {path.suffix for path in one_of_each_kind()}
    assert kinds >= {".py", ".yaml", ".json", ".csv", ".j2", ".js", ".css", ".c"}


def test_an_added_a_moved_and_a_removed_file_are_another_source(tree: Path) -> None:
    digests = [source_digest(tree)]
    added = tree / ROOMS[0] / "standards" / "added.yaml"
    added.write_text("name: added\n")
    digests.append(source_digest(tree))
    added.rename(added.with_name("moved.yaml"))
    digests.append(source_digest(tree))
    added.with_name("moved.yaml").unlink()
    assert len(set(digests)) == 3 and source_digest(tree) == digests[0]


def test_bytecode_is_no_source(tree: Path) -> None:
    before = source_digest(tree)
    cache = tree / ROOMS[0] / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "module.cpython-311.pyc").write_bytes(b"compiled")
    (tree / ROOMS[0] / "module.pyc").write_bytes(b"compiled")
    assert source_digest(tree) == before
