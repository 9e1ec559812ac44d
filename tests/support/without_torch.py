"""An environment with what an extra of this project installs and nothing else, made of links in a second.

What the extra `mindspore` requires, and what that requires in turn, is linked from the environment of the tests.
PyTorch and Hugging Face's libraries are not among it, so nothing can import them there.
"""

import importlib.metadata
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "mindspore-certify"
HERE = Path(sysconfig.get_path("purelib"))


def environment(directory: Path, extra: str) -> Path:
    """The interpreter of a new environment for an extra of the project."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    packages = directory / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for name in distributions(PROJECT, extra):
        for top in {path.parts[0] for path in _installed(name).files or ()} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(HERE / top)
    return directory / "bin" / "python"


def distributions(name: str, extra: str) -> set[str]:
    """The names of a distribution and of all that it requires with an extra, as they are installed here."""
    found, left = set[str](), [(name, extra)]
    done = set[tuple[str, str]]()
    while left:
        if (one := left.pop()) in done:
            continue
        done.add(one)
        found.add(one[0])
        left += _required(*one)
    return found


def _required(name: str, extra: str) -> Iterator[tuple[str, str]]:
    for line in _installed(name).requires or ():
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
            for more in ("", *wanted.extras):
                yield canonicalize_name(wanted.name), more


def _installed(name: str) -> importlib.metadata.Distribution:
    """A distribution as it is installed here; the directory of this checkout holds metadata of the project too."""
    return next(iter(importlib.metadata.Distribution.discover(name=name, path=[str(HERE)])))
