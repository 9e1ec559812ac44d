"""Checkpoints of all layouts hold the same model: conversion between layouts and to Hugging Face changes no bit."""

import dataclasses
import errno
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from qwen3_model import weights
from qwen3_model.checkpoints import (
    MOMENTS,
    Checkpoint,
    file_name,
    load_part,
    read_checkpoint,
    save_part,
    write_checkpoint,
    write_hugging_face,
)
from qwen3_model.configuration_qwen3 import Qwen3Config, parameter_shapes
from qwen3_model.parallel_config import ParallelConfig
from qwen3_model.sizes import SMALL
from qwen3_model.weights import WeightsError, load_safetensors

CONFIG = dataclasses.replace(SMALL["tiny"], num_hidden_layers=3, hidden_size=16, intermediate_size=24, head_dim=4,
                             vocab_size=32)  # fmt: skip
LAYOUTS = st.builds(
    ParallelConfig,
    data_parallel=st.integers(1, 3),
    model_parallel=st.sampled_from([1, 2]),
    pipeline_stage=st.integers(1, 3),
    micro_batch_num=st.just(3),
    vocab_emb_dp=st.booleans(),
    enable_parallel_optimizer=st.booleans(),
)


def saved(config: Qwen3Config) -> Checkpoint:
    random = np.random.RandomState(0)

    def drawn() -> dict[str, Any]:
        return {name: random.standard_normal(shape).astype(np.float32) for name, shape in parameter_shapes(config)}

    return Checkpoint(config=config, step=7, parameters=drawn(), moments={kind: drawn() for kind in MOMENTS})


def usable(layout: ParallelConfig, config: Qwen3Config) -> ParallelConfig:
    stages = layout.pipeline_stage
    offset = (1, *(0,) * (stages - 1)) if config.num_hidden_layers % stages else ()
    layout = dataclasses.replace(layout, micro_batch_num=3 if stages > 1 else 1, offset=offset)
    assume(not list(layout.problems(config, rows=18, seq_length=8)))
    return layout


def same(one: Checkpoint, other: Checkpoint) -> bool:
    pairs = [(one.parameters, other.parameters), *((one.moments[kind], other.moments[kind]) for kind in MOMENTS)]
    alike = all(set(a) == set(b) and all(a[n].tobytes() == b[n].tobytes() for n in a) for a, b in pairs)
    return alike and (one.step, one.config) == (other.step, other.config)


@settings(max_examples=25, deadline=None)
@given(LAYOUTS, LAYOUTS, st.booleans())
def test_a_change_of_layout_changes_no_bit(one: ParallelConfig, other: ParallelConfig, tied: bool) -> None:
    whole = saved(dataclasses.replace(CONFIG, tie_word_embeddings=tied))
    for layout in (usable(one, whole.config), usable(other, whole.config)):
        with tempfile.TemporaryDirectory() as directory:
            paths = write_checkpoint(whole, directory, layout)
            assert len(paths) == layout.world_size
            again = read_checkpoint(directory)
        assert same(again, whole)


def test_only_moments_are_split_over_replicas(tmp_path: Path) -> None:
    layout = ParallelConfig(data_parallel=2, enable_parallel_optimizer=True)
    write_checkpoint(saved(CONFIG), tmp_path, layout)
    first, second = (load_part(tmp_path / file_name(layout, rank)).tensors for rank in range(2))
    name = "model.layers.0.mlp.up_proj.weight"
    assert np.array_equal(first[name], second[name])
    assert len(first[f"exp_avg.{name}"]) == len(second[f"exp_avg.{name}"]) == len(first[name]) // 2


def test_hugging_face_checkpoint_holds_the_parameters_only(tmp_path: Path) -> None:
    whole = saved(CONFIG)
    write_hugging_face(whole, tmp_path)
    found = load_safetensors(tmp_path)
    assert set(found) == set(whole.parameters)
    assert all(found[name].tobytes() == tensor.tobytes() for name, tensor in whole.parameters.items())
    assert Qwen3Config.from_hf(tmp_path / "config.json") == CONFIG


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("missing", "no such file"),
        ("step", "rank 1: another model, layout or step"),
        ("format", "format: expected"),
        ("copy", "differs from rank 0's"),
        ("more", "3 files for 2 ranks"),
    ],
)
def test_files_that_are_not_one_checkpoint_are_an_error(tmp_path: Path, change: str, why: str) -> None:
    layout = ParallelConfig(data_parallel=2)
    write_checkpoint(saved(CONFIG), tmp_path, layout)
    second = tmp_path / file_name(layout, 1)
    part = load_part(second)
    if change == "missing":
        second.unlink()
    elif change == "step":
        save_part(second, part.tensors, CONFIG, layout, step=8)
    elif change == "format":
        second.write_bytes(second.read_bytes().replace(b"checkpoint-2", b"checkpoint-1"))
    elif change == "copy":
        tensors = {**part.tensors, "model.norm.weight": part.tensors["model.norm.weight"] + 1}
        save_part(second, tensors, CONFIG, layout, step=7)
    else:
        save_part(tmp_path / file_name(ParallelConfig(), 0), part.tensors, CONFIG, layout, step=7)
    with pytest.raises(WeightsError, match=why):
        read_checkpoint(tmp_path)


def test_a_directory_without_a_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no checkpoint there"):
        read_checkpoint(tmp_path)


def test_a_full_disk_is_an_error_of_the_system_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(weights, "save_file", full)
    with pytest.raises(OSError) as refused:
        weights.write_safetensors({}, tmp_path / "x.safetensors", {})
    assert (refused.value.errno, refused.value.filename) == (errno.ENOSPC, str(tmp_path / "x.safetensors"))
