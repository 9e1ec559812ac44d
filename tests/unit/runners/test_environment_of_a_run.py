"""What reaches the process of a run: chosen variables, and code that is as recorded."""

import dataclasses
import importlib.util
import json
import marshal
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness.base import code as code_of_program
from harness.base.code import ROOT, other_bytecode, started_by_site
from harness.base.digest import digest_file
from harness.base.errors import EvidenceError, InputError
from harness.certify import environment
from harness.certify.flow import prepare
from harness.certify.jobs import job
from harness.evidence.bundle import read_bundle
from harness.evidence.provenance import read_environment, read_source
from harness.runners.environment_of_a_run import environment_of, left_out, recorded_variables
from harness.runners.launcher import Launcher
from harness.runs.trace import Run
from tests.support.bundles import write_example
from tests.support.examples import options, text_case

RUNNER = """
import json, os, sys
from pathlib import Path
from typing import Any
from tests.support.fake_runners import Fake
import beside

class Shows(Fake):
    def provenance(self):
        return {"variables": dict(os.environ), "modules": sorted(sys.modules), "path": sys.path, "beside": beside.VALUE}
"""
# name: a value that a run gets, and whether it is recorded
VARIABLES = {
    "HOME": ("/somewhere", False),
    "LC_ALL": ("C.UTF-8", False),
    "TMPDIR": ("/tmp", False),
    "ASCEND_PROCESS_LOG_PATH": ("/tmp/plog", False),
    "LD_LIBRARY_PATH": ("/opt/lib", True),
    "LD_PRELOAD": ("", True),
    "ATEN_CPU_CAPABILITY": ("default", True),
    "MKL_CBWR": ("COMPATIBLE", True),
    "MKL_ENABLE_INSTRUCTIONS": ("SSE4_2", True),
    "ONEDNN_MAX_CPU_ISA": ("SSE41", True),
    "DNNL_VERBOSE": ("0", True),
    "OMP_SCHEDULE": ("dynamic", True),
    "KMP_AFFINITY": ("none", True),
    "MS_DEV_RUNTIME_CONF": ("x", True),
    "HCCL_ALGO": ("ring", True),
    "ASCEND_RT_VISIBLE_DEVICES": ("1", True),
    "CUDA_VISIBLE_DEVICES": ("0", True),
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": ("1", True),
    "GLIBC_TUNABLES": ("glibc.cpu.x86_hwcaps=-AVX2_Usable", True),
}
KEPT_AWAY = (
    "http_proxy", "HTTPS_PROXY", "PYTHONSTARTUP", "PYTHONHOME", "PYTHONOPTIMIZE", "PYTHONPYCACHEPREFIX",
    "PYTHONINSPECT", "PYTHONUSERBASE", "PYTHONWARNINGS", "GIT_DIR", "BASH_ENV", "AWS_SECRET_ACCESS_KEY", "CI_JOB_TOKEN",
    "SUBJECT_ANSWERS",
)  # fmt: skip


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, (value, _) in VARIABLES.items():
        monkeypatch.setenv(name, value)
    for name in KEPT_AWAY:
        monkeypatch.setenv(name, "x")


def test_a_run_gets_the_variables_of_a_list_and_those_that_change_numbers_are_recorded(surroundings: None) -> None:
    given, recorded = environment_of("harness.runners.x:X"), recorded_variables(["harness.runners.x:X"])
    assert {name: given.get(name) for name in VARIABLES} == {name: value for name, (value, _) in VARIABLES.items()}
    assert {name for name in VARIABLES if name in recorded} == {name for name, (_, here) in VARIABLES.items() if here}
    assert not set(KEPT_AWAY) & set(given)
    assert given["PYTHONSAFEPATH"] == given["PYTHONNOUSERSITE"] == "1" and recorded["PYTHONNOUSERSITE"] == "1"


def test_the_path_of_modules_keeps_what_cann_adds_and_the_place_of_the_runner_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cann = tmp_path / "Ascend" / "latest"
    for name in ("Ascend/latest/python/site-packages", "own", "other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "own" / "a_runner_here.py").write_text("")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(cann))
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    places = [cann / "python/site-packages", tmp_path / "other", tmp_path / "own", cann / ".." / ".." / "other", ROOT]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, places)))
    kept = environment_of("a_runner_here:Runner")["PYTHONPATH"].split(os.pathsep)
    assert kept == [str(ROOT), str(places[0]), str(places[2])]
    assert recorded_variables(["a_runner_here:Runner"])["PYTHONPATH"] == os.pathsep.join(kept)
    assert left_out(["a_runner_here:Runner"]) == [str(places[1]), str(places[3])]


def take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, Path, str]:
    """A run of a runner in a file, with modules that Python imports by itself in many places."""
    home = tmp_path / "home" / ".local" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for place in (home, tmp_path / "path", tmp_path / "working"):
        place.mkdir(parents=True)
        for name in ("sitecustomize", "usercustomize"):
            (place / f"{name}.py").write_text("raise SystemExit('planted')\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "runner.py").write_text(RUNNER)
    (tmp_path / "mine" / "beside.py").write_text("VALUE = 1\n")
    monkeypatch.chdir(tmp_path / "working")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(tmp_path / "path"), str(ROOT))))
    entry = f"{tmp_path / 'mine' / 'runner.py'}:Shows"
    chosen = dataclasses.replace(options(tmp_path / "out"), subject=entry)
    case, _ = prepare(text_case(tmp_path), (), chosen)
    (run,) = Launcher(workers=1).execute([job(case, chosen, "subject-1")], case)
    return run, tmp_path / "out", entry


