"""The workflows of GitHub and GitLab: what they may do, what they run, and on which versions of Python."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.examples import ROOT

GITHUB = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TESTS = ROOT / ".github" / "workflows" / "tests.yml"
GITLAB = ROOT / ".gitlab-ci.yml"
VERSION = "v[0-9]+[.][0-9]+[.][0-9]+"


def read(path: Path) -> dict[str, Any]:
    # as text alone: YAML 1.1 reads the key `on` as true
    return dict(yaml.load(path.read_text(), yaml.BaseLoader))


def values(record: object, key: str) -> Iterator[Any]:
    """Every value of a key, at any depth."""
    if isinstance(record, dict):
        if key in record:
            yield record[key]
        record = list(record.values())
    if isinstance(record, list):
        for one in record:
            yield from values(one, key)


def readme_command() -> str:
    """The command of the README's section of tests."""
    found = re.search(r"^## .*[Tt]est.*\n+```\w*\n(.+)\n```", (ROOT / "README.md").read_text(), re.M)
    assert found
    return found[1]


def stated_versions() -> list[str]:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    return [found[1] for line in classifiers if (found := re.search(r":: Python :: (3\.\d+)$", line))]


@pytest.mark.parametrize("path", GITHUB, ids=lambda path: path.name)
def test_an_action_is_pinned_by_its_commit_and_names_its_version(path: Path) -> None:
    used = list(values(read(path), "uses"))
    pinned = re.findall(rf"uses: ([\w/-]+@[0-9a-f]{{40}}) # {VERSION}$", path.read_text(), re.M)
    assert used and pinned == used


def test_an_action_has_one_version_everywhere() -> None:
    used = {use for path in GITHUB for use in values(read(path), "uses")}
    assert len({use.partition("@")[0] for use in used}) == len(used)


@pytest.mark.parametrize("path", GITHUB, ids=lambda path: path.name)
def test_a_workflow_may_read_the_code_and_nothing_more(path: Path) -> None:
    assert list(values(read(path), "permissions")) == [{"contents": "read"}]
    assert set(values(read(path), "persist-credentials")) == {"false"}


def test_every_push_and_every_request_runs_the_readmes_test_command() -> None:
    github = read(TESTS)
    assert set(github["on"]) == {"push", "pull_request"}
    assert readme_command() in list(values(github, "run"))
    assert any(readme_command() in script for script in values(read(GITLAB), "script"))


def test_the_unit_tests_run_on_every_version_that_is_stated() -> None:
    assert [one["python"] for one in next(values(read(TESTS), "include"))] == stated_versions()
    assert [one["PYTHON"] for one in next(values(read(GITLAB), "matrix"))] == stated_versions()


@pytest.mark.parametrize("path", [TESTS, GITLAB], ids=lambda path: path.name)
def test_an_environment_that_a_matrix_names_is_of_its_version(path: Path) -> None:
    for one in next(values(read(path), "include" if path == TESTS else "matrix")):
        python, environment = one.values()
        assert environment == ("unit" if python == "3.11" else f"unit-py{python.replace('.', '')}")
