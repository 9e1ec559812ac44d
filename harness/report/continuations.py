"""Both sides' continuations of the same prompts, side by side, and where they differ from each other or the oracle.

Reads the tokens that runs left. The judged numbers are measured in `harness.comparison.inference`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.comparison.outputs import first_difference
from harness.evidence.bundle import Bundle
from harness.report.documents import SIDES, least_limit, value_at
from harness.report.sides import DIFFER, UNKNOWN
from harness.report.token_text import TokenText, read_token_text, shown
from harness.report.words import Mark, count, number
from harness.runs.evaluation import TOKENIZER, Evaluation, read_evaluation
from harness.runs.inputs import read_tensors

Tokens = npt.NDArray[Any]
KINDS = ("greedy", "stopped", "sampled", "template")
AGREE = Mark(glyph="✓", word="same tokens", tone="pass")
NEAR_TIE = Mark(glyph="≈", word="differ at a near tie", tone="pass")


@dataclass(frozen=True, kw_only=True)
class Continued:
    """The continuation of a side: the part shared with the other side, the rest, and a comparison with the oracle."""

    side: str
    shared: str
    alone: str
    remark: str


@dataclass(frozen=True, kw_only=True)
class Output:
    """Another output for a prompt, or for a conversation: what it is, whether the sides agree, and its text."""

    what: str
    mark: Mark
    detail: str


@dataclass(frozen=True, kw_only=True)
class PromptRow:
    """A prompt with both continuations."""

    title: str
    text: str
    mark: Mark
    sentence: str
    sides: tuple[Continued, ...]
    others: tuple[Output, ...]


@dataclass(frozen=True, kw_only=True)
class Continuations:
    """The whole section."""

    prompts: tuple[PromptRow, ...]
    conversations: tuple[Output, ...]


def continuations(bundle: Bundle) -> Continuations:
    """The prompts and outputs in a bundle, as text if its tokenizer can be read."""
    evaluation = read_evaluation(bundle.path / "inputs")
    text = read_token_text(bundle.path / "inputs" / TOKENIZER)
    left = {side: _left(bundle, run) for side, run in SIDES}
    return Continuations(
        prompts=tuple(_prompt(bundle, evaluation, left, text, n) for n in range(len(evaluation.prompts))),
        conversations=tuple(_conversation(bundle, evaluation, left, n) for n in range(len(evaluation.conversations))),
    )


def _left(bundle: Bundle, run: str) -> dict[str, Tokens]:
    """The tokens that a run left."""
    path = bundle.path / "tensors" / f"{run}.safetensors"
    tensors = read_tensors(path) if path.is_file() else {}
    return {name: tensor for name, tensor in tensors.items() if name.partition(".")[0] in KINDS and tensor.ndim == 1}


def _prompt(
    bundle: Bundle, evaluation: Evaluation, left: Mapping[str, Mapping[str, Tokens]], text: TokenText, n: int
) -> PromptRow:
    tokens = [left[side].get(f"greedy.{n}") for side, _ in SIDES]
    mark, sentence, at = _agreement(tokens)
    if mark is DIFFER and all(_near_tie(bundle, side, n) for side, _ in SIDES):
        mark = NEAR_TIE
    return PromptRow(
        title=f"Prompt {n}, {count(len(evaluation.prompts[n]), 'token')}",
        text=text.text(evaluation.prompts[n]),
        mark=mark,
        sentence=sentence,
        sides=tuple(_continued(bundle, side, one, text, at, n) for (side, _), one in zip(SIDES, tokens, strict=True)),
        others=tuple(_others(bundle, evaluation, left, text, n)),
    )


def _agreement(tokens: Sequence[Tokens | None]) -> tuple[Mark, str, int]:
    """Whether two continuations agree, as a mark and a sentence, and how many tokens they share."""
    reference, subject = tokens
    if reference is None or subject is None:
        return UNKNOWN, "A side has no continuation.", 0
    at = first_difference(reference, subject)
    if at is None:
        return AGREE, f"Both sides continue with the same {count(len(reference), 'token')}.", len(reference)
    return DIFFER, f"Both sides share {count(at, 'token')}; the different rest is marked.", at


def _continued(bundle: Bundle, side: str, tokens: Tokens | None, text: TokenText, at: int, n: int) -> Continued:
    if tokens is None:
        return Continued(side=side, shared="", alone="", remark="not measured")
    shared, alone = (text.text(part.tolist()) for part in (tokens[:at], tokens[at:]))
    return Continued(side=side, shared=shared, alone=alone, remark=_compared_with_oracle(bundle, side, len(tokens), n))


def _compared_with_oracle(bundle: Bundle, side: str, length: int, n: int) -> str:
    """Whether a side continues as the oracle does, and if not, the regret at the first token that differs."""
    regret, compared = (value_at(bundle, f"greedy.{name}.{side}", f"prompt {n}") for name in ("regret", "compared"))
    if regret is None or compared is None or math.isnan(regret):
        return "Not compared with the oracle."
    if compared == length:
        return f"The oracle continues with the same {count(length, 'token')}."
    tie = ": a near tie" if _near_tie(bundle, side, n) else ""
    return (
        f"Shares {count(int(compared), 'token')} with the oracle. The logit of the oracle's next token is "
        f"{number(regret)} above that of this side's token{tie}."
    )


def _near_tie(bundle: Bundle, side: str, n: int) -> bool:
    """Whether a side's regret is within the limit for the subject."""
    regret = value_at(bundle, f"greedy.regret.{side}", f"prompt {n}")
    _, limit = least_limit(bundle, "greedy.regret.subject")
    return regret is not None and limit is not None and regret <= limit.value


def _others(
    bundle: Bundle, evaluation: Evaluation, left: Mapping[str, Mapping[str, Tokens]], text: TokenText, n: int
) -> Iterator[Output]:
    stopped = [left[side].get(f"stopped.{n}") for side, _ in SIDES]
    lengths = [
        f"{side} after {count(len(one), 'token')}"
        for (side, _), one in zip(SIDES, stopped, strict=True)
        if one is not None
    ]
    stop = text.text([evaluation.stop_token])
    what = f"Ends before the stop token {stop!r}"
    yield Output(what=what, mark=_mark(bundle, "stopped", f"prompt {n}"), detail=", ".join(lengths) or "not recorded")
    drawn = [left[side].get(f"sampled.{n}") for side, _ in SIDES]
    texts = dict.fromkeys(text.text(one.tolist()) for one in drawn if one is not None)
    yield Output(
        what="Sampled with the same random numbers",
        mark=_mark(bundle, "sampled", f"sampled {n}"),
        detail=" | ".join(texts) or "not recorded",
    )


def _conversation(bundle: Bundle, evaluation: Evaluation, left: Mapping[str, Mapping[str, Tokens]], n: int) -> Output:
    text = " · ".join(f"{one['role']}: {one['content']}" for one in evaluation.conversations[n])
    tokens = left["reference"].get(f"template.{n}", np.array([]))
    mark = _mark(bundle, "template", f"template {n}")
    return Output(what=f"Conversation {n}, {count(len(tokens), 'token')}", mark=mark, detail=shown(text))


def _mark(bundle: Bundle, kind: str, place: str) -> Mark:
    value = value_at(bundle, f"{kind}.differs", place)
    if value is None:
        return UNKNOWN
    return AGREE if value == 0 else DIFFER
