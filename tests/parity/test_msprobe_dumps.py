"""The tensors of a dump of PyTorch are read as they were saved, and a file executes nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from harness.runners.pt_files import read_tensor, write_tensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64])
def test_a_tensor_is_read_as_it_was_saved(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = (torch.arange(12).reshape(3, 4) - 5).to(dtype)
    torch.save(tensor.T, tmp_path / "one.pt")
    found = read_tensor(tmp_path / "one.pt")
    assert found.dtype == (np.float64 if dtype == torch.float64 else np.float32)
    assert np.array_equal(found, tensor.T.float().numpy())


def test_a_tensor_comes_back_as_it_was_written(tmp_path: Path) -> None:
    tensor = np.random.RandomState(0).standard_normal((2, 3)).astype(np.float32)
    write_tensor(tmp_path / "one.pt", tensor)
    assert read_tensor(tmp_path / "one.pt").tobytes() == tensor.tobytes()
    assert torch.equal(torch.load(tmp_path / "one.pt", weights_only=True), torch.from_numpy(tensor))


class Runs:
    """What a file may hold that executes something when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize("content", [Runs(), {"a": torch.ones(1)}, "text"], ids=["code", "record", "text"])
def test_what_is_no_tensor_is_refused_and_nothing_is_executed(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "one.pt")
    with pytest.raises(ValueError, match=r"holds no tensor|PyTorch does not read it"):
        read_tensor(tmp_path / "one.pt")
    (tmp_path / "two.pt").write_bytes(b"no archive")
    with pytest.raises(ValueError, match="PyTorch does not read it"):
        read_tensor(tmp_path / "two.pt")
