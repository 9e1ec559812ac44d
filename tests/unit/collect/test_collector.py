"""The collector writes the trace of a run of the harness, survives a kill, and never ends a training."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.digest import canonical_json, digest_each, digest_tensors
from harness.base.errors import InputError
from harness.collect.collector import Collector
from harness.evidence.collected_run import read_collected_record
from harness.evidence.timing import read_timing
from harness.runs.collected import FIRST_GRADIENT, RECORD, RUN, row_digest
from harness.runs.files import GRADIENT, TIMING, TRACE
from harness.runs.inputs import read_tensors
from harness.runs.sketches import BUCKETS_OF_FIRST_GRADIENT, recorded
from harness.runs.trace import NUMBERS, read_trace

WEIGHTS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float32)}
TOKENS = np.arange(10, dtype=np.int32).reshape(2, 5)
MASK = np.ones((2, 4), np.uint8)


def begun(directory: Path, steps: int = 3, after: int = 0) -> Collector:
    collector = Collector(directory, steps=steps, trainer="example")
    collector.begin(WEIGHTS, alignment={"clip_grad": 1.0}, provenance={"mode": "GRAPH"}, after=after)
    return collector


def take(collector: Collector, step: int, loss: float = 2.0) -> None:
    collector.step(loss=loss / step, grad_norm=0.1 * step, learning_rate=1e-4, tokens=TOKENS, loss_mask=MASK)


def test_it_writes_the_trace_that_a_run_of_the_harness_writes(tmp_path: Path) -> None:
    collector = begun(tmp_path)
    for step in (1, 2, 3):
        take(collector, step)
    collector.end(WEIGHTS)
    trace = read_trace(tmp_path / TRACE)
    assert trace.complete and trace.header.run == RUN
    assert trace.header.initial == digest_each(WEIGHTS) and trace.header.weights == digest_tensors(WEIGHTS)
    assert trace.footer is not None and trace.footer.parameters == digest_each(WEIGHTS)
    assert {step.batch for step in trace.steps} == {digest_tensors({"tokens": TOKENS, "loss_mask": MASK})}
    assert [step.tokens for step in trace.steps] == [8, 8, 8]
    assert [step for step, _ in read_timing(tmp_path / TIMING).steps] == [1, 2, 3]


@given(loss=st.floats(), norm=st.floats(), rate=st.floats(0, 1))
def test_every_number_comes_back_in_full_precision(
    tmp_path_factory: pytest.TempPathFactory, loss: float, norm: float, rate: float
) -> None:
    directory = tmp_path_factory.mktemp("run")
    collector = begun(directory, steps=1)
    collector.step(loss=loss, grad_norm=norm, learning_rate=rate, tokens=TOKENS)
    collector.end()
    (step,) = read_trace(directory / TRACE).steps
    assert [repr(getattr(step, name)) for name in NUMBERS] == [repr(one) for one in (loss, norm, rate)]


@given(
    rows=st.integers(1, 12), length=st.integers(1, 5), first=st.integers(0, 11), seed=st.integers(0, 9),
    dtype=st.sampled_from([np.int32, np.int64, np.uint16]),
)  # fmt: skip
def test_the_lines_of_a_step_are_those_of_the_digests_that_everything_else_uses(
    tmp_path_factory: pytest.TempPathFactory, rows: int, length: int, first: int, seed: int, dtype: type
) -> None:
    directory, drawn = tmp_path_factory.mktemp("run"), np.random.RandomState(seed)
    tokens = drawn.randint(0, 60000, (rows, length + 1)).astype(dtype)
    mask = drawn.randint(0, 3, (rows, length))  # whatever is not 0 counts
    collector = begun(directory, steps=1)
    collector.micro_batch(tokens[:first], mask[:first])
    collector.micro_batch(tokens[first:].tolist() if seed % 2 and first < rows else tokens[first:], mask[first:])
    collector.step(loss=1.0, grad_norm=2.0, learning_rate=0.0)
    collector.end()
    ids, counts = tokens.astype(np.int32), (mask != 0).astype(np.uint8)
    (step,) = read_trace(directory / TRACE).steps
    assert step.batch == digest_tensors({"tokens": ids, "loss_mask": counts}) and step.tokens == counts.sum()
    (line, _) = (directory / "rows/0.jsonl").read_bytes().splitlines()
    wanted = {str(row): row_digest(*each) for row, each in enumerate(zip(ids, counts, strict=True))}
    assert line.decode() == canonical_json({"step": 1, "rows": wanted, "tokens": step.tokens})


def test_micro_batches_are_the_batch(tmp_path: Path) -> None:
    collector = begun(tmp_path, steps=1)
    for row in range(2):
        collector.micro_batch(TOKENS[row : row + 1], MASK[row : row + 1])
    collector.step(loss=1.0, grad_norm=1.0, learning_rate=0.0)
    collector.end()
    assert read_trace(tmp_path / TRACE).steps[0].batch == digest_tensors({"tokens": TOKENS, "loss_mask": MASK})


KILLED = """
import os, sys
import numpy as np
from harness.collect.collector import Collector
collector = Collector(sys.argv[1], steps=9, trainer="example")
collector.begin({"a": np.ones(3, np.float32)})
for step in range(1, 6):
    collector.step(loss=1.0 / step, grad_norm=1.0, learning_rate=0.1, tokens=np.ones((2, 5), np.int32))
