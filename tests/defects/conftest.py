"""How subjects with a planted fault are built in one process."""

from collections.abc import Iterator

import mindspore as ms
import pytest

from harness.runners import mindspore_subject


@pytest.fixture(autouse=True)
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process may prepare MindSpore once, before anything runs; here other tests may have run already."""
    monkeypatch.setattr(mindspore_subject, "prepare_process", lambda device, threads: None)


@pytest.fixture(scope="module", autouse=True)
def synchronous() -> Iterator[None]:
    """On small tensors the hand-over of each operator between threads takes twenty times as long as the operator."""
    ms.set_context(pynative_synchronize=True)
    yield
    ms.set_context(pynative_synchronize=False)
