"""The rules of Megatron's sample order; tests/parity/test_sample_order.py compares it with Megatron's own code."""

import dataclasses
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import InputError
from harness.cases.case import Case
from harness.corpus.batches import draw_batches
from harness.corpus.indexed import IndexedDataset, IndexedWriter, open_indexed
from harness.corpus.samples import GptSamples, Sampling, WeightedDataset, draw_samples, training_part
from tests.support.examples import small_case
from tests.support.properties import examples

SAMPLING = Sampling(seed=1234, seq_length=4, samples=10, split="1, 0, 0", order="megatron")


def write(prefix: Path, lengths: list[int], first: int = 0) -> IndexedDataset:
    """Documents of these lengths whose ids count up from `first`, so that a token shows its position."""
    with IndexedWriter(prefix, "int32", overwrite=True) as writer:
        writer.add(np.arange(first, first + sum(lengths)), lengths, [1] * len(lengths))
    return open_indexed(prefix)


def all_rows(samples: Any) -> np.ndarray:
    return samples.rows(np.arange(len(samples)))


LENGTHS = st.lists(st.integers(0, 12), min_size=1, max_size=12).filter(lambda lengths: sum(lengths) > 4)


@given(LENGTHS, st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**32 - 1))
@settings(max_examples=examples(60))
def test_each_epoch_gives_each_token_as_often_as_the_others(
    lengths: list[int], seq_length: int, count: int, seed: int
) -> None:
    if sum(lengths) <= seq_length:
        return
    sampling = dataclasses.replace(SAMPLING, seq_length=seq_length, seed=seed)
    with tempfile.TemporaryDirectory() as directory:
        samples = GptSamples(write(Path(directory) / "a", lengths), sampling, count)
        rows = all_rows(samples)
    assert len(samples) >= count
    assert rows.shape == (len(samples), seq_length + 1)
    seen = Counter(rows[:, 1:].ravel().tolist())  # the first token of a row is the last of another
    assert max(seen.values()) <= samples.epochs
    assert sum(seen.values()) == len(samples) * seq_length
    assert samples.epochs * sum(lengths) - sum(seen.values()) <= seq_length


