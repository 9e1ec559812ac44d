"""The weights of a bundle, written for another program."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from harness.cases.runs_of_a_case import SUBJECT
from tests.support.bundles import write_example
from tests.support.command_line import caller
from tests.support.examples import small_case


def test_the_weights_of_a_bundle_are_its_parameters_without_what_its_steps_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bundle = write_example(tmp_path / "bundle", case=small_case(examined_steps=(2, 8), resume_after=5))
    trace = bundle.runs[SUBJECT].trace
    assert trace is not None and trace.footer is not None and trace.footer.watched is not None
    written = caller(capsys, monkeypatch)("checkpoint", bundle.path, tmp_path / "out")
    assert written.code == 0, written.err
    weights = load_file(tmp_path / "out" / "model.safetensors")
    assert set(weights) == set(trace.footer.parameters)
    assert f" {sum(weight.size for weight in weights.values()):,} parameters" in written.out
