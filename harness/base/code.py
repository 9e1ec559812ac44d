"""The code of this program: where it is, and the digest of what decides a number or a level."""

import fnmatch
import functools
import importlib.util
import marshal
import os
import re
import site
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

from harness.base.digest import digest_file, digest_json

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("harness", "qwen3_model")
# Of `harness/runners`: what the runs of reference and oracle compute with.
REFERENCE = ("hugging_face.py", "oracle*.py", "torch_*.py")
BYTECODE = {"__pycache__", ".pyc"}
PRELOADED, MAPPED = Path("/etc/ld.so.preload"), Path("/proc/self/maps")
STARTED_BY_SITE = ("sitecustomize", "usercustomize")


def source_digest(root: Path) -> str:
    """The digest of every file of the code at a root, by its path: modules, and the standards, floors, tables,
    templates and C sources that they read. Bytecode follows from the modules and is omitted."""
    files = (path.relative_to(root) for room in ROOMS for path in (root / room).rglob("*") if path.is_file())
    kept = [path for path in files if not {path.suffix, *path.parts} & BYTECODE]
    return digest_json({path.as_posix(): digest_file(root / path) for path in kept})


def reference_digest(root: Path) -> str:
    """The digest of the code that computes the numbers of reference and oracle."""
    room = root / "harness" / "runners"
    return digest_json({path.name: digest_file(path) for path in room.glob("*.py") if is_of_reference(path.name)})


def is_of_reference(name: str) -> bool:
    """Whether a module of `harness/runners` computes the numbers of reference and oracle."""
    return any(fnmatch.fnmatchcase(name, one) for one in REFERENCE)


def other_bytecode(root: Path) -> Iterator[Path]:
    """The files of bytecode that Python would execute in place of the code at a root, though they hold other code: one
    whose source is elsewhere or gone, and one that fits its source by time and size alone."""
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.pyc")):
            if path.parent.name != "__pycache__" or not _fits(path):
                yield path


def _fits(cached: Path) -> bool:
    """Whether Python ignores a file of bytecode, or it holds what its source gives. Source: PEP 3147, PEP 552."""
    name, _, tag = cached.stem.partition(".")
    source = cached.parent.parent / f"{name}.py"
    if tag != sys.implementation.cache_tag or not source.is_file():
        return True
    data, text = cached.read_bytes(), source.read_bytes()
    flags = int.from_bytes(data[4:8], "little")
    status = source.stat()
    states = (int(status.st_mtime) & 0xFFFFFFFF).to_bytes(4, "little") + (status.st_size & 0xFFFFFFFF).to_bytes(
        4, "little"
    )
    by = {0: states, 3: importlib.util.source_hash(text)}.get(flags, data[8:16])
    if data[:4] != importlib.util.MAGIC_NUMBER or by != data[8:16]:
        return True
    try:
        held = marshal.loads(data[16:])
    except (EOFError, ValueError, TypeError):
        return False
    return isinstance(held, CodeType) and held == compile(text, str(source), "exec", dont_inherit=True)


def started_by_site() -> dict[str, str]:
    """The digests of the files that were read when this process began, before any code of this program: modules, by
    their names, and the `.pth` files of the places of packages, which can execute code and add places to search; and
    libraries that the loader puts before all others, and its list of them. Source: the module `site`; ld.so(8).
    """
    modules = {name: getattr(sys.modules.get(name), "__file__", None) for name in STARTED_BY_SITE}
    found = {name: digest_file(Path(file)) for name, file in modules.items() if file}
    places = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    for place in dict.fromkeys(places):
        for path in sorted(Path(place).glob("*.pth")):
            number = sum(name == path.name or name.startswith(f"{path.name} (") for name in found)
            found[path.name if not number else f"{path.name} ({number + 1})"] = digest_file(path)
    return found | {str(path): digest_file(path) for path in _preloaded()}


def _preloaded() -> Iterator[Path]:
    """The libraries that a variable or the machine has every process load first, as far as this one did; and the
    list of the machine."""
    named = re.split("[ :]", os.environ.get("LD_PRELOAD", ""))
    if PRELOADED.is_file():
        yield PRELOADED
        named += PRELOADED.read_text(errors="replace").split()
    wanted = {Path(name).name for name in named if name}
    if wanted and MAPPED.is_file():
        mapped = {line.split(maxsplit=5)[5] for line in MAPPED.read_text(errors="replace").splitlines() if "/" in line}
        yield from sorted(path for path in map(Path, mapped) if path.name in wanted and path.is_file())


@functools.cache
def imported() -> str:
    """The digest of the code that this process imports from, as it was when it was first requested."""
    return source_digest(ROOT)
