"""A night in Markdown, for the page of a job: failures, then every cell, then missing prerequisites."""

from collections.abc import Iterator, Sequence

from harness.nightly import CellChange, CellResult, CellState, Night
from harness.report.words import number

# The order of the table: the most important first.
ORDER = (CellChange.REGRESSION, CellChange.NOT_RUN, CellChange.DRIFT, CellChange.FIXED, CellChange.NEW, CellChange.SAME)


def summary(night: Night, failing: Sequence[CellResult]) -> str:
    """The text; cells that make the night fail are named first."""
    return "\n".join(_lines(night, failing)) + "\n"


def headline(night: Night, failing: Sequence[CellResult]) -> str:
    """The result of the night in a few words."""
    if failing:
        return f"{len(failing)} of {night.total} cells fail"
    reached = sum(cell.state is CellState.JUDGED and not cell.below for cell in night.cells)
    if reached == night.total:
        return f"all {night.total} cells reach their level"
    return f"no cell fails by the matrix, and {reached} of {night.total} reach their level"


def _lines(night: Night, failing: Sequence[CellResult]) -> Iterator[str]:
    yield f"## Nightly {night.name}: {headline(night, failing)}"
    yield ""
    state = f"ended {night.ended}" if night.ended else f"{len(night.cells)} of {night.total} cells finished"
    yield f"Revision {night.revision}, {night.host}, started {night.started}, {state}."
    for cell in failing:
        yield ""
        cause = f" ({_text(cell.cause)})" if cell.cause else ""
        yield f"**{_text(cell.cell)}**{cause}: {_text(_fault(cell))}"
        yield from (f"- {_text(line)}" for line in cell.failing)
    yield ""
    yield "| cell | level | required | change | closest to its limit | time | protection | result |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for cell in sorted(night.cells, key=lambda one: (ORDER.index(one.change), one.cell)):
        worst = f"{number(cell.worst)} ({cell.worst_criterion})" if cell.worst is not None else "–"
        level = cell.level or cell.state
        row = (
            cell.cell,
            level,
            cell.required,
            cell.change,
            worst,
            f"{cell.seconds / 60:.1f} min",
            cell.protection or "–",
            cell.why or cell.reason,
        )
        yield "| " + " | ".join(_text(str(one)) for one in row) + " |"
    for device, found in night.prerequisites.items():
        missing = [one for one in found if not one.met]
        if missing:
            yield ""
            yield f"**{device} is not ready here**; none of its cells was run:"
            yield from (f"- {_text(one.name)}: {_text(one.found)}. {_text(one.remedy)}" for one in missing)


def _fault(cell: CellResult) -> str:
    if cell.state is CellState.NOT_RUN:
        return f"not run: {cell.reason}"
    if cell.state is CellState.BROKEN:
        return f"broken: {cell.reason}"
    change = f"{cell.change}: {cell.why}" if cell.change is CellChange.REGRESSION else cell.reason
    return f"{cell.level}, {cell.required} is required. {change}" if cell.below else change


def _text(text: str) -> str:
    """Text that is safe in a table: no line ends, bars or markup."""
    escaped = "".join(f"\\{one}" if one in "\\`*_{}[]<>|#!" else one for one in text)
    return " ".join(escaped.split())
