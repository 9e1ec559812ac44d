"""Layouts: every rank has one position, every layer is on one stage, invalid layouts are errors."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.parallel_config import Coordinates, ParallelConfig
from qwen3_model.sizes import PUBLISHED, SMALL

# The layout of the pretraining guide: Qwen3-32B on 16 cards, sequence 4096, 4 micro batches of one row.
GUIDE = ParallelConfig(model_parallel=4, pipeline_stage=4, micro_batch_num=4, offset=(-1, -1, 1, 1))
DEGREES = st.integers(1, 5)
LAYOUTS = st.builds(
    ParallelConfig, data_parallel=DEGREES, model_parallel=DEGREES, pipeline_stage=DEGREES, micro_batch_num=DEGREES
)


@given(LAYOUTS)
def test_every_rank_has_its_own_position(layout: ParallelConfig) -> None:
    positions = [layout.coordinates(rank) for rank in range(layout.world_size)]
    assert len(set(positions)) == layout.world_size
    assert [layout.rank(where) for where in positions] == list(range(layout.world_size))
    for wrong in (-1, layout.world_size):
        with pytest.raises(ValueError, match="There is no rank"):
            layout.coordinates(wrong)


def test_model_parallel_ranks_are_adjacent_and_stages_follow_each_other() -> None:
    layout = ParallelConfig(data_parallel=2, model_parallel=2, pipeline_stage=2)
    assert [tuple(layout.coordinates(rank)) for rank in range(4)] == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]
    assert layout.coordinates(7) == Coordinates(stage=1, replica=1, shard=1)


@given(LAYOUTS, st.integers(1, 12), st.lists(st.integers(-2, 2), max_size=5))
def test_a_valid_layout_has_every_layer_once_and_splits_evenly(
    layout: ParallelConfig, number: int, offset: list[int]
) -> None:
    layout = dataclasses.replace(layout, offset=tuple(offset))
    config = dataclasses.replace(SMALL["small"], num_hidden_layers=number)
    rows = 60
    if not list(layout.problems(config, rows=rows, seq_length=32)):
        stages = layout.layers(number)
        assert [layer for stage in stages for layer in stage] == list(range(number))
        assert len(stages) == layout.pipeline_stage and all(stages)
        assert config.num_key_value_heads % layout.model_parallel == 0
        assert rows % (layout.data_parallel * layout.micro_batch_num) == 0


def test_the_layout_of_the_guide_is_valid() -> None:
    assert not list(GUIDE.problems(PUBLISHED["32B"], rows=4, seq_length=4096))
    assert [len(stage) for stage in GUIDE.layers(64)] == [15, 15, 17, 17]
    assert GUIDE.world_size == 16


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.parametrize("degree", [1, 2, 4, 8])
def test_published_sizes_can_be_split_over_up_to_eight_ranks(size: str, degree: int) -> None:
    layout = ParallelConfig(model_parallel=degree, use_seq_parallel=degree > 1)
    assert not list(layout.problems(PUBLISHED[size], rows=1, seq_length=4096))


WRONG: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "no replica": ({"data_parallel": 0}, {}, ("data_parallel",)),
    "heads": ({"model_parallel": 3}, {}, ("model_parallel", "num_attention_heads")),
    "key-value heads": ({"model_parallel": 16}, {}, ("model_parallel", "num_key_value_heads")),
    "vocabulary": ({"model_parallel": 4}, {"vocab_size": 151935}, ("model_parallel", "vocab_size")),
    "positions of one rank": ({"use_seq_parallel": True}, {}, ("use_seq_parallel", "model_parallel")),
    "moments of one replica": (
        {"enable_parallel_optimizer": True},
        {},
        ("enable_parallel_optimizer", "data_parallel"),
    ),
    "a tied head of a whole embedding": (
        {"model_parallel": 2, "vocab_emb_dp": True},
        {"tie_word_embeddings": True},
        ("vocab_emb_dp", "tie_word_embeddings", "model_parallel"),
    ),
    "numbers of offset": ({"pipeline_stage": 2, "offset": (0,)}, {}, ("offset", "pipeline_stage")),
    "layers left over": (
        {"pipeline_stage": 3, "micro_batch_num": 3},
        {},
        ("offset", "pipeline_stage", "num_hidden_layers"),
    ),
    "a stage without a layer": (
        {"pipeline_stage": 2, "micro_batch_num": 2, "offset": (-32, 32)},
        {},
        ("offset", "pipeline_stage", "num_hidden_layers"),
    ),
    "stages that never fill": ({"pipeline_stage": 4}, {}, ("micro_batch_num", "pipeline_stage")),
    "micro batches of one stage": ({"micro_batch_num": 2}, {}, ("micro_batch_num", "pipeline_stage")),
    "rows": ({"data_parallel": 5}, {}, ("data_parallel", "micro_batch_num", "global_batch_size")),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_invalid_layout_names_the_fields_in_conflict(wrong: str) -> None:
    layout, changes, named = WRONG[wrong]
    config: Qwen3Config = dataclasses.replace(PUBLISHED["32B"], **changes)
    found = list(ParallelConfig(**layout).problems(config, rows=12, seq_length=4096))
    assert named in [problem.fields for problem in found]
    assert all(str(problem).endswith(".") and problem.fix for problem in found)


def test_positions_that_cannot_be_split_evenly_are_a_problem() -> None:
    layout = ParallelConfig(model_parallel=4, use_seq_parallel=True)
    (problem,) = layout.problems(PUBLISHED["32B"], rows=1, seq_length=4098)
    assert "seq_length" in problem.fields


@pytest.mark.parametrize(
    ("name", "size", "fix"),
    [("num_key_value_heads", 8, "Use model_parallel: 8."), ("vocab_size", 151935, "Pad the vocabulary to 151936")],
)
def test_a_problem_names_a_fix(name: str, size: int, fix: str) -> None:
    config = dataclasses.replace(PUBLISHED["32B"], **{name: size})
    problems = ParallelConfig(model_parallel=16).problems(config, rows=1, seq_length=4096)
    assert any(fix in str(problem) for problem in problems if name in problem.fields)
