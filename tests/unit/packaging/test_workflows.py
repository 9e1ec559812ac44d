"""The workflows of GitHub and GitLab: what they may do, what they run, and on which versions of Python."""

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.examples import ROOT

TEMPLATES = ROOT / "docs" / "several-machines"
SHARES = {"github": 4, "gitlab": 4, "slurm": 8, "kubernetes": 8, "volcano": 8}
GITHUB = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TESTS = ROOT / ".github" / "workflows" / "tests.yml"
GITLAB = ROOT / ".gitlab-ci.yml"
VERSION = "v[0-9]+[.][0-9]+[.][0-9]+"


def template(engine: str) -> Path:
    (found,) = TEMPLATES.glob(f"{engine}-parts.*")
    return found


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


def test_every_engine_has_a_template() -> None:
    assert {path.name.partition("-")[0] for path in TEMPLATES.iterdir()} == set(SHARES)


@pytest.mark.parametrize("engine", SHARES)
def test_a_template_runs_every_part_of_its_number_once(engine: str) -> None:
    """What the shell makes of its command, for each index that the engine gives."""
    path, shares = template(engine), SHARES[engine]
    commands = [
        " ".join(line.split())
        for line in re.findall(r"certify nightly (?:[^\n]|\n +--)*--part[^\n]*(?:\n +--[^\n]*)?", path.read_text())
    ]
    assert len(commands) == 1
    found = re.search(r"--part (\$\(\([^)]*\)\)|\$\{\{[^}]*\}\}|\S+?)/(\d+)", commands[0].replace('"', ""))
    assert found and int(found[2]) == shares
    parts = [part_of(found[1], index, engine) for index in indices(engine)]
    assert sorted(parts) == list(range(1, shares + 1))
    assert "--history" in commands[0]


def indices(engine: str) -> list[int]:
    """The numbers that an engine gives to the tasks of a template."""
    if engine == "slurm":
        found = re.search(r"--array=(\d+)-(\d+)", template(engine).read_text())
        assert found
        return list(range(int(found[1]), int(found[2]) + 1))
    content = read(template(engine))
    if engine == "github":
        return [int(one) for one in content["jobs"]["part"]["strategy"]["matrix"]["part"]]
    if engine == "gitlab":
        return [int(one) for one in content["part"]["parallel"]["matrix"][0]["PART"]]
    if engine == "kubernetes":
        assert (content["apiVersion"], content["kind"]) == ("batch/v1", "Job")
        assert content["spec"]["completionMode"] == "Indexed"
        assert content["spec"]["completions"] == content["spec"]["parallelism"]
        return list(range(int(content["spec"]["completions"])))
    assert content["apiVersion"].startswith("batch.volcano.sh/") and "env" in content["spec"]["plugins"]
    return list(range(int(content["spec"]["tasks"][0]["replicas"])))


def part_of(expression: str, index: int, engine: str) -> int:
    """The part of a task: what its shell makes of an expression, or GitHub of its own."""
    variables = {"github": None, "gitlab": "PART", "slurm": "SLURM_ARRAY_TASK_ID"}
    name = variables.get(engine, {"kubernetes": "JOB_COMPLETION_INDEX", "volcano": "VC_TASK_INDEX"}.get(engine))
    if name is None:
        assert expression == "${{ matrix.part }}"
        return index
    given = {"PATH": "/usr/bin:/bin", str(name): str(index)}
    done = subprocess.run(["bash", "-uc", f"echo {expression}"], capture_output=True, text=True, env=given, check=True)
    return int(done.stdout)


def test_a_container_of_the_night_has_the_devices_and_the_driver() -> None:
    container = read(ROOT / ".github" / "workflows" / "nightly-ascend.yml")["jobs"]["in-a-container"]["container"]
    devices = set(re.findall(r"--device=/dev/(\w+)", container["options"]))
    assert devices == {"davinci_manager", "devmm_svm", "hisi_hdc", *(f"davinci{number}" for number in range(8))}
    mounted = {one.partition(":")[0] for one in container["volumes"]}
    stated = (ROOT / "docs" / "nightly.md").read_text()
    assert {"/usr/local/Ascend/driver", "/usr/local/bin/npu-smi"} <= mounted
    assert all(f"`{path}`" in stated for path in mounted if not path.startswith("/data"))


@pytest.mark.parametrize(("part", "code"), [(None, 0), ("2/8", 1)])
def test_the_night_on_ascend_uses_what_is_there_and_keeps_its_exit_code(
    tmp_path: Path, part: str | None, code: int
) -> None:
    """Run by bash, with commands that note how they are called."""
    fake = tmp_path / "bin" / "python3.11"
    fake.parent.mkdir()
    fake.write_text(
        f"#!/bin/bash\necho python $* >> {tmp_path}/calls\nmkdir -p .venv/bin\n"
        f"for name in pip certify; do printf '#!/bin/bash\\necho %s $* >> {tmp_path}/calls\\n' $name"
        " > .venv/bin/$name; chmod +x .venv/bin/$name; done\n"
        f"echo 'exit {code}' >> .venv/bin/certify\n"
    )
    fake.chmod(0o755)
    (tmp_path / "history" / "site").mkdir(parents=True)
    (tmp_path / "history" / "site" / "index.html").write_text("levels")
    given = {
        "PATH": f"{fake.parent}:/usr/bin:/bin",
        "HISTORY": f"{tmp_path}/history",
        **({"PART": part} if part else {}),
    }
    done = subprocess.run(["bash", str(ROOT / ".ci" / "nightly-ascend.sh")], cwd=tmp_path, env=given, check=False)
    calls = (tmp_path / "calls").read_text().splitlines()
    assert done.returncode == code and (tmp_path / "site" / "index.html").is_file()
    assert calls[:2] == ["python -m venv --system-site-packages .venv", "pip install -e .[ascend]"]
    own = f" --part {part}" if part else ""
    history, study = f"--history {tmp_path}/history", "--power reports/power-qwen3-tiny-fp32.json"
    assert calls[2:] == [f"certify nightly harness/nightly/ascend.yaml {history}{own} {study}"]


def test_both_engines_run_that_script_bare_and_in_a_container() -> None:
    jobs = read(ROOT / ".github" / "workflows" / "nightly-ascend.yml")["jobs"]
    assert [list(values(job, "run")) for job in jobs.values()] == [[".ci/nightly-ascend.sh"]] * 2
    assert sorted(job["if"] for job in jobs.values()) == ["vars.CERTIFY_IMAGE != ''", "vars.CERTIFY_IMAGE == ''"]
    assert read(GITLAB)["nightly"]["script"] == [".ci/nightly-ascend.sh"]
