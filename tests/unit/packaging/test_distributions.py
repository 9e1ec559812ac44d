"""What the wheel and the source distribution hold, and what they state about themselves."""

import email
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.support.distribution import Distributions, build, run_backend, unpacked
from tests.support.examples import ROOT


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    return build(tmp_path_factory.mktemp("distributions"))


def files_of_wheel(path: Path) -> set[str]:
    """The files of a wheel without its metadata."""
    with zipfile.ZipFile(path) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_a_wheel_holds_every_file_of_both_packages_and_nothing_else(made: Distributions) -> None:
    assert files_of_wheel(made.wheel) == made.packaged
    assert {"harness/py.typed", "qwen3_model/py.typed", "harness/cases/qwen3-tiny-fp32.yaml"} <= made.packaged


def test_a_source_distribution_holds_the_checkout(made: Distributions) -> None:
    with tarfile.open(made.sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    written = {name for name in names if name in ("PKG-INFO", "setup.cfg") or ".egg-info/" in name}
    assert names - written == set(made.files)


def test_a_wheel_made_from_the_source_distribution_is_the_same(made: Distributions, tmp_path: Path) -> None:
    source = unpacked(made.sdist, tmp_path / "source")
    assert files_of_wheel(run_backend("build_wheel", source, tmp_path)) == made.packaged


def test_a_wheel_brings_its_licence(made: Distributions) -> None:
    stated = metadata(made.wheel)
    assert stated["License-Expression"] == "Apache-2.0" and stated.get_all("License-File") == ["LICENSE"]
    with zipfile.ZipFile(made.wheel) as archive:
        (licence,) = (name for name in archive.namelist() if name.endswith("/licenses/LICENSE"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
