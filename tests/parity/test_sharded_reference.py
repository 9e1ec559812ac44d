"""The reference over several processes is the reference in one, by the criteria of layouts; repeats have the same bits;
faults of sharding are refused; and a process that dies or hangs is a finding that leaves no process behind.

All processes are started by `torchrun`, with gloo.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.certify.flow import prepare
from harness.certify.jobs import Options, job
from harness.runners.launcher import Launcher
from harness.runners.oracle import Float64Oracle
from harness.runners.torch_processes import clip, grad_norm
from harness.runners.torch_reference import FusedAttentionReference
from harness.runs.trace import Run
from harness.standards import load_standard
from tests.support.examples import text_case
from tests.support.full import full
from tests.support.processes import processes_of, until
from tests.support.sharded import (
    FAULTS,
    FUSED,
    IN_BFLOAT16,
    ORACLE,
    PLAIN,
    in_bfloat16,
    made_by,
    small_tied_case,
    steps_of,
)

Made = Mapping[str, Any]
STATISTICS = {"first": lambda values: values[0], "maximum": max}
OF_TENSORS = {"gradients": "gradient.", "parameters": "parameter."}
FAKES = "tests.support.torch_fakes"
SEVERAL = "tests/parity/test_sharded_reference.py::test_several_processes_make_what_one_makes"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return steps_of(small_tied_case(), None, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Made]:
    return made_by(2, (*PLAIN, ORACLE, FUSED, *IN_BFLOAT16, *FAULTS), tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return steps_of(small_tied_case(), None, tmp_path_factory.mktemp("exact"), Float64Oracle)


@pytest.fixture(scope="module")
def alone_in_bfloat16(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return steps_of(in_bfloat16(small_tied_case()), None, tmp_path_factory.mktemp("alone"))


def refused(one: Made, other: Made) -> list[str]:
    """Why what several processes made is not what one process made: the limits of `layout-fp32` that do not hold, and
    what the standard has no limit for: the shape of a tensor, and a moment."""
    assert "broken" not in other, f"it does not run, so it shows nothing: {other['broken']}"
    if odd := [name for name in one if name not in other or np.shape(other[name]) != np.shape(one[name])]:
        return odd
    apart = {name: _apart(one[name], other[name]) for name in ("loss", "grad_norm", "tokens")}
    for what, prefix in OF_TENSORS.items():
        apart[what] = [_distance(one[name], other[name]) for name in one if name.startswith(prefix)]
    limits = [limit for criterion in load_standard("layout-fp32").criteria for limit in criterion.limits]
    assert {limit.measurement.split(".")[1] for limit in limits} == {*apart}
    found = [
        f"{limit.measurement} {limit.statistic}: {value:.2e}"
        for limit in limits
        if not (value := STATISTICS[limit.statistic](apart[limit.measurement.split(".")[1]])) <= limit.value
    ]
    moments = max(_distance(one[name], other[name]) for name in one if name.startswith("moment."))
    return found if moments <= 1e-4 else [*found, f"moments: {moments:.2e}"]


def _apart(one: Any, other: Any) -> list[float]:
    return [abs(a - b) / abs(a) if a != b else 0.0 for a, b in zip(one, other, strict=True)]


def _distance(one: Any, other: Any) -> float:
    exact = one.astype(np.float64)
    return float(np.linalg.norm(other.astype(np.float64) - exact) / np.linalg.norm(exact))


def test_several_processes_make_what_one_makes(alone: Made, of_two: Mapping[str, Made]) -> None:
    assert refused(alone, of_two["plain"]) == []


def test_several_processes_make_the_same_bits_again(of_two: Mapping[str, Made]) -> None:
    first, again = (of_two[name] for name in PLAIN)
    assert {*first} == {*again} and all(np.array_equal(first[name], again[name]) for name in first)


def test_several_processes_go_on_from_a_checkpoint_bit_for_bit(of_two: Mapping[str, Made]) -> None:
    for name in ("loss", "grad_norm"):
        *_, last, resumed = of_two["plain"][name]
        assert last == resumed


def test_the_oracle_over_several_processes_is_exact(of_two: Mapping[str, Made], exact: Made) -> None:
    one, other = exact, of_two[ORACLE]
    assert {*one} == {*other}
    assert max(_distance(tensor, other[name]) for name, tensor in one.items()) < 1e-12


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_sharding_is_refused(alone: Made, of_two: Mapping[str, Made], fault: str) -> None:
    assert refused(alone, of_two[fault])


def beyond_the_floor(standard: str, one: Made, other: Made, exact: Made) -> list[str]:
    """Why another reference is not as correct as the first: the limits of a strict standard, which follow from a floor,
    that the numbers of the steps or the first gradients do not keep. Every error is in units of that of the first."""
    limits = {
        (limit.measurement, limit.statistic): limit.value
        for criterion in load_standard(standard).criteria
        for limit in criterion.limits
    }
    ratios = [
        _distance(exact[name], other[name]) / _distance(exact[name], one[name])
        for name in one
        if name.startswith("gradient.")
    ]
    apart = {("oracle.gradients.ratio", "maximum"): max(ratios)}
    for name in ("loss", "grad_norm"):
        if (key := (f"train.{name}.scaled", "maximum")) in limits:
            unit = float(np.sqrt(np.mean(np.square(_apart(exact[name], one[name])))))
            apart[key] = max(_apart(one[name], other[name])) / unit
        else:
            apart[f"train.{name}.relative", "maximum"] = max(_apart(one[name], other[name]))
    assert {*apart} <= {*limits}
    return [f"{key}: {value:.3g}" for key, value in apart.items() if not value <= limits[key]]


def test_fused_attention_is_eager_attention_within_the_floor(alone: Made, exact: Made, tmp_path: Path) -> None:
    fused = steps_of(small_tied_case(), None, tmp_path / "fused", FusedAttentionReference)
    assert any(not np.array_equal(alone[name], fused[name]) for name in alone), "it computes in another way"
    assert beyond_the_floor("strict-fp32", alone, fused, exact) == []


def test_fused_attention_is_eager_attention_in_bfloat16_too(
    alone_in_bfloat16: Made, exact: Made, tmp_path: Path
) -> None:
    fused = steps_of(in_bfloat16(small_tied_case()), None, tmp_path / "fused", FusedAttentionReference)
    assert any(not np.array_equal(alone_in_bfloat16[name], fused[name]) for name in fused)
    assert beyond_the_floor("strict-bf16", alone_in_bfloat16, fused, exact) == []


def test_fused_attention_over_several_processes_is_eager_attention_in_one(
    alone: Made, of_two: Mapping[str, Made], exact: Made
) -> None:
    assert "broken" not in of_two[FUSED], of_two[FUSED]
    assert beyond_the_floor("strict-fp32", alone, of_two[FUSED], exact) == []


def test_several_processes_in_bfloat16_make_what_one_makes_and_the_same_bits_again(
    alone_in_bfloat16: Made, of_two: Mapping[str, Made], exact: Made
) -> None:
    first, again = (of_two[name] for name in IN_BFLOAT16)
    assert "broken" not in first, first
    assert {*first} == {*again} and all(np.array_equal(first[name], again[name]) for name in first)
    assert beyond_the_floor("strict-bf16", alone_in_bfloat16, first, exact) == []


def test_the_floor_of_float32_refuses_what_is_computed_in_bfloat16(
    alone_in_bfloat16: Made, alone: Made, exact: Made
) -> None:
    assert beyond_the_floor("strict-fp32", alone, alone_in_bfloat16, exact)


@full(held_by=SEVERAL)
def test_four_processes_of_which_one_has_no_row_make_what_one_makes(alone: Made, tmp_path: Path) -> None:
    of_four = made_by(4, PLAIN, tmp_path)
    assert refused(alone, of_four["plain"]) == []
    assert all(np.array_equal(of_four["plain"][name], of_four["repeated"][name]) for name in alone)


def test_squares_that_float32_cannot_hold_are_in_the_norm_and_clipping_takes_it() -> None:
    parameters = [torch.zeros(4, requires_grad=True), torch.zeros(3, requires_grad=True)]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 1e30)
    norm = grad_norm(parameters)
    assert float(norm) == pytest.approx(1e30 * 7**0.5)
    clip(parameters, 1.0, norm)
    assert float(grad_norm(parameters)) == pytest.approx(1.0)


def over_two(out: Path, runner: str, limit: float = 120.0) -> Run:
    """The run of a fake that two processes make together; a step may take so many seconds."""
    case = text_case(out, steps=8, step_timeout_s=limit)
    options = Options(out=out / "run", command=(), workers=1)
    case, _ = prepare(case, (), options)
    made = dataclasses.replace(
        job(case, options, "reference-1"), runner=f"{FAKES}:{runner}", ranks=2, starter="torchrun"
    )
    (run,) = Launcher(workers=1).execute([made], case)
    until(lambda: not processes_of(out), "no process is left", seconds=20)
    return run


def test_a_run_of_two_processes_has_one_trace_and_the_logs_of_both(tmp_path: Path) -> None:
    run = over_two(tmp_path, "Together")
    assert run.outcome.status == "completed" and run.trace is not None, run.outcome
    assert len(run.trace.lines) == 8 and run.trace.header.provenance["ranks"] == 2
    logs = tmp_path / "run" / "runs" / "reference-1" / "ranks" / "log"
    assert "this is process 1" in (logs / "worker_1.log").read_text()


def test_a_process_that_is_killed_is_a_finding_and_leaves_none(tmp_path: Path) -> None:
    run = over_two(tmp_path, "OneKilled")
    assert run.outcome.status == "crashed" and "after step 4" in run.outcome.detail, run.outcome


def test_a_process_that_hangs_is_a_finding_and_leaves_none(tmp_path: Path) -> None:
    run = over_two(tmp_path, "OneHangs", limit=8.0)
    assert run.outcome.status == "hung" and "after step 4" in run.outcome.detail, run.outcome
