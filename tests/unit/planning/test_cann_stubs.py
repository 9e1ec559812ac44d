"""Stub libraries of CANN: what compiles them, and what is read off MindSpore's libraries."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.base.errors import MissingPrerequisite
from harness.planning import cann_stubs, libraries

MULTIARRAY = next(Path(np.__file__).parent.rglob("_multiarray_umath*.so"))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on the PATH, empty."""
    (directory := tmp_path / "path").mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The packages that are installed; a test adds to them."""
    packages: set[str] = set()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in packages else None)
    return packages


def program(directory: Path, name: str) -> str:
    (path := directory / name).write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_a_compiler_on_the_path_comes_before_the_wheel(path: Path, installed: set[str]) -> None:
    installed |= {cann_stubs.WHEEL, libraries.READER}
    assert cann_stubs.compiler() == [sys.executable, "-m", "ziglang", "cc"]
    clang = program(path, "clang")
    assert cann_stubs.compiler() == [clang]
    gcc = program(path, "gcc")
    assert cann_stubs.compiler() == [gcc]


@pytest.mark.parametrize(
    ("packages", "missing"),
    [
        (set(), r"a C compiler \(cc, gcc, clang or ziglang\) and pyelftools is missing"),
        ({cann_stubs.WHEEL}, "libraries, and pyelftools is missing"),
        ({libraries.READER}, r"libraries, and a C compiler \(cc, gcc, clang or ziglang\) is missing"),
    ],
)
def test_a_missing_tool_is_named_with_the_command_that_installs_it(
    path: Path, installed: set[str], tmp_path: Path, packages: set[str], missing: str
) -> None:
    installed |= packages
    with pytest.raises(MissingPrerequisite, match=missing) as refused:
        cann_stubs.stub_libraries(tmp_path / "mindspore", "2.9.0", tmp_path / "cache")
    assert "pip install pyelftools ziglang" in str(refused.value) and refused.value.exit_code == 2
    assert not (tmp_path / "cache").exists()


def test_a_compiler_that_fails_is_named_with_its_message(path: Path, tmp_path: Path) -> None:
    failing = path / "cc"
    failing.write_text("#!/bin/sh\necho no room left >&2\nexit 1\n")
    failing.chmod(0o755)
    plugin = tmp_path / "mindspore" / "lib" / "plugin" / "libmindspore_ascend.so.2"
    plugin.parent.mkdir(parents=True)
    plugin.symlink_to(MULTIARRAY)
    with pytest.raises(MissingPrerequisite, match="cc could not make a stub library:\nno room left"):
        cann_stubs.stub_libraries(tmp_path / "mindspore", "2.9.0", tmp_path / "cache")
    assert [one.name for one in (tmp_path / "cache" / "cann-stubs").iterdir()] == []


def test_defined_needed_and_linked_names_are_read_from_a_library() -> None:
    assert "PyInit__multiarray_umath" in libraries.defined([MULTIARRAY])
    assert {"PyErr_SetString", "memcpy"} <= libraries.undefined([MULTIARRAY])
    assert not libraries.defined([MULTIARRAY]) & libraries.undefined([MULTIARRAY])
    assert "libc.so.6" in libraries.linked([MULTIARRAY])
    found = libraries.system_library("libc.so.6")
    assert found is not None and "memcpy" in libraries.defined([found])
    assert libraries.system_library("libascendcl.so") is None


def test_weak_symbols_are_not_needed() -> None:
    """Every library names `__gmon_start__`, and none has it."""
    assert "__gmon_start__" not in libraries.undefined([MULTIARRAY])
