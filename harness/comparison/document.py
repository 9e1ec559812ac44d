"""The table of measurements as a page of the documentation: `python -m harness.comparison.document` prints it."""

import itertools
from collections.abc import Iterator, Sequence

from harness.cases.task import TASKS
from harness.comparison.catalogue import KINDS, NUMBERS, PAIRS, Kind

COMMAND = "python -m harness.comparison.document > docs/measurements.md"
PAGE = f"""\
# Measurements

<!-- Written by: {COMMAND} -->

A standard limits statistics of measurements ([a standard of your own](add-a-case.md#a-standard-of-your-own)). These are
all measurements. A standard that names another one is rejected when it is loaded.

A measurement has one value for each step, tensor, run or other place. The oracle is the run in float64
([the oracle](design/oracle.md)). A value is not-a-number where a side lacks the number, or has one that is not finite,
and not-a-number meets no limit.

| unit | meaning |
| --- | --- |
| relative | difference or error, divided by the size of the value that it is compared with; or a fraction |
| errors of the reference | multiple of the reference's error against the oracle ([why](design/floor.md)) |
| standard errors | multiple of the standard error of a mean of as many errors of the reference as there are steps |
| 1 if different, else 0 | whether two things are equal |

A name with capitals stands for several names:

{{capitals}}

A limit must fit its measurement:

- `first` is the value of step 1, so it needs a value for each step.
- `bias` is the absolute value of a mean. It needs values with a sign. Such values need `bias` or `rms`, because every
  other statistic accepts any negative number.
- `at_least` needs a measurement of which more is better, marked with ↑. All others need `at_most` or `below`, and no
  `minimum`.

{{tables}}
"""

KNOWN = {0: " Known before the first step.", 1: " Known at the first step.", None: ""}


def page() -> str:
    """The page, in Markdown."""
    return PAGE.format(capitals=_capitals(), tables="\n\n".join(_tables())).strip() + "\n"


def _capitals() -> str:
    pairs = [(f"`{pair.name}`", f"{pair.meaning}: runs `{pair.first}` and `{pair.second}`") for pair in PAIRS]
    numbers = [(f"`{name}`", meaning) for name, meaning in NUMBERS.items()]
    sides = [("`reference`, `subject`", "the two sides")]
    rows = [("PAIR", *row) for row in pairs] + [("NUMBER", *row) for row in numbers] + [("SIDE", *row) for row in sides]
    return _table(("capitals", "in a name", "meaning"), rows)


def _tables() -> Iterator[str]:
    together = {frozenset(kind.places) for kind in KINDS}
    for tasks in sorted(together, key=lambda names: (-len(names), min(map(list(TASKS).index, names)))):
        *others, last = (task.activity for name, task in TASKS.items() if name in tasks)
        title = f"{', '.join(others)} and {last}".capitalize() if others else last.capitalize()
        kinds = [kind for kind in KINDS if set(kind.places) == tasks]
        rows = [_row(list(group)) for _, group in itertools.groupby(sorted(kinds, key=_order), key=_order)]
        yield f"## {title}\n\n{_table(('measurement', 'unit', 'one value for each', 'meaning'), rows)}"


def _order(kind: Kind) -> int:
    """By the first kind with its pattern."""
    return next(index for index, other in enumerate(KINDS) if other.pattern == kind.pattern)


def _row(kinds: Sequence[Kind]) -> tuple[str, ...]:
    kind = kinds[0]
    better = " ↑" if kind.higher_is_better else ""
    places = " or ".join(dict.fromkeys(kind.places.values()))
    return f"`{kind.pattern}`{better}", kind.unit, places, f"{kind.meaning}{KNOWN[kind.known_at]}{_values(kinds)}"


def _values(kinds: Sequence[Kind]) -> str:
    """What the capitals can be, where it is not everything that they can be elsewhere."""
    all_values = {"PAIR": [pair.name for pair in PAIRS], "NUMBER": list(NUMBERS)}
    parts = []
    for capital, everything in all_values.items():
        values = list(dict.fromkeys(kind.capitals[capital] for kind in kinds if capital in kind.capitals))
        if values and set(values) != set(everything):
            parts.append(f" {capital}: {', '.join(f'`{value}`' for value in values)}.")
    return "".join(parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    print(page(), end="")
