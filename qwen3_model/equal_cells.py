"""Equal cells without parameters become one object, because MindSpore compiles each object on its own.

A model of 28 layers has some 1,100 such cells of ten kinds. Compiling its training step takes 26 s with one object of
each kind, and 46 s otherwise. No number changes.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from mindspore import nn

from qwen3_model.derivatives import RMSNormalize, Rotation, RowSoftmax, SiLU, Spread, SwapAxes
from qwen3_model.fused import FusedRMSNormalize, FusedRotation, FusedSwiGLU
from qwen3_model.modeling_qwen3 import FusedAttention, Precision, Projection

# What a cell of a kind depends on. Subclasses may depend on more, so they stay as they are.
KINDS: Mapping[type[nn.Cell], Callable[[Any], Hashable]] = {
    FusedAttention: lambda cell: (cell.heads, cell.scaling, cell.dtype),
    FusedRMSNormalize: lambda cell: cell.eps,
    FusedRotation: lambda cell: True,
    FusedSwiGLU: lambda cell: True,
    Precision: lambda cell: (cell.dtype, cell.emulated),
    Projection: lambda cell: _kind(cell.round),
    RMSNormalize: lambda cell: cell.eps,
    Rotation: lambda cell: True,
    RowSoftmax: lambda cell: True,
    SiLU: lambda cell: True,
    Spread: lambda cell: cell.explicit,
    SwapAxes: lambda cell: cell.by_rows,
}


def share_equal_cells(model: nn.Cell) -> None:
    """Replaces equal cells of a model by the first of them. Called once the model is complete, and before it runs."""
    first: dict[Hashable, nn.Cell] = {}
    for _, parent in list(model.cells_and_names()):
        for name, child in parent._cells.items():
            if (kind := _kind(child)) is not None:
                parent._cells[name] = first.setdefault(kind, child)


def _kind(cell: nn.Cell | None) -> Hashable:
    """Equal for cells that compute the same, in the same scope (recomputed or not); None for one that stays."""
    depends_on = KINDS.get(type(cell))
    if cell is None or depends_on is None:
        return None
    own = depends_on(cell)
    return None if own is None else (type(cell), own, cell.get_scope())
