"""The record of a tapped run: whether tapping changed any bit, and its cost.

A tapped run stores the tensors of a probe (`gradient.NAME`, `updated.NAME`), and `forward.PLACE` and `backward.PLACE`
for each place.
"""

from dataclasses import dataclass
from pathlib import Path

from harness.base.records import parse, read_json

TAPS = "taps.json"


@dataclass(frozen=True, kw_only=True)
class TapRecord:
    """`missing`: why no place was recorded. `differing`: the parameters whose gradients in the tapped and in the plain
    step differ in a bit. The seconds are the shortest of a few calls for one step's gradients, without compilation."""

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


def read_taps(directory: Path) -> TapRecord:
    """The record in a run's directory.

    Raises:
        EvidenceError: it is missing or was edited.
    """
    taps: TapRecord = parse(TapRecord, read_json(directory / TAPS), directory / TAPS)
    return taps
