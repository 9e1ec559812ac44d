"""Distributions of the project, made from the files of the checkout, and an environment that has only the wheel."""

import os
import subprocess
import sys
import sysconfig
import tarfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.examples import ROOT

PACKAGES = ("harness", "qwen3_model")


def files_of_the_checkout() -> list[str]:
    """Relative POSIX paths of all files that git tracks or would track, sorted."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted(name for name in set(listed) if name and (ROOT / name).is_file())


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """The wheel, and the copy of the checkout's files that it was made from."""

    copy: Path
    files: tuple[str, ...]
    wheel: Path

    @property
    def packaged(self) -> set[str]:
        """The files of both packages."""
        return {name for name in self.files if name.split("/")[0] in PACKAGES}


@dataclass(frozen=True, kw_only=True)
class Distributions(Wheel):
    """The source distribution too."""

    sdist: Path


def build_wheel(directory: Path) -> Wheel:
    """The wheel. It is built in a copy, because setuptools packs what an earlier build left behind."""
    copy, files = _copied(directory)
    return Wheel(copy=copy, files=files, wheel=run_backend("build_wheel", copy, directory))


def build(directory: Path) -> Distributions:
    """Both distributions, built in a copy too."""
    copy, files = _copied(directory)
    sdist = run_backend("build_sdist", copy, directory)
    wheel = run_backend("build_wheel", copy, directory)
    return Distributions(copy=copy, files=files, wheel=wheel, sdist=sdist)


def _copied(directory: Path) -> tuple[Path, tuple[str, ...]]:
    copy, files = directory / "checkout", files_of_the_checkout()
    for name in files:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes((ROOT / name).read_bytes())
    return copy, tuple(files)


def run_backend(hook: str, source: Path, out: Path) -> Path:
    """What a hook of the build backend makes from a source directory, with the setuptools that is installed here."""
    program = f"import sys, setuptools.build_meta as backend; backend.{hook}(sys.argv[1])"
    before = set(out.glob("*.*"))
    done = subprocess.run([sys.executable, "-c", program, out], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = set(out.glob("*.*")) - before
    return made


def unpacked(sdist: Path, directory: Path) -> Path:
    """The source directory of a source distribution."""
    with tarfile.open(sdist) as archive:
        archive.extractall(directory, filter="data")
    (root,) = directory.iterdir()
    return root


@dataclass(frozen=True, kw_only=True)
class Installed:
    """An environment with the wheel: its directory of commands, and its directory of packages."""

    commands: Path
    packages: Path

    def run(
        self, command: str, *words: object, inside: Path, timeout: float = 120
    ) -> "subprocess.CompletedProcess[str]":
        """A command of the environment in a directory; no variable leads back to the checkout."""
        variables = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
        }
        return subprocess.run(
            [self.commands / command, *map(str, words)],
            cwd=inside,
            env={**variables, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )


def install(wheel: Path, directory: Path) -> Installed:
    """A new environment with the wheel. Other packages are those of this environment, but no editable install of it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    installed = Installed(
        commands=directory / "bin",
        packages=directory / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages",
    )
    pip = [sys.executable, "-m", "pip", "--python", installed.commands / "python", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True)
    # A path in a .pth file is searched, and the .pth files in it are not run: an editable install is one of those.
    here = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (installed.packages / "packages_of_the_tests.pth").write_text("".join(f"{path}\n" for path in sorted(here)))
    return installed
