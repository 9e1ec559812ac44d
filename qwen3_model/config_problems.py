"""The error about a configuration that cannot be used, with every reason at once."""

from typing import Any


class Qwen3ConfigError(ValueError):
    """A configuration that cannot be used; `problems` holds every reason, the message lists them all."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join([f"{len(problems)} problem(s) in the Qwen3 configuration:", *problems]))


def is_a(kind: Any, value: Any) -> bool:
    """Whether a JSON value fits a field; an integer fits a float (published files write both), a bool only bool."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)
