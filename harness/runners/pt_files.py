"""Tensors in files of PyTorch's own form, read and written as NumPy arrays."""

from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch


def read_tensor(path: Path) -> npt.NDArray[Any]:
    """The tensor of a file, in float32 if it has fewer bits. Nothing that the file could execute is.

    Raises:
        ValueError: it holds no tensor, or cannot be read.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of pickle, zipfile or torch itself: whatever the file holds
        raise ValueError(f"PyTorch does not read it: {type(error).__name__}") from None
    if not isinstance(found, torch.Tensor):
        raise ValueError("it holds no tensor")
    wide = found if found.dtype in (torch.float32, torch.float64) else found.float()
    array: npt.NDArray[Any] = wide.detach().numpy()
    return array


def write_tensor(path: Path, tensor: npt.NDArray[Any]) -> None:
    """Writes a tensor as PyTorch does."""
    torch.save(torch.from_numpy(tensor.copy()), path)
