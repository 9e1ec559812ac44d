"""MindSpore lets a process choose its device once, before anything runs; in a process of tests others may have run."""

import sys
from collections.abc import Iterator

import pytest

PREPARES = "prepare_process"


@pytest.fixture(scope="session", autouse=True)
def prepared() -> Iterator[None]:
    """For a `conftest.py`: whatever ran in this process before, a subject of these tests can be built in it.

    All files of tests are imported before the first test runs, and with them every runner that they build.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("harness.runners.") and hasattr(module, PREPARES):
                patch.setattr(module, PREPARES, lambda device, threads: None)
        yield
