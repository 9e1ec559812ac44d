"""The text of token ids, by the tokenizer of a bundle: byte-level BPE, like Qwen's.

Needs no tokenizer library. With a tokenizer of another kind, or without a readable one, ids are shown as numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.base.errors import EvidenceError
from harness.base.records import read_json

PICTURES = 0x2400  # Unicode's pictures of the control characters, in their order
SHOWN_AS_THEY_ARE = "\n\t"


@dataclass(frozen=True, kw_only=True)
class TokenText:
    """The bytes of each id, and the names of special ids without bytes."""

    pieces: Mapping[int, bytes]
    names: Mapping[int, str]

    def text(self, ids: Sequence[int]) -> str:
        """The text of some tokens. Invalid UTF-8 and control characters are shown as visible characters, an unknown id
        as its number."""
        return "".join(self._parts([int(one) for one in ids]))

    def _parts(self, ids: Sequence[int]) -> Iterator[str]:
        for known, run in groupby(ids, key=lambda one: one in self.pieces):
            if known:
                yield shown(b"".join(self.pieces[one] for one in run).decode("utf-8", errors="replace"))
            else:
                yield "".join(shown(self.names.get(one, f" {one} ")) for one in run)


def shown(text: str) -> str:
    """A text with visible control characters."""
    return "".join(
        chr(PICTURES + ord(letter)) if ord(letter) < 32 and letter not in SHOWN_AS_THEY_ARE else letter
        for letter in text
    )


def read_token_text(directory: Path) -> TokenText:
    """The text of tokens by the `tokenizer.json` of a directory."""
    try:
        content = read_json(directory / "tokenizer.json")
    except EvidenceError:
        return TokenText(pieces={}, names={})
    model, added, decoder = (_at(content, key) for key in ("model", "added_tokens", "decoder"))
    vocabulary = _at(model, "vocab") if "ByteLevel" in str(decoder) else None
    letters, pieces = _letters(), dict[int, bytes]()
    for piece, id_ in vocabulary.items() if isinstance(vocabulary, dict) else ():
        if isinstance(id_, int) and all(letter in letters for letter in piece):
            pieces[id_] = bytes(letters[letter] for letter in piece)
    named = [one for one in added if isinstance(one, dict)] if isinstance(added, list) else []
    names = {_at(one, "id"): str(_at(one, "content")) for one in named if isinstance(_at(one, "id"), int)}
    return TokenText(pieces={id_: piece for id_, piece in pieces.items() if id_ not in names}, names=names)


def _at(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _letters() -> dict[str, int]:
    """The byte of each letter of a byte-level vocabulary.

    Source: `bytes_to_unicode` in transformers, models/gpt2/tokenization_gpt2.py.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}
