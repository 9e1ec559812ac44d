"""The sketches that a collected run left of its first gradient, read strictly.

Rejects a file that is not the one that the trace states, and tensors that no sketch of a gradient holds.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from harness.base.digest import digest_file
from harness.base.errors import EvidenceError
from harness.runs.collected import FIRST_GRADIENT
from harness.runs.files import GRADIENT
from harness.runs.inputs import read_tensors
from harness.runs.sketches import (
    ALONG,
    BUCKETS_OF_A_DECADE,
    COLUMN_SIZES,
    COLUMNS,
    DECADE_COUNT,
    DECADES,
    ROW_SIZES,
    ROWS,
    SKETCH,
    VALUES,
)
from harness.runs.trace import Trace

LARGEST_GRADIENT = 1 << 30  # bytes of sketches; those of the 0.6 billion weights of a published size take 6 MB
# The dtype and the shape of what a sketch leaves, by the end of its name; None: any length but 0.
FORMS: Mapping[str, tuple[str, tuple[int | None, ...]]] = {
    SKETCH: ("f8", (None,)),
    ROWS: ("f4", (None,)),
    COLUMNS: ("f4", (None,)),
    ROW_SIZES: ("i1", (None,)),
    COLUMN_SIZES: ("i1", (None,)),
    DECADES: ("f8", (DECADE_COUNT, 1 + BUCKETS_OF_A_DECADE)),
    VALUES: ("f8", (4,)),
    ALONG: ("f8", (3,)),
}


def read_gradient(directory: Path, trace: Trace) -> dict[str, npt.NDArray[Any]]:
    """The sketches that a collected run left of its first gradient; none if it gave none, or did not end.

    Raises:
        EvidenceError: they are not those that its trace states, or nothing that a collector writes.
    """
    path, kept = directory / FIRST_GRADIENT, trace.footer.kept if trace.footer else None
    if trace.footer is None:
        return {}
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise EvidenceError(f"{path} is no plain file. Give the files that the collector wrote.")
    if (path.stat().st_size if path.exists() else 0) > LARGEST_GRADIENT:
        raise EvidenceError(f"{path} is larger than the {LARGEST_GRADIENT:,} bytes that are read.")
    if (digest_file(path) if path.exists() else None) != kept:
        raise EvidenceError(f"{path} is not the gradient that the trace of its run states. It was changed, or is gone.")
    if kept is None:
        return {}
    found = read_tensors(path)
    if bad := sorted(name for name, tensor in found.items() if not _is_sketch(name, tensor)):
        raise EvidenceError(f"{path}: {bad[0]!r} is nothing that a sketch of a gradient holds.")
    return found


def _is_sketch(name: str, tensor: npt.NDArray[Any]) -> bool:
    dtype, shape = FORMS.get(f"#{name.rpartition('#')[2]}", ("", ()))
    if not name.startswith(GRADIENT) or tensor.dtype.str[1:] != dtype or len(tensor.shape) != len(shape):
        return False
    return tensor.size > (name.endswith(SKETCH)) and all(
        wanted in (None, found) for wanted, found in zip(shape, tensor.shape, strict=True)
    )