def test_nothing_that_lies_about_gets_into_a_run_and_its_file_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surroundings: None
) -> None:
    run, out, entry = take(tmp_path, monkeypatch)
    assert run.outcome.status == "completed" and run.trace is not None, run.outcome
    stated = run.trace.header.provenance
    assert stated["beside"] == 1 and not {"usercustomize"} & set(stated["modules"])
    assert not {str(tmp_path / name) for name in ("path", "working")} & set(stated["path"])
    assert not set(KEPT_AWAY) & set(stated["variables"])
    source = read_source(out / "source.json")
    assert source.runners is not None and source.runners[entry] == digest_file(tmp_path / "mine" / "runner.py")
    assert stated["runner_file"] == source.runners[entry] and len(stated["runner_code"]) == 64
    recorded = read_environment(out / "environment.json").variables
    assert recorded["MKL_CBWR"] == "COMPATIBLE" and recorded["OMP_NUM_THREADS"] == "1"


def test_another_module_beside_a_runner_is_another_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name, value in (("a", 1), ("b", 1), ("c", 2)):
        place = tmp_path / name
        place.mkdir()
        (place / "runner.py").write_text("import beside\n")
        (place / "beside.py").write_text(f"VALUE = {value}\n")
        script = (
            f"from harness.runners.registry import load_runner, runner_code\nimport json\ntry:\n load_runner('{place}/"
            f"runner.py:X')\nexcept AttributeError: pass\nprint(json.dumps(runner_code('{place}/runner.py:X')))"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
        )
        found.append(json.loads(done.stdout))
    assert found[0] == found[1] and found[0]["runner_file"] == found[2]["runner_file"]
    assert found[0]["runner_code"] != found[2]["runner_code"]


@pytest.mark.parametrize("stated", [None, "f" * 64])
def test_a_run_of_another_file_than_is_recorded_is_no_evidence(tmp_path: Path, stated: str | None) -> None:
    def other(header: Any) -> Any:
        more = {} if stated is None else {"runner_file": stated}
        return dataclasses.replace(header, provenance={**header.provenance, **more})

    runners = {"harness.runners.mindspore_subject:MindSporeSubject": "e" * 64}
    with pytest.raises(EvidenceError, match=r"code of the runner harness\.runners\.mindspore_subject"):
        read_bundle(write_example(tmp_path / "bundle", header=other, source={"runners": runners}).path)


