"""Tokenizers: single bytes, or a Hugging Face tokenizer directory read offline."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from harness.base.digest import digest_file, digest_json
from harness.base.errors import InputError, MissingPrerequisite
from harness.cases.data import BYTE_VOCABULARY, Tokenizer
from harness.corpus.documents import check_digest, source_path
from harness.corpus.fast_bpe import BackendEncoder
from harness.corpus.qwen import find_qwen_vocabulary, write_qwen_tokenizer
from qwen3_model.weights import is_lfs_pointer

TokenIds = npt.NDArray[np.int32]
FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
)  # fmt: skip
# Where a directory names Python code of its own; of a model's configuration, only the classes that a tokenizer loads.
CODE = {"tokenizer_config.json": None, "config.json": frozenset({"AutoTokenizer", "AutoConfig"})}
# Either is a tokenizer; the classes and special tokens of the first are in a configuration next to it
VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("vocab.txt",), ("tokenizer.model",))
JSON_FILES = ("tokenizer_config.json", "vocab.json", "special_tokens_map.json", "added_tokens.json")
CONFIGURATIONS = ("tokenizer_config.json", "config.json")
LONGEST_REASON = 300
CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
CHAT_TOKEN = re.compile(f"({'|'.join(map(re.escape, CHAT_TOKENS))})")


class TextTokenizer(Protocol):
    """What batches and data sets need from a tokenizer: vocabulary size, end-of-document id, encoding and decoding."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def eod(self) -> int: ...
    @property
    def sha256(self) -> str | None: ...

    def encode(self, texts: Sequence[str], add_special_tokens: bool = False) -> list[TokenIds]:
        """One int32 array per text, with or without the tokenizer's special tokens around the text."""

    def decode(self, ids: npt.NDArray[np.integer[Any]]) -> str:
        """Readable text: bytes that are not UTF-8 are replaced, the end of a document is shown.

        Args:
            ids: ids below `vocab_size`, of any integer dtype, [tokens].
        """


@dataclass(frozen=True)
class ByteTokenizer:
    """Each UTF-8 byte is its own id; id 256 ends a document. There are no special tokens around a text."""

    vocab_size: int = BYTE_VOCABULARY
    eod: int = BYTE_VOCABULARY - 1
    sha256: str | None = None

    def encode(self, texts: Sequence[str], add_special_tokens: bool = False) -> list[TokenIds]:
        return [np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int32) for text in texts]

    def decode(self, ids: npt.NDArray[np.integer[Any]]) -> str:
        first, *rest = np.split(ids, np.flatnonzero(ids == self.eod))
        documents = [first, *(document[1:] for document in rest)]
        return "<eod>".join(document.astype(np.uint8).tobytes().decode("utf-8", "replace") for document in documents)


@dataclass(frozen=True)
class ChatByteTokenizer:
    """Bytes, and the two tokens of ChatML: 257 begins a message, 258 ends it."""

    bytes: ByteTokenizer = ByteTokenizer()
    vocab_size: int = BYTE_VOCABULARY + 2
    eod: int = BYTE_VOCABULARY - 1
    sha256: str | None = None

    def encode(self, texts: Sequence[str], add_special_tokens: bool = False) -> list[TokenIds]:
        return [np.concatenate([*self._parts(text), np.zeros(0, np.int32)]) for text in texts]

    @property
    def names(self) -> dict[int, str]:
        """The two tokens by id."""
        return {BYTE_VOCABULARY + number: token for number, token in enumerate(CHAT_TOKENS)}

    def _parts(self, text: str) -> Iterator[TokenIds]:
        for part in CHAT_TOKEN.split(text):
            if part in CHAT_TOKENS:
                yield np.array([BYTE_VOCABULARY + CHAT_TOKENS.index(part)], np.int32)
            else:
                yield from self.bytes.encode([part])

    def decode(self, ids: npt.NDArray[np.integer[Any]]) -> str:
        cuts = np.flatnonzero(ids >= BYTE_VOCABULARY)
        pieces = np.split(ids, sorted({*cuts.tolist(), *(cuts + 1).tolist()}))
        return "".join(
            CHAT_TOKENS[int(piece[0]) - BYTE_VOCABULARY]
            if len(piece) and piece[0] >= BYTE_VOCABULARY
            else self.bytes.decode(piece)
            for piece in pieces
        )


class HuggingFaceTokenizer:
    """A tokenizer directory, as `AutoTokenizer.from_pretrained` loads it without network and without code.

    It can be created before a fork and used after it.

    Raises:
        MissingPrerequisite: transformers is not installed.
        InputError: the directory has no tokenizer that can be loaded, or one without an end-of-document token, or one
            that needs code of its own.
    """

    def __init__(self, directory: Path) -> None:
        check_directory(directory)
        _check_complete(directory)
        # Threads of the Rust library do not survive a fork, and they gain nothing where all cores have workers.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            from transformers import AutoTokenizer
        except ImportError:
            raise MissingPrerequisite(
                "--tokenizer needs transformers. Install it with: pip install '.[torch]'"
            ) from None
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(
                str(directory), local_files_only=True, trust_remote_code=False
            )
            self._encoder = _encoder(self._tokenizer) if self._tokenizer.is_fast else None
        # The Rust library raises bare Exception for a damaged file, so no narrower class catches it. Some damage is
        # found only when our encoder reads what the library accepted.
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:LONGEST_REASON]
            raise InputError(f"{directory} holds no Hugging Face tokenizer that can be loaded: {reason}") from None
        if self._tokenizer.eos_token_id is None:
            raise InputError(f"The tokenizer {directory} has no eos_token, which is needed to end documents.")
        self.vocab_size = len(self._tokenizer)
        self.eod = int(self._tokenizer.eos_token_id)
        files = sorted(path for path in directory.iterdir() if path.is_file())
        self.sha256: str | None = digest_json({path.name: digest_file(path) for path in files})

    def encode(self, texts: Sequence[str], add_special_tokens: bool = False) -> list[TokenIds]:
        if self._encoder is not None:
            return self._encoder.encode(texts, add_special_tokens=add_special_tokens)
        # verbose=False: documents longer than the model's maximum are cut into rows later
        options = {"add_special_tokens": add_special_tokens, "verbose": False}
        return [np.asarray(self._tokenizer(text, **options)["input_ids"], dtype=np.int32) for text in texts]

    def decode(self, ids: npt.NDArray[np.integer[Any]]) -> str:
        return str(self._tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False))

    def save(self, directory: Path) -> None:
        """Writes it as a directory with `tokenizer.json` and `tokenizer_config.json`.

        Raises:
            InputError: it exists as Python code alone.
        """
        if self._encoder is None:
            raise InputError(
                f"The tokenizer {self._tokenizer.name_or_path} has no tokenizer.json and cannot be converted to one. "
                "Convert it with transformers, and give the new directory."
            )
        self._tokenizer.save_pretrained(directory)


