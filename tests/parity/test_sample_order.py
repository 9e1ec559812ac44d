"""The order of samples against the data sets that define it: megatron-core's and mindformers', row by row.

Both are built through their own BlendedMegatronDatasetBuilder. What it takes on a CPU: megatron-core imports as it is,
compiled helpers included. mindformers' wheel holds its helpers as C++ source that is compiled on first use; here
megatron-core's compiled helpers, the same functions, stand in for `mindformers.dataset.blended_datasets.helpers`.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from megatron.core.datasets import helpers
from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder as MegatronBuilder
from megatron.core.datasets.gpt_dataset import GPTDataset as MegatronGPTDataset
from megatron.core.datasets.gpt_dataset import GPTDatasetConfig as MegatronConfig
from mindformers.dataset.blended_datasets.blended_megatron_dataset_builder import (
    BlendedMegatronDatasetBuilder as MindformersBuilder,
)
from mindformers.dataset.blended_datasets.gpt_dataset import GPTDataset as MindformersGPTDataset
from mindformers.dataset.blended_datasets.gpt_dataset import GPTDatasetConfig as MindformersConfig

from harness.cases.case import Case, load_case
from harness.corpus.batches import draw_batches
from harness.corpus.indexed import IndexedWriter
from tests.support.examples import shorter

ROWS, EOD, VOCABULARY = 1000, 0, 1000
# number of sequences, longest sequence, dtype; some are empty, some documents have several sequences or none
SETS = {"a": (300, 60, "int32"), "b": (120, 90, "uint16"), "c": (40, 200, "int32"), "tiny": (9, 40, "uint16")}


class Tokenizer:
    """What both configurations ask of a tokenizer."""

    eod, pad, vocab_size, unique_identifiers = EOD, -1, VOCABULARY, "none"


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("sets")
    for number, (name, (sequences, longest, dtype)) in enumerate(SETS.items()):
        random = np.random.RandomState(number)
        lengths = random.randint(0, longest, sequences)
        ids = random.randint(0, VOCABULARY, lengths.sum())
        ids[np.cumsum(lengths[lengths > 0]) - 1] = EOD
        documents = [0, 3, *[1] * (sequences - 3)]
        with IndexedWriter(directory / name, dtype) as writer:
            writer.add(ids, lengths.tolist(), documents)
    return {name: str(directory / name) for name in SETS}


@pytest.fixture(autouse=True)
def helpers_of_mindformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mindformers.dataset.blended_datasets.helpers", helpers)


# one epoch of these at a sequence length of 32: a about 280 rows, b 165, c 120, tiny 5
COMBINATIONS: list[tuple[int, int, int, list[str], str]] = [
    (1234, 32, 10, ["a"], "1, 0, 0"),
    (1, 32, 275, ["a"], "1, 0, 0"),
    (2, 32, 300, ["a"], "1, 0, 0"),
    (3, 32, 480, ["a"], "1, 0, 0"),
    (4, 32, 520, ["a"], "1, 0, 0"),
    (5, 32, 1000, ["a"], "1, 0, 0"),
    (6, 128, 1000, ["a"], "1, 0, 0"),
    (7, 7, 1000, ["a"], "1, 0, 0"),
    (8, 64, 700, ["b"], "900, 60, 40"),
    (9, 64, 700, ["a"], "50, 25, 25"),
    (10, 3, 1000, ["tiny"], "1, 0, 0"),
    (11, 32, 400, ["tiny"], "1, 0, 0"),
    (1234, 32, 400, ["1", "a"], "1, 0, 0"),
    (12, 32, 100, ["0.3", "a", "0.7", "b"], "1, 0, 0"),
    (13, 32, 1000, ["0.3", "a", "0.7", "b"], "1, 0, 0"),
    (14, 32, 1000, ["30", "a", "70", "b"], "90, 10, 0"),
    (15, 32, 1000, ["0.2", "a", "0.3", "b", "0.5", "c"], "1, 0, 0"),
    (16, 50, 1000, ["1", "a", "1", "b", "1", "c"], "1, 0, 0"),
    (17, 32, 1000, ["0.999", "a", "0.001", "tiny"], "1, 0, 0"),
    (18, 32, 560, ["a", "b", "c"], "1, 0, 0"),
    (19, 32, 200, ["a", "b"], "1, 0, 0"),
    (20, 16, 900, ["b", "c", "tiny"], "1, 0, 0"),
    (21, 32, 503, ["0.5", "a", "0.5", "b"], "1, 0, 0"),
    (22, 32, 999, ["0.1", "tiny", "0.9", "c"], "1, 0, 0"),
]
IDS = [
    "-".join(map(str, (seed, length, rows, *path, split))).replace(" ", "")
    for seed, length, rows, path, split in COMBINATIONS
]


def blend_of(path: list[str], sets: dict[str, str]) -> tuple[list[str], list[float] | None]:
    if path[0] in sets:
        return [sets[name] for name in path], None
    return [sets[name] for name in path[1::2]], [float(weight) for weight in path[::2]]


def megatron(blend: Any, seed: int, length: int, rows: int, split: str, mask: bool) -> Any:
    config = MegatronConfig(
        random_seed=seed, sequence_length=length, blend=blend, split=split, tokenizer=Tokenizer(),
        reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=mask, create_attention_mask=False,
    )  # fmt: skip
    built = MegatronBuilder(MegatronGPTDataset, [rows, 0, 0], lambda: True, config).build()[0]
    for number in range(min(rows, len(built))):
        sample = built[number]
        yield (*(sample[key].numpy() for key in ("tokens", "labels", "loss_mask")),)


def mindformers(blend: Any, seed: int, length: int, rows: int, split: str, mask: bool) -> Any:
    config = MindformersConfig(
        random_seed=seed, sequence_length=length, blend=blend, split=split, tokenizer=Tokenizer(),
        reset_position_ids=False, reset_attention_mask=False, eod_mask_loss=mask, create_attention_mask=False,
        eod=EOD, pad=-1,
    )  # fmt: skip
    built = MindformersBuilder(MindformersGPTDataset, [rows, 0, 0], lambda: True, config).build()[0]
    for number in range(min(rows, len(built))):
        tokens, labels, loss_mask, _ = built[number]
        yield tokens, labels, loss_mask


def case_of(order: str, path: list[str], rows: int, sets: dict[str, str], **data: Any) -> Case:
    case = shorter(load_case("qwen3-tiny-fp32"), rows, warmup_steps=0, lr_zero_steps=1)
    corpus: dict[str, Any] = {"kind": "megatron", "data_path": [sets.get(word, word) for word in path]}
    if len(path) == 1:
        corpus = {"kind": "megatron", "path": sets[path[0]]}
    return case.with_changes(
        model={**case.model.to_hf(), "vocab_size": VOCABULARY, "max_position_embeddings": 2048},
        data={
            **case.data.model_dump(), "corpus": corpus, "order": order, "eod": EOD, "global_batch_size": 1,
            "sweep_vocabulary": False, **data,
        },
    )  # fmt: skip


@pytest.mark.parametrize("theirs", [megatron, mindformers])
@pytest.mark.parametrize(("seed", "length", "rows", "path", "split"), COMBINATIONS, ids=IDS)
def test_rows_and_masks_are_theirs(
    sets: dict[str, str], theirs: Any, seed: int, length: int, rows: int, path: list[str], split: str
) -> None:
    mask = seed % 2 == 0
    expected = list(theirs(blend_of(path, sets), seed, length, rows, split, mask))[:ROWS]
    # without weights a blend has no more rows than its parts, so fewer may be there than were asked for
    case = case_of(
        theirs.__name__, path, len(expected), sets,
        seed=seed, seq_length=length, num_samples=rows, split=split, eod_mask_loss=mask,
    )  # fmt: skip
    ours = draw_batches(case)
    tokens, labels, masks = map(np.stack, zip(*expected, strict=True))
    assert len(expected) >= min(rows, 100)
    assert np.array_equal(ours.tokens[:, 0, :-1], tokens)
    assert np.array_equal(ours.tokens[:, 0, 1:], labels)
    assert np.array_equal(ours.loss_mask[:, 0], masks)


def test_the_prefixes_have_what_makes_an_order_hard(sets: dict[str, str]) -> None:
    for name in ("a", "b"):
        lengths = np.fromfile(Path(f"{sets[name]}.idx"), "<i4", SETS[name][0], offset=34)
        assert (lengths == 0).any()
