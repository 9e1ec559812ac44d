"""What may run at once on a machine, and what is offered where a case does not fit."""

from pathlib import Path

import pytest

from harness.cases.case import load_case
from harness.certify.case_options import cut, with_layout
from harness.certify.estimate import memory_of_a_run, memory_of_the_host, nearest, parameter_count, runs_at_once
from harness.certify.prerequisites import needs
from tests.support.examples import options, small_case


def test_small_cases_run_as_many_at_once_as_are_asked_for() -> None:
    assert runs_at_once(small_case(), 4, 8.0) == 4
    assert runs_at_once(small_case(), 4, 0) == 4, "where the memory of the machine is not known"


def test_runs_that_together_would_not_fit_are_made_one_after_the_other() -> None:
    case = load_case("qwen3-0.6b-fp32")
    assert 12 < memory_of_a_run(case) < 24
    assert runs_at_once(case, 2, 24.0) == 1 and runs_at_once(case, 2, 64.0) == 2


def test_asking_a_model_takes_less_memory_than_training_it_and_doing_both_takes_the_most() -> None:
    trains, asks = (load_case(f"qwen3-0.6b-{name}") for name in ("fp32", "inference-fp32"))
    assert 7 < memory_of_a_run(asks) < 11 < memory_of_a_run(trains)
    trained = {**asks.inference_section.model_dump(), "weights": {"kind": "trained"}}
    assert memory_of_a_run(asks.with_changes(inference=trained, evidence="tensors")) > 11


@pytest.mark.parametrize("memory", [6.0, 12.0, 16.0])
def test_what_is_offered_in_place_of_a_case_fits_and_is_the_most_that_does(memory: float) -> None:
    case = load_case("qwen3-0.6b-fp32")
    offered = nearest(case, memory)
    assert offered is not None
    words = dict(zip(*[iter(offered.split())] * 2, strict=True))
    layers, vocabulary = int(words["--layers"]), words.get("--vocab")
    assert memory_of_a_run(cut(case, layers, vocabulary and int(vocabulary))) <= memory
    if layers + 1 < case.model.num_hidden_layers:
        assert memory_of_a_run(cut(case, layers + 1, vocabulary and int(vocabulary))) > memory


def test_what_devices_train_needs_less_memory_of_the_machine(tmp_path: Path) -> None:
    case = with_layout(load_case("qwen3-8b-bf16"), {})
    there, here = (options(tmp_path, device=device) for device in ("Ascend", "CPU"))
    alone, beside = needs(case, there, ("subject",)).memory, needs(case, there, ("subject", "reference")).memory
    assert 80 < alone < 110 and beside == needs(case, here, ("subject",)).memory > 200


def test_no_rank_holds_the_whole_model_in_the_memory_of_its_machine() -> None:
    """All ranks of a machine together need little more of it than one process, and over two machines half."""
    case = load_case("qwen3-8b-bf16")
    whole = 4 * parameter_count(case) / 2**30
    spread = with_layout(case, {"data_parallel": 1, "model_parallel": 4, "pipeline_stage": 2, "micro_batch_num": 2})
    eight = memory_of_the_host(spread, 8)
    assert eight / 8 < whole and 3 * whole < memory_of_the_host(case, 1) < eight < 5 * whole
    assert memory_of_the_host(spread, 4) == pytest.approx(eight / 2)


def test_a_rank_that_keeps_tensors_holds_those_of_the_whole_model() -> None:
    case = load_case("qwen3-tiny-dp2-tp2").with_changes(evidence="tensors")
    kept = 4 * 8 * parameter_count(case) / 2**30
    by_sketches = memory_of_the_host(case.with_changes(evidence="sketches"), 4)
    assert memory_of_the_host(case, 4) == pytest.approx(by_sketches + kept)


def test_nothing_is_offered_where_nothing_fits() -> None:
    assert nearest(load_case("qwen3-32b-bf16"), 2.0) is None
