"""One run of inference: the documents of an evaluation, each recorded, then rows, prompts and conversations."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from harness.base.digest import digest_tensors
from harness.cases.case import Case
from harness.cases.sections import Inference
from harness.runners.job import Job, header_of
from harness.runners.leaving import Leaving
from harness.runners.protocol import Answerer, AnswererFactory, Setting, Tensors
from harness.runs.evaluation import (
    DECODED,
    DECODED_BATCH,
    FED,
    TASKS,
    TOKENIZER,
    Evaluation,
    digest_document,
    digest_evaluation,
    read_evaluation,
    words,
)
from harness.runs.files import TIMING, TRACE
from harness.runs.trace import EvaluationTask, Scored, TraceWriter

Array = npt.NDArray[Any]
STOPPED, SAMPLED, TEMPLATE, GREEDY = "stopped", "sampled", "template", "greedy"
TEMPERATURE, TOP_K, TOP_P, SEED = 0.8, 40, 0.95, 11  # how tokens are drawn, on all sides


def infer(job: Job, case: Case, factory: AnswererFactory, weights: Tensors) -> None:
    """Makes one run: every document's scores, then what was answered, as the tensors of `harness.comparison.inference`.

    It ends at the first task with a number that is not finite, for no answer after it means anything.

    Raises:
        EvidenceError: the questions cannot be read. Whatever a runner raises.
    """
    directory, inputs = Path(job.directory), Path(job.inputs)
    evaluation = read_evaluation(inputs)
    setting = Setting(device=job.device, threads=job.threads, learning_rate_zero=False, tokenizer=inputs / TOKENIZER)
    answerer = factory(case, weights, setting)
    questions = digest_evaluation(inputs)
    header = header_of(job, case, answerer, weights=digest_tensors(weights), batches=questions)
    with TraceWriter.create(directory / TRACE, header) as writer, (directory / TIMING).open("w") as timing:
        finite, begun = True, time.perf_counter()
        for line in _scored(answerer, evaluation, TASKS[:1] if job.side == "oracle" else TASKS):
            writer.append(line)
            timing.write(json.dumps({"step": line.step, "seconds": round(time.perf_counter() - begun, 6)}) + "\n")
            finite, begun = finite and line.finite, time.perf_counter()
            if not finite:
                break
        left = Leaving(case)
        left.add_answers(answerer.answers(evaluation) if finite else {})
        writer.finish(left.digests, kept=left.keep(job))


def _scored(answerer: Answerer, evaluation: Evaluation, tasks: Sequence[EvaluationTask]) -> Iterator[Scored]:
    step = 0
    for task in tasks:
        documents = evaluation.documents(task)
        for document, (likelihoods, score) in zip(documents, answerer.evaluate(task, documents), strict=True):
            step += 1
            yield Scored(
                step=step,
                task=task,
                log_likelihoods=likelihoods,
                score=score,
                words=words(document) if task == "text" else 1,
                document=digest_document(document),
            )


class Speaking(Protocol):
    """What the answers of a side are made of. Rows and prompts are token ids; logits are float32."""

    def logits(self, rows: Sequence[Sequence[int]]) -> list[Array]:
        """Every logit of each row [S, V], computed at once."""

    def cached_logits(self, rows: Sequence[Sequence[int]]) -> list[Array]:
        """The same, token after token by a cache."""

    def next_logits(self, prompts: Sequence[Sequence[int]]) -> list[Array]:
        """The logits [V] after each prompt of one batch, padded on the left."""

    def continued(self, prompts: Sequence[Sequence[int]], count: int, stop: Sequence[int]) -> list[Sequence[int]]:
        """Up to `count` greedy tokens for each prompt of one batch; a stop token ends one and is no part of it."""

    def sampled(self, prompts: Sequence[Sequence[int]], count: int) -> list[Sequence[int]]:
        """So many tokens, drawn: the n-th of prompt p by the n-th number of `uniforms(p)`."""

    def decoded(self, prompts: Sequence[Sequence[int]], then: Sequence[Sequence[int]]) -> list[Array]:
        """The logits [1 + T, V] after each prompt of one batch, padded on the left, and after each of the T tokens
        given `then`, decoded one by one with a cache."""

    def conversed(self, conversation: Sequence[Mapping[str, str]]) -> Array:
        """The logits [V] after a conversation, as a chat reads one: its messages become tokens, and the model reads
        these."""

    def reading(self) -> AbstractContextManager[list[Sequence[int]]]:
        """Collects the tokens of each prompt that the model itself reads while it is open, without padding, in order:
        at the entrance of the model, after everything that could change them."""

    def rendered(self, conversation: Sequence[Mapping[str, str]]) -> Sequence[int]:
        """The tokens of a conversation by the tokenizer's chat template, up to where the assistant begins."""


def uniforms(prompt: int) -> np.random.Generator:
    """The random numbers that draw a prompt's tokens; they do not depend on the other prompts of its batch."""
    return np.random.default_rng([SEED, prompt])


def answers(side: Speaking, evaluation: Evaluation, settings: Inference) -> dict[str, Array]:
    """All that a side leaves; see `harness.comparison.inference` for the names."""
    prompts, given = evaluation.prompts, evaluation.given or ()
    alone = [side.next_logits([prompt])[0] for prompt in prompts]
    batch = side.next_logits(prompts)
    with side.reading() as fed:
        greedy = side.continued(prompts, settings.max_new_tokens, [])
        decoded = [side.decoded([one.prompt], [one.then])[0] for one in given]
        # An evaluation that was drawn earlier does not state what a model reads.
        for conversation in evaluation.conversations if evaluation.fed() else ():
            side.conversed(conversation)
    tokens = {
        GREEDY: greedy,
        # The other way round: what a row has kept of the generation before is of another prompt.
        STOPPED: side.continued(prompts[::-1], settings.max_new_tokens, [evaluation.stop_token])[::-1],
        SAMPLED: side.sampled(prompts, settings.sampled_tokens),
        TEMPLATE: [side.rendered(one) for one in evaluation.conversations],
        FED: fed if evaluation.fed() else [],
    }
    logits = {
        "logits": side.logits(evaluation.rows),
        "cached": side.cached_logits(evaluation.rows),
        "alone": alone,
        "batch": batch,
        DECODED: decoded,
        DECODED_BATCH: side.decoded([one.prompt for one in given], [one.then for one in given]) if given else [],
    }
    return {
        **{f"{kind}.{n}": np.asarray(one, np.int32) for kind, every in tokens.items() for n, one in enumerate(every)},
        **{
            f"{kind}.{n}": np.ascontiguousarray(one, np.float32)
            for kind, every in logits.items()
            for n, one in enumerate(every)
        },
    }
