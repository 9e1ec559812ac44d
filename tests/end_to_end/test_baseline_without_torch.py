"""The default case, certified by the shipped baseline where PyTorch and Hugging Face's libraries are not installed."""

import json
import subprocess
from pathlib import Path

from harness.evidence.bundle import read_bundle
from tests.support.without_torch import environment

PUBLISHED = Path("reports/qwen3-tiny-fp32-cpu/findings.json")
ABSENT = ("torch", "transformers", "tokenizers", "accelerate", "mindformers")
LOOK = "import importlib.util, sys; print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name)))"


def outcomes(path: Path) -> dict[str, str]:
    return {f"{one['standard']}/{one['criterion']}": one["outcome"] for one in json.loads(path.read_text())}


def test_the_default_case_is_certified_where_pytorch_is_not_installed(tmp_path: Path) -> None:
    python = environment(tmp_path / "environment", extra="mindspore")
    there = subprocess.run([python, "-I", "-c", LOOK, *ABSENT, "mindspore"], capture_output=True, text=True, check=True)
    assert there.stdout.split() == ["mindspore"]
    out = tmp_path / "bundle"
    words = [python, "-m", "harness.cli", "run", "--baseline", "--out", out]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Reference and oracle: baseline" in done.stdout and "Level: Preliminary" in done.stdout
    bundle = read_bundle(out)
    assert bundle.environment.packages["torch"] is None
    assert bundle.baseline is not None and bundle.baseline.environment.packages["torch"] is not None
    assert outcomes(out / "findings.json") == outcomes(PUBLISHED)
