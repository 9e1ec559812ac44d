"""Tokens per second of prefill and decode: this model with and without a cache, and `generate` of transformers with
eager and with fused (sdpa) attention, from the same weights and prompts, greedy.

    python benchmarks/generate.py --size small --batch 1 --prompt 64 --tokens 64

Each subject is a child process of its own, held to the same cores, as many as it has threads. The children take turns,
in another order every round, and the parent imports no framework. A round times a call for one token and a call for all
of them. The first is the prefill; the difference is the decode. Building, compiling and two warm-up calls are not
included and are printed separately.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from children import Child, hold

from qwen3_model.configuration_qwen3 import Qwen3Config, parameter_shapes
from qwen3_model.sizes import PUBLISHED, SMALL

Array = npt.NDArray[Any]
# The continuation of each prompt by so many tokens.
Generate = Callable[[int], list[list[int]]]


@dataclass(frozen=True, kw_only=True)
class Round:
    """Seconds for the first token of all rows, and for each token after it."""

    prompt: float
    token: float


def main() -> None:
    """Runs the rounds and prints each subject's medians, and the ratio of ours to each of theirs."""
    arguments = _parser().parse_args()
    if arguments.worker:
        _work(arguments)
        return
    children = {name: Child(__file__, name, sys.argv[1:], _pools(arguments.threads)) for name in WORKERS}
    firsts = {name: child.response() for name, child in children.items()}
    rounds: dict[str, list[Round]] = {name: [] for name in WORKERS}
    for number in range(arguments.rounds):
        for name in _order(number):
            rounds[name].append(Round(**children[name].request("")))
    for child in children.values():
        child.close()
    _report(arguments, firsts, rounds)


def _report(arguments: argparse.Namespace, firsts: Mapping[str, Any], rounds: Mapping[str, list[Round]]) -> None:
    print(
        f"{arguments.size}, batch {arguments.batch}, prompt {arguments.prompt}, {arguments.tokens} tokens "
        f"({arguments.whole_tokens} without a cache), {arguments.threads} threads, {arguments.rounds} rounds"
    )
    print(f"{'':18} {'prompt':>12} {'decode':>12} {'':>10}   setup, s")
    for name, found in rounds.items():
        prompt = arguments.batch * arguments.prompt / statistics.median(one.prompt for one in found)
        token = statistics.median(one.token for one in found)
        print(
            f"{name:18} {prompt:8.0f} t/s {arguments.batch / token:8.1f} t/s {token * 1e3:7.2f} ms"
            f"   {firsts[name]['built']:.1f} to build, {firsts[name]['first']:.1f} for the first calls"
        )
    for name in THEIRS:
        _compare(name, rounds["cached"], rounds[name])
        _agree(name, firsts)


def _compare(name: str, ours: list[Round], theirs: list[Round]) -> None:
    """How many times as fast ours is: the medians, and the smallest and largest ratio of a round."""
    for part in ("prompt", "token"):
        pairs = [(getattr(a, part), getattr(b, part)) for a, b in zip(ours, theirs, strict=True)]
        medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
        each = [b / a for a, b in pairs]
        print(
            f"cached is {medians[1] / medians[0]:.2f} times as fast as {name} at {part} "
            f"({min(each):.2f} to {max(each):.2f} in a round)"
        )


def _agree(name: str, firsts: Mapping[str, Any]) -> None:
    """The first token that differs in each row: rounding may decide a near tie, and then all later tokens differ."""
    pairs = list(zip(firsts["cached"]["tokens"], firsts[name]["tokens"], strict=True))
    same = [next((n for n, (a, b) in enumerate(zip(*pair, strict=True)) if a != b), len(pair[0])) for pair in pairs]
    print(f"tokens before the first that differs from {name}: {same}")


def _pools(threads: int) -> dict[str, str]:
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))


def _order(number: int) -> list[str]:
    """Another subject starts every round, so that a drift of the machine's clock favours none."""
    names = list(WORKERS)
    turned = names[number % len(names) :] + names[: number % len(names)]
    return turned if number % 2 == 0 else list(reversed(turned))


