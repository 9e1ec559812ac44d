"""A sweep of the vocabulary: batches reach every id, and first what lies at the border of a shard."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import InputError
from harness.cases.case import Case
from harness.comparison.reach import reach_of
from harness.corpus.batches import draw_batches, sweep
from harness.corpus.draw import batch_tensors
from tests.support.examples import small_case, text_case


def swept(case: Case, *, steps: int, rows: int, length: int, vocabulary: int) -> Case:
    return case.with_changes(
        model={**case.model.to_hf(), "vocab_size": vocabulary},
        data={**case.data.model_dump(), "seq_length": length, "global_batch_size": rows, "sweep_vocabulary": True},
        training={**case.training.model_dump(), "steps": steps, "lr_zero_steps": 1},
    )


@given(st.integers(1, 6), st.integers(4, 40), st.sampled_from([320, 384, 511]))
def test_every_id_is_an_input_and_a_target_and_three_rows_of_four_are_text(rows: int, length: int, size: int) -> None:
    steps = 4 * -(-size // length)
    case = swept(small_case(), steps=steps, rows=rows, length=length, vocabulary=size)
    tokens = np.full((steps * rows, length + 1), -1, np.int32)
    sweep(tokens, case)
    ids = tokens[tokens[:, 0] >= 0]
    assert set(ids[:, :-1].ravel()) == set(ids[:, 1:].ravel()) == set(range(size))
    assert len(ids) * 4 <= len(tokens)
    assert all((row == -1).all() or (row >= 0).all() for row in tokens)


def test_too_few_steps_reach_the_borders_of_every_split_first() -> None:
    case = swept(small_case(), steps=8, rows=4, length=16, vocabulary=512)
    tokens = np.full((32, 17), -1, np.int32)
    sweep(tokens, case)
    borders = {
        edge
        for shards in (1, 2, 4, 8)
        for n in range(shards)
        for edge in (n * 512 // shards, (n + 1) * 512 // shards - 1)
    }
    assert borders <= set(tokens[3][:-1]) | set(tokens[7])


def test_the_batches_of_a_case_are_swept_and_repeat(tmp_path: Path) -> None:
    plain = text_case(tmp_path)
    data = {**plain.data.model_dump(), "sweep_vocabulary": True}
    training = {**plain.training.model_dump(), "steps": 40}
    case = plain.with_changes(data=data, training=training)
    one, other = draw_batches(case), draw_batches(case)
    assert np.array_equal(one.tokens, other.tokens) and case.digest() != plain.digest()
    reach = reach_of(case, batch_tensors(one))
    unswept = reach_of(plain, batch_tensors(draw_batches(plain.with_changes(training=training))))
    assert reach.ids > unswept.ids and reach.of_ids == case.model.vocab_size


def test_a_case_without_a_sweep_has_the_record_that_it_had() -> None:
    assert "sweep_vocabulary" not in small_case().record()["data"]


def test_a_sweep_replaces_text_alone() -> None:
    data = {**small_case().data.model_dump(), "sweep_vocabulary": True, "corpus": {"kind": "megatron", "path": "x"}}
    with pytest.raises(InputError, match="sweep_vocabulary needs a text"):
        small_case().with_changes(data=data)


def test_the_ids_of_a_sweep_count_among_padded_rows(tmp_path: Path) -> None:
    plain = text_case(tmp_path)
    case = plain.with_changes(
        data={**plain.data.model_dump(), "sweep_vocabulary": True, "packing": "paragraph"},
        training={**plain.training.model_dump(), "steps": 40},
    )
    drawn = draw_batches(case)
    rows = drawn.tokens.reshape(-1, case.data.seq_length + 1)
    swept_rows = sweep(rows.copy(), case)
    mask = drawn.loss_mask.reshape(-1, case.data.seq_length)
    assert mask[swept_rows].all() and not np.delete(mask, swept_rows, axis=0).all()


def test_a_shard_that_owns_no_target_is_not_reached() -> None:
    case = swept(small_case(), steps=4, rows=1, length=4, vocabulary=320).with_changes(parallel={"model_parallel": 2})
    tokens = np.full((4, 1, 5), 7, np.int32)
    batches = {"tokens": tokens, "loss_mask": np.ones((4, 1, 4), np.uint8)}
    assert (reach_of(case, batches).shards, reach_of(case, batches).of_shards) == (1, 2)
    tokens[2] = 319
    assert reach_of(case, batches).shards == 2
    batches["loss_mask"][2] = 0
    assert reach_of(case, batches).shards == 1
