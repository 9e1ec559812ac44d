"""The cost of a layout: every parameter is on a rank, more splitting needs less memory, a search finds what fits."""

import dataclasses
import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import InputError
from harness.cases.case import Case, load_case
from harness.planning.memory import (
    BYTES,
    GIB,
    MIB,
    hccl_buffers,
    layer_activations,
    layer_parameters,
    memory,
    stage_parameters,
)
from harness.planning.search import ERROR, Fit, candidate, search
from harness.planning.traffic import traffic
from harness.planning.work import seconds_of_a_step, work
from qwen3_model.configuration_qwen3 import parameter_shapes
from qwen3_model.parallel_config import ParallelConfig
from qwen3_model.sharding import EMBEDDING
from qwen3_model.sizes import PUBLISHED
from tests.support.command_line import caller
from tests.support.examples import ROOT

GUIDE = ROOT / "qwen3_model" / "configs" / "pretrain_qwen3_32b_4k.yaml"
BASE = load_case("qwen3-tiny-fp32")
LARGE = load_case(str(GUIDE))
# Published sizes in parameters without the embedding's second use. Source: the model cards of Qwen3.
BILLIONS = {"0.6B": 0.6, "1.7B": 1.7, "4B": 4.0, "8B": 8.2, "14B": 14.8, "32B": 32.8}


def laid_out(case: Case = LARGE, rows: int | None = None, recompute: bool | None = None, **layout: Any) -> Case:
    data, training = case.data.model_dump(), case.training.model_dump()
    data["global_batch_size"] = rows or data["global_batch_size"]
    training["recompute"] = training["recompute"] if recompute is None else recompute
    whole = dataclasses.asdict(dataclasses.replace(case.parallel, **layout))
    return case.with_changes(data=data, training=training, parallel=whole)


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_single_rank_holds_the_published_number_of_parameters(size: str) -> None:
    case = BASE.with_changes(model=PUBLISHED[size].to_hf())
    shapes = math.fsum(math.prod(shape) for _, shape in parameter_shapes(case.model))
    assert stage_parameters(case, 0) == shapes
    assert round(shapes / 1e9, 1) == BILLIONS[size]


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]), st.booleans())
def test_only_norms_and_a_whole_embedding_are_on_several_ranks(shards: int, stages: int, whole: bool) -> None:
    case = laid_out(rows=8, model_parallel=shards, pipeline_stage=stages, offset=(), vocab_emb_dp=whole,
                    micro_batch_num=stages)  # fmt: skip
    config = case.model
    norms = config.num_hidden_layers * (2 * config.hidden_size + 2 * config.head_dim) + config.hidden_size
    embedding = config.vocab_size * config.hidden_size if whole else 0
    on_all = sum(stage_parameters(case, stage) for stage in range(stages)) * shards
    total = sum(math.prod(shape) for _, shape in parameter_shapes(config))
    assert on_all == total + (shards - 1) * (norms + embedding)


def test_a_tied_head_on_another_stage_is_a_second_copy() -> None:
    tied = load_case("qwen3-tied-fp32")
    layout = ParallelConfig(pipeline_stage=2, micro_batch_num=2)
    case = tied.with_changes(
        parallel=dataclasses.asdict(layout),
        training={**tied.training.model_dump(), "gradient_accumulation_steps": 1},
    )
    one, config = stage_parameters(tied, 0), tied.model
    both = stage_parameters(case, 0) + stage_parameters(case, 1)
    assert both == one + config.vocab_size * config.hidden_size


def largest(case: Case, ascend: bool = True) -> int:
    return max(stage.total for stage in memory(case, ascend))


def test_more_splitting_needs_less_memory() -> None:
    wide = laid_out(rows=8, offset=(), data_parallel=2)
    assert largest(laid_out(wide, model_parallel=8)) < largest(wide)
    assert largest(laid_out(wide, enable_parallel_optimizer=True)) < largest(wide)
    whole = laid_out(wide, recompute=False)
    assert largest(laid_out(whole, use_seq_parallel=True)) < largest(whole)
    assert largest(laid_out(wide, recompute=True)) < largest(laid_out(wide, recompute=False))
    assert largest(wide, ascend=True) < largest(wide, ascend=False)


def test_an_earlier_stage_keeps_the_inputs_of_more_micro_batches() -> None:
    """1F1B: stage s has as many micro batches in flight as there are stages from s on, however many a step has."""
    even = laid_out(rows=8, offset=(), micro_batch_num=8, recompute=False)
    kept = [stage.activations for stage in memory(even, ascend=True)]
    stream = even.data.seq_length * even.model.hidden_size * BYTES[even.precision.residual_dtype]
    assert [before - after for before, after in itertools.pairwise(kept)] == [stream] * 3
    few = laid_out(rows=4, offset=(), micro_batch_num=4, recompute=False)
    assert [stage.activations for stage in memory(few, ascend=True)] == kept


