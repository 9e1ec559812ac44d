"""What all tests share."""

import signal
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import settings

from tests.support import catalogue, full, properties

# A shell that starts the tests in the background has them ignore SIGINT, and the runs that they start inherit it.
# Tests of Ctrl-C need what a terminal gives.
signal.signal(signal.SIGINT, signal.default_int_handler)

LEFT = pytest.StashKey[int]()  # how many tests are left to `full`
TO_THE_MAIN_PROCESS = "left_to_full"  # of xdist, which does not count them


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("hypothesis_profile", None):
        settings.load_profile(properties.QUICK)
    config.addinivalue_line("markers", "gpu: needs a GPU that PyTorch finds; without one it is reported as not run")
    config.addinivalue_line("markers", f"{full.NAME}(held_by): left to `tox run -e full`; `held_by` holds its law here")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    catalogue.thin(items)
    if faults := full.faults(items, config.rootpath):
        raise pytest.UsageError("\n".join(faults))


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    left = [item for item in items if item.get_closest_marker(full.NAME)]
    for item in left[:1]:
        item.config.stash[LEFT] = len(left)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output[TO_THE_MAIN_PROCESS] = session.config.stash.get(LEFT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Every worker collects all tests, so the count of one is that of all."""
    node.config.stash[LEFT] = getattr(node, "workeroutput", {}).get(TO_THE_MAIN_PROCESS, 0)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if left := terminalreporter.config.stash.get(LEFT, 0):
        terminalreporter.write_line(f"{left} tests are left to: tox run -e full")
