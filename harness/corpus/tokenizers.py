"""Text to token ids: bytes, or a Hugging Face tokenizer directory read offline."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from harness.case import BYTE_VOCABULARY, Tokenizer
from harness.corpus.documents import check_digest, source_path
from harness.digest import digest_file, digest_json
from harness.errors import InputError, MissingPrerequisite

TokenIds = npt.NDArray[np.int32]


class TextTokenizer(Protocol):
    """What batches need of a tokenizer: its size, its end of a document, and ids of texts."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def eod(self) -> int: ...
    @property
    def sha256(self) -> str | None: ...

    def encode(self, texts: Sequence[str]) -> list[TokenIds]: ...


@dataclass(frozen=True)
class ByteTokenizer:
    """Each UTF-8 byte is its own id; id 256 ends a document."""

    vocab_size: int = BYTE_VOCABULARY
    eod: int = BYTE_VOCABULARY - 1
    sha256: str | None = None

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        return [np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(np.int32) for text in texts]


class HuggingFaceTokenizer:
    """A tokenizer directory, as `AutoTokenizer.from_pretrained` loads it without network.

    Raises:
        MissingPrerequisite: transformers is not installed.
        InputError: the directory holds no tokenizer that can be loaded, or one without an end-of-document token.
    """

    def __init__(self, directory: Path) -> None:
        try:
            from transformers import AutoTokenizer
        except ImportError:
            raise MissingPrerequisite(
                "--tokenizer needs transformers. Install it with: pip install '.[torch]'"
            ) from None
        if not directory.is_dir():
            raise InputError(f"The tokenizer {directory} is not a directory.")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{directory} holds no Hugging Face tokenizer that can be loaded: {reason}") from None
        if self._tokenizer.eos_token_id is None:
            raise InputError(f"The tokenizer {directory} names no eos_token, which is needed to end documents.")
        self.vocab_size = len(self._tokenizer)
        self.eod = int(self._tokenizer.eos_token_id)
        files = sorted(path for path in directory.iterdir() if path.is_file())
        self.sha256: str | None = digest_json({path.name: digest_file(path) for path in files})

    def encode(self, texts: Sequence[str]) -> list[TokenIds]:
        # verbose=False: documents longer than the model's maximum are cut into rows later
        encoded = self._tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [np.asarray(ids, dtype=np.int32) for ids in encoded]


def load_tokenizer(tokenizer: Tokenizer) -> TextTokenizer:
    """The tokenizer of a case.

    Raises:
        InputError: it cannot be loaded, or is not the one whose digest the case names.
    """
    if tokenizer.kind == "bytes":
        return ByteTokenizer()
    loaded = HuggingFaceTokenizer(source_path("huggingface", tokenizer.path))
    check_digest(tokenizer.sha256, str(loaded.sha256), f"The tokenizer {tokenizer.path}")
    return loaded
