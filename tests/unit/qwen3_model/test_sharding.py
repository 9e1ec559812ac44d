"""Parts of tensors: the parts of all ranks are the whole, bit for bit, for any layout."""

import dataclasses
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.planning.memory import stage_parameters
from qwen3_model import gathered
from qwen3_model.configuration_qwen3 import Qwen3Config, parameter_shapes
from qwen3_model.gathered import AllRanks
from qwen3_model.parallel_config import ParallelConfig, Part
from qwen3_model.sharding import assemble, counts, take_parts
from qwen3_model.sizes import SMALL
from qwen3_model.weights import WeightsError
from tests.support.examples import small_case

CONFIG = dataclasses.replace(SMALL["small"], num_hidden_layers=4, hidden_size=16, intermediate_size=24, head_dim=4,
                             vocab_size=32)  # fmt: skip
OFFSETS: tuple[tuple[int, ...], ...] = ((), (1, -1), (-1, 1), (0, 1, 0))


def usable(config: Qwen3Config) -> list[ParallelConfig]:
    """Every layout of up to 2 x 4 x 4 ranks that a configuration allows."""
    kinds = itertools.product((1, 2), (1, 2, 4), (1, 2, 3, 4), OFFSETS, (False, True))
    layouts = [
        ParallelConfig(
            data_parallel=replicas,
            model_parallel=shards,
            pipeline_stage=stages,
            micro_batch_num=4 if stages > 1 else 1,
            offset=offset,
            vocab_emb_dp=whole_embedding,
        )
        for replicas, shards, stages, offset, whole_embedding in kinds
    ]
    return [layout for layout in layouts if not list(layout.problems(config, rows=8, seq_length=8))]


HEADS = {tied: dataclasses.replace(CONFIG, tie_word_embeddings=tied) for tied in (False, True)}
LAYOUTS = {tied: st.sampled_from(usable(config)) for tied, config in HEADS.items()}


def tensors(config: Qwen3Config) -> dict[str, np.ndarray]:
    random = np.random.RandomState(0)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in parameter_shapes(config)}


def held(whole: dict[str, np.ndarray], config: Qwen3Config, layout: ParallelConfig) -> dict[int, Any]:
    return {rank: take_parts(whole, config, layout, rank) for rank in range(layout.world_size)}


@given(st.booleans(), st.data())
def test_splitting_and_assembling_changes_no_bit_in_any_layout(tied: bool, data: st.DataObject) -> None:
    config = HEADS[tied]
    whole = tensors(config)
    for layout in data.draw(st.tuples(LAYOUTS[tied], LAYOUTS[tied])):
        again = assemble(held(whole, config, layout), config, layout)
        assert list(again) and set(again) == set(whole)
        assert all(again[name].tobytes() == whole[name].tobytes() for name in whole)
        whole = again


def on_every_rank(config: Qwen3Config, layout: ParallelConfig, work: Callable[[int, AllRanks], Any]) -> list[Any]:
    """What the ranks of a layout, each a thread, make together."""
    together, size = threading.Barrier(layout.world_size), layout.world_size
    given: list[Any] = [None] * size

    def carry_out(rank: int) -> Any:
        def total(numbers: np.ndarray) -> np.ndarray:
            assert numbers.dtype == np.float32
            given[rank] = numbers
            together.wait()
            found = np.sum(given, axis=0, dtype=np.float32)
            together.wait()  # before another sum begins
            return found

        try:
            return work(rank, AllRanks(config, layout, rank, total))
        except BaseException:
            together.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(carry_out, range(size)))


def rows_of_replica(part: np.ndarray, layout: ParallelConfig, rank: int) -> np.ndarray:
    """The rows of a part that a replica keeps where replicas share them; all where they cannot."""
    share, rest = divmod(len(part), layout.data_parallel)
    begin = layout.coordinates(rank).replica * share
    return part if rest else part[begin : begin + share]


@given(st.booleans(), st.data(), st.booleans(), st.integers(1, 5000))
def test_gathering_changes_no_bit_on_any_rank(tied: bool, data: st.DataObject, shared: bool, piece: int) -> None:
    config, layout = HEADS[tied], data.draw(LAYOUTS[tied])
    whole = tensors(config)
    whole["model.norm.weight"][:3] = np.array([0xFF800001, 0x80000000, 0x00000001], np.uint32).view(np.float32)

    def work(rank: int, ranks: AllRanks) -> dict[str, bytes]:
        parts = take_parts(whole, config, layout, rank)
        kept = {name: rows_of_replica(part, layout, rank) if shared else part for name, part in parts.items()}
        return {name: tensor.tobytes() for name, tensor in ranks.gathered(kept).items()}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gathered, "PIECE", piece)
        expected = {name: tensor.tobytes() for name, tensor in whole.items()}
        assert all(found == expected for found in on_every_rank(config, layout, work))


