"""What both sides say to the same prompts, side by side, and where one leaves the other or the oracle.

Reads tokens that runs left; what is judged of them is measured in `harness.comparison.inference`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.comparison.inference import first_difference
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
NEAR_TIE = Mark(glyph="≈", word="part at a near tie", tone="pass")


@dataclass(frozen=True, kw_only=True)
class Continued:
    """How a side goes on: what it shares with the other, what it says alone, and how that stands to the oracle."""

    side: str
    shared: str
    alone: str
    remark: str


@dataclass(frozen=True, kw_only=True)
class Told:
    """What else was made of a prompt, or of a conversation; whether the sides agree in it, and what it is."""

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
    others: tuple[Told, ...]


@dataclass(frozen=True, kw_only=True)
class Continuations:
    """The whole section."""

    prompts: tuple[PromptRow, ...]
    conversations: tuple[Told, ...]


def continuations(bundle: Bundle) -> Continuations:
    """What was asked and answered in a bundle, as text where its tokenizer can be read."""
    asked = read_evaluation(bundle.path / "inputs")
    text = read_token_text(bundle.path / "inputs" / TOKENIZER)
    left = {side: _left(bundle, run) for side, run in SIDES}
    return Continuations(
        prompts=tuple(_prompt(bundle, asked, left, text, n) for n in range(len(asked.prompts))),
        conversations=tuple(_conversation(bundle, asked, left, n) for n in range(len(asked.conversations))),
    )


def _left(bundle: Bundle, run: str) -> dict[str, Tokens]:
    """The tokens that a run left."""
    path = bundle.path / "tensors" / f"{run}.safetensors"
    tensors = read_tensors(path) if path.is_file() else {}
    return {name: tensor for name, tensor in tensors.items() if name.partition(".")[0] in KINDS and tensor.ndim == 1}


def _prompt(
    bundle: Bundle, asked: Evaluation, left: Mapping[str, Mapping[str, Tokens]], text: TokenText, n: int
) -> PromptRow:
    tokens = [left[side].get(f"greedy.{n}") for side, _ in SIDES]
    mark, sentence, at = _parting(tokens)
    if mark is DIFFER and all(_near_tie(bundle, side, n) for side, _ in SIDES):
        mark = NEAR_TIE
    return PromptRow(
        title=f"Prompt {n}, {count(len(asked.prompts[n]), 'token')}",
        text=text.text(asked.prompts[n]),
        mark=mark,
        sentence=sentence,
        sides=tuple(_continued(bundle, side, one, text, at, n) for (side, _), one in zip(SIDES, tokens, strict=True)),
        others=tuple(_others(bundle, asked, left, text, n)),
    )


def _parting(tokens: Sequence[Tokens | None]) -> tuple[Mark, str, int]:
    """How two continuations stand to each other, and how many tokens they share."""
    reference, subject = tokens
    if reference is None or subject is None:
        return UNKNOWN, "A side left no continuation.", 0
    at = first_difference(reference, subject)
    if at is None:
        return AGREE, f"Both sides continue with the same {count(len(reference), 'token')}.", len(reference)
    return DIFFER, f"Both sides share {count(at, 'token')}; what each says alone after that is marked.", at


def _continued(bundle: Bundle, side: str, tokens: Tokens | None, text: TokenText, at: int, n: int) -> Continued:
    if tokens is None:
        return Continued(side=side, shared="", alone="", remark="not measured")
    shared, alone = (text.text(part.tolist()) for part in (tokens[:at], tokens[at:]))
    return Continued(side=side, shared=shared, alone=alone, remark=_beside_oracle(bundle, side, len(tokens), n))


def _beside_oracle(bundle: Bundle, side: str, length: int, n: int) -> str:
    """Whether a side continues as the oracle does, and if not, by how much the oracle's own token was above."""
    regret, compared = (value_at(bundle, f"greedy.{name}.{side}", f"prompt {n}") for name in ("regret", "compared"))
    if regret is None or compared is None or math.isnan(regret):
        return "Not compared with the oracle."
    if compared == length:
        return f"The oracle continues with the same {count(length, 'token')}."
    tie = ": a near tie" if _near_tie(bundle, side, n) else ""
    return (
        f"Shares {count(int(compared), 'token')} with the oracle, whose next one is {number(regret)} above this side's "
        f"in its logits{tie}."
    )


def _near_tie(bundle: Bundle, side: str, n: int) -> bool:
    """Whether a side keeps to the oracle's continuation as closely as the subject has to."""
    regret = value_at(bundle, f"greedy.regret.{side}", f"prompt {n}")
    _, limit = least_limit(bundle, "greedy.regret.subject")
    return regret is not None and limit is not None and regret <= limit.value


def _others(
    bundle: Bundle, asked: Evaluation, left: Mapping[str, Mapping[str, Tokens]], text: TokenText, n: int
) -> Iterator[Told]:
    stopped = [left[side].get(f"stopped.{n}") for side, _ in SIDES]
    lengths = [
        f"{side} after {count(len(one), 'token')}"
        for (side, _), one in zip(SIDES, stopped, strict=True)
        if one is not None
    ]
    stop = text.text([asked.stop_token])
    what = f"Ends before the stop token {stop!r}"
    yield Told(what=what, mark=_mark(bundle, "stopped", f"prompt {n}"), detail=", ".join(lengths) or "not recorded")
    drawn = [left[side].get(f"sampled.{n}") for side, _ in SIDES]
    said = dict.fromkeys(text.text(one.tolist()) for one in drawn if one is not None)
    yield Told(
        what="Drawn by the same random numbers",
        mark=_mark(bundle, "sampled", f"sampled {n}"),
        detail=" | ".join(said) or "not recorded",
    )


def _conversation(bundle: Bundle, asked: Evaluation, left: Mapping[str, Mapping[str, Tokens]], n: int) -> Told:
    said = " · ".join(f"{one['role']}: {one['content']}" for one in asked.conversations[n])
    tokens = left["reference"].get(f"template.{n}", np.array([]))
    mark = _mark(bundle, "template", f"template {n}")
    return Told(what=f"Conversation {n}, {count(len(tokens), 'token')}", mark=mark, detail=shown(said))


def _mark(bundle: Bundle, kind: str, place: str) -> Mark:
    value = value_at(bundle, f"{kind}.differs", place)
    if value is None:
        return UNKNOWN
    return AGREE if value == 0 else DIFFER
