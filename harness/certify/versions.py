"""Which versions of the frameworks were tried, which are known not to work, and the set behind the published evidence.

Read from `toolchains/`: `tried.csv`, a line for each version or range, the first that holds; and `constraints.txt`, the
exact set. A version that no line names was not tried: that is said and recorded, and never a refusal.
"""

import csv
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

TOOLCHAINS = Path(__file__).parent / "toolchains"
CONSTRAINTS, TRIED = TOOLCHAINS / "constraints.txt", TOOLCHAINS / "tried.csv"


class VersionState(StrEnum):
    """What is known of a version of a package."""

    TRIED = "tried"
    NOT_TRIED = "not tried"
    NOT_WORKING = "does not work"


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of an installed version: its state, and why; of one that does not work also what to install."""

    package: str
    version: str
    state: VersionState
    note: str

    def __str__(self) -> str:
        return f"{self.package} {self.version}: {self.state}" + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True, kw_only=True)
class _Line:
    package: str
    versions: SpecifierSet
    state: VersionState
    note: str


def known(package: str, version: str) -> Known | None:
    """What is known of a version; None of a package whose versions are not followed here."""
    lines = [line for line in _lines() if line.package == package]
    if not lines:
        return None
    for line in lines:
        if _holds(line.versions, version):
            return Known(package=package, version=version, state=line.state, note=line.note)
    tried = ", ".join(str(line.versions).replace("==", "") for line in lines if line.state is VersionState.TRIED)
    return Known(package=package, version=version, state=VersionState.NOT_TRIED, note=f"tried were {tried}")


def all_known(installed: Mapping[str, str | None]) -> tuple[Known, ...]:
    """What is known of the installed packages whose versions are followed here."""
    found = (known(package, version) for package, version in installed.items() if version)
    return tuple(one for one in found if one is not None)


def not_tried(installed: Mapping[str, str | None]) -> tuple[str, ...]:
    """The installed versions that were not tried, in words."""
    return tuple(str(one) for one in all_known(installed) if one.state is VersionState.NOT_TRIED)


@functools.cache
def constraints(path: Path = CONSTRAINTS) -> Mapping[str, str]:
    """The version of each package that a file of constraints names exactly, whatever Python it is for."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    found = (Requirement(line) for line in lines if line)
    return {one.name.replace("-", "_"): str(one.specifier).removeprefix("==") for one in found}


def against_constraints(installed: Mapping[str, str | None], packages: tuple[str, ...]) -> str:
    """How the versions of these packages differ from the set behind the published evidence; empty if they do not."""
    named = constraints()
    # a local label such as +cpu states how a package was built, not its version
    found = {name: version.partition("+")[0] for name in packages if (version := installed.get(name))}
    return ", ".join(f"{name} {found[name]} instead of {named[name]}" for name in found if found[name] != named[name])


def _holds(versions: SpecifierSet, version: str) -> bool:
    try:
        # A build by hand, such as 2.9.0.dev20260101, is of its series.
        return versions.contains(Version(Version(version).public), prereleases=True)
    except InvalidVersion:
        return False


@functools.cache
def _lines() -> tuple[_Line, ...]:
    return tuple(_read(TRIED))


def _read(path: Path) -> Iterator[_Line]:
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield _Line(
                package=row["package"],
                versions=SpecifierSet(row["versions"]),
                state=VersionState(row["state"]),
                note=row["note"],
            )
