"""What the collector costs: steps of one model with it and without it, taken in turn in one process.

Prints the median CPU time of a step of both kinds, the quotient of their medians, and what the collector itself takes.
CPU time is that of this process alone, so another one on the machine shows in the caches and nowhere else. The model is
that of a case in a plain torch loop on one thread; the default case has the shortest step of all. What the collector
costs depends on the tokens of a batch alone.

    python -m benchmarks.collect_cost [CASE] [--steps N]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from harness.cases.case import DEFAULT_CASE, Case, load_case
from harness.collect.collector import Collector
from harness.collect.torch_model import arrays, built, norm_of_gradients
from harness.corpus.batches import draw_batches
from harness.corpus.draw import draw_weights


def model_of(case: Case) -> Any:
    """Hugging Face's model with the initial weights of a case."""
    config = transformers.Qwen3Config(**{**case.model.to_hf(), "use_cache": False}, attn_implementation="eager")
    model = transformers.Qwen3ForCausalLM(config)
    weights = {name: torch.from_numpy(np.array(tensor)) for name, tensor in draw_weights(case).items()}
    model.load_state_dict(weights, strict=not case.model.tie_word_embeddings)
    return model.train()


def step_of(model: Any, optimizer: Any, tokens: Any, mask: Any) -> tuple[float, float]:
    """One step: its loss, and its norm before clipping, which a trainer computes with or without a collector."""
    ids = torch.from_numpy(tokens.astype(np.int64))
    labels = ids[:, 1:].masked_fill(torch.from_numpy(mask == 0), -100)
    loss = model(input_ids=ids[:, :-1], labels=labels, shift_labels=labels).loss
    loss.backward()
    norm = norm_of_gradients(model)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item(), norm


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("case", nargs="?", default=DEFAULT_CASE)
    parser.add_argument("--steps", type=int, default=40)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    case = load_case(asked.case)
    drawn, model = draw_batches(case), model_of(case)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    taken: dict[bool, list[float]] = {True: [], False: []}
    own: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        collector = Collector(Path(directory), steps=asked.steps, trainer="benchmark")
        started = time.process_time()
        collector.begin(arrays(model), alignment=built(model, optimizer, clip_grad=1.0, gradient_accumulation_steps=1))
        beginning = time.process_time() - started
        for number in range(asked.steps):
            tokens, mask = (one[number % len(one)] for one in (drawn.tokens, drawn.loss_mask))
            for collects in (True, False) if number % 2 else (False, True):
                started = time.process_time()
                loss, norm = step_of(model, optimizer, tokens, mask)
                if collects:
                    before = time.process_time()
                    collector.step(loss=loss, grad_norm=norm, learning_rate=1e-4, tokens=tokens, loss_mask=mask)
                    own.append(time.process_time() - before)
                taken[collects].append(time.process_time() - started)
        collector.end(arrays(model))
    medians = {kind: statistics.median(seconds[2:]) for kind, seconds in taken.items()}
    share = statistics.median(own[2:]) / medians[False]
    print(f"{case.name}, batch {drawn.tokens[0].shape}: {len(own)} steps of each kind, in turn")
    print(f"CPU time of a step without {medians[False] * 1e3:.2f} ms, with {medians[True] * 1e3:.2f} ms")
    print(f"quotient of the medians {medians[True] / medians[False]:.4f}")
    print(f"the collector itself {statistics.median(own[2:]) * 1e3:.3f} ms a step, {share:.2%} of a step")
    least = sorted(own[2:])[len(own) // 4]
    print(f"in a quarter of its steps at most {least * 1e3:.3f} ms: where nothing else emptied the caches")
    print(f"its beginning, with the digests of all weights, {beginning:.2f} s")


if __name__ == "__main__":
    main()
