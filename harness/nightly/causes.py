"""Why a cell makes a night fail: its environment, another toolchain, a regression of the code, or not known.

A run that broke is classed by the last error that it states. Sources: CANN, error codes; the messages of the kernel, of
MindSpore and of Python's sockets.
"""

import re
from collections.abc import Mapping
from enum import StrEnum

from harness.evidence.diff import BundleDifference


class CellCause(StrEnum):
    """The class of a failure."""

    DRIVER = "environment: driver"
    BUSY = "environment: device busy"
    MEMORY = "environment: memory"
    PORT = "environment: port"
    TIME = "environment: time limit"
    MACHINE = "environment: not ready"
    TOOLCHAIN = "toolchain drift"
    REGRESSION = "regression"
    UNKNOWN = "not known"


# Of several that match, the first counts.
SIGNS: Mapping[CellCause, str] = {
    CellCause.MEMORY: (
        r"out of memory|EL0004|MemoryError|bad_alloc|Cannot allocate memory|killed by SIGKILL|memory pool"
    ),
    CellCause.PORT: r"Address already in use|EJ0003|port \d+ is (in use|occupied)|bind .*failed",
    CellCause.BUSY: r"device is (used|busy|occupied)|being used by|EJ0001|resource busy",
    CellCause.DRIVER: r"dcmi|drv[A-Z]\w+ failed|libascend_hal|EK0001|Device heartbeat|driver version|npu-smi",
    CellCause.TIME: r"within its limit of|no (first )?step within",
}


def cause_of_break(reason: str) -> CellCause:
    """The class of a run that broke, by the reason that it states."""
    return next((cause for cause, sign in SIGNS.items() if re.search(sign, reason, re.I)), CellCause.UNKNOWN)


def cause_of_change(found: BundleDifference) -> CellCause:
    """The class of a cell that was judged and is worse than the night before: other versions with the same code are the
    toolchain's."""
    other_code = any((one.section, one.name) == ("source", "sha256") for one in found.changes)
    other_versions = any(one.section == "environment" for one in found.changes)
    return CellCause.TOOLCHAIN if other_versions and not other_code else CellCause.REGRESSION