def test_a_trainer_that_keeps_activations_keeps_those_of_every_micro_batch_in_flight() -> None:
    even = laid_out(rows=8, offset=(), micro_batch_num=8, recompute=False)
    kept = [stage.activations for stage in memory(even, ascend=True, stages_kept=True)]
    assert [round(amount / kept[-1]) for amount in kept] == [4, 3, 2, 1]


def test_a_stage_of_a_pipeline_runs_forward_once_more() -> None:
    one = laid_out(rows=8, recompute=False, pipeline_stage=1, micro_batch_num=1, offset=())
    two = laid_out(rows=8, recompute=False, pipeline_stage=2, micro_batch_num=8, offset=())
    assert candidate(one, ascend=True).time == 1.0
    assert candidate(two, ascend=True).time == pytest.approx((1 + 1 / 8) * 4 / 3)
    again = laid_out(two, recompute=True)
    assert candidate(again, ascend=True).time == pytest.approx((1 + 1 / 8) * 5 / 3)


def test_the_layout_of_the_guide_uses_most_of_its_cards_memory() -> None:
    stages = list(memory(LARGE, ascend=True))
    assert [len(stage.layers) for stage in stages] == [15, 15, 17, 17]
    assert min(s.total for s in stages) > 30 * GIB and max(s.total for s in stages) < 58 * GIB
    for stage in stages:
        assert stage.weights == 4 * stage.parameters and stage.moments == 8 * stage.parameters
        assert stage.parameters >= len(stage.layers) * layer_parameters(LARGE.model, 4)


@pytest.mark.parametrize(
    ("layout", "groups"),
    [
        ({}, 0),
        ({"data_parallel": 2}, 1),  # the world is also the replicas and the model
        ({"model_parallel": 2, "data_parallel": 2}, 3),
        ({"pipeline_stage": 4, "micro_batch_num": 4, "model_parallel": 2}, 4),  # world, shards, and two neighbours
    ],
)
def test_each_group_of_ranks_holds_two_buffers_and_so_does_that_of_mindspore(
    layout: dict[str, int], groups: int
) -> None:
    case = laid_out(rows=8, offset=(), **{"model_parallel": 1, "pipeline_stage": 1, "micro_batch_num": 1, **layout})
    middle = case.parallel.pipeline_stage // 2
    assert hccl_buffers(case, middle) == (groups + 1 if groups else 0) * 2 * 200 * MIB
    assert [stage.buffers for stage in memory(case, ascend=True)][middle] == hccl_buffers(case, middle)
    assert not any(stage.buffers for stage in memory(case, ascend=False))


def test_the_work_of_all_ranks_is_that_of_one_and_of_the_forward_passes_that_are_made_again() -> None:
    """Source of the whole: 6 operations for a parameter and token, and attention, as with a single forward pass."""
    one = laid_out(rows=8, recompute=False, model_parallel=1, pipeline_stage=1, micro_batch_num=1, offset=())
    config, tokens = one.model, 8 * one.data.seq_length
    (whole,) = work(one)
    products = sum(math.prod(shape) for name, shape in parameter_shapes(config) if name != EMBEDDING)
    scores = config.num_hidden_layers * config.num_attention_heads * config.head_dim * one.data.seq_length
    assert whole.total == pytest.approx(6 * tokens * (products + 2 * scores), rel=1e-4)
    for layout in ({"model_parallel": 4}, {"data_parallel": 4}, {"model_parallel": 2, "data_parallel": 2}):
        (rank,) = work(laid_out(one, **layout))
        assert 4 * rank.total == pytest.approx(whole.total, rel=1e-4)
    again = laid_out(one, recompute=True)
    (more,) = work(again)
    assert more.layers == pytest.approx(whole.layers * 4 / 3) and more.head == whole.head
    stages = list(work(laid_out(one, pipeline_stage=4, micro_batch_num=8)))
    assert [stage.layers / whole.layers * 4 for stage in stages] == pytest.approx([4 / 3] * 3 + [1.0])
    assert sum(stage.head for stage in stages) == whole.head


