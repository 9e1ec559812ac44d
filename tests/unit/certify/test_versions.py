"""Which versions were tried: a version that no line names was not, and the files of exact sets name tried ones."""

import csv
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from harness.certify.versions import CONSTRAINTS, TOOLCHAINS, TRIED, VersionState, constraints, known, not_tried
from tests.support.examples import ROOT

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
RANGES = {one.name: one.specifier for extra in EXTRAS.values() for one in map(Requirement, extra)}
LINES = list(csv.DictReader(TRIED.open(encoding="utf-8", newline="")))
FOLLOWED = sorted({line["package"] for line in LINES})


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line['package']}{line['versions']}")
def test_a_range_holds_what_was_tried_and_nothing_that_does_not_work(line: dict[str, str]) -> None:
    if line["state"] == VersionState.TRIED:
        version = line["versions"].removeprefix("==")
        assert RANGES[line["package"]].contains(version)
        assert known(line["package"], version).state is VersionState.TRIED
    else:
        (bound,) = SpecifierSet(line["versions"])
        assert bound.operator == "<" and f">={bound.version}" in str(RANGES[line["package"]])
        assert "pip install" in line["note"]


@pytest.mark.parametrize("name", ["constraints.txt", "oldest.txt", "newest.txt"])
def test_an_exact_set_names_tried_versions(name: str) -> None:
    named = constraints(TOOLCHAINS / name)
    assert {"mindspore", "torch", "transformers", "numpy"} <= set(named)
    assert not_tried({package: version for package, version in named.items() if package in FOLLOWED}) == ()


@pytest.mark.parametrize("package", FOLLOWED)
def test_a_version_that_no_line_names_was_not_tried(package: str) -> None:
    found = known(package, "99.0.1")
    assert found is not None and found.state is VersionState.NOT_TRIED and found.note.startswith("tried were ")
    assert not_tried({package: "99.0.1"}) == (str(found),)


def test_the_build_of_a_version_is_that_version() -> None:
    version = constraints(CONSTRAINTS)["torch"]
    found = known("torch", f"{version}+cpu")
    assert found is not None and found.state is VersionState.TRIED
    assert known("numpy", "1.0") is None and not_tried({"mindspore": None}) == ()
