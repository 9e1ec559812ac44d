"""A wheel, installed outside any checkout, certifies the default case from an empty directory."""

import json
from pathlib import Path

from tests.support.distribution import build_wheel, install
from tests.support.full import full

EVERY_FILE = "test_distributions.py::test_a_wheel_holds_every_file_of_both_packages_and_nothing_else"
NO_CHECKOUT = "test_installed_wheel.py::test_the_packages_of_the_wheel_are_used"


@full(held_by=f"tests/unit/packaging/{EVERY_FILE},tests/unit/packaging/{NO_CHECKOUT}")
def test_a_wheel_certifies_the_default_case(tmp_path: Path) -> None:
    installed = install(build_wheel(tmp_path).wheel, tmp_path / "environment")
    empty = tmp_path / "empty"
    empty.mkdir()
    done = installed.run("certify", "run", inside=empty, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Level: Preliminary (Qwen3 tiny, training on CPU" in done.stdout
    (directory,) = (empty / "certify-runs").iterdir()
    assert json.loads((directory / "case.json").read_text())["name"] == "qwen3-tiny-fp32"
    assert json.loads((directory / "source.json").read_text())["revision"] is None
    verified = installed.run("certify", "verify", directory, inside=empty)
    assert verified.returncode == 0, verified.stdout + verified.stderr
