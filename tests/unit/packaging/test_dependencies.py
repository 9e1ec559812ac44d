"""Every imported package is declared, in the core where the judging half needs it; nothing is declared unused."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from harness.certify.versions import constraints
from tests.support.distribution import PACKAGES
from tests.support.examples import ROOT

CONFIG: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
NAME = CONFIG["project"]["name"]
# of those whose name on the index is another
DISTRIBUTIONS = {"yaml": "pyyaml", "elftools": "pyelftools"}
OF_CANN = ("absl-py", "attrs", "cffi", "cython", "decorator", "pathlib2", "protobuf", "psutil", "requests", "sympy")
NOT_IMPORTED = {
    **dict.fromkeys(OF_CANN, "CANN's own packages import it"),
    "dashscope": "Qwen's vocabulary is a file in it",
    "ziglang": "it runs as a program",
}


def declared(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(one).name) for one in requirements} - {NAME}


CORE = declared(CONFIG["project"]["dependencies"])
EXTRAS = declared([one for extra in CONFIG["project"]["optional-dependencies"].values() for one in extra])


def imported(tree: ast.Module, everywhere: bool) -> Iterator[str]:
    """The distributions that a module imports: all of them, or those that importing it brings."""
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
        else:
            continue
        tops = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - set(PACKAGES)
        yield from (canonicalize_name(DISTRIBUTIONS.get(top, top)) for top in tops)


def imports(everywhere: bool = True) -> dict[Path, set[str]]:
    """What each module of both packages imports."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {path: set(imported(ast.parse(path.read_text()), everywhere)) for path in paths}


def judging_half() -> tuple[str, ...]:
    """The packages that may import no framework, by the import contract."""
    contracts = CONFIG["tool"]["importlinter"]["contracts"]
    named = {
        name
        for contract in contracts
        if contract["type"] == "forbidden" and "mindspore" in contract["forbidden_modules"]
        for name in contract["source_modules"]
    }
    return tuple(sorted(named))


def test_every_import_is_declared() -> None:
    undeclared = {str(path.relative_to(ROOT)): names - CORE - EXTRAS for path, names in imports().items()}
    assert {path: names for path, names in undeclared.items() if names} == {}


def test_the_judging_half_imports_core_dependencies_alone() -> None:
    assert {"harness.levels", "harness.report", "harness.evidence"} <= set(judging_half())
    places = tuple(str(ROOT / name.replace(".", "/")) for name in judging_half())
    missing = {
        str(path.relative_to(ROOT)): names - CORE
        for path, names in imports(everywhere=False).items()
        if str(path).startswith(places) and names - CORE
    }
    assert missing == {}


def test_every_dependency_is_imported() -> None:
    used = set().union(*imports().values())
    assert CORE - used == set()
    assert EXTRAS - used == set(NOT_IMPORTED)


def test_mindspores_limits_bind_nothing_else() -> None:
    """NumPy 2 is refused by the wheels of MindSpore that need it alone, and new Python versions by nothing here."""
    numpy = {str(Requirement(one).specifier) for one in CONFIG["project"]["dependencies"] if one.startswith("numpy")}
    assert len(numpy) == 1 and not re.search("<|==|~=", numpy.pop())
    assert not re.search("<|==|~=", CONFIG["project"]["requires-python"])


def test_an_environment_of_the_tests_has_the_version_of_the_constraints() -> None:
    """It installs its own dependencies first, so another version would be installed and replaced."""
    stated = re.findall(r"^ +([\w-]+)==(\S+)$", (ROOT / "tox.ini").read_text(encoding="utf-8"), re.MULTILINE)
    assert ("torch", constraints()["torch"]) in stated
    assert all(version == constraints().get(name, version) for name, version in stated)
