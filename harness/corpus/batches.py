"""The token batches of a case: a pure function of the case and its corpus.

A corpus with ids outside the model's vocabulary, or with too few tokens for one row, is an error.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.digest import digest_json
from harness.base.errors import InputError
from harness.cases.case import Case
from harness.cases.data import CONVERSATIONS, Corpus
from harness.corpus.conversations import chat_tokenizer, packed, read_conversations, rendered
from harness.corpus.documents import check_digest, read_documents, source_path
from harness.corpus.indexed import open_indexed
from harness.corpus.samples import Sampling, WeightedDataset, draw_samples
from harness.corpus.tokenizers import TokenIds, load_tokenizer
from harness.runs.inputs import seeded

ROWS_FOR_A_SWEEP = 4  # of which one is ids
LARGEST_SPLIT = 8  # ranks that share a vocabulary


@dataclass(frozen=True, kw_only=True)
class Batches:
    """All batches of a run.

    tokens: int32 [steps, B, S + 1]; inputs are `[..., :-1]`, targets `[..., 1:]`.
    loss_mask: uint8 [steps, B, S]; 1 where the target counts.
    epochs: how often the corpus is started; above 1, tokens are repeated.
    kept: of a cut vocabulary, the tokenizer's ids that are kept, in their new order.
    """

    tokens: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.uint8]
    corpus_sha256: str
    tokenizer_sha256: str | None
    kept: tuple[int, ...] | None
    description: str
    corpus_tokens: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """Rows of tokens [rows, S + 1], and the targets that count [rows, S], or None if all do."""

    tokens: npt.NDArray[np.int32]
    counts: npt.NDArray[np.bool_] | None
    eod: int | None
    corpus_sha256: str
    tokenizer_sha256: str | None
    kept: tuple[int, ...] | None
    description: str
    corpus_tokens: int
    epochs: int


def draw_batches(case: Case) -> Batches:
    """The batches of a case, in order.

    Raises:
        InputError: see the module; or the corpus or the tokenizer cannot be read.
    """
    count = case.training.steps * case.data.global_batch_size
    rows = READERS.get(case.data.corpus.kind, _text_rows)(case, count)
    _check_end(case, rows)
    highest = int(rows.tokens.max())
    if highest >= case.model.vocab_size:
        raise InputError(
            f"{rows.description} holds the token id {highest}, outside the model's vocabulary of "
            f"{case.model.vocab_size}. Choose a case with a larger model.vocab_size."
        )
    mask = np.ones((count, case.data.seq_length), np.bool_) if rows.counts is None else rows.counts
    if case.data.sweep_vocabulary:
        mask[sweep(rows.tokens, case)] = True
    if case.data.eod_mask_loss:
        mask &= rows.tokens[:, :-1] != rows.eod
    if not mask.reshape(case.training.steps, -1).any(axis=1).all():
        raise InputError(f"{rows.description}: a step would have no target token in the loss.")
    shape = (case.training.steps, case.data.global_batch_size, -1)
    return Batches(
        tokens=rows.tokens.reshape(shape),
        loss_mask=mask.astype(np.uint8).reshape(shape),
        corpus_sha256=rows.corpus_sha256,
        tokenizer_sha256=rows.tokenizer_sha256,
        kept=rows.kept,
        description=rows.description,
        corpus_tokens=rows.corpus_tokens,
        epochs=rows.epochs,
    )


def sweep(tokens: npt.NDArray[np.int32], case: Case) -> npt.NDArray[np.intp]:
    """Puts ids in place of text into the last row of a step, or of every few steps, until every id was there or the
    steps end. `tokens` [rows, S + 1] is changed; returned are the rows that hold ids.

    Each row begins with the last target of the one before, so that every id is an input and a target.
    """
    rows, length = case.data.global_batch_size, case.data.seq_length
    every = max(1, -(-ROWS_FOR_A_SWEEP // rows))  # steps
    places = np.arange(every * rows - 1, len(tokens), every * rows)
    ids = _ids_in_order(case)
    needed = -(-len(ids) // length)
    sequence = np.resize(ids, needed * length + 1)
    places = places[:needed]
    for number, place in enumerate(places):
        tokens[place] = sequence[number * length :][: length + 1]
    return places


def _ids_in_order(case: Case) -> npt.NDArray[np.int32]:
    """Every id once: the first and the last of each shard of a split vocabulary, then the others at random."""
    size = case.model.vocab_size
    counts = (2**power for power in range(size.bit_length()))
    shards = [size // count for count in counts if size % count == 0 and count <= LARGEST_SPLIT]
    borders = [border for shard in shards for first in range(0, size, shard) for border in (first, first + shard - 1)]
    others = seeded(f"{case.data.seed}/sweep").permutation(size)
    return np.fromiter(dict.fromkeys([*borders, *others.tolist()]), np.int32, size)


def _text_rows(case: Case, count: int) -> _Rows:
    documents, tokenizer = read_documents(case.data.corpus), load_tokenizer(case.data.tokenizer)
    padded = case.data.packing == "paragraph"
    ids, eod = tokenizer.encode(_paragraphs(documents.texts) if padded else documents.texts), tokenizer.eod
    kept = None
    if case.data.cut_vocabulary:
        ids, eod, kept = _cut(ids, eod, case.model.vocab_size, documents.description)
    if padded:
        tokens, counts, epochs = _padded(ids, eod, count, case.data.seq_length)
    else:
        stream = np.concatenate([part for one in ids for part in (one, np.array([eod], np.int32))])
        tokens, epochs = _packed(stream, documents.description, count, case.data.seq_length)
        counts = None
    return _Rows(
        tokens=tokens,
        counts=counts,
        eod=eod,
        corpus_sha256=documents.sha256,
        tokenizer_sha256=tokenizer.sha256,
        kept=kept,
        description=documents.description,
        corpus_tokens=sum(map(len, ids)),
        epochs=epochs,
    )


def _cut(ids: Sequence[TokenIds], eod: int, size: int, description: str) -> tuple[list[TokenIds], int, tuple[int, ...]]:
    """The texts with ids renumbered by first occurrence, without those beyond `size`; the end of a document, which
    occurs after the first; and the kept ids in their new order.

    Raises:
        InputError: fewer ids occur, so some would never be an input or a target.
    """
    stream = np.concatenate([part for one in ids for part in (one, np.array([eod], np.int32))])
    found, first = np.unique(stream, return_index=True)
    kept = found[np.argsort(first)][:size].astype(np.int32)
    if len(kept) < size:
        raise InputError(
            f"{description} has {len(kept):,} different tokens, and the vocabulary is cut to {size:,}: some would "
            f"never occur. Cut it to {len(kept) // 64 * 64:,}, or give a longer corpus."
        )
    new = np.full(int(found.max()) + 1, -1, np.int32)
    new[kept] = np.arange(size, dtype=np.int32)
    if new[eod] < 0:
        raise InputError(f"A vocabulary of {size:,} has no end of a document: the first one is longer. Cut it less.")
    return [(cut := new[one])[cut >= 0] for one in ids], int(new[eod]), tuple(kept.tolist())


def _megatron_rows(case: Case, count: int) -> _Rows:
    """Rows of files of token ids; only the tokens of these rows are read."""
    if case.data.packing == "paragraph":
        raise InputError("data.packing 'paragraph' needs text: Megatron files hold no paragraphs.")
    parts = _open_parts(case.data.corpus)
    names, digests = [part.dataset.prefix.name for part in parts], [part.dataset.sha256 for part in parts]
    sha256 = digest_json(digests) if case.data.corpus.blend else digests[0]
    check_digest(case.data.corpus.sha256, sha256, f"The data set {', '.join(names)}")
    if case.data.order == "sequential":
        tokens, epochs = _packed(parts[0].dataset.tokens, names[0], count, case.data.seq_length)
    else:
        sampling = Sampling(
            seed=case.data.seed,
            seq_length=case.data.seq_length,
            samples=case.data.num_samples or count,
            split=case.data.split,
            order=case.data.order,
        )
        samples = draw_samples(parts, sampling)
        one_step, repeats = case.data.global_batch_size, case.data.order == "mindformers"
        used = min(count, sampling.samples // one_step * one_step) if repeats else count
        if len(samples) < used:
            raise InputError(
                f"{', '.join(names)}: one epoch holds {len(samples)} rows, the steps need {used}. A blend without "
                "weights is not repeated: give each part of data_path a weight."
            )
        tokens, epochs = samples.rows(np.arange(count) % used), samples.epochs * -(-count // used)
    return _Rows(
        tokens=tokens,
        counts=None,
        eod=case.data.eod,
        corpus_sha256=sha256,
        tokenizer_sha256=None,
        kept=None,
        description=", ".join(names),
        corpus_tokens=sum(len(part.dataset.tokens) for part in parts),
        epochs=epochs,
    )


def _open_parts(corpus: Corpus) -> list[WeightedDataset]:
    if corpus.blend:
        return [WeightedDataset(open_indexed(source_path("blend", part.path)), part.weight) for part in corpus.blend]
    return [WeightedDataset(open_indexed(source_path(corpus.kind, corpus.path)), None)]


def _conversation_rows(case: Case, count: int) -> _Rows:
    """Rows of conversations, of which only the answers count."""
    conversations, (tokenizer, template) = read_conversations(case.data.corpus), chat_tokenizer(case.data.tokenizer)
    found = rendered(conversations, tokenizer, template)
    end = tokenizer.eod if case.data.eod is None else case.data.eod
    several = case.data.packing == "concat"
    tokens, counts, epochs = packed(found, end, count, case.data.seq_length, several=several)
    return _Rows(
        tokens=tokens,
        counts=counts,
        eod=end,
        corpus_sha256=conversations.sha256,
        tokenizer_sha256=tokenizer.sha256,
        kept=None,
        description=conversations.description,
        corpus_tokens=sum(len(one.ids) for one in found),
        epochs=epochs,
    )


READERS: Mapping[str, Callable[[Case, int], _Rows]] = {
    "megatron": _megatron_rows,
    **dict.fromkeys(CONVERSATIONS, _conversation_rows),
}


def _check_end(case: Case, rows: _Rows) -> None:
    """Checks that documents end where the sides will look for it."""
    documents = case.data.documents
    if documents is not None and documents.end != rows.eod:
        raise InputError(f"data.eod is {documents.end}, and {rows.description} has documents that end with {rows.eod}.")


def _paragraphs(texts: Sequence[str]) -> list[str]:
    blocks = (block.strip() for text in texts for block in text.replace("\n \n", "\n\n").split("\n\n"))
    return [block for block in blocks if block]


def _packed(
    stream: npt.NDArray[np.integer[Any]], name: str, count: int, seq_length: int
) -> tuple[npt.NDArray[np.int32], int]:
    per_epoch = (len(stream) - 1) // seq_length
    if per_epoch < 1:
        raise InputError(
            f"{name} has {len(stream)} tokens; one row of data.seq_length {seq_length} needs {seq_length + 1}."
        )
    starts = np.arange(count) % per_epoch * seq_length
    return stream[starts[:, None] + np.arange(seq_length + 1)].astype(np.int32), -(-count // per_epoch)


def _padded(
    documents: Sequence[TokenIds], eod: int, count: int, seq_length: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_], int]:
    tokens = np.full((count, seq_length + 1), eod, dtype=np.int32)
    counts = np.zeros((count, seq_length), np.bool_)
    for row in range(count):
        ids = documents[row % len(documents)][: seq_length + 1]
        tokens[row, : len(ids)] = ids
        # the targets of a row are its tokens from the second on, then one end-of-document token
        counts[row, : len(ids)] = True
    return tokens, counts, -(-count // len(documents))
