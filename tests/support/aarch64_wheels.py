"""Whether the index has a wheel for aarch64 and CPython 3.11, as of Atlas machines, of each package of an extra.

    python -m tests.support.aarch64_wheels [EXTRA...]

The versions are those that are installed here; what only another processor needs is omitted. pip is asked for each
package alone and installs nothing, so one that has no wheel does not hide another. Exit code 1: some have none.
"""

import importlib.metadata
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "mindspore-certify"
EXTRAS = ("run", "plan", "inference", "mindformers", "ascend", "tensorboard", "qwen", "pytest")
TARGET = {"platform_machine": "aarch64", "sys_platform": "linux", "python_version": "3.11", "platform_system": "Linux"}
# What the systems of Atlas machines accept: openEuler 22.03 has glibc 2.34, Ubuntu 22.04 has 2.35.
PLATFORMS = [f"manylinux_2_{minor}_{{}}" for minor in (34, 31, 28, 27, 26, 24, 17)] + ["manylinux2014_{}", "linux_{}"]
Requires = Callable[[str], Iterable[str] | None]


def installed(name: str) -> Iterable[str] | None:
    """The requirements of an installed package; None if it is not installed."""
    try:
        return importlib.metadata.requires(name) or ()
    except importlib.metadata.PackageNotFoundError:
        return None


def brought(extras: Iterable[str], requires: Requires = installed) -> dict[str, bool]:
    """Every package that extras bring on such a machine, with whether it is installed here."""
    waiting = [Requirement(f"{PROJECT}[{','.join(extras)}]")]
    seen, found = set[tuple[str, frozenset[str]]](), dict[str, bool]()
    while waiting:
        one = waiting.pop()
        name, wanted = canonicalize_name(one.name), frozenset(one.extras)
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        own = requires(name)
        if name != PROJECT:
            found[name] = own is not None
        waiting += [needed for text in own or () if _applies(needed := Requirement(text), wanted)]
    return found


def _applies(needed: Requirement, extras: frozenset[str]) -> bool:
    return needed.marker is None or any(needed.marker.evaluate({**TARGET, "extra": extra}) for extra in ("", *extras))


def has_wheel(requirement: str, machine: str = "aarch64") -> str:
    """Why pip finds no wheel of a requirement for a kind of processor; empty if it does."""
    with tempfile.TemporaryDirectory() as nowhere:
        command = [
            sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed",
            "--only-binary=:all:", "--implementation=cp", "--python-version=3.11", "--abi=cp311", "--abi=abi3",
            "--abi=none", *(f"--platform={one.format(machine)}" for one in PLATFORMS), "--target", nowhere, requirement,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return "" if done.returncode == 0 else (errors or [done.stderr.strip()])[-1]


def main(extras: list[str]) -> int:
    """Prints a line for each package that has no wheel, or that is not installed here."""
    lacking: Mapping[str, str] = {}
    packages = brought(extras or EXTRAS)
    for name, is_here in sorted(packages.items()):
        # a local version, such as +cpu, is of an index of its own
        requirement = f"{name}=={importlib.metadata.version(name).partition('+')[0]}" if is_here else name
        if why := has_wheel(requirement):
            lacking = {**lacking, requirement: why}
            elsewhere = "; source alone, on every machine" if has_wheel(requirement, "x86_64") else ""
            print(f"{requirement}: {why}{elsewhere}", flush=True)
    print(f"{len(packages) - len(lacking)} of {len(packages)} packages have a wheel for aarch64 and CPython 3.11.")
    return 1 if lacking else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
