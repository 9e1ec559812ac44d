"""Pieces of sentences, and what is no text as one."""

from collections.abc import Sequence


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def as_text(raw: str) -> str:
    """A path, an argument or a variable as text: with escapes for bytes that are no UTF-8, which a system allows."""
    return raw if raw.isascii() else raw.encode(errors="backslashreplace").decode()


def is_text(found: str) -> bool:
    """Whether a string has a form in UTF-8: JSON can hold half of a surrogate pair, which is no character."""
    return as_text(found) == found
