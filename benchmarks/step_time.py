"""Time per training step: this model on MindSpore in GRAPH mode against eager PyTorch with Hugging Face's Qwen3.

    python benchmarks/step_time.py --size small --batch 4 --sequence 128 --threads 1 --rounds 7
    python benchmarks/step_time.py --size 0.6B --layers 2 --batch 2 --sequence 256 --attention sdpa
    python benchmarks/step_time.py --size 0.6B --batch 1 --sequence 512 --threads 2 --apart --rounds 3 --steps 2

Each framework is a child process of its own, held to the same cores, as many as it has threads. The children take
turns: one is timed while the other waits for its pipe. Models of which only one fits into memory are timed `--apart`,
one child after the other. Both train from the same weights on the same batches, with clipping and AdamW, and print
their first loss, which shows that they do the same work. The CPU seconds of a step are printed beside its wall seconds:
of a child that waits busily, or does not use what it has, they differ. A third child makes the matrix products of a
step and nothing else, by the library of torch: no step on these cores takes less. The parent imports neither.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from children import Child, hold

if TYPE_CHECKING:
    from qwen3_model.configuration_qwen3 import Qwen3Config

Array = npt.NDArray[Any]
Step = Callable[[Array], float | None]  # tokens -> loss, if it computes one
LEARNING_RATE, WEIGHT_DECAY, CLIP = 1e-4, 0.1, 1.0


def main() -> None:
    """Runs the rounds and prints each framework's median and the ratio of the medians."""
    arguments = _parser().parse_args()
    if arguments.worker:
        _work(arguments)
        return
    rounds = {name: list[dict[str, float]]() for name in WORKERS}
    for together in [[name] for name in WORKERS] if arguments.apart else [list(WORKERS)]:
        _time(arguments, together, rounds)
    _report(arguments, rounds)


def _time(arguments: argparse.Namespace, names: list[str], rounds: dict[str, list[dict[str, float]]]) -> None:
    """Times these children in turns."""
    children = {name: Child(__file__, name, sys.argv[1:], {}) for name in names}
    for name, child in children.items():
        ready = child.response()
        said = f"first step {ready['first_step']:.1f} s (build and compile)"
        print(f"{name:10} {said}" if ready["loss"] is None else f"{name:10} first loss {ready['loss']:.6f}, {said}")
    for number in range(arguments.rounds):
        for name in _order(names, number):
            rounds[name].append(children[name].request(str(arguments.steps)))
        print(
            f"round {number + 1}: " + ", ".join(f"{name} {rounds[name][-1]['seconds'] * 1e3:.1f} ms" for name in names)
        )
    for child in children.values():
        child.close()


def _report(arguments: argparse.Namespace, rounds: dict[str, list[dict[str, float]]]) -> None:
    times = {name: [one["seconds"] for one in timed] for name, timed in rounds.items()}
    median = {name: statistics.median(seconds) for name, seconds in times.items()}
    ratios = [ours / theirs for ours, theirs in zip(times["mindspore"], times["torch"], strict=True)]
    layers = f", {arguments.layers} layers" if arguments.layers else ""
    apart = ", one after the other" if arguments.apart else ""
    print(
        f"\n{arguments.size}{layers}, batch {arguments.batch}, sequence {arguments.sequence}, "
        f"{arguments.threads} threads on as many cores{apart}, torch with {arguments.attention} attention"
    )
    for name, seconds in times.items():
        spread = f"{min(seconds) * 1e3:.1f} to {max(seconds) * 1e3:.1f}"
        cpu = statistics.median(one["cpu"] for one in rounds[name]) * 1e3
        print(f"{name:10} median {median[name] * 1e3:.1f} ms per step, {spread}; {cpu:.1f} ms of CPU time")
    ratio = median["mindspore"] / median["torch"]
    print(f"ratio of medians {ratio:.3f}, per round {min(ratios):.3f} to {max(ratios):.3f}")
    for name in ("mindspore", "torch"):
        print(f"{name:10} {median[name] / median['products']:.2f} times its matrix products")


def _order(names: list[str], number: int) -> list[str]:
    """The order changes every round, so that a drift of the machine's clock favours neither."""
    return names if number % 2 == 0 else names[::-1]


def _work(arguments: argparse.Namespace) -> None:
    """A child: builds, takes three warm-up steps, then times as many steps as each line of its input states."""
    hold(arguments.threads)
    started = time.perf_counter()
    step = WORKERS[arguments.worker](arguments)
    batches = _batches(arguments)
    loss = step(batches[0])
    first_step = time.perf_counter() - started
    for tokens in batches[1:4]:
        step(tokens)
    print(json.dumps({"loss": loss, "first_step": first_step}), flush=True)
    for line in sys.stdin:
        count = int(line)
        started, busy = time.perf_counter(), time.process_time()
        for number in range(count):
            step(batches[number % len(batches)])
        seconds, cpu = time.perf_counter() - started, time.process_time() - busy
        print(json.dumps({"seconds": seconds / count, "cpu": cpu / count}), flush=True)