def check_directory(directory: Path, *, chat: bool = False) -> None:
    """Checks a tokenizer directory by its files alone: it needs no code of its own, and no file is a Git LFS pointer.

    Args:
        directory: The directory.
        chat: Whether a chat template is needed.

    Raises:
        InputError: it is not a directory, or what of it cannot be used.
    """
    if not directory.is_dir():
        raise InputError(f"The tokenizer {directory} is not a directory.")
    for name, classes in CODE.items():
        code = _auto_map(directory / name)
        if code and (classes is None or not isinstance(code, dict) or classes & set(code)):
            raise InputError(
                f"{directory / name} has auto_map: this tokenizer needs Python code of its own, and no code of a "
                "directory is ever executed. Save it as tokenizer.json without auto_map, and give that directory."
            )
    for name in FILES:
        if is_lfs_pointer(directory / name):
            raise InputError(f"{directory / name} is a Git LFS pointer, not the file. Run 'git lfs pull' there.")
    if chat:
        from qwen3_model.chat import ChatTemplate, ChatTemplateError  # Jinja, which few commands need

        try:
            ChatTemplate.from_directory(directory)
        except ChatTemplateError as error:
            raise InputError(f"{error}. Inference and fine-tuning need one: add chat_template.jinja.") from None


def _check_complete(directory: Path) -> None:
    """Checks that the files of a tokenizer are all there, and that those of its library's Python part are JSON.

    Raises:
        InputError: what is missing, or cannot be read, and what to do.
    """
    for name in (one for one in JSON_FILES if (directory / one).is_file()):
        try:
            content = json.loads((directory / name).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            why = getattr(error, "strerror", None) or error
            raise InputError(f"{directory / name} is not JSON in UTF-8: {why}. Is the download complete?") from None
        if not isinstance(content, dict):
            raise InputError(f"{directory / name} holds no JSON object.")
    if not any(all((directory / name).is_file() for name in names) for names in VOCABULARIES):
        raise InputError(f"{directory} holds no Hugging Face tokenizer: {_missing(directory)}")
    if not any((directory / name).is_file() for name in CONFIGURATIONS):
        raise InputError(
            f"{directory} holds no Hugging Face tokenizer that can be loaded: it has no tokenizer_config.json, which "
            "names the class and the end of a document. Copy it from the model, or write one: "
            '{"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|endoftext|>"}'
        )


def _missing(directory: Path) -> str:
    if found := sorted(directory.glob("*.tiktoken")):
        return f"{found[0].name} is converted by: certify data tokenizer NEW --vocabulary {found[0]}"
    for names in VOCABULARIES:
        there = [name for name in names if (directory / name).is_file()]
        if there:
            lacking = [name for name in names if name not in there]
            return f"it has {', '.join(there)} and lacks {', '.join(lacking)}."
    return "it has neither tokenizer.json, nor vocab.json and merges.txt."


def _auto_map(path: Path) -> Any:
    """`auto_map` of a configuration; None if there is none, or no such file."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content.get("auto_map") if isinstance(content, dict) else None


def _encoder(tokenizer: Any) -> BackendEncoder:
    """The tokenizer's backend, set up as for `tokenizer(text)`."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return BackendEncoder(backend)


def load_tokenizer(tokenizer: Tokenizer) -> TextTokenizer:
    """The tokenizer of a case.

    Raises:
        InputError: it cannot be loaded, or its digest differs from the case's.
    """
    if tokenizer.kind == "bytes":
        return ByteTokenizer()
    with directory_of(tokenizer) as directory:
        loaded = HuggingFaceTokenizer(directory)
    name = "of Qwen3" if tokenizer.kind == "qwen" else str(tokenizer.path)
    check_digest(tokenizer.sha256, str(loaded.sha256), f"The tokenizer {name}")
    return loaded


@contextlib.contextmanager
def directory_of(tokenizer: Tokenizer) -> Iterator[Path]:
    """The directory of a tokenizer that is not of bytes; that of Qwen3 is made for the block.

    Raises:
        InputError: the case states its digest only, or it cannot be made.
    """
    if tokenizer.kind != "qwen":
        yield source_path("huggingface", tokenizer.path)
        return
    with tempfile.TemporaryDirectory(prefix="qwen-") as made:
        write_qwen_tokenizer(find_qwen_vocabulary(), directory := Path(made) / "tokenizer")
        yield directory
