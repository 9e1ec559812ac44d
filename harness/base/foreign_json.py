"""JSON of other programs: what is stated twice is an error, since one reader takes the first value and one the last."""

import json
from typing import Any


def parse_foreign(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, or one of its objects states a name twice.
        RecursionError: it is too deep.
    """
    return json.loads(text, object_pairs_hook=_each_once)


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is stated twice")
    return found
