"""What tests without a framework share."""

from collections.abc import Iterator

import pytest

from tests.support.forked_runs import forked


@pytest.fixture(scope="module")
def forked_runs() -> Iterator[None]:
    """Has every run of this process be forked: see `tests.support.forked_runs`."""
    with forked():
        yield
