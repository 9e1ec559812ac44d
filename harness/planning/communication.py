"""The communication operators of a graph saved by MindSpore: their kind, their ranks, and their count in a step."""

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.base.errors import InputError

KINDS = (
    "AllGather|AllGatherV|AllReduce|AlltoAll|AlltoAllV|AlltoAllVC|Barrier|BatchISendIRecv|Broadcast|CollectiveGather|"
    "CollectiveScatter|NeighborExchange|NeighborExchangeV2|Receive|Reduce|ReduceScatter|ReduceScatterV|Send"
)
OPERATOR = re.compile(rf"^ +%\d+\([^=]*\) = (?:PrimFunc_)?({KINDS})\(")
ENTRY = re.compile(r"^# IR entry: @(\S+)", re.MULTILINE)
SUBGRAPH = re.compile(r"^subgraph @([^\s(]+)\(")
# A subgraph is called by its name, or through a variable followed by the names that it may refer to.
CALLED = re.compile(r" = (?:call @[^\s(]+|%\d+\[@[^\]]*\])\(")
GROUP = re.compile(r'\bgroup: "([^"]+)"')
RANKS = re.compile(r"\bgroup_rank_ids: \(([\d, ]+)\)")
PEER = re.compile(r"\b(?:dst|src)_global_rank: I64\((\d+)\)")
PEER_IN_GROUP = re.compile(r"\b(?:dest|src)_rank: I64\((\d+)\)")
Operator = tuple[str, tuple[int, ...], int | None]  # kind, ranks, peer


@dataclass(frozen=True, kw_only=True)
class Communication:
    """A communication operator of a rank's graph.

    Attributes:
        kind: MindSpore's name of the operator.
        ranks: the ranks of its group.
        peer: the rank that it sends to or receives from, if there is one.
        found: the number of such operators in the graph.
        runs: how often a step runs them: an operator of the micro batches is in the graph once.
    """

    kind: str
    ranks: tuple[int, ...]
    peer: int | None
    found: int
    runs: int


def read_communication(graph: str, groups: Mapping[str, Sequence[int]]) -> tuple[Communication, ...]:
    """The communication operators of a graph in MindSpore's text form, sorted by kind, ranks and peer.

    Args:
        graph: the text of an IR file.
        groups: the ranks of the groups that were made in Python, for which the graph states all ranks of the world.
            For other groups the graph states the right ranks.

    Raises:
        InputError: the text is not an IR file.
    """
    entry, lines = ENTRY.search(graph), _by_subgraph(graph)
    if entry is None or entry[1] not in lines:
        raise InputError("The graph that MindSpore saved cannot be read: it has no line '# IR entry' with a subgraph.")
    runs = _runs(lines, entry[1])
    found, run = Counter[Operator](), Counter[Operator]()
    for name, body in lines.items():
        for line in body:
            if (operator := OPERATOR.match(line)) and (key := _operator(operator[1], line, groups)):
                found[key] += 1
                run[key] += runs[name]
    return _sorted(found, run)


def merged(graphs: Iterable[Sequence[Communication]]) -> tuple[Communication, ...]:
    """The communication operators of several graphs, each of which runs once."""
    found, run = Counter[Operator](), Counter[Operator]()
    for one in itertools.chain.from_iterable(graphs):
        found[one.kind, one.ranks, one.peer] += one.found
        run[one.kind, one.ranks, one.peer] += one.runs
    return _sorted(found, run)


def _sorted(found: Mapping[Operator, int], run: Mapping[Operator, int]) -> tuple[Communication, ...]:
    return tuple(
        Communication(kind=kind, ranks=ranks, peer=peer, found=count, runs=run[kind, ranks, peer])
        for (kind, ranks, peer), count in sorted(found.items(), key=lambda item: (*item[0][:2], item[0][2] or 0))
    )


def _operator(kind: str, line: str, groups: Mapping[str, Sequence[int]]) -> Operator | None:
    group, stated, peer = GROUP.search(line), RANKS.search(line), PEER.search(line)
    if group is None or not (stated or group[1] in groups):
        return None
    numbers = groups.get(group[1]) or [int(number) for number in re.findall(r"\d+", stated[1] if stated else "")]
    if peer is None and (in_group := PEER_IN_GROUP.search(line)) is not None:
        return kind, tuple(numbers), numbers[int(in_group[1])]
    return kind, tuple(numbers), int(peer[1]) if peer else None


def _by_subgraph(graph: str) -> dict[str, list[str]]:
    lines: dict[str, list[str]] = {}
    body: list[str] = []
    for line in graph.splitlines():
        if (begun := SUBGRAPH.match(line)) is not None:
            body = lines.setdefault(begun[1], [])
        body.append(line)
    return lines


def _runs(lines: Mapping[str, Sequence[str]], entry: str) -> Mapping[str, int]:
    """How often a step runs each subgraph; of the branches of a condition each counts as if it ran."""
    calls: dict[str, Counter[str]] = {name: Counter() for name in lines}
    for name, body in lines.items():
        for line in body:
            if (called := CALLED.search(line)) is not None:
                calls[name].update({word for word in re.findall(r"@([^\s(),\]]+)", called[0]) if word in lines})

    @functools.cache
    def times(name: str) -> int:
        return (name == entry) + sum(times(caller) * made[name] for caller, made in calls.items() if made[name])

    return {name: times(name) for name in lines}
