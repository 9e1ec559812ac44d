"""What a tapped run says about its looking, beside trace and tensors: whether it changed a bit, and what it cost.

The tensors of a tapped run are a probe's (`gradient.NAME`, `updated.NAME`), and by place `forward.PLACE` and
`backward.PLACE`.
"""

from dataclasses import dataclass
from pathlib import Path

from harness.base.records import parse, read_json

LOOK = "look.json"


@dataclass(frozen=True, kw_only=True)
class Look:
    """`missing` says why nothing was seen inside; `differing` are the parameters whose gradient the tapped step gave in
    other bits than the plain one. The seconds are those of one step's gradients, compiled before, the best of a few."""

    missing: str | None
    differing: tuple[str, ...] = ()
    plain_seconds: float | None = None
    tapped_seconds: float | None = None

    @property
    def cost(self) -> float | None:
        """The tapped step as a multiple of the plain one."""
        if not self.plain_seconds or self.tapped_seconds is None:
            return None
        return self.tapped_seconds / self.plain_seconds


def read_look(directory: Path) -> Look:
    """The look of a run's directory.

    Raises:
        EvidenceError: there is none, or it was edited.
    """
    look: Look = parse(Look, read_json(directory / LOOK), directory / LOOK)
    return look
