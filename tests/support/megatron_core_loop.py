"""`python -m tests.support.megatron_core_loop [DIRECTORY]`: a loop of megatron-core's GPT on a CPU, collected or not.

Prints the digest of the final weights. What asks for CUDA in megatron-core, and is not the model's mathematics, is
replaced: the current device, and the tracker of random numbers.
"""

import contextlib
import sys
import tempfile
from pathlib import Path
from typing import Any

import mindspore  # noqa: F401  # before megatron-core: it states how protobuf is to work in this process
import numpy as np
import torch
from megatron.core import parallel_state
from megatron.core.models.gpt import GPTModel
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.tensor_parallel.random import get_cuda_rng_tracker
from megatron.core.transformer.transformer_config import TransformerConfig

from harness.base.digest import digest_tensors
from harness.collect.collector import Collector
from harness.collect.torch_model import arrays, norm_of_gradients

STEPS, ROWS, LENGTH = 4, 2, 32


def start() -> None:
    """One process of a world of one."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{tempfile.mkdtemp()}/store", 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    parallel_state.initialize_model_parallel(1, 1)
    torch.cuda.current_device = lambda: "cpu"
    get_cuda_rng_tracker().fork = lambda *_, **__: contextlib.nullcontext()
    torch.manual_seed(1)


def model() -> Any:
    """Two layers of width 64, in the form of Qwen3 but for the norms of queries and keys."""
    config = TransformerConfig(
        num_layers=2, hidden_size=64, num_attention_heads=4, num_query_groups=2, kv_channels=32, ffn_hidden_size=160,
        use_cpu_initialization=True, normalization="RMSNorm", gated_linear_unit=True, add_bias_linear=False,
        activation_func=torch.nn.functional.silu, attention_dropout=0.0, hidden_dropout=0.0, layernorm_epsilon=1e-6,
        gradient_accumulation_fusion=False, bias_activation_fusion=False, masked_softmax_fusion=False,
    )  # fmt: skip
    layers = get_gpt_layer_local_spec(normalization="RMSNorm")
    return GPTModel(
        config=config, transformer_layer_spec=layers, vocab_size=320, max_sequence_length=LENGTH,
        position_embedding_type="rope", rotary_base=1000000, share_embeddings_and_output_weights=False,
    )  # fmt: skip


def main(directory: str | None = None) -> None:
    start()
    gpt = model()
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=1e-3)
    collector = None
    if directory is not None:
        collector = Collector(Path(directory), steps=STEPS, trainer="megatron-core")
        collector.begin()
    hidden = torch.triu(torch.ones(LENGTH, LENGTH, dtype=torch.bool), 1)[None, None]
    positions = torch.arange(LENGTH)[None].expand(ROWS, -1)
    for step in range(STEPS):
        tokens = np.random.RandomState(step).randint(0, 300, (ROWS, LENGTH + 1)).astype(np.int32)
        ids = torch.from_numpy(tokens.astype(np.int64))
        loss = gpt(ids[:, :-1], positions, hidden, labels=ids[:, 1:]).mean()
        loss.backward()
        norm = norm_of_gradients(gpt)
        optimizer.step()
        optimizer.zero_grad()
        if collector is not None:
            collector.step(loss=loss.item(), grad_norm=norm, learning_rate=1e-3, tokens=tokens)
    if collector is not None:
        collector.end()
    print("weights", digest_tensors(dict(arrays(gpt))))


if __name__ == "__main__":
    main(*sys.argv[1:])
