"""The parts that a rank of several holds of the weights: stated by their digests, in a file of its own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.digest import digest_array
from harness.base.errors import InputError
from harness.collect.collector import Collector
from harness.runs.collected import PARTS
from harness.runs.files import TRACE
from qwen3_model.parallel_config import Part
from tests.support.collected import Array, Stated
from tests.support.documents import SITE, code_blocks, read

WHOLE = np.arange(8, dtype=np.float32).reshape(4, 2)
HALF = Part(index=1, of=2)
TOKENS = np.zeros((1, 4), np.int32)


def collector(directory: Path, *, rank: int = 1, ranks: int = 2, arm: str = "train") -> Collector:
    return Collector(directory, steps=2, trainer="loop", rank=rank, ranks=ranks, reporting=ranks - 1, arm=arm)


def steps(one: Collector, count: int) -> None:
    for _ in range(count):
        one.step(loss=1.0, grad_norm=1.0, learning_rate=1e-3, tokens=TOKENS)


def lines(directory: Path, rank: int = 1) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / PARTS / f"{rank}.jsonl").read_bytes().splitlines()]


def held(whole: Array = WHOLE) -> list[Stated]:
    return [("a", HALF, HALF.take(whole)), ("b", Part(), whole)]


def test_a_rank_states_its_parts_at_the_beginning_and_at_the_end(tmp_path: Path) -> None:
    one = collector(tmp_path)
    one.begin(parts=held())
    steps(one, 2)
    one.end(parts=held(WHOLE + 1))
    head, *stated, last = lines(tmp_path)
    assert (head["rank"], head["ranks"], head["initial"], last["final"], last["last_step"]) == (1, 2, True, True, 2)
    found = [(line["when"], line["name"], line["axis"], line["index"], line["of"], line["digest"]) for line in stated]
    assert found == [
        ("initial", "a", 0, 1, 2, digest_array(WHOLE[2:])),
        ("initial", "b", 0, 0, 1, digest_array(WHOLE)),
        ("final", "a", 0, 1, 2, digest_array(WHOLE[2:] + 1)),
        ("final", "b", 0, 0, 1, digest_array(WHOLE + 1)),
    ]
    header = json.loads((tmp_path / TRACE).read_bytes().splitlines()[0])
    assert header["initial"] == {} and header["provenance"]["collected"]["omitted"] == ["alignment"]


def test_a_part_is_on_disk_before_the_next_is_read(tmp_path: Path) -> None:
    seen = list[int]()

    def one_at_a_time() -> Iterator[Stated]:
        for part in held():
            yield part
            seen.append(len(lines(tmp_path)))

    collector(tmp_path).begin(parts=one_at_a_time())
    assert seen == [2, 3]


def test_a_rank_without_parts_states_that_it_has_none(tmp_path: Path) -> None:
    one = collector(tmp_path)
    one.begin()
    steps(one, 2)
    one.end()
    head, last = lines(tmp_path)
    assert not head["initial"] and not last["final"]
    header = json.loads((tmp_path / TRACE).read_bytes().splitlines()[0])
    assert header["provenance"]["collected"]["omitted"] == ["alignment", "weights"]


def test_one_process_leaves_no_parts(tmp_path: Path) -> None:
    one = collector(tmp_path, rank=0, ranks=1)
    one.begin({"a": WHOLE})
    steps(one, 2)
    one.end({"a": WHOLE + 1})
    assert not (tmp_path / PARTS).exists()


def test_a_resumed_run_keeps_what_was_stated_of_the_initial_weights(tmp_path: Path) -> None:
    first = collector(tmp_path, arm="resumed")
    first.begin(parts=held())
    steps(first, 1)
    before = lines(tmp_path)
    second = collector(tmp_path, arm="resumed")
    second.begin(parts=held(WHOLE + 1), after=1)
    steps(second, 1)
    second.end(parts=held(WHOLE + 2))
    after = lines(tmp_path)
    assert after[:3] == before and [line["when"] for line in after[3:-1]] == ["final", "final"]


def test_weights_are_given_whole_or_in_parts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="whole or in parts, and not both"):
        collector(tmp_path).begin({"a": WHOLE}, parts=held())


@pytest.mark.parametrize("part", [Part(index=2, of=2), Part(axis=-1, of=2), Part(index=-1, of=2), Part(of=0)])
def test_a_part_that_no_division_has_is_refused(tmp_path: Path, part: Part) -> None:
    with pytest.raises(InputError, match="a: there is no part"):
        collector(tmp_path).begin(parts=[("a", part, WHOLE)])


def test_the_documented_lines_state_what_a_rank_holds(tmp_path: Path) -> None:
    (block,) = (text for _, text in code_blocks(read(SITE / "collect.md")) if "collector.end(parts=" in text)
    arrays = {"norm": WHOLE[0], "queries": WHOLE[2:], "output": WHOLE[:, 1:]}
    exec(block, {"collector": collector(tmp_path), "shard": 1, "shards": 2, "stated": {}, **arrays})
    found = [(line["name"].split(".")[-2], line["axis"], line["index"], line["of"]) for line in lines(tmp_path)[1:-1]]
    assert found == 2 * [("norm", 0, 0, 1), ("q_proj", 0, 1, 2), ("o_proj", 1, 1, 2)]