os.kill(os.getpid(), 9)
"""


def test_a_kill_loses_no_step_and_leaves_no_finished_run(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False).returncode == -9
    trace = read_trace(tmp_path / TRACE)
    assert [step.step for step in trace.steps] == [1, 2, 3, 4, 5]
    assert trace.footer is None and not trace.complete


def test_a_resumed_run_is_the_run_without_a_stop(tmp_path: Path) -> None:
    whole = begun(tmp_path / "whole")
    stopped = begun(tmp_path / "resumed")
    for step in (1, 2, 3):
        take(whole, step)
        take(stopped, step)
    whole.end(WEIGHTS)
    resumed = begun(tmp_path / "resumed", after=1)  # from a checkpoint after step 1; steps 2 and 3 are taken again
    for step in (2, 3):
        take(resumed, step)
    resumed.end(WEIGHTS)
    for name in (TRACE, "rows/0.jsonl"):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert json.loads((tmp_path / "resumed" / "collected.json").read_text())["resumed_after"] == [1]


def test_a_run_is_resumed_only_after_steps_that_were_collected(tmp_path: Path) -> None:
    take(begun(tmp_path), 1)
    with pytest.raises(InputError, match="steps before it were not collected"):
        begun(tmp_path, after=2)


def test_a_finished_run_is_never_overwritten(tmp_path: Path) -> None:
    collector = begun(tmp_path, steps=1)
    take(collector, 1)
    collector.end()
    with pytest.raises(InputError, match="holds a run that is finished"):
        begun(tmp_path)


def test_an_error_ends_the_collection_and_not_the_training(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    collector = begun(tmp_path)
    take(collector, 1)
    collector.step(loss=1.0, grad_norm=1.0, learning_rate=0.1, tokens=TOKENS, loss_mask=MASK[:, :2])  # a wrong shape
    take(collector, 3)
    collector.end()
    assert not collector.collecting and "Training goes on" in capfd.readouterr().err
    trace = read_trace(tmp_path / TRACE)
    assert len(trace.steps) == 1 and trace.footer is None


def test_what_a_trainer_does_not_give_is_stated(tmp_path: Path) -> None:
    collector = Collector(tmp_path, steps=1, trainer="example")
    collector.begin(omitted=["grad_norm"])
    collector.step(loss=1.0, learning_rate=0.1, tokens=TOKENS)
    collector.end()
    trace = read_trace(tmp_path / TRACE)
    assert trace.header.provenance["collected"]["omitted"] == ["alignment", "grad_norm", "weights"]
    assert math.isnan(trace.steps[0].grad_norm) and trace.first_non_finite is None


def test_sketches_of_the_first_gradient_are_those_of_a_probe(tmp_path: Path) -> None:
    collector = begun(tmp_path)
    gradient = np.random.default_rng(1).standard_normal((40, 50)).astype(np.float32)
    collector.first_gradient({"a": gradient})
    found = read_tensors(tmp_path / FIRST_GRADIENT)
    wanted = recorded(f"{GRADIENT}a", gradient, BUCKETS_OF_FIRST_GRADIENT, located=True)
    assert digest_tensors(found) == digest_tensors(wanted)


def test_it_imports_nothing_heavy() -> None:
    code = (
        "import sys, harness.collect.collector; "
        "print(sorted({name.partition('.')[0] for name in sys.modules} & "
        "{'pydantic', 'yaml', 'scipy', 'typer', 'torch', 'mindspore', 'safetensors', 'jinja2', 'plotly'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_an_argument_that_is_no_text_ends_no_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", os.fsdecode(b"--out=run-\xff")])
    collector = begun(tmp_path, steps=1)
    take(collector, 1)
    collector.end(WEIGHTS)
    assert read_collected_record(tmp_path / RECORD).command == ("train.py", r"--out=run-\udcff")
