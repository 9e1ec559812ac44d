"""What a history keeps: every result, and the bundles of as many nights as the matrix allows."""

from pathlib import Path

import pytest
import yaml

from harness.base.records import write_json
from harness.nightly import NIGHT_FORMAT, Night
from harness.nightly.history import CELLS, NIGHT, NIGHTS, nights, prune
from harness.nightly.matrix import load_matrix

KIB = 2**10
# The digest of the matrix below, before there were limits.
BEFORE = "8351f706f85afe44a9e924b4633031fc61fc0dfec8a28ce7486e4fc94636e5ac"
GIB = 2**30


def write_nights(history: Path, *sizes: int) -> None:
    """Nights whose cells take so many KiB, the oldest first."""
    for number, size in enumerate(sizes):
        night = Night(
            format=NIGHT_FORMAT, name=f"2026010{number}-000000", matrix="m", revision=None, started="", ended="",
            host="", prerequisites={}, cells=(), total=0,
        )  # fmt: skip
        place = history / NIGHTS / night.name
        write_json(place / NIGHT, night)
        (place / CELLS / "one" / "bundle").mkdir(parents=True)
        (place / CELLS / "one" / "bundle" / "tensors").write_bytes(bytes(size * KIB))


def kept(history: Path) -> list[int]:
    return [number for number, (place, _) in enumerate(nights(history)) if (place / CELLS).exists()]


@pytest.mark.parametrize(
    ("keep", "kib", "left"),
    [
        (30, None, [0, 1, 2, 3]),
        (2, None, [2, 3]),
        (30, 100, [0, 1, 2, 3]),
        (30, 90, [1, 2, 3]),
        (30, 69, [2, 3]),
        (30, 1, [2, 3]),
        (3, 69, [2, 3]),
    ],
)
def test_a_history_keeps_every_result_and_as_many_bundles_as_fit(
    tmp_path: Path, keep: int, kib: int | None, left: list[int]
) -> None:
    write_nights(tmp_path, 10, 20, 30, 40)
    prune(tmp_path, keep, None if kib is None else kib * KIB / GIB)
    assert kept(tmp_path) == left and len(nights(tmp_path)) == 4


def test_a_matrix_without_a_limit_has_the_digest_that_it_had(tmp_path: Path) -> None:
    """Nights of before are then nights of it."""
    text = {"name": "one", "cells": [{"case": "qwen3-tiny-fp32"}]}
    digests = {}
    for name, more in (("before", {}), ("limited", {"keep_gib": 500})):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**text, **more}))
        digests[name] = load_matrix(tmp_path / f"{name}.yaml").digest()
    assert digests["before"] == BEFORE and digests["limited"] != digests["before"]
