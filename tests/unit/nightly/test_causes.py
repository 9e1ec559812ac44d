"""A failure of a night is classed by its cause, from the words of those who state it."""

import dataclasses

import pytest

from harness.evidence.diff import BundleChange, BundleDifference, DifferenceKind
from harness.nightly.causes import Cause, cause_of_break, cause_of_change


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("subject-1: RuntimeError: Device 0 out of memory, EL0004", Cause.MEMORY),
        ("its process was killed by SIGKILL", Cause.MEMORY),
        ("OSError: [Errno 98] Address already in use", Cause.PORT),
        ("dcmi model initialized failed, because the device is used", Cause.BUSY),
        ("RuntimeError: drvGetDevNum failed, ret 4", Cause.DRIVER),
        ("not finished within its limit of 60 min; stopped", Cause.TIME),
        ("ValueError: tokens must be below vocab_size", Cause.UNKNOWN),
        ("", Cause.UNKNOWN),
    ],
)
def test_a_run_that_broke_is_classed_by_what_it_states(reason: str, cause: Cause) -> None:
    assert cause_of_break(reason) is cause


def test_other_versions_under_the_same_code_are_the_toolchains() -> None:
    versions = BundleChange(section="environment", name="mindspore", before="2.9.0", after="2.10.0")
    code = dataclasses.replace(versions, section="source", name="sha256")

    def found(*changes: BundleChange) -> Cause:
        return cause_of_change(BundleDifference(kind=DifferenceKind.REGRESSION, reason="worse", changes=changes))

    assert found(versions) is Cause.TOOLCHAIN
    assert found(versions, code) is found(code) is found() is Cause.REGRESSION
