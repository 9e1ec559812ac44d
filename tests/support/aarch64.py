"""Draws the frozen tensors on an aarch64 processor, emulated: `python -m tests.support.aarch64`.

Debian's Python for arm64 and NumPy's wheel for it are downloaded into a directory of their own; nothing is installed.
Exit code 0: the same bits as in `tests/unit/runs/test_drawing.py` and `test_sketches.py`. 1: others. 2: Debian's
packages or the emulator are not to be had here.
"""

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.support.examples import ROOT
from tests.support.frozen_bits import FROZEN

EMULATOR = "qemu-aarch64-static"
PACKAGES = (
    "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "zlib1g", "libexpat1", "libssl3",
    "libgcc-s1", "libstdc++6", "libffi8", "libbz2-1.0", "liblzma5", "libuuid1", "libcrypt1",
)  # fmt: skip
DRAW = """
import json, platform, sys, types
root, site = sys.argv[1:3]
sys.path[:0] = [site, root]
for name in ("harness", "harness.runs", "qwen3_model"):  # their __init__ import what is not needed here
    sys.modules[name] = module = types.ModuleType(name)
    module.__path__ = [root + "/" + name.replace(".", "/")]
from tests.support.frozen_bits import drawn
print(json.dumps({"machine": platform.machine(), "bits": drawn()}))
"""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="aarch64-") as made:
        work = Path(made)
        try:
            _debian(work)
            _numpy(work)
            python: list[str | Path] = [EMULATOR, "-L", work / "root", work / "root/usr/bin/python3.11"]
            found = _run([*python, "-c", DRAW, ROOT, work / "site"])
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", "") or str(error)
            print(f"Nothing was drawn: {reason.strip()}\nInstall the emulator: apt-get install qemu-user-static")
            return 2
    emulated = json.loads(found)
    same = emulated == {"machine": "aarch64", "bits": FROZEN}
    print(f"{emulated['machine']}: {'the same bits' if same else 'other bits'}", json.dumps(emulated["bits"], indent=1))
    return 0 if same else 1


def _debian(work: Path) -> None:
    """The packages of another architecture, with lists and cache of their own, so that this machine stays as it is."""
    for name in ("lists/partial", "cache/archives/partial", "debs"):
        (work / name).mkdir(parents=True)
    options = {
        "APT::Architecture": "arm64", "APT::Architectures": "arm64", "Dir::State::lists": work / "lists",
        "Dir::Cache": work / "cache", "Dir::State::status": work / "status", "APT::Sandbox::User": "root",
    }  # fmt: skip
    (work / "status").touch()
    apt = ["apt-get", "-q", *(word for key, value in options.items() for word in ("-o", f"{key}={value}"))]
    _run([*apt, "update"])
    _run([*apt, "download", *PACKAGES], inside=work / "debs")
    for package in (work / "debs").glob("*.deb"):
        _run(["dpkg-deb", "-x", package, work / "root"])


def _numpy(work: Path) -> None:
    """NumPy's own wheel, with the library that its users on aarch64 have."""
    wanted = ["--platform", "manylinux2014_aarch64", "--python-version", "3.11", "--implementation", "cp"]
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    _run([*pip, *wanted, "-d", work / "wheels", "numpy<2"])
    (wheel,) = (work / "wheels").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(work / "site")


def _run(words: list[str | Path], inside: Path | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in words], cwd=inside, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