def _work(arguments: argparse.Namespace) -> None:
    """A child: builds, warms up, then times a round for each line of its input."""
    if arguments.worker == "whole":
        arguments.tokens = arguments.whole_tokens
    hold(arguments.threads)
    started = time.perf_counter()
    generate = WORKERS[arguments.worker](arguments)
    built = time.perf_counter()
    generate(1)
    tokens = generate(arguments.tokens)
    first = time.perf_counter()
    print(json.dumps({"built": built - started, "first": first - built, "tokens": tokens}), flush=True)
    for _ in sys.stdin:
        prompt, everything = _seconds(generate, 1), _seconds(generate, arguments.tokens)
        token = (everything - prompt) / (arguments.tokens - 1)
        print(json.dumps({"prompt": prompt, "token": token}), flush=True)


def _seconds(generate: Generate, count: int) -> float:
    started = time.perf_counter()
    generate(count)
    return time.perf_counter() - started


def _cached(arguments: argparse.Namespace) -> Generate:
    model, prompts = _ours(arguments), _prompts(arguments)
    return lambda count: [list(found.tokens) for found in model.generate(prompts, count)]


def _whole(arguments: argparse.Namespace) -> Generate:
    model, prompts = _ours(arguments), _prompts(arguments)

    def generate(count: int) -> list[list[int]]:
        rows = [list(prompt) for prompt in prompts]
        for _ in range(count):
            for row, logits_SV in zip(rows, list(model.logits(rows, batch=len(rows))), strict=True):
                row.append(int(np.argmax(logits_SV[-1])))
        return [row[arguments.prompt :] for row in rows]

    return generate


def _ours(arguments: argparse.Namespace) -> Any:
    import mindspore as ms

    from qwen3_model.modeling_qwen3_infer import Qwen3ForInference

    ms.set_device("CPU")
    ms.set_context(runtime_num_threads=arguments.threads)
    model = Qwen3ForInference(_config(arguments))
    model.load_weights(_weights(_config(arguments)))
    return model


def _theirs(arguments: argparse.Namespace, attention: str) -> Generate:
    import torch
    import transformers

    torch.set_num_threads(arguments.threads)
    config = transformers.Qwen3Config(**_config(arguments).to_hf(), attn_implementation=attention)
    model = transformers.Qwen3ForCausalLM(config).float().eval()
    weights = {name: torch.from_numpy(value) for name, value in _weights(_config(arguments)).items()}
    model.load_state_dict(weights, strict=not config.tie_word_embeddings)
    prompts = torch.tensor(_prompts(arguments))
    seen = torch.ones_like(prompts)

    def generate(count: int) -> list[list[int]]:
        with torch.inference_mode():
            found = model.generate(prompts, attention_mask=seen, max_new_tokens=count, do_sample=False, pad_token_id=0)
        continued: list[list[int]] = found[:, arguments.prompt :].tolist()
        return continued

    return generate


def _eager(arguments: argparse.Namespace) -> Generate:
    return _theirs(arguments, "eager")


def _sdpa(arguments: argparse.Namespace) -> Generate:
    return _theirs(arguments, "sdpa")


WORKERS = {"cached": _cached, "whole": _whole, "transformers eager": _eager, "transformers sdpa": _sdpa}
THEIRS = ("transformers eager", "transformers sdpa")


def _config(arguments: argparse.Namespace) -> Qwen3Config:
    """The size, without a token that would end a continuation."""
    return replace(SIZES[arguments.size], eos_token_id=None)


SIZES = {**SMALL, **PUBLISHED}


def _weights(config: Qwen3Config) -> dict[str, npt.NDArray[np.float32]]:
    """The same weights in all children: ones for norms, else normal with deviation 0.1, so that near ties are rare."""
    generator = np.random.default_rng(0)
    return {
        name: np.ones(shape, np.float32)
        if len(shape) == 1
        else np.float32(0.1) * generator.standard_normal(shape, np.float32)
        for name, shape in parameter_shapes(config)
    }


def _prompts(arguments: argparse.Namespace) -> list[list[int]]:
    generator = np.random.default_rng(1)
    shape = (arguments.batch, arguments.prompt)
    prompts: list[list[int]] = generator.integers(0, SIZES[arguments.size].vocab_size, shape).tolist()
    return prompts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", choices=SIZES)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt", type=int, default=64, help="tokens of each prompt")
    parser.add_argument("--tokens", type=int, default=64, help="tokens that follow, at least 2")
    parser.add_argument("--whole-tokens", type=int, default=8, help="the same without a cache")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--worker", choices=WORKERS, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
