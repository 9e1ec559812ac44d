"""What all tests share."""

import signal

import pytest

from tests.support import full

# A shell that starts the tests in the background has them ignore SIGINT, and the runs that they start inherit it.
# Tests of Ctrl-C need what a terminal gives.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{full.NAME}(held_by): left to `tox run -e full`; `held_by` holds its law here")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if faults := full.faults(items, config.rootpath):
        raise pytest.UsageError("\n".join(faults))
