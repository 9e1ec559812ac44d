"""What surrounds a command changes no number and executes nothing: directories, settings, limits, locales."""

import ast
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.base.code import ROOMS, ROOT
from harness.runs.trace import Run
from tests.support.full import full
from tests.unit.runners.test_protection import NAMESPACES, Bench

MARKER = "executed"
PLANT = "import pathlib; pathlib.Path({where!r}, 'executed').write_text(__file__)\n"
Surround = Callable[[Path, pytest.MonkeyPatch], object]


def variable(**values: str) -> Surround:
    def surround(root: Path, patch: pytest.MonkeyPatch) -> None:
        for name, value in values.items():
            patch.setenv(name, value.format(root=root))

    return surround


def link(name: str) -> Surround:
    """A variable that names a link to a directory."""

    def surround(root: Path, patch: pytest.MonkeyPatch) -> None:
        (root / "real").mkdir()
        (root / "link").symlink_to(root / "real")
        patch.setenv(name, str(root / "link"))

    return surround


def home_with_settings(root: Path, patch: pytest.MonkeyPatch) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = root / "home" / ".local" / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    for name in ("usercustomize.py", "sitecustomize.py", "numpy.py", "harness.py"):
        (packages / name).write_text(PLANT.format(where=str(root)))
    (packages / "planted.pth").write_text(f"import pathlib; pathlib.Path({str(root)!r}, 'executed').touch()\n")
    for name in (".pythonrc", ".pythonrc.py", ".config/matplotlib/matplotlibrc", ".bashrc", ".profile", ".condarc"):
        (root / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "home" / name).write_text(f"touch {root}/executed\n")
    patch.setenv("HOME", str(root / "home"))


def limit(kind: int, soft: int) -> Surround:
    def surround(root: Path, patch: pytest.MonkeyPatch) -> None:
        resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))

    return surround


SURROUNDINGS: dict[str, Surround] = {
    "`TMPDIR` is a link": link("TMPDIR"),
    "`TMPDIR` is not there": variable(TMPDIR="{root}/gone"),
    "`TMPDIR` is the working directory": variable(TMPDIR="."),
    "home is a link": link("HOME"),
    "home is not there": variable(HOME="{root}/gone"),
    "home is the working directory": variable(HOME="{root}"),
    "a home with settings and packages": home_with_settings,
    "a Turkish locale": variable(LC_ALL="tr_TR.UTF-8", LANG="tr_TR.UTF-8"),
    "a locale that is not there": variable(LC_ALL="xx_XX.nothing", LANGUAGE="../../x"),
    "a time zone that is a path": variable(TZ=":/etc/passwd"),
    "every permission for new files": lambda root, patch: os.umask(0),
    "no permission of others for new files": lambda root, patch: os.umask(0o077),
    "64 open files": limit(resource.RLIMIT_NOFILE, 64),
    "a stack of one megabyte": limit(resource.RLIMIT_STACK, 1 << 20),
    "no core dumps": limit(resource.RLIMIT_CORE, 0),
}
LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_STACK, resource.RLIMIT_CORE)


@pytest.fixture
def restored() -> object:
    """Limits and mask as they were."""
    before, mask = {kind: resource.getrlimit(kind) for kind in LIMITS}, os.umask(0o022)
    yield
    os.umask(mask)
    for kind, values in before.items():
        resource.setrlimit(kind, values)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return Bench(root).take(NAMESPACES, "LeavesALink", "subject-1")[0]


TOGETHER = (
    "`TMPDIR` is a link", "a home with settings and packages", "a Turkish locale", "a time zone that is a path",
    "every permission for new files", "64 open files", "a stack of one megabyte",
)  # fmt: skip


def check_surrounded(root: Path, patch: pytest.MonkeyPatch, plain: Run, *names: str) -> None:
    patch.chdir(root)
    bench = Bench(root)
    for name in names:
        SURROUNDINGS[name](root, patch)
    (run,) = bench.take(NAMESPACES, "LeavesALink", "subject-1")
    assert run.outcome.status == "completed", run.outcome
    assert run.trace is not None and plain.trace is not None
    assert run.trace.steps == plain.trace.steps and run.trace.footer is not None
    assert not list(root.rglob(MARKER))
    assert not [path for path in (bench.out / "runs").rglob("*") if path.is_symlink()]


@pytest.mark.usefixtures("restored")
def test_what_surrounds_a_run_changes_no_number_and_executes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: Run
) -> None:
    check_surrounded(tmp_path, monkeypatch, plain, *TOGETHER)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("name", SURROUNDINGS)
@full(
    held_by="tests/unit/runners/test_surroundings.py::test_what_surrounds_a_run_changes_no_number_and_executes_nothing"
)
def test_each_thing_that_surrounds_a_run_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: Run, name: str
) -> None:
    check_surrounded(tmp_path, monkeypatch, plain, name)


# What lies in the working directory of a command: settings of tools, modules under the names of others, hooks of git.
PLANTED = (
    "conftest.py", "sitecustomize.py", "usercustomize.py", "typer.py", "rich.py", "yaml.py", "json.py", "numpy.py",
    "pydantic.py", "pytest.py", "harness/__init__.py", "harness/cli/__init__.py", "qwen3_model/__init__.py",
    "readline.py", "site.py", "encodings/__init__.py",
)  # fmt: skip
SETTINGS = {
    "pytest.ini": "[pytest]\naddopts = -p conftest\n",
    "tox.ini": "[pytest]\naddopts = -p conftest\n",
    "setup.cfg": "[tool:pytest]\naddopts = -p conftest\n",
    "pyproject.toml": '[project]\nname = "mindspore-certify"\n[project.scripts]\ncertify = "conftest:x"\n',
    ".coveragerc": "[run]\nplugins = conftest\n",
    ".env": "PYTHONPATH=.\nPYTHONSTARTUP=conftest.py\n",
    "pyvenv.cfg": "home = .\n",
    "python311.zip": "",
}


def test_nothing_that_lies_in_the_working_directory_is_executed(tmp_path: Path) -> None:
    for name in PLANTED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(PLANT.format(where=str(tmp_path)))
    for name, content in SETTINGS.items():
        (tmp_path / name).write_text(content)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    hook = f"#!/bin/sh\ntouch {tmp_path}/executed\n"
    for name in ("post-checkout", "post-index-change", "fsmonitor", "reference-transaction", "git"):
        path = tmp_path / ".git" / "hooks" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(hook)
        path.chmod(0o755)
    with (tmp_path / ".git" / "config").open("a") as config:
        config.write(f"[core]\n fsmonitor = {path}\n pager = {path}\n sshCommand = {path}\n[alias]\n show = !{path}\n")
    certify = Path(sys.executable).parent / "certify"
    for words, code in ((["env", "--json"], 0), (["verify", "."], 2)):
        done = subprocess.run([certify, *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert not (tmp_path / MARKER).exists(), (tmp_path / MARKER).read_text()


def test_no_duration_is_by_a_clock_that_can_be_set() -> None:
    """`time.time` is the clock of the machine; `monotonic` and `perf_counter` are not set by anyone."""
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if (node.value.id, node.attr) in {("time", "time"), ("time", "time_ns"), ("time", "clock_gettime")}
    ]
    assert len(files) > 200 and calls == []