def test_a_step_takes_the_time_of_its_largest_stage_and_of_the_filling() -> None:
    one = laid_out(rows=8, recompute=False, model_parallel=1, pipeline_stage=1, micro_batch_num=1, offset=())
    (whole,) = work(one)
    assert seconds_of_a_step(one, 1e12) == pytest.approx(whole.total / 1e12)
    two = laid_out(one, pipeline_stage=2, micro_batch_num=8)
    assert seconds_of_a_step(two, 1e12) == pytest.approx(max(stage.total for stage in work(two)) / 1e12 * 9 / 8)


def test_a_plan_with_a_speed_states_the_time_of_a_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = caller(capsys, monkeypatch, "plan", "qwen3-8b-bf16")
    shown, found = call("--tflops", 100), json.loads(call("--tflops", 100, "--json").out)
    seconds = max(found["operations"]) / 1e14 * 5 / 4  # 4 micro batches through 2 stages
    assert found["seconds_of_a_step"] == pytest.approx(seconds) and f"a step takes {seconds:.3g} s" in shown.out
    assert "a step takes" not in call().out


@given(st.integers(-20, 20))
def test_what_the_error_of_the_estimate_reaches_is_too_close(percent: int) -> None:
    own = candidate(BASE, ascend=False)
    limit = own.bytes * (100 + percent) // 100
    fit = own.fit(limit)
    assert (fit is Fit.FITS) == (limit >= own.bytes * (1 + ERROR))
    assert (fit is Fit.NOT) == (limit < own.bytes * (1 - ERROR))


def test_plain_operators_keep_more_than_fused_ones_on_the_same_device() -> None:
    plain = LARGE.with_changes(precision={**LARGE.precision.dtypes, "fused": False})
    fused, kept = layer_activations(LARGE, ascend=True), layer_activations(plain, ascend=True)
    assert kept.written_out + kept.other > fused.written_out + fused.other and fused.written_out == 0
    assert layer_activations(LARGE, ascend=False) == layer_activations(plain, ascend=False)


def test_one_rank_sends_nothing_and_replicas_send_an_all_reduce_of_their_gradients() -> None:
    assert [one.total for one in traffic(BASE)] == [0]
    two = BASE.with_changes(parallel={"data_parallel": 2})
    (sent,) = traffic(two)
    assert (sent.replicas, sent.shards, sent.stages) == (4 * stage_parameters(two, 0), 0, 0)
    four = BASE.with_changes(parallel={"data_parallel": 4})
    assert next(traffic(four)).replicas == 4 * stage_parameters(four, 0) * 3 // 2


def test_stages_send_to_their_neighbours_only() -> None:
    sent = list(traffic(LARGE))
    assert sent[0].stages == sent[3].stages == sent[1].stages // 2 == sent[2].stages // 2 > 0
    assert all(one.replicas == 0 and one.shards > 0 for one in sent)


def test_a_search_gives_the_layouts_that_fit_fastest_first() -> None:
    found = search(LARGE, 16, 58 * GIB, ascend=True)
    assert found and all(one.fit(58 * GIB) is Fit.FITS and one.case.parallel.world_size == 16 for one in found)
    times = [round(one.time, 3) for one in found]
    assert times == sorted(times)
    assert min(times) < candidate(LARGE, ascend=True).time
    with pytest.raises(InputError, match=r"does not fit on 4 cards .* the smallest layout needs"):
        search(LARGE, 4, 58 * GIB, ascend=True)


def test_the_plan_reports_whether_it_fits(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    certify = caller(capsys, monkeypatch)
    close = certify("plan", GUIDE, "--memory", "54GB")
    assert close.code == 1 and "of 54.0 GiB: it is too close. The estimate may be 8% off." in close.out
    fits = certify("plan", GUIDE)
    assert fits.code == 0 and "of 58.0 GiB: it fits." in fits.out
    tight = certify("plan", GUIDE, "--memory", "40GB")
    assert tight.code == 1 and "does NOT fit" in tight.out and "It would fit on 32 cards with" in tight.out
    record = json.loads(certify("plan", GUIDE, "--json").out)
    assert (
        record["fit"] == "FITS"
        and record["limit"] == 58 * GIB
        and [stage["stage"] for stage in record["stages"]] == [0, 1, 2, 3]
    )
    assert record["bytes"] == max(stage["total"] for stage in record["stages"])
    assert "DP1 x TP8 x PP2" in certify("plan", GUIDE, "--cards", 16).out
    for wrong in (("--memory", "much"), ("--memory", "0GB"), ("--device", "TPU")):
        assert certify("plan", GUIDE, *wrong).code == 2
    unknown = certify("plan", "qwen3-tiny-fp32", "--cards", 2)
    assert unknown.code == 2 and "give --memory" in unknown.said
