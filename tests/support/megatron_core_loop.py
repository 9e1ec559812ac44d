"""`python -m tests.support.megatron_core_loop [LINES]`: a loop of megatron-core's GPT on a CPU, collected or not.

`LINES` are those that a user adds.

Prints the digest of the final weights. What asks for CUDA in megatron-core, and is not the model's mathematics, is
replaced: the current device, and the tracker of random numbers.
"""

import contextlib
import sys
import tempfile
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
from harness.collect.torch_model import arrays, norm_of_gradients

STEPS, ROWS, LENGTH, RATE = 4, 2, 32, 1e-3


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


class Training:
    """A step of the model, and what it is called with."""

    def __init__(self) -> None:
        self.gpt = model()
        self._optimizer = torch.optim.AdamW(self.gpt.parameters(), lr=RATE)
        self._hidden = torch.triu(torch.ones(LENGTH, LENGTH, dtype=torch.bool), 1)[None, None]
        self._positions = torch.arange(LENGTH)[None].expand(ROWS, -1)

    def step(self, tokens: Any, loss_mask: Any) -> tuple[float, float, float]:
        """Loss, norm and rate."""
        ids = torch.from_numpy(tokens.astype(np.int64))
        losses = self.gpt(ids[:, :-1], self._positions, self._hidden, labels=ids[:, 1:])
        counts = torch.from_numpy(loss_mask)
        loss = (losses * counts).sum() / counts.sum()
        loss.backward()
        norm = norm_of_gradients(self.gpt)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss.item(), norm, RATE


def main(lines: str | None = None) -> None:
    """Executes the lines of a trainer with a collector, in the working directory; or steps without one."""
    start()
    training = Training()
    drawn = [np.random.RandomState(step).randint(0, 300, (ROWS, LENGTH + 1)).astype(np.int32) for step in range(STEPS)]
    batches = [(tokens, np.ones((ROWS, LENGTH), np.float32)) for tokens in drawn]
    if lines is None:
        for tokens, loss_mask in batches:
            training.step(tokens, loss_mask)
    else:
        exec(lines, {"steps": STEPS, "rank": 0, "ranks": 1, "batches": batches, "train_step": training.step})
    print("weights", digest_tensors(dict(arrays(training.gpt))))


if __name__ == "__main__":
    main(*sys.argv[1:])
