"""The section `data` of a case: which tokens a run reads, from which files, in which order."""

import math
from typing import Any, Literal

from pydantic import Field, model_validator

from harness.base.yaml_records import Record
from qwen3_model.documents import Documents

BYTE_VOCABULARY = 257  # 256 byte values and the end of a document
CONVERSATIONS = ("generated-conversations", "conversations")  # the kinds of corpus that hold conversations


class DataSource(Record):
    """A file that a run reads. `path` is its place on this machine; `sha256` identifies it."""

    kind: str
    path: str | None = None
    sha256: str | None = None

    @model_validator(mode="after")
    def _path_where_needed(self) -> "DataSource":
        if self.kind in ("text", "megatron", "huggingface", "conversations") and not self.named:
            raise ValueError(f"kind {self.kind!r} needs a path")
        return self

    @property
    def named(self) -> bool:
        """Whether files are given."""
        return self.path is not None or self.sha256 is not None


class BlendPart(Record):
    """A data set of a blend. `weight` is None if the weights follow from the sizes."""

    weight: float | None = Field(default=None, gt=0)
    path: str | None = None


class Corpus(DataSource):
    """The source of the tokens. `conversations` is a file of lines `{"messages": [{"role": "...", "content": "..."}]}`;
    those of `generated-conversations` the project writes itself. `blend` holds several Megatron data sets; in a file it
    is written as in mindformers: `data_path: ['0.3', PREFIX, '0.7', PREFIX]`, or prefixes without weights."""

    # generated-english: without lines in other scripts, at which the loss of a small model jumps;
    # transformers-sources: only in bundles of earlier versions
    kind: Literal[
        "generated", "generated-english", "text", "megatron", "generated-conversations", "conversations",
        "transformers-sources",
    ] = "generated"  # fmt: skip
    blend: tuple[BlendPart, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _blend_of_data_path(cls, value: Any) -> Any:
        if not isinstance(value, dict) or "data_path" not in value:
            return value
        others = {key: given for key, given in value.items() if key != "data_path"}
        if others.get("path") is not None or others.get("blend"):
            raise ValueError("data_path replaces path and blend; omit them")
        return {**others, "blend": [part.model_dump() for part in _parts(value["data_path"])]}

    @model_validator(mode="after")
    def _blend_fits(self) -> "Corpus":
        if self.blend and (self.kind != "megatron" or self.path is not None):
            raise ValueError("a blend has kind 'megatron' and no path of its own")
        if len({part.weight is None for part in self.blend}) > 1:
            raise ValueError("either every part of a blend has a weight, or none has")
        return self

    @property
    def named(self) -> bool:
        return bool(self.blend) or super().named

    @property
    def of_conversations(self) -> bool:
        """Whether it holds conversations, of which only the answers count in the loss."""
        return self.kind in CONVERSATIONS


def _parts(data_path: Any) -> list[BlendPart]:
    """The parts of a flat list: weights and prefixes in turn, or only prefixes."""
    words = [str(word).strip() for word in data_path] if isinstance(data_path, list) and data_path else None
    if words is None:
        raise ValueError("data_path is a list: ['0.3', PREFIX, '0.7', PREFIX], or prefixes without weights")
    try:
        weights = [float(word) for word in words[::2]] if len(words) % 2 == 0 else []
    except ValueError:
        weights = []
    if not weights:
        return [BlendPart(path=word) for word in words]
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise ValueError("a weight of data_path is above 0")
    return [BlendPart(weight=weight, path=path) for weight, path in zip(weights, words[1::2], strict=True)]


class Tokenizer(DataSource):
    """`qwen` is the tokenizer of the Qwen3 models, made from the vocabulary that the package dashscope ships."""

    kind: Literal["bytes", "huggingface", "qwen"] = "bytes"


class Data(Record):
    """Which tokens a run reads, in which order.

    packing `concat` joins the documents with end-of-document tokens and cuts rows of `seq_length` (pretraining);
    `paragraph` gives every paragraph its own row, padded, so that rows hold unequal numbers of tokens.
    Padding never counts in the loss. With `eod_mask_loss`, as in Megatron, a position whose input is the
    end-of-document token does not count either, because the next token belongs to another document.

    A corpus of conversations goes through the chat template of the tokenizer; only the tokens of answers count, with
    the token that ends each. With packing `concat` a row holds whole conversations, as many as fit, each ended by the
    end-of-document token, then padding; with `paragraph` one. A longer conversation is cut at the end of its row.

    With `reset_attention_mask` a token attends to its own document only, and with `reset_position_ids` positions count
    from its beginning, as in Megatron and mindformers. A document ends with the end-of-document token: `eod`, or that
    of the byte tokenizer.

    order `sequential` takes the rows in file order; `megatron` and `mindformers` take them like the GPTDataset of
    Megatron-LM or mindformers, shuffled by `seed`, from the training part of `split`, for a data set that was built for
    `num_samples` rows (mindformers' `sizes`; default: the rows of the run). At the end of the data, mindformers takes
    the rows again in the same order, without those that do not fill a step. `eod` is the id that ends a document of
    Megatron files, which do not state it themselves.

    With `cut_vocabulary` the ids of a text are renumbered in the order of their first occurrence in the corpus, and the
    first `model.vocab_size` of them are kept; other tokens are left out.

    With `sweep_vocabulary`, one row in four at most is not text but ids, none of them padding, until every id of the
    vocabulary was an input and a target: first those at the borders of a vocabulary that is split over ranks.
    """

    corpus: Corpus = Corpus()
    tokenizer: Tokenizer = Tokenizer()
    packing: Literal["concat", "paragraph"] = "concat"
    order: Literal["sequential", "megatron", "mindformers"] = "sequential"
    seed: int = Field(default=1234, ge=0, lt=2**32)
    split: str = "1, 0, 0"
    num_samples: int | None = Field(default=None, ge=1)
    eod: int | None = Field(default=None, ge=0)
    eod_mask_loss: bool = False
    reset_attention_mask: bool = False
    reset_position_ids: bool = False
    cut_vocabulary: bool = False
    sweep_vocabulary: bool = False
    seq_length: int = Field(ge=2, le=1 << 24)
    global_batch_size: int = Field(ge=1, le=1 << 20)

    @model_validator(mode="after")
    def _order_fits(self) -> "Data":
        megatron = self.corpus.kind == "megatron"
        problems = []
        if self.order == "sequential":
            # They would change nothing except the digest of the case.
            idle = [name for name in ("seed", "split", "num_samples") if getattr(self, name) != _default(name)]
            if idle:
                problems.append(f"{', '.join(idle)}: no meaning for order 'sequential'")
            if self.corpus.blend:
                problems.append("a blend needs order 'megatron' or 'mindformers'")
        elif not megatron or self.packing != "concat":
            problems.append(f"order {self.order!r} needs a corpus of kind 'megatron' and packing 'concat'")
        if self.eod is not None and not (megatron or self._resets or self.corpus.of_conversations):
            problems.append("eod: the tokenizer defines the id that ends a document")
        if self._resets and self._end is None:
            problems.append("reset_attention_mask and reset_position_ids need eod, the id that ends a document")
        if self.corpus.of_conversations and (self.cut_vocabulary or self.eod_mask_loss):
            problems.append("cut_vocabulary, eod_mask_loss: not for conversations")
        if self.cut_vocabulary and (megatron or self.tokenizer.kind == "bytes"):
            problems.append("cut_vocabulary needs a text and a tokenizer whose vocabulary is worth cutting")
        if self.sweep_vocabulary and megatron:
            problems.append("sweep_vocabulary needs a text")
        if self.eod_mask_loss and megatron and self.eod is None:
            problems.append("eod_mask_loss needs eod: Megatron files do not state the id that ends a document")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def documents(self) -> Documents | None:
        """What starts again with each document of a row; None if nothing does."""
        if not self._resets or self._end is None:
            return None
        return Documents(
            end=self._end, reset_attention_mask=self.reset_attention_mask, reset_position_ids=self.reset_position_ids
        )

    @property
    def _resets(self) -> bool:
        return self.reset_attention_mask or self.reset_position_ids

    @property
    def _end(self) -> int | None:
        if self.eod is None and self.tokenizer.kind == "bytes" and self.corpus.kind != "megatron":
            return BYTE_VOCABULARY - 1
        return self.eod


def _default(name: str) -> Any:
    return Data.model_fields[name].default