@given(LENGTHS, st.integers(0, 2**32 - 1))
@settings(max_examples=examples(30))
def test_a_row_does_not_depend_on_the_other_requested_rows(lengths: list[int], seed: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        parts = [
            WeightedDataset(write(Path(directory) / "a", lengths), 0.3),
            WeightedDataset(write(Path(directory) / "b", [9, 0, 5], first=10_000), 0.7),
        ]
        samples = draw_samples(parts, dataclasses.replace(SAMPLING, seed=seed, samples=20))
        rows = all_rows(samples)
        for number in (0, 7, 19):
            assert np.array_equal(samples.rows(np.array([number]))[0], rows[number])
        backwards = np.arange(len(samples))[::-1]
        assert np.array_equal(samples.rows(backwards), rows[::-1])


def test_a_blend_keeps_its_weights_at_every_sample(tmp_path: Path) -> None:
    parts = [
        WeightedDataset(write(tmp_path / "a", [50] * 9), 0.3),
        WeightedDataset(write(tmp_path / "b", [50] * 9, first=10_000), 0.7),
    ]
    rows = all_rows(draw_samples(parts, dataclasses.replace(SAMPLING, samples=100)))
    of_a = np.cumsum(rows[:, 0] < 10_000)
    assert np.abs(of_a - 0.3 * np.arange(1, 101)).max() <= 1


def test_the_order_depends_on_the_seed_only(tmp_path: Path) -> None:
    dataset = write(tmp_path / "a", [5] * 40)
    first, again, other = (
        all_rows(GptSamples(dataset, dataclasses.replace(SAMPLING, seed=seed), 40)) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("split", "part"),
    [("1, 0, 0", 100), ("969, 30, 1", 97), ("0.5,0.5,0", 50), ("1", 100), ("2 1 1", 50), ("99,1", 99)],
)
def test_a_split_names_the_sequences_to_train_on(split: str, part: int) -> None:
    assert training_part(100, split).tolist() == list(range(part))


@pytest.mark.parametrize("split", ["", "0, 1, 0", "a", "1, 0, 0, 0", "1..2", "0, 0, 0"])
def test_an_invalid_split_is_an_error(split: str) -> None:
    with pytest.raises(InputError, match="is not a split"):
        training_part(100, split)


def test_a_training_part_without_a_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training part of .*a has 4 tokens; one row of data.seq_length 4 needs 5"):
        GptSamples(write(tmp_path / "a", [4, 40]), dataclasses.replace(SAMPLING, split="1, 1, 0"), 10)


def case_of(order: str, data_path: list[str], **data: Any) -> Case:
    case = small_case()
    corpus = {"kind": "megatron", "data_path": data_path}
    return case.with_changes(
        model={**case.model.to_hf(), "vocab_size": 20_000},
        data={**case.data.model_dump(), "corpus": corpus, "order": order, **data},
    )


def test_the_batches_of_a_case_are_its_first_samples_in_order(tmp_path: Path) -> None:
    one, other = write(tmp_path / "a", [30] * 20), write(tmp_path / "b", [7] * 60, first=10_000)
    case = case_of("megatron", ["0.3", str(one.prefix), "0.7", str(other.prefix)], seed=9, num_samples=500)
    batches = draw_batches(case)
    sampling = Sampling(seed=9, seq_length=16, samples=500, split="1, 0, 0", order="megatron")
    samples = draw_samples([WeightedDataset(one, 0.3), WeightedDataset(other, 0.7)], sampling)
    assert np.array_equal(batches.tokens.reshape(16, 17), samples.rows(np.arange(16)))
    assert batches.corpus_tokens == 20 * 30 + 60 * 7 and batches.epochs == samples.epochs


def test_mindformers_repeats_its_whole_steps_in_the_same_order(tmp_path: Path) -> None:
    prefix = str(write(tmp_path / "a", [30] * 20).prefix)
    whole = draw_batches(case_of("mindformers", ["1", prefix]))
    few = draw_batches(case_of("mindformers", ["1", prefix], num_samples=7))
    steps, rows = whole.tokens.shape[:2]
    assert rows == 2 and few.epochs == -(-steps // 3)
    for step in range(steps):
        assert np.array_equal(few.tokens[step], few.tokens[step % 3])
    assert len({few.tokens[step].tobytes() for step in range(3)}) == 3


def test_a_blend_without_weights_is_not_repeated(tmp_path: Path) -> None:
    prefixes = [str(write(tmp_path / name, [30] * 3).prefix) for name in "ab"]
    with pytest.raises(InputError, match="give each part of data_path a weight"):
        draw_batches(case_of("megatron", prefixes))


def test_a_blend_that_differs_from_the_recorded_one_is_an_error(tmp_path: Path) -> None:
    prefix = str(write(tmp_path / "a", [30] * 20).prefix)
    case = case_of("megatron", ["1", prefix])
    corpus = {**case.data.corpus.model_dump(), "sha256": draw_batches(case).corpus_sha256}
    recorded = case.with_changes(data={**case.data.model_dump(), "corpus": corpus})
    assert np.array_equal(draw_batches(recorded).tokens, draw_batches(case).tokens)
    write(tmp_path / "a", [31] * 20)
    with pytest.raises(InputError, match="it is another file"):
        draw_batches(recorded)


def test_a_recorded_blend_without_paths_is_an_error(tmp_path: Path) -> None:
    case = case_of("megatron", ["1", str(write(tmp_path / "a", [30] * 20).prefix)])
    record = case.record()
    with pytest.raises(InputError, match="data_path in the case's file"):
        draw_batches(case.with_changes(data={**record["data"]}))
