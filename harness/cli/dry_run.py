"""The output of `certify plan --compile`: the communication of chosen ranks, as MindSpore compiled it."""

import dataclasses
import json
from collections import ChainMap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from harness.cases.case import Case
from harness.cli.terminal import MET, error_console, out_console
from harness.planning.dry_run import MINDFORMERS, NOT_SHOWN, OWN, CompiledRank, described, dry_run
from harness.planning.memory import GIB
from harness.planning.operators import FUSED

DIRECTORY = Path("output") / "dry-run"


def print_dry_run(
    case_or_yaml: str,
    ranks: Sequence[int],
    layers: int | None,
    as_json: bool,
    *,
    subjects: Sequence[str] = (),
    directory: Path = DIRECTORY,
) -> int:
    """Compiles the graphs of ranks (default: the first and the last) and prints their communication.

    `subjects`: whose graphs; default: those of this model, and over several ranks also those of mindformers.

    Returns:
        Exit code 0: each was compiled.

    Raises:
        CertifyError: a case, rank or layout is invalid, a tool is missing, or MindSpore rejected the graph.
    """
    case, configuration = described(case_or_yaml, layers)
    last, place = case.parallel.world_size - 1, directory / case.name
    chosen = list(dict.fromkeys(ranks or (0, last)))
    compiled = []
    for subject in subjects or ((OWN, MINDFORMERS) if last else (OWN,)):

        def show(rank: int, subject: str = subject) -> None:
            error_console.print(f"Compiling rank {rank} of {last + 1} ({subject}) ...", markup=False)

        compiled += dry_run(case, configuration, chosen, place, subject=subject, listener=show)
    if as_json:
        print(json.dumps(_record(case, compiled)))
    else:
        _print_compiled(case, compiled, place)
    return MET


def _print_compiled(case: Case, compiled: Sequence[CompiledRank], place: Path) -> None:
    model = f"{case.model.num_hidden_layers} layers of width {case.model.hidden_size}"
    every = dict(ChainMap(*(dict(one.versions) for one in compiled)))
    versions = ", ".join(f"{name} {version}" for name, version in sorted(every.items()))
    layout = f"{case.parallel}, recompute" if case.training.recompute else str(case.parallel)
    out_console.print(f"{case.name}: {model}; {layout}", markup=False, soft_wrap=True)
    out_console.print(f"Compiled by {versions} against {compiled[0].libraries}.", markup=False, soft_wrap=True)
    table = Table(
        "subject",
        "rank",
        "stage",
        "seconds",
        "GiB",
        "operator",
        "ranks",
        "in graph",
        "in step",
        box=None,
        pad_edge=False,
    )
    for one in compiled:
        where = (one.subject, str(one.rank), str(one.stage))
        first = (*where, f"{one.seconds:.0f}", f"{one.peak_memory / GIB:.1f}")
        for sent in one.communication:
            among = f"peer {sent.peer}" if sent.peer is not None else _spans(sent.ranks)
            table.add_row(*first, sent.kind, among, str(sent.found), str(sent.runs))
            first = ("",) * 5
        if not one.communication:
            table.add_row(*first, "none", "", "0", "0")
    out_console.print(table)
    for one in compiled:
        out_console.print(_operators(one), markup=False, soft_wrap=True)
    out_console.print(
        "GiB: memory of the compiling process. In graph: operators in the final graphs. In step: how many a step runs; "
        "mindformers' graph has the operators of a micro batch once, and the graphs of this model are those of one "
        "micro batch and of the update.",
        soft_wrap=True,
    )
    out_console.print(
        f"This shows that MindSpore accepts the graphs of these ranks, and no more: {_not_shown()}.", soft_wrap=True
    )
    out_console.print(f"Logs, strategy files and final graphs: {place}", markup=False, soft_wrap=True)


def _operators(one: CompiledRank) -> str:
    fused = ", ".join(f"{name} {one.operators[name]}" for name in FUSED if name in one.operators)
    return f"Operators of {one.subject}, rank {one.rank}: {sum(one.operators.values()):,}. Fused: {fused or 'none'}."


def _not_shown() -> str:
    *others, last = NOT_SHOWN
    return f"{', '.join(others)}, and {last}"


def _spans(ranks: Sequence[int]) -> str:
    """Ranks in short form: 0-3, or 0, 4, 8, 12."""
    if len(ranks) > 1 and list(ranks) == list(range(ranks[0], ranks[-1] + 1)):
        return f"{ranks[0]}-{ranks[-1]}"
    return ", ".join(map(str, ranks))


def _record(case: Case, compiled: Sequence[CompiledRank]) -> dict[str, Any]:
    return {
        "case": case.name,
        "num_hidden_layers": case.model.num_hidden_layers,
        "parallel": dataclasses.asdict(case.parallel),
        "ranks": [dataclasses.asdict(one) for one in compiled],
        "not_shown": list(NOT_SHOWN),
    }
