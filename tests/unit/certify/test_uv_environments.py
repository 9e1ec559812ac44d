"""Environments of other versions: one for each resolved set, made whole or not at all, and pruned by bytes."""

import os
from pathlib import Path

import pytest

from harness.base.errors import InputError, MissingPrerequisite
from harness.certify.prerequisites import OF_A_WORKER
from harness.certify.uv_environments import RESOLVED, interpreter_of, prune, versions_of
from harness.certify.versions import CONSTRAINTS, constraints

# It resolves to what it is given, makes an environment as an empty directory, and writes down its calls.
UV = """#!/bin/sh
echo "$*" >> {calls}
case "$1 $2" in
  "pip compile") cat | sort; [ ! -e {broken} ];;
  "pip install") [ ! -e {broken}-install ] || {{ echo "no wheel for this machine" >&2; exit 1; }};;
  "venv --quiet") for last; do :; done; mkdir -p "$last/bin"; touch "$last/bin/python";;
esac
"""


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the calls of a program named uv."""
    program, calls = tmp_path / "bin" / "uv", tmp_path / "calls"
    program.parent.mkdir()
    program.write_text(UV.format(calls=calls, broken=tmp_path / "broken"))
    program.chmod(0o755)
    calls.touch()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return calls


def test_what_resolves_to_the_same_is_one_environment_that_is_made_once(uv: Path, tmp_path: Path) -> None:
    named = interpreter_of({"mindspore": "2.7.2", "torch": constraints()["torch"]}, tmp_path / "home")
    assert interpreter_of({"mindspore": "2.7.2"}, tmp_path / "home") == named and named.is_file()
    assert interpreter_of({"mindspore": "2.8.0"}, tmp_path / "home") != named
    assert uv.read_text().count("venv") == 2
    resolved = (named.parent.parent / RESOLVED).read_text().split()
    versions = constraints()
    assert set(resolved) == {
        "mindspore==2.7.2",
        f"torch=={versions['torch']}",
        f"transformers=={versions['transformers']}",
        *OF_A_WORKER,
    }


def test_an_environment_that_could_not_be_made_is_not_there(uv: Path, tmp_path: Path) -> None:
    (tmp_path / "broken-install").touch()
    with pytest.raises(InputError, match="no wheel for this machine"):
        interpreter_of({"mindspore": "2.7.2"}, tmp_path / "home")
    assert list((tmp_path / "home").glob("*")) == []
    (tmp_path / "broken-install").unlink()
    assert interpreter_of({"mindspore": "2.7.2"}, tmp_path / "home").is_file()


def test_versions_that_do_not_exist_are_named(uv: Path, tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(InputError, match=r"uv pip compile for mindspore==0\.0\.1.* failed"):
        interpreter_of({"mindspore": "0.0.1"}, tmp_path / "home")


def test_without_uv_the_remedy_names_interpreters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPrerequisite, match=r"pip install uv; .* --subject-python PATH"):
        interpreter_of({"mindspore": "2.7.2"}, tmp_path / "home")


def test_what_was_used_longest_ago_is_deleted_until_the_bytes_are_few(tmp_path: Path) -> None:
    for age, name in enumerate(("old", "middle", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_bytes(bytes(1000))
        (tmp_path / name / RESOLVED).touch()
        os.utime(tmp_path / name / RESOLVED, (1000 + age, 1000 + age))
    assert prune(tmp_path, 3000, keep=tmp_path / "new") == []
    assert prune(tmp_path, 1500, keep=tmp_path / "old") == [tmp_path / "middle", tmp_path / "new"]
    assert (tmp_path / "old" / "content").is_file()


def test_a_file_of_constraints_names_exact_versions(tmp_path: Path) -> None:
    assert versions_of(CONSTRAINTS)["mindspore"] == constraints()["mindspore"]
    (tmp_path / "loose.txt").write_text("mindspore>=2.7\n")
    with pytest.raises(InputError, match=r"no exact version of mindspore>=2\.7"):
        versions_of(tmp_path / "loose.txt")
    (tmp_path / "words.txt").write_text("the newest, please\n")
    with pytest.raises(InputError, match="is no file of constraints"):
        versions_of(tmp_path / "words.txt")
    with pytest.raises(InputError, match=r"nowhere\.txt cannot be read: No such file or directory\.$"):
        versions_of(tmp_path / "nowhere.txt")