def _mindspore(arguments: argparse.Namespace) -> Step:
    import mindspore as ms

    from qwen3_model.modeling_qwen3_train import Qwen3Trainer
    from qwen3_model.optimizer import AdamWConfig
    from qwen3_model.precision_policy import PrecisionPolicy
    from qwen3_model.schedule import ConstantSchedule

    ms.set_device("CPU")
    ms.set_context(runtime_num_threads=arguments.threads)
    trainer = Qwen3Trainer(
        _config(arguments),
        PrecisionPolicy(),
        AdamWConfig(weight_decay=WEIGHT_DECAY),
        ConstantSchedule(peak=LEARNING_RATE),
        clip_grad=CLIP,
    )
    trainer.load_weights(_weights({name: value.shape for name, value in trainer.parameters().items()}))
    mask = np.ones((arguments.batch, arguments.sequence), dtype=np.float32)
    return lambda tokens: trainer.train_step(tokens, mask).loss


def _torch(arguments: argparse.Namespace) -> Step:
    import torch
    import transformers

    torch.set_num_threads(arguments.threads)
    config = transformers.Qwen3Config(**_config(arguments).to_hf(), attn_implementation=arguments.attention)
    model = transformers.Qwen3ForCausalLM(config).float()
    named = dict(model.named_parameters())
    weights = _weights({name: tuple(value.shape) for name, value in named.items()})
    model.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()}, strict=False)
    model.train()
    groups = [
        {"params": [p for n, p in named.items() if not n.endswith("norm.weight")], "weight_decay": WEIGHT_DECAY},
        {"params": [p for n, p in named.items() if n.endswith("norm.weight")], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)

    def step(tokens: Array) -> float:
        batch = torch.from_numpy(tokens).long()
        optimizer.zero_grad()
        logits = model(batch[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return float(loss.item())

    return step


def _products(arguments: argparse.Namespace) -> Step:
    """The matrix products of a step: of each weight, forward and for both gradients, and of the attention."""
    import torch

    torch.set_num_threads(arguments.threads)
    config, tokens = _config(arguments), arguments.batch * arguments.sequence
    D, F, V, H = config.hidden_size, config.intermediate_size, config.vocab_size, config.head_dim
    N, K, S = config.num_attention_heads, config.num_key_value_heads, arguments.sequence
    shapes = [(D, N * H), (D, K * H), (D, K * H), (N * H, D), (D, F), (D, F), (F, D)]
    layer = [(torch.randn(tokens, i), torch.randn(o, i), torch.randn(tokens, o)) for i, o in shapes]
    head = (torch.randn(tokens, D), torch.randn(V, D), torch.randn(tokens, V))
    rows = torch.randn(arguments.batch * N, S, H)
    scores = torch.randn(arguments.batch * N, S, S)

    def linear(x: torch.Tensor, weight: torch.Tensor, gradient: torch.Tensor) -> None:
        x @ weight.T, gradient @ weight, gradient.T @ x

    def attention() -> None:
        for _ in range(2):  # scores, the gradient of the weights
            rows @ rows.transpose(1, 2)
        for _ in range(4):  # the mixed values, and the gradients of query, key and value
            scores @ rows

    def step(tokens: Array) -> None:
        for _ in range(config.num_hidden_layers):
            for one in layer:
                linear(*one)
            attention()
        linear(*head)

    return step


WORKERS: dict[str, Callable[[argparse.Namespace], Step]] = {
    "mindspore": _mindspore,
    "torch": _torch,
    "products": _products,
}


def _weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, npt.NDArray[np.float32]]:
    """The same weights in both children: ones for norms, else normal with deviation 0.02, drawn in name order."""
    generator = np.random.default_rng(0)
    return {
        name: np.ones(shape, np.float32)
        if len(shape) == 1
        else (0.02 * generator.standard_normal(shape)).astype(np.float32)
        for name, shape in sorted(shapes.items())
    }


def _batches(arguments: argparse.Namespace) -> list[npt.NDArray[np.int32]]:
    generator, vocabulary = np.random.default_rng(1), _config(arguments).vocab_size
    shape = (arguments.batch, arguments.sequence + 1)
    return [generator.integers(0, vocabulary, shape, dtype=np.int32) for _ in range(8)]


def _config(arguments: argparse.Namespace) -> "Qwen3Config":
    from qwen3_model.sizes import PUBLISHED, SMALL

    whole = {**SMALL, **PUBLISHED}[arguments.size]
    return dataclasses.replace(whole, num_hidden_layers=arguments.layers or whole.num_hidden_layers)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="small", help="tiny, small, or a published size, as 0.6B")
    parser.add_argument("--layers", type=int, help="only so many layers of it")
    parser.add_argument("--attention", default="eager", choices=["eager", "sdpa"], help="of torch")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="steps per round and framework")
    parser.add_argument("--threads", type=int, default=1, help="and cores")
    parser.add_argument("--apart", action="store_true", help="one child after the other, for what fits alone")
    parser.add_argument("--worker", choices=list(WORKERS), help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
