"""The token batches of a case: a pure function of the case and its corpus.

Takes a case, gives every batch of every step in order, and refuses a corpus with ids beyond the model's
vocabulary or with too few tokens for one row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.case import Case
from harness.corpus.documents import check_digest, read_documents, source_path
from harness.corpus.indexed import read_indexed
from harness.corpus.tokenizers import TokenIds, load_tokenizer
from harness.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Batches:
    """All batches of a run.

    tokens: int32 [steps, B, S + 1]; inputs are `[..., :-1]`, targets `[..., 1:]`.
    loss_mask: uint8 [steps, B, S]; 1 where the target counts.
    epochs: how often the corpus was begun; above 1 a run sees tokens again.
    """

    tokens: npt.NDArray[np.int32]
    loss_mask: npt.NDArray[np.uint8]
    corpus_sha256: str
    tokenizer_sha256: str | None
    description: str
    corpus_tokens: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class _Documents:
    ids: Sequence[TokenIds]
    eod: int | None
    corpus_sha256: str
    tokenizer_sha256: str | None
    description: str


def draw_batches(case: Case) -> Batches:
    """The batches of a case, in order.

    Raises:
        InputError: see the module; or a corpus or tokenizer that cannot be read.
    """
    documents = _tokenize(case)
    rows = case.training.steps * case.data.global_batch_size
    tokens, mask, epochs = _rows(case, documents, rows)
    highest = int(tokens.max())
    if highest >= case.model.vocab_size:
        raise InputError(
            f"{documents.description} holds the token id {highest}, beyond the model's vocabulary of "
            f"{case.model.vocab_size}. Choose a case with a larger model.vocab_size."
        )
    if not mask.reshape(case.training.steps, -1).any(axis=1).all():
        raise InputError(f"{documents.description}: a step would have no token that counts in the loss.")
    shape = (case.training.steps, case.data.global_batch_size)
    return Batches(
        tokens=tokens.reshape(*shape, -1),
        loss_mask=mask.reshape(*shape, -1),
        corpus_sha256=documents.corpus_sha256,
        tokenizer_sha256=documents.tokenizer_sha256,
        description=documents.description,
        corpus_tokens=sum(len(ids) for ids in documents.ids),
        epochs=epochs,
    )


def _tokenize(case: Case) -> _Documents:
    corpus = case.data.corpus
    if corpus.kind == "megatron":
        prefix = source_path(corpus.kind, corpus.path)
        dataset = read_indexed(prefix)
        check_digest(corpus.sha256, dataset.sha256, f"The data set {prefix}")
        # These files carry their own end-of-document tokens; which id that is, they do not say.
        return _Documents(
            ids=dataset.documents,
            eod=None,
            corpus_sha256=dataset.sha256,
            tokenizer_sha256=None,
            description=prefix.name,
        )
    documents, tokenizer = read_documents(corpus), load_tokenizer(case.data.tokenizer)
    texts = _paragraphs(documents.texts) if case.data.packing == "paragraph" else documents.texts
    return _Documents(
        ids=tokenizer.encode(texts),
        eod=tokenizer.eod,
        corpus_sha256=documents.sha256,
        tokenizer_sha256=tokenizer.sha256,
        description=documents.description,
    )


def _paragraphs(texts: Sequence[str]) -> list[str]:
    blocks = (block.strip() for text in texts for block in text.replace("\n \n", "\n\n").split("\n\n"))
    return [block for block in blocks if block]


def _rows(case: Case, documents: _Documents, rows: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8], int]:
    if case.data.packing == "paragraph":
        return _padded_rows(documents, rows, case.data.seq_length, case.data.eod_mask_loss)
    stream = _stream(documents)
    return _packed_rows(stream, documents, rows, case.data.seq_length, case.data.eod_mask_loss)


def _stream(documents: _Documents) -> TokenIds:
    end = np.array([] if documents.eod is None else [documents.eod], dtype=np.int32)
    return np.concatenate([part for ids in documents.ids for part in (ids, end)] or [end])


def _packed_rows(
    stream: TokenIds, documents: _Documents, rows: int, seq_length: int, eod_mask_loss: bool
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8], int]:
    if eod_mask_loss and documents.eod is None:
        raise InputError("data.eod_mask_loss needs a tokenizer: Megatron files do not say which id ends a document.")
    per_epoch = (len(stream) - 1) // seq_length
    if per_epoch < 1:
        raise InputError(
            f"{documents.description} has {len(stream)} tokens; one row of data.seq_length {seq_length} needs "
            f"{seq_length + 1}."
        )
    starts = np.arange(rows) % per_epoch * seq_length
    tokens = stream[starts[:, None] + np.arange(seq_length + 1)]
    mask = np.ones((rows, seq_length), dtype=np.uint8)
    if eod_mask_loss:
        mask[tokens[:, 1:] == documents.eod] = 0
    return tokens, mask, -(-rows // per_epoch)


def _padded_rows(
    documents: _Documents, rows: int, seq_length: int, eod_mask_loss: bool
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8], int]:
    if documents.eod is None:
        raise InputError("data.packing 'paragraph' needs text: Megatron files hold no paragraphs.")
    tokens = np.full((rows, seq_length + 1), documents.eod, dtype=np.int32)
    mask = np.zeros((rows, seq_length), dtype=np.uint8)
    for row in range(rows):
        ids = documents.ids[row % len(documents.ids)][: seq_length + 1]
        tokens[row, : len(ids)] = ids
        # the targets of a row are its tokens from the second on, then one end of the document
        targets = len(ids) - 1 if eod_mask_loss else len(ids)
        mask[row, :targets] = 1
    return tokens, mask, -(-rows // len(documents.ids))
