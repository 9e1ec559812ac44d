"""Byte-level BPE with a dictionary: a text is split into words, and the ids of each word are looked up.

The ids equal those of the `tokenizers` library, several times faster. Only the splitting is done here, and only for
patterns for which tests show that both regular expression engines agree; the library encodes every word the first time
it occurs. The library encodes a whole text if its split could differ: if it contains an added token, or a character
that an engine's version of Unicode may not have.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from unicodedata import is_normalized, ucd_3_2_0

import numpy as np
import numpy.typing as npt

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_SPLIT = QWEN_SPLIT.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
# Source: the split pattern of the library's ByteLevel with `use_regex`; the library does not expose it.
GPT2_SPLIT = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# Normal forms that do not change a part of a normalized text, so a word can be encoded alone.
NORMALIZERS = frozenset({"NFC", "NFD", "NFKC", "NFKD"})

# A bound on the dictionary's memory: characters in all words, and the overhead of an entry in characters. About 60 MB.
MOST_CHARACTERS = 30_000_000
ENTRY_CHARACTERS = 150


@dataclass(frozen=True, kw_only=True)
class Affixes:
    """The special tokens around one text, as int32 bytes."""

    before: bytes = b""
    after: bytes = b""


class BackendEncoder:
    """Encodes texts exactly as a `tokenizers.Tokenizer` does.

    The tokenizer must neither truncate nor pad. The encoder can be created before a fork and used after it.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._affixes = _affixes(_state(backend.post_processor))
        self._words = _dictionary(backend)

    def encode(self, texts: Sequence[str], *, add_special_tokens: bool) -> list[npt.NDArray[np.int32]]:
        """One int32 array for each text."""
        # an unknown post-processor can change the ids of a word even without special tokens
        if self._words is None or self._affixes is None:
            return self._by_backend(texts, add_special_tokens)
        affixes = self._affixes if add_special_tokens else Affixes()
        found = [self._words.look_up(text, affixes) for text in texts]
        rest = iter(
            self._by_backend([text for text, ids in zip(texts, found, strict=True) if ids is None], add_special_tokens)
        )
        return [next(rest) if ids is None else np.frombuffer(ids, np.int32) for ids in found]

    def _by_backend(self, texts: Sequence[str], add_special_tokens: bool) -> list[npt.NDArray[np.int32]]:
        encoded = self._backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        return [np.asarray(one.ids, dtype=np.int32) for one in encoded]


class WordDictionary:
    """The ids of every word so far, as int32 bytes: joining bytes is faster than concatenating arrays."""

    def __init__(self, backend: Any, pattern: str) -> None:
        import regex

        self._backend = backend
        self._normalizer = backend.normalizer
        self._form = _state(backend.normalizer)["type"] if backend.normalizer else None
        self._split = regex.compile(pattern).findall
        self._added = _any_of(_added_texts(backend))
        self._ids: dict[str, bytes] = {}
        self._characters = 0

    def look_up(self, text: str, affixes: Affixes) -> bytearray | None:
        """The ids of a text as int32 bytes, with `affixes` around them; None if only the library can encode it."""
        if self._added.search(text):
            return None
        # all Unicode versions since 3.2 agree on the normal form of the characters accepted below
        if self._form is not None and not is_normalized(self._form, text):
            text = self._normalizer.normalize_str(text)
            if self._added.search(text):
                return None
        words = self._split(text)
        try:
            return self._joined(words, affixes)
        except KeyError:
            return self._joined(words, affixes) if self._learn(words) else None

    def _joined(self, words: list[str], affixes: Affixes) -> bytearray:
        return bytearray().join((affixes.before, *map(self._ids.__getitem__, words), affixes.after))

    def _learn(self, words: list[str]) -> bool:
        """Adds the words to the dictionary; whether all could be added."""
        new = [word for word in set(words) if word not in self._ids]
        if not all(word.isascii() or _is_certain(word) for word in new):
            return False
        if self._characters > MOST_CHARACTERS:
            self._ids.clear()
            self._characters = 0
            new = list(set(words))
        encoded = self._backend.encode_batch_fast(new, add_special_tokens=False)
        self._ids.update((word, np.array(one.ids, np.int32).tobytes()) for word, one in zip(new, encoded, strict=True))
        self._characters += sum(map(len, new)) + ENTRY_CHARACTERS * len(new)
        return True


def _is_certain(word: str) -> bool:
    """Whether each character exists in Unicode 3.2, so that every later version has its class."""
    return all(ucd_3_2_0.category(character) != "Cn" for character in word)


def _dictionary(backend: Any) -> WordDictionary | None:
    """None if the tokenizer does more than split by a known pattern and encode each word alone."""
    normalizer = _state(backend.normalizer)
    pattern = _pattern(_state(backend.pre_tokenizer))
    if type(backend.model).__name__ != "BPE" or backend.model.dropout or pattern is None:
        return None
    if normalizer is not None and normalizer["type"] not in NORMALIZERS:
        return None
    return WordDictionary(backend, pattern)


def _pattern(pre_tokenizer: Any) -> str | None:
    match pre_tokenizer:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return GPT2_SPLIT
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        } if pattern in (QWEN_SPLIT, LLAMA_SPLIT):
            return pattern
    return None


def _affixes(post_processor: Any) -> Affixes | None:
    """None if the post-processor does more than add tokens around a text."""
    match post_processor:
        case None | {"type": "ByteLevel"}:
            return Affixes()
        case {"type": "TemplateProcessing", "single": list(template), "special_tokens": dict(special)}:
            parts = [
                None if "Sequence" in piece else _int32(special[piece["SpecialToken"]["id"]]["ids"])
                for piece in template
            ]
            if parts.count(None) != 1:
                return None
            text = parts.index(None)
            return Affixes(before=b"".join(filter(None, parts[:text])), after=b"".join(filter(None, parts[text:])))
        case {"type": "Sequence", "processors": [{"type": "ByteLevel"}, last]}:
            return _affixes(last)
    return None


def _int32(ids: Sequence[int]) -> bytes:
    return np.array(ids, np.int32).tobytes()


def _added_texts(backend: Any) -> set[str]:
    """The texts that the library matches before it splits: each added token as written and as normalized."""
    written = {token.content for token in backend.get_added_tokens_decoder().values()}
    normalized = {backend.normalizer.normalize_str(text) for text in written} if backend.normalizer else set()
    return (written | normalized) - {""}


def _any_of(texts: set[str]) -> "re.Pattern[str]":
    # (?!) never matches
    return re.compile("|".join(map(re.escape, sorted(texts))) or "(?!)")


def _state(component: Any) -> Any:
    """The description of a part of a tokenizer, as `tokenizer.json` holds it."""
    return None if component is None else json.loads(component.__getstate__())
