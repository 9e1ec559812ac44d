"""Suggestions for misspelt names."""

import difflib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The nearest known name, ignoring case; None if none is near."""
    names = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), names, n=1)
    return names[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence with the nearest known name, after a space; empty if none is near."""
    near = nearest(word, known)
    return f" Did you mean {near!r}?" if near else ""
