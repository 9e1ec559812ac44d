"""The files that outsiders look for: the citation, the changelog and the hooks before a commit."""

import configparser
import re
import tomllib
from typing import Any

import yaml

from tests.support.examples import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert [one["name"] for one in citation["authors"]] == [one["name"] for one in PROJECT["authors"]]


def test_the_changelog_begins_with_this_version() -> None:
    found = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert found and found[1] == PROJECT["version"]


def test_what_starts_inside_an_environment_is_installed_first() -> None:
    """`tox exec` installs no package: on a fresh clone the command would not be there."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    inside = {key: value for key, value in tox["inside"].items() if value.startswith("tox exec")}
    assert set(inside.values()) == {f"tox exec -q -e {key} --" for key in inside}
    started = 0
    for name, section in tox.items():
        made = section.get("commands_pre", "").partition("{[inside]make} ")[2].split(",")
        for key in inside:
            uses = f"{{[inside]{key}}}" in section.get("commands", "")
            started += uses
            assert key in made or not uses, f"{name} starts {key}, which may not be installed"
        assert "tox exec" not in section.get("commands", ""), f"{name} starts a command past [inside]"
    assert started


def test_the_licence_is_the_text_of_apache() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_a_hook_before_a_commit_fetches_no_code() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert {repository["repo"] for repository in hooks["repos"]} == {"local"}
    assert {hook["language"] for repository in hooks["repos"] for hook in repository["hooks"]} == {"system"}
