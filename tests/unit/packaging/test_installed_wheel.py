"""The wheel, installed outside any checkout: commands that need no framework, started in an empty directory."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.evidence.provenance import Source
from tests.support.distribution import Installed, Wheel, build_wheel, install
from tests.support.examples import ROOT

PUBLISHED = ROOT / "reports" / "qwen3-tiny-fp32-cpu"
SOURCE = """
import dataclasses, json
from harness.certify import environment
print(json.dumps(dataclasses.asdict(environment.source())))
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    return build_wheel(tmp_path_factory.mktemp("distributions"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, made: Wheel) -> Installed:
    """Its environment lies in a git checkout of another project, as environments do."""
    directory = tmp_path_factory.mktemp("installed")
    other = directory / "another-project"
    other.mkdir()
    for words in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "--message", "another project"]):
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", other, *who, *words], check=True)
    return install(made.wheel, other / "venv")


def test_the_packages_of_the_wheel_are_used(installed: Installed, tmp_path: Path) -> None:
    printed = installed.run("python", "-c", "import harness; print(harness.__file__)", inside=tmp_path).stdout
    assert Path(printed.strip()) == installed.packages / "harness" / "__init__.py"


def test_the_help_is_printed(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("certify", "--help", inside=tmp_path)
    assert done.returncode == 0 and "verify" in done.stdout, done.stderr


def test_the_shipped_cases_are_listed(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("certify", "cases", "--json", inside=tmp_path)
    assert done.returncode == 0, done.stderr
    shipped = {path.stem for path in (ROOT / "harness" / "cases").glob("*.yaml")}
    assert all(name in done.stdout for name in shipped)


def test_the_published_bundle_is_verified(installed: Installed, tmp_path: Path) -> None:
    done = installed.run("certify", "verify", PUBLISHED, inside=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wheel_names_no_revision_and_the_digest_of_its_sources(
    made: Wheel, installed: Installed, tmp_path: Path
) -> None:
    variables = {**os.environ, "PYTHONPATH": str(made.copy)}
    there = subprocess.run([sys.executable, "-c", SOURCE], cwd=tmp_path, env=variables, capture_output=True, text=True)
    done = installed.run("python", "-c", SOURCE, inside=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = Source(revision=None, dirty=False, sha256=json.loads(there.stdout)["sha256"])
    assert json.loads(done.stdout) == dataclasses.asdict(expected)