@given(st.booleans(), st.data())
def test_a_copy_that_differs_on_one_rank_makes_its_tensor_nan_on_every_rank(tied: bool, data: st.DataObject) -> None:
    config = HEADS[tied]
    layout = data.draw(LAYOUTS[tied].filter(lambda layout: layout.data_parallel > 1))
    whole, torn = tensors(config), data.draw(st.integers(0, layout.world_size - 1))
    name = data.draw(st.sampled_from(sorted(take_parts(whole, config, layout, torn))))

    def work(rank: int, ranks: AllRanks) -> set[str]:
        parts = take_parts(whole, config, layout, rank)
        if rank == torn:
            parts[name] = np.nextafter(parts[name], np.float32(np.inf))
        return {one for one, tensor in ranks.gathered(parts).items() if np.isnan(tensor).all()}

    assert all(found == {name} for found in on_every_rank(config, layout, work))


@given(st.booleans(), st.data())
def test_exactly_one_holder_of_a_part_counts_in_each_replica(tied: bool, data: st.DataObject) -> None:
    config, layout = HEADS[tied], data.draw(LAYOUTS[tied])
    counted = dict.fromkeys((name for name, _ in parameter_shapes(config)), 0)
    for rank, parts in held(tensors(config), config, layout).items():
        for name, part in parts.items():
            if counts(name, config, layout, rank):
                counted[name] += part.size
    sizes = {name: np.prod(shape) * layout.data_parallel for name, shape in parameter_shapes(config)}
    assert counted == sizes


@given(st.booleans(), st.data())
def test_a_rank_holds_as_many_numbers_as_planned_for_its_stage(tied: bool, data: st.DataObject) -> None:
    config, layout = HEADS[tied], data.draw(LAYOUTS[tied])
    case = small_case().with_changes(
        model={**config.to_hf(), "vocab_size": 320},
        data={**small_case().data.model_dump(), "global_batch_size": 8},
        parallel=dataclasses.asdict(layout),
    )
    whole = tensors(case.model)
    for rank, parts in held(whole, case.model, layout).items():
        stage = layout.coordinates(rank).stage
        assert sum(part.size for part in parts.values()) == stage_parameters(case, stage)


def test_heads_and_channels_are_split_in_order() -> None:
    layout = ParallelConfig(model_parallel=2)
    whole = tensors(CONFIG)
    first, second = (take_parts(whole, CONFIG, layout, rank) for rank in range(2))
    attention = "model.layers.0.self_attn"
    assert np.array_equal(second[f"{attention}.q_proj.weight"], whole[f"{attention}.q_proj.weight"][16:])
    assert np.array_equal(first[f"{attention}.o_proj.weight"], whole[f"{attention}.o_proj.weight"][:, :16])
    assert np.array_equal(first[f"{attention}.q_norm.weight"], second[f"{attention}.q_norm.weight"])
    assert Part(axis=1, index=1, of=2).take(np.arange(8).reshape(2, 4)).tolist() == [[2, 3], [6, 7]]


def edited(parts: dict[int, Any], what: str) -> None:
    if what == "missing rank":
        del parts[3]
    elif what == "missing tensor":
        del parts[1]["model.norm.weight"]
    elif what == "tensor of another stage":
        parts[0]["model.norm.weight"] = parts[2].get("model.norm.weight", np.ones(16, np.float32))
    else:
        parts[1]["model.layers.0.input_layernorm.weight"] = np.full(16, 2.0, np.float32)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing rank", "rank 3: missing"),
        ("tensor of another stage", "rank 0: model.norm.weight: unexpected on this rank"),
        ("another copy", "rank 1: model.layers.0.input_layernorm.weight: differs from rank 0's"),
    ],
)
def test_parts_that_do_not_fit_together_are_an_error(what: str, message: str) -> None:
    layout = ParallelConfig(model_parallel=2, pipeline_stage=2, micro_batch_num=2)
    parts = held(tensors(CONFIG), CONFIG, layout)
    edited(parts, what)
    with pytest.raises(WeightsError) as refused:
        assemble(parts, CONFIG, layout)
    assert message in str(refused.value)
