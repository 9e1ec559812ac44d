"""The sections for fine-tuning: those for training, and conversations as the runs read them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.evidence.bundle import Bundle
from harness.report.token_text import TokenText, read_token_text
from harness.report.training import TrainingPart, build_training
from harness.report.words import Fact, count, number
from harness.runs.evaluation import TOKENIZER
from harness.runs.inputs import BATCHES, read_tensors

SHOWN_ROWS = 3
Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Some text of a row, and whether its tokens count in the loss."""

    text: str
    counts: bool


@dataclass(frozen=True, kw_only=True)
class ConversationRow:
    """A row of the first step."""

    title: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, kw_only=True)
class FinetuningPart(TrainingPart):
    """What a bundle of training shows, and its first rows as text."""

    rows: tuple[ConversationRow, ...]


def build_finetuning(bundle: Bundle) -> FinetuningPart:
    """The sections of a bundle of fine-tuning."""
    batches = read_tensors(bundle.path / "inputs" / BATCHES)
    text = read_token_text(bundle.path / "inputs" / TOKENIZER)
    first = zip(batches["tokens"][0][:SHOWN_ROWS], batches["loss_mask"][0][:SHOWN_ROWS], strict=True)
    return FinetuningPart(
        **{**vars(build_training(bundle)), "inputs": tuple(_inputs(bundle, batches["loss_mask"]))},
        rows=tuple(row_of(number_, tokens, mask, text) for number_, (tokens, mask) in enumerate(first, 1)),
    )


def _inputs(bundle: Bundle, loss_mask: Array) -> Iterator[Fact]:
    data = bundle.case.data
    again = {"attention": data.reset_attention_mask, "positions": data.reset_position_ids}
    yield Fact(term="In the loss", text=f"{loss_mask.mean():.1%} of the positions: answers, each with its end")
    yield Fact(term="Rows", text="several conversations" if data.packing == "concat" else "one conversation each")
    starts = " and ".join(what for what, resets in again.items() if resets)
    yield Fact(term="Start again with a conversation", text=starts or "neither attention nor positions")


def row_of(number_: int, tokens: Array, loss_mask: Array, text: TokenText) -> ConversationRow:
    """A row of tokens [S + 1] with its mask [S], as text; of the padding at its end the number is shown."""
    padding = _padding(tokens)
    kept, answers = tokens[: len(tokens) - padding], np.concatenate([[0], loss_mask])[: len(tokens) - padding] > 0
    return ConversationRow(
        title=f"Row {number(number_)}: {count(int(answers.sum()), 'token')} of {number(len(kept))} in the loss, then "
        f"{count(padding, 'token')} of padding",
        pieces=tuple(_pieces(kept.tolist(), answers.tolist(), text)),
    )


def _padding(tokens: Array) -> int:
    """How often the last token is repeated after its first place at the end of a row."""
    others = np.flatnonzero(tokens != tokens[-1])
    return len(tokens) - 2 - int(others[-1]) if len(others) else 0


def _pieces(tokens: Sequence[int], answers: Sequence[bool], text: TokenText) -> Iterator[Piece]:
    for counts, some in groupby(zip(tokens, answers, strict=True), key=lambda one: one[1]):
        yield Piece(text=text.text([token for token, _ in some]), counts=counts)