def test_a_run_that_does_not_state_its_code_is_no_evidence(tmp_path: Path) -> None:
    def without(header: Any) -> Any:
        return dataclasses.replace(header, provenance={"threads": 1})

    assert read_bundle(write_example(tmp_path / "older", header=without, start=None).path).findings
    with pytest.raises(EvidenceError, match="does not state the code of this program"):
        write_example(tmp_path / "bundle", header=without)


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A copy of a part of the code, without bytecode."""
    for name in ("harness/base", "qwen3_model"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def planted(source: Path, text: str, flags: int, *, fits: bool = True) -> Path:
    """Bytecode of another text that Python takes for that of a source."""
    status, content = source.stat(), source.read_bytes()
    by = int(status.st_mtime).to_bytes(4, "little") + status.st_size.to_bytes(4, "little")
    if flags:
        by = importlib.util.source_hash(content)
    path = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
    path.parent.mkdir(exist_ok=True)
    head = importlib.util.MAGIC_NUMBER + flags.to_bytes(4, "little") + (by if fits else b"\0" * 8)
    path.write_bytes(head + marshal.dumps(compile(text, str(source), "exec")))
    return path


@pytest.mark.parametrize("flags", [0, 1, 3])
def test_bytecode_of_another_text_is_found(code: Path, flags: int) -> None:
    source = code / "harness" / "base" / "text.py"
    planted(source, source.read_text(), flags)
    assert list(other_bytecode(code)) == []
    path = planted(source, source.read_text() + "\nVALUE = 1\n", flags)
    assert list(other_bytecode(code)) == [path]


@pytest.mark.parametrize("flags", [0, 3])
def test_bytecode_that_python_compiles_again_is_not(code: Path, flags: int) -> None:
    planted(code / "harness" / "base" / "text.py", "VALUE = 1", flags, fits=False)
    assert list(other_bytecode(code)) == []


@pytest.mark.parametrize("name", ["planted.pyc", "text/__init__.pyc"])
def test_bytecode_without_a_source_is_found(code: Path, name: str) -> None:
    path = code / "harness" / "base" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(compile("VALUE = 1", "x", "exec")))
    assert list(other_bytecode(code)) == [path]


def test_bytecode_that_is_no_bytecode_is_found(code: Path) -> None:
    path = planted(code / "harness" / "base" / "text.py", "", 0)
    path.write_bytes(path.read_bytes()[:-3])
    assert list(other_bytecode(code)) == [path]


def test_no_run_begins_beside_bytecode_of_another_text(code: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted(code / "harness" / "base" / "text.py", "VALUE = 1", 0)
    monkeypatch.setattr(environment, "ROOT", code)
    with pytest.raises(InputError, match=r"Python would execute \S+text\S+, which does not hold what its source gives"):
        environment.source()


def test_what_python_executes_by_itself_is_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = ModuleType("usercustomize")
    planted.__file__ = str(tmp_path / "usercustomize.py")
    (tmp_path / "usercustomize.py").write_text("x = 1")
    monkeypatch.setitem(sys.modules, "usercustomize", planted)
    assert started_by_site()["usercustomize"] == digest_file(tmp_path / "usercustomize.py")


def test_files_that_python_reads_before_a_run_are_stated_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / "one", tmp_path / "other"]
    for place in places:
        place.mkdir()
        (place / "planted.pth").write_text(f"import os; os.environ['PLANTED'] = {place.name!r}")
    monkeypatch.setattr(site, "getsitepackages", lambda: list(map(str, places)))
    found = started_by_site()
    assert found["planted.pth"] == digest_file(places[0] / "planted.pth")
    assert found["planted.pth (2)"] == digest_file(places[1] / "planted.pth")


@pytest.mark.parametrize("how", ["by its path", "by its name", "after another one", "by the list of the machine"])
def test_a_library_that_is_loaded_before_all_others_is_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """One that this process has already stands for it."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    library = next(Path(line.split()[-1]) for line in lines if line.endswith((".so", ".so.6")))
    words = {"by its path": str(library), "by its name": library.name, "after another one": f"gone.so:{library}"}
    monkeypatch.setenv("LD_PRELOAD", words.get(how, ""))
    if how not in words:
        monkeypatch.setattr(code_of_program, "PRELOADED", tmp_path / "ld.so.preload")
        (tmp_path / "ld.so.preload").write_text(f"{library}\n")
        assert started_by_site()[str(tmp_path / "ld.so.preload")] == digest_file(tmp_path / "ld.so.preload")
    assert started_by_site()[str(library)] == digest_file(library)


# By variables that no run gets: they choose libraries, places of modules, code that is executed, or what is written.
NOT_PASSED = (
    "LD_AUDIT", "LD_DEBUG", "LD_DEBUG_OUTPUT", "LD_ORIGIN_PATH", "LD_PROFILE", "LD_USE_LOAD_BIAS", "GCONV_PATH",
    "LOCPATH", "NLSPATH", "MALLOC", "RES_OPTIONS", "HOSTALIASES", "LOCALDOMAIN", "GETCONF_DIR", "TZDIR",
    "PYTHONBREAKPOINT", "PYTHONCASEOK", "PYTHONDEVMODE", "PYTHONEXECUTABLE", "PYTHONHASHSEED", "PYTHONHOME",
    "PYTHONINSPECT", "PYTHONIOENCODING", "PYTHONMALLOC", "PYTHONNODEBUGRANGES", "PYTHONOPTIMIZE", "PYTHONPLATLIBDIR",
    "PYTHONPROFILEIMPORTTIME", "PYTHONPYCACHEPREFIX", "PYTHONSTARTUP", "PYTHONTRACEMALLOC", "PYTHONUSERBASE",
    "PYTHONUTF8", "PYTHONWARNINGS", "PYTHONDONTWRITEBYTECODE", "BASH_ENV", "ENV", "IFS", "PROMPT_COMMAND", "SHELLOPTS",
    "GIT_DIR", "GIT_EXEC_PATH", "GIT_SSH_COMMAND", "GIT_TEMPLATE_DIR", "GIT_CONFIG_COUNT", "GIT_EXTERNAL_DIFF",
    "COVERAGE_PROCESS_START", "COVERAGE_RCFILE", "PYTEST_ADDOPTS", "PYTEST_PLUGINS", "PYDEVD_LOAD_VALUES_ASYNC",
    "MPLCONFIGDIR", "MATPLOTLIBRC", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "XDG_DATA_HOME", "PIP_CONFIG_FILE",
    "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "AWS_SECRET_ACCESS_KEY",
    "HF_TOKEN", "SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "TMUX", "DOCKER_HOST",
)  # fmt: skip


@pytest.mark.parametrize("name", NOT_PASSED)
def test_a_variable_that_no_one_needs_gets_into_no_run(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "hostile")
    assert name not in environment_of("mindspore") and name not in recorded_variables(["mindspore"])


@pytest.mark.parametrize(
    "name",
    ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_BIND_NOW", "GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "OMP_SCHEDULE",
     "MKL_CBWR", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE", "MS_DEV_RUNTIME_CONF",
     "GOMP_CPU_AFFINITY"],
)  # fmt: skip
def test_a_variable_that_can_change_a_number_is_passed_and_recorded(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "hostile")
    assert environment_of("mindspore")[name] == recorded_variables(["mindspore"])[name] == "hostile"
