"""A configuration of mindformers with Megatron data and initial weights, which its own Trainer trains on a CPU."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from harness.cases.case import Case, load_case
from harness.corpus.draw import draw_inputs, draw_weights
from harness.corpus.indexed import IndexedWriter
from harness.runs.inputs import BATCHES, WEIGHTS, read_weights
from qwen3_model.checkpoints import Checkpoint, write_hugging_face
from tests.support.configurations import file_of, small

ROOT = Path(__file__).resolve().parents[2]
STEPS, ROWS = 8, 2


def configuration(directory: Path, **changes: Any) -> tuple[Path, Case]:
    """The file of a configuration, and the case that it is: `STEPS` steps of `ROWS` rows."""
    text = (ROOT / "CHANGELOG.md").read_bytes()
    documents = [np.frombuffer(part + b"\n", np.uint8).astype(np.int32) for part in text.split(b"\n- ")]
    ended = [np.append(document, 256).astype(np.int32) for document in documents]
    with IndexedWriter(directory / "tokens", np.int32) as writer:
        writer.add(np.concatenate(ended), [len(one) for one in ended], [1] * len(ended))
    values = {
        "seed": 42,
        "output_dir": str(directory / "output"),
        "load_checkpoint": "",
        "load_ckpt_format": "safetensors",
        "auto_trans_ckpt": False,
        "resume_training": False,
        "only_save_strategy": False,
        "runner_config": {"epochs": 1, "batch_size": ROWS, "sink_mode": False, "gradient_accumulation_steps": 1},
        "train_dataset": {
            "data_loader": {
                "type": "BlendedMegatronDatasetDataLoader",
                "datasets_type": "GPTDataset",
                "sizes": [STEPS * ROWS, 0, 0],
                "config": {
                    "seed": 1234,
                    "split": "1, 0, 0",
                    "seq_length": 64,
                    "eod_mask_loss": False,
                    "reset_position_ids": False,
                    "create_attention_mask": False,
                    "reset_attention_mask": False,
                    "create_compressed_eod_mask": False,
                    "eod_pad_length": 128,
                    "eod": 256,
                    "pad": -1,
                    "data_path": ["1", str(directory / "tokens")],
                },
            },
            "input_columns": ["input_ids", "labels", "loss_mask", "position_ids"],
            "construct_args_key": ["input_ids", "labels", "loss_mask", "position_ids"],
            "num_parallel_workers": 1,
            "python_multiprocessing": False,
            "drop_remainder": True,
            "numa_enable": False,
            "prefetch_size": 1,
            "seed": 1234,
        },
        "context": {"mode": 0, "device_target": "CPU", "max_device_memory": "4GB"},
        "parallel": {"parallel_mode": 1, "full_batch": False},
        "parallel_config": {"data_parallel": 1, "model_parallel": 1, "pipeline_stage": 1, "micro_batch_num": 1},
        "micro_batch_interleave_num": 1,
        "recompute_config": {"recompute": False},
        "callbacks": [{"type": "MFLossMonitor"}],
        **changes,
    }
    content = small(values)
    content["train_dataset_task"] = {"type": "CausalLanguageModelDataset", "dataset_config": content["train_dataset"]}
    model = content["model"]["model_config"]
    model |= {
        "hidden_act": "swiglu", "initializer_range": 0.02, "rms_norm_eps": 1.0e-6, "rope_theta": 1000000.0,
        "attention_dropout": 0.0, "attention_bias": False, "add_bias_linear": False, "use_flash_attention": True,
        "tie_word_embeddings": False, "untie_embeddings_and_output_weights": True, "position_embedding_type": "rope",
        "qk_layernorm": True, "qkv_concat": True, "pad_token_id": 300, "params_dtype": "float32",
        "layernorm_compute_dtype": "float32",
        "softmax_compute_dtype": "float32", "rotary_dtype": "float32", "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
    }  # fmt: skip
    file = file_of(content, directory)
    case = load_case(str(file))
    checkpoint = Checkpoint(config=case.model, step=0, parameters=draw_weights(case), moments={})
    if not (directory / "initial").exists():
        write_hugging_face(checkpoint, directory / "initial")
    return file, case


def of_rows(directory: Path, case: Case, schedule: str = "CosineWithWarmUpLR") -> Path:
    """The file of a configuration that trains a case of the size of the default case from `directory`, where its
    batches and its initial weights are written."""
    draw_inputs(case, directory / "inputs")
    asked, training = case.lr_schedule, case.training
    columns = ["input_ids", "labels", "loss_mask", "position_ids"]
    rows_of_case = {"type": "CertifyRows", "dataset_dir": str(directory / "inputs" / BATCHES), "shuffle": False}
    file, _ = configuration(directory)
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    content["lr_schedule"] = {
        "type": schedule, "learning_rate": asked.learning_rate, "lr_end": asked.lr_end,
        "warmup_steps": asked.warmup_steps, "total_steps": training.steps,
    }  # fmt: skip
    content["runner_wrapper"]["max_grad_norm"] = training.clip_grad
    content["runner_config"]["batch_size"] = case.data.global_batch_size
    content["model"]["model_config"] |= {"pad_token_id": -1}  # what it hides from attention: nothing
    rows = {**content["train_dataset"], "data_loader": rows_of_case, "input_columns": columns}
    content["train_dataset"] = rows
    content["train_dataset_task"] = {"type": "CausalLanguageModelDataset", "dataset_config": rows}
    weights = dict(read_weights(directory / "inputs" / WEIGHTS).items())
    shutil.rmtree(directory / "initial")
    write_hugging_face(Checkpoint(config=case.model, step=0, parameters=weights, moments={}), directory / "initial")
    return file_of(content, directory)
