"""Configurations of mindformers for tests: their keys and forms are mindformers', the sizes are ours."""

import copy
from pathlib import Path
from typing import Any

import yaml

# One process, a model of two layers; every key that a training of Qwen3 must have, and little else.
SMALL = """
run_mode: train
use_legacy: False
use_parallel: False
trainer: {type: CausalLanguageModelingTrainer, model_name: tiny}
runner_config: {epochs: 1, batch_size: 2}
optimizer: {type: AdamW, betas: [0.9, 0.95], eps: 1.e-8, weight_decay: 0.1}
lr_schedule: {type: ConstantWarmUpLR, learning_rate: 1.e-4, warmup_ratio: 0.1}
train_dataset:
  data_loader:
    type: BlendedMegatronDatasetDataLoader
    datasets_type: GPTDataset
    sizes: [40, 0, 0]
    config: {split: "1, 0, 0", seq_length: 64, data_path: ['1', /somewhere/tokens]}
train_dataset_task: {type: CausalLanguageModelDataset}
model:
  model_config:
    vocab_size: 320
    hidden_size: 64
    intermediate_size: 160
    num_hidden_layers: 2
    num_attention_heads: 4
    num_key_value_heads: 2
    head_dim: 32
    max_position_embeddings: 128
    seq_length: 64
    hidden_dropout: 0.0
    compute_dtype: float32
    fp32_residual_connection: True
runner_wrapper: {type: MFTrainOneStepCell, scale_sense: 1.0, use_clip_grad: True}
"""
CONTENT: dict[str, Any] = yaml.safe_load(SMALL)


def small(changes: dict[str, Any] | None = None, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """A small configuration with other values at dotted names, and without some keys or sections."""
    content = copy.deepcopy(CONTENT)
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        section = content
        for part in parents:
            section = section.setdefault(part, {})
        section[last] = value
    for path in without:
        *parents, last = path.split(".")
        section = content
        for part in parents:
            section = section[part]
        del section[last]
    return content


def staged(changes: dict[str, Any] | None = None, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The same over two pipeline stages."""
    layout = {
        "use_parallel": True,
        "parallel_config.pipeline_stage": 2,
        "parallel_config.micro_batch_num": 2,
        "parallel.full_batch": True,
    }
    return small({**layout, **(changes or {})}, without=without)


def file_of(content: dict[str, Any], directory: Path, name: str = "small.yaml") -> Path:
    """A file with a configuration."""
    path = directory / name
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path
