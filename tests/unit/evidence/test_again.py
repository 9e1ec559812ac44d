"""The command that makes a bundle's runs again works as it is printed."""

import dataclasses
from pathlib import Path

from harness.cases.case import as_argument
from harness.evidence.again import run_again
from tests.support.bundles import write_example
from tests.support.examples import small_case


def test_a_shipped_case_is_named_and_any_other_by_the_command_that_was_given(tmp_path: Path) -> None:
    bundle = write_example(tmp_path / "bundle", case=small_case())
    given = ("certify", "run", "my cases/small.yaml", "--out", "there", "--resume", "--layers", "2")
    changed = {"case": bundle.case.model_copy(update={"name": "my-small"})}
    own = dataclasses.replace(bundle, occasion=dataclasses.replace(bundle.occasion, command=given), **changed)
    assert run_again(own) == "certify run 'my cases/small.yaml' --layers 2"
    shipped = dataclasses.replace(own, case=own.case.model_copy(update={"name": "qwen3-tiny-fp32"}))
    assert run_again(shipped, "--device", "Ascend") == "certify run qwen3-tiny-fp32 --device Ascend"


def test_a_case_of_a_file_is_not_named_as_if_it_were_shipped() -> None:
    assert as_argument("qwen3-tiny-fp32") == "qwen3-tiny-fp32" and as_argument("my-small") == "FILE.yaml"
