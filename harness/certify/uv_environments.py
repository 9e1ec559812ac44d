"""Environments with given versions of the frameworks, made by uv from the user's own index.

An environment is kept under the digest of what uv resolved, so two sets that resolve to the same are one, and it is
made whole or not at all. Which index uv uses, the user's own settings say (`UV_INDEX_URL`, `uv.toml`).
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.base.digest import digest_json
from harness.base.errors import InputError, MissingPrerequisite
from harness.base.locks import locked
from harness.certify.prerequisites import OF_A_WORKER
from harness.certify.versions import constraints

HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mindspore-certify" / "environments"
FRAMEWORKS = ("mindspore", "torch", "transformers")
LARGEST_GIB = 25
GIB = 2**30
RESOLVED, LOCK = "resolved.txt", ".lock"
WITHOUT_UV = (
    "Environments of other versions are made by uv, which is not there. Install it: pip install uv; or make them "
    "yourself, and give their interpreters: --subject-python PATH --reference-python PATH"
)


def interpreter_of(versions: Mapping[str, str], home: Path = HOME) -> Path:
    """The interpreter of an environment with these versions of packages. Of the frameworks that are not named it has
    those of the published evidence.

    Raises:
        MissingPrerequisite: there is no uv.
        InputError: uv finds no set of packages with these versions, or cannot install it; with its words.
    """
    named = {name.replace("-", "_"): version for name, version in versions.items()}
    given = {**{name: constraints()[name] for name in FRAMEWORKS}, **named}
    wanted = [*(f"{name}=={version}" for name, version in sorted(given.items())), *OF_A_WORKER]
    wanted = [one for one in wanted if one not in given]
    resolved = _uv(
        ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python", sys.executable, "-"], wanted
    )
    directory = home / digest_json({"resolved": resolved, "python": sys.version})[:16]
    with locked(home / LOCK, user="another certify", option="XDG_CACHE_HOME", wait=True):
        if not (directory / RESOLVED).is_file():
            _make(directory, resolved)
        os.utime(directory / RESOLVED)
        prune(home, LARGEST_GIB * GIB, keep=directory)
    return directory / "bin" / "python"


def versions_of(path: Path) -> Mapping[str, str]:
    """The versions that a file of constraints names exactly.

    Raises:
        InputError: it cannot be read, or a line is no `package==version`.
    """
    try:
        found = constraints(path)
    except OSError as error:
        raise InputError(f"The constraints {path} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise InputError(f"{path} is no file of constraints, with a line package==version each: {error}") from None
    if bad := [f"{name}{version}" for name, version in found.items() if not version[:1].isdigit()]:
        raise InputError(f"{path} names no exact version of {', '.join(bad)}. Write package==version.")
    return found


def prune(home: Path, most: int, keep: Path) -> list[Path]:
    """Deletes the environments that were used longest ago, until all have at most so many bytes; those deleted."""
    there = sorted(
        (path.parent for path in home.glob(f"*/{RESOLVED}")), key=lambda one: (one / RESOLVED).stat().st_mtime
    )
    sizes = {path: _bytes(path) for path in there}
    gone: list[Path] = []
    for path in there:
        if sum(sizes.values()) <= most:
            break
        if path != keep:
            shutil.rmtree(path)
            del sizes[path]
            gone.append(path)
    return gone


def _bytes(directory: Path) -> int:
    return sum(path.lstat().st_size for path in directory.rglob("*"))


def _make(directory: Path, resolved: str) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    try:
        _uv(["venv", "--quiet", "--python", sys.executable, str(directory)])
        python = str(directory / "bin" / "python")
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
            file.write(resolved)
            file.flush()
            _uv(["pip", "install", "--quiet", "--no-deps", "--python", python, "--requirements", file.name])
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    (directory / RESOLVED).write_text(resolved, encoding="utf-8")


def _uv(arguments: Sequence[str], lines: Sequence[str] = ()) -> str:
    program = shutil.which("uv")
    if program is None:
        raise MissingPrerequisite(WITHOUT_UV)
    done = subprocess.run([program, *arguments], input="\n".join(lines), capture_output=True, text=True, check=False)
    if done.returncode:
        about = f" for {', '.join(lines)}" if lines else ""
        raise InputError(f"uv {' '.join(arguments[:2])}{about} failed:\n{done.stderr.strip()}")
    return done.stdout
