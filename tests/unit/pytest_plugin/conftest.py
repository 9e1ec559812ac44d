"""Sessions of pytest inside a test, with the plugin as it is installed.

Where only the plugin is looked at, a bundle of invented numbers stands for the runs; `real` is a session in a process
of its own, in which fakes run.
"""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import yaml

from harness.certify import flow
from harness.levels.rule import certify as level_of
from harness.levels.submission import Submission
from tests.support.bundles import Change, unchanged, write_example
from tests.support.examples import FAKES, ROOT, small_case, text_case

# A session inside this process forgets the modules that it imported first, and parts of NumPy that come with this one
# cannot be imported twice.
assert scipy.stats
FAKE_SIDES = ", ".join(f'{side}="{FAKES}:Fake"' for side in ("subject", "reference", "oracle"))
Ran = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def outermost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session inside a test is no process of the session that runs the test."""
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def change() -> Change:
    """What becomes of each step of the example, where a test is given no other."""
    return unchanged


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch, change: Change) -> Ran:
    """What was asked of each run, in place of which an example is written; its steps are those of the case."""
    asked: Ran = []

    def run(case: Any, standards: Any, options: Any, listener: Any) -> Any:
        asked.append({"case": case, "standards": [one.name for one in standards], "options": options})
        now = datetime.now(UTC)
        occasion = {"started": now.isoformat()}
        bundle = write_example(options.out, case=case, standards=standards, occasion=occasion, change=change)
        return bundle, level_of(Submission(bundle=bundle), now)

    monkeypatch.setattr(flow, "run", run)
    return asked


@pytest.fixture
def marked(pytester: pytest.Pytester) -> Callable[..., Path]:
    """A test file with one marked test, whose case is small and written beside it as `small.yaml`."""
    (pytester.path / "small.yaml").write_text(yaml.safe_dump(small_case().record()))

    def file(arguments: str = "", body: str = "pass", takes: str = "") -> Path:
        return pytester.makepyfile(
            f"import pytest\n\n@pytest.mark.certify({arguments})\ndef test_level({takes}):\n    {body}\n"
        )

    return file


@pytest.fixture
def real(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """A session in a process of its own, in a directory with the case `text.yaml` that fakes can run."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (pytester.path / "text.yaml").write_text(yaml.safe_dump(text_case(pytester.path).model_dump(mode="json")))
    return pytester.runpytest_subprocess
