"""How subjects with a planted fault are built in one process."""

from collections.abc import Iterator

import mindspore as ms
import pytest

from tests.support.prepared import prepared

__all__ = ["prepared"]


@pytest.fixture(scope="module", autouse=True)
def synchronous() -> Iterator[None]:
    """On small tensors the hand-over of each operator between threads takes twenty times as long as the operator."""
    ms.set_context(pynative_synchronize=True)
    yield
    ms.set_context(pynative_synchronize=False)
