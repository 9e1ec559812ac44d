"""The code of this program: where it is, and the digest of what decides a number or a level."""

import functools
from pathlib import Path

from harness.base.digest import digest_file, digest_json

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("harness", "qwen3_model")
# Of `harness/runners`: what the runs of reference and oracle compute with.
REFERENCE = ("hugging_face.py", "oracle*.py", "torch_*.py")
BYTECODE = {"__pycache__", ".pyc"}


def source_digest(root: Path) -> str:
    """The digest of every file of the code at a root, by its path: modules, and the standards, floors, tables,
    templates and C sources that they read. Bytecode follows from the modules and is omitted."""
    files = (path.relative_to(root) for room in ROOMS for path in (root / room).rglob("*") if path.is_file())
    kept = [path for path in files if not {path.suffix, *path.parts} & BYTECODE]
    return digest_json({path.as_posix(): digest_file(root / path) for path in kept})


def reference_digest(root: Path) -> str:
    """The digest of the code that computes the numbers of reference and oracle."""
    room = root / "harness" / "runners"
    return digest_json({path.name: digest_file(path) for name in REFERENCE for path in room.glob(name)})


@functools.cache
def imported() -> str:
    """The digest of the code that this process imports from, as it was when it was first requested."""
    return source_digest(ROOT)
