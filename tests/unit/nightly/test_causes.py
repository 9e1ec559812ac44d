"""A failure of a night is classed by its cause, from the words of those who state it."""

import dataclasses

import pytest

from harness.evidence.diff import BundleChange, BundleDifference, DifferenceKind
from harness.nightly.causes import CellCause, cause_of_break, cause_of_change


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("subject-1: RuntimeError: Device 0 out of memory, EL0004", CellCause.MEMORY),
        ("its process was killed by SIGKILL", CellCause.MEMORY),
        ("OSError: [Errno 98] Address already in use", CellCause.PORT),
        ("dcmi model initialized failed, because the device is used", CellCause.BUSY),
        ("RuntimeError: drvGetDevNum failed, ret 4", CellCause.DRIVER),
        ("not finished within its limit of 60 min; stopped", CellCause.TIME),
        ("ValueError: tokens must be below vocab_size", CellCause.UNKNOWN),
        ("", CellCause.UNKNOWN),
    ],
)
def test_a_run_that_broke_is_classed_by_what_it_states(reason: str, cause: CellCause) -> None:
    assert cause_of_break(reason) is cause


def test_other_versions_under_the_same_code_are_the_toolchains() -> None:
    versions = BundleChange(section="environment", name="mindspore", before="2.9.0", after="2.10.0")
    code = dataclasses.replace(versions, section="source", name="sha256")

    def found(*changes: BundleChange) -> CellCause:
        return cause_of_change(BundleDifference(kind=DifferenceKind.REGRESSION, reason="worse", changes=changes))

    assert found(versions) is CellCause.TOOLCHAIN
    assert found(versions, code) is found(code) is found() is CellCause.REGRESSION
