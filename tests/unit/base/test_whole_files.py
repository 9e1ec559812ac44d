"""A file is there whole or not at all, and what was there stays."""

import errno
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.base.errors import InputError
from harness.base.records import write_json
from harness.base.whole_files import OVERWRITE, whole_file
from harness.runs.inputs import write_tensors


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_an_error_with_the_path_and_what_was_there_stays(code: int, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")
    with (
        pytest.raises(InputError, match=rf"{path} cannot be written: .*\. Nothing was replaced"),
        whole_file(path, overwrite=True) as file,
    ):
        file.write(b"half")
        raise OSError(code, "No space left on device")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_the_hint_at_an_option_is_given_only_by_commands_that_have_it(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")
    with pytest.raises(InputError) as plain, whole_file(path, overwrite=False):
        pass
    with pytest.raises(InputError) as named, whole_file(path, overwrite=False, replace=OVERWRITE):
        pass
    assert "--overwrite" not in str(plain.value) and "--overwrite" in str(named.value)
    assert path.read_text() == "before"


@pytest.fixture
def full() -> Iterator[None]:
    """No file of this process may be larger than a kilobyte, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 10, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("full")
def test_whatever_is_written_to_a_full_disk_the_error_has_the_path(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(InputError, match=f"{path} cannot be written"):
        write_tensors({"w": np.zeros(4096)}, path)
    with pytest.raises(InputError, match=f"{path} cannot be written"), whole_file(path, overwrite=True) as file:
        file.write(bytes(1 << 16))
    with pytest.raises(OSError) as refused:
        write_json(path, {"text": "x" * (1 << 16)})
    assert refused.value.filename == str(path)
