"""A whole study: every planted defect, then every clean run, recorded in one file. What was done is not done again."""

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from harness import certify, environment
from harness.case import Case, load_case
from harness.certify import ALL_SIDES, Options
from harness.defects import Defect
from harness.errors import InputError
from harness.power import FORMAT, Clean, Planted, Study
from harness.power.clean import chosen, run_clean
from harness.power.planted import run_planted
from harness.power.variations import VARIATIONS
from harness.provenance import Source
from harness.records import parse, read_json, write_json
from harness.runners.launcher import terminate_as_interrupt
from harness.standards import Standard

BEGUN, TOOK = "begun.json", "took.json"
Listener = Callable[[Planted | Clean], None]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a study is to hold: the defects, on which case (None: each on its own), by which standards (empty: those
    of the case), and how many of the clean runs (None: all)."""

    defects: tuple[Defect, ...]
    case: str | None
    standards: tuple[str, ...]
    clean: int | None


def size(asked: Asked) -> int:
    """How many results a study has."""
    return len(asked.defects) + (len(chosen(VARIATIONS, asked.clean)) if asked.clean != 0 else 0)


def run_study(asked: Asked, options: Options, listener: Listener) -> Study:
    """Runs a study in `options.out`, where it goes on with what is there.

    Raises:
        CertifyError: a package is missing, a case cannot be run, or the directory is of another study.
        KeyboardInterrupt: the runs were interrupted; what was concluded stays.
    """
    cases = {name: load_case(name) for name in dict.fromkeys(asked.case or d.case for d in asked.defects)}
    for case in cases.values():
        certify.check_prerequisites(case, options, ALL_SIDES)
    _begin(asked, options)
    before, begun = _took(options), time.monotonic()

    def told(one: Planted | Clean) -> None:
        write_json(options.out / TOOK, round(before + time.monotonic() - begun, 1))
        listener(one)

    planted, clean = list[Planted](), list[Clean]()
    with terminate_as_interrupt():
        for one in run_planted(asked.defects, asked.case, asked.standards, options):
            planted.append(one)
            told(one)
        for run in run_clean(VARIATIONS, asked.clean, options) if asked.clean != 0 else ():
            clean.append(run)
            told(run)
    judged = _standards(asked, cases.values())
    return Study(
        format=FORMAT,
        recorded=datetime.now(UTC).isoformat(timespec="seconds"),
        command=options.command,
        environment=certify.described(options),
        source=environment.source(),
        standards={name: standard.digest() for name, standard in judged.items()},
        criteria=tuple(f"{name}/{c.id}" for name, standard in judged.items() for c in standard.criteria),
        planted=tuple(planted),
        clean=tuple(clean),
        seconds=round(before + time.monotonic() - begun, 1),
    )


def _standards(asked: Asked, cases: Iterable[Case]) -> dict[str, Standard]:
    every = [certify.load_standards(asked.standards or case.standards, case) for case in cases]
    return {standard.name: standard for standards in every for standard in standards}


def _took(options: Options) -> float:
    """Seconds that were spent on this study before."""
    path = options.out / TOOK
    return float(read_json(path)) if path.is_file() else 0.0


@dataclass(frozen=True, kw_only=True)
class _Begun:
    case: str | None
    standards: tuple[str, ...]
    source: Source


def _begin(asked: Asked, options: Options) -> None:
    """Marks a new directory, or refuses one whose results were not made by this code and these standards.

    Raises:
        InputError: it belongs to another study.
    """
    path = options.out / BEGUN
    now = _Begun(case=asked.case, standards=asked.standards, source=environment.source())
    if not path.is_file():
        if options.out.exists() and any(options.out.iterdir()):
            raise InputError(f"{options.out} is not empty and holds no study. Choose another --work.")
        write_json(path, asdict(now))
    elif not options.resume:
        raise InputError(f"{options.out} holds a study already. Go on with it: --resume. Or choose another --work.")
    elif parse(_Begun, read_json(path), path) != now:
        raise InputError(
            f"{options.out} was begun with other code, another case or other standards. "
            "Begin again with another --work."
        )
