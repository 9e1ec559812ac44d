"""MindSpore lets a process choose its device once, before anything runs; in a process of tests others may have run."""

from collections.abc import Iterator

import pytest

from harness.runners import mindspore_inference, mindspore_subject


@pytest.fixture(scope="session", autouse=True)
def prepared() -> Iterator[None]:
    """For a `conftest.py`: whatever ran in this process before, a subject of these tests can be built in it."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (mindspore_subject, mindspore_inference):
            patch.setattr(module, "prepare_process", lambda device, threads: None)
        yield
