"""A file is there whole or not at all, and what was there stays."""

import errno
from pathlib import Path

import pytest

from harness.base.errors import InputError
from harness.base.whole_files import OVERWRITE, whole_file


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
