"""Planted defects: each is a subject that trains in processes of its own, beside a reference half that ran once."""

import dataclasses
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.case import load_case
from harness.certify import Options, load_standards
from harness.defects import Defect
from harness.power import Planted, other_rules, sightings
from harness.power.bench import Bench, Execute, judge_subject, name_place, set_up
from harness.power.forks import Forks
from harness.records import parse, read_json, write_json


def run_planted(
    defects: Sequence[Defect], case: str | None, standards: Sequence[str], options: Options
) -> Iterator[Planted]:
    """Each defect with what saw it, in order. What a directory holds from before is not run again.

    A defect runs on the case that it says, or all on `case`; it is judged by the case's standards, or by `standards`.
    As many are at work at a time as there are workers.

    Raises:
        CertifyError: a case cannot be run here.
    """
    missing = [defect for defect in defects if not _result(options, defect).is_file()]
    names = dict.fromkeys(case or defect.case for defect in missing)
    benches = {name: _bench(name, standards, options) for name in names}

    def made(defect: Defect) -> Planted:
        result = _result(options, defect)
        if not result.is_file():
            directory = options.out / "at-work" / defect.id
            planted = _planted(defect, benches[case or defect.case], directory, forks.execute)
            write_json(result, dataclasses.asdict(planted))
        found: Planted = parse(Planted, read_json(result), result)
        return found

    with ThreadPoolExecutor(options.workers) as at_once, Forks(options.threads) as forks:
        yield from at_once.map(made, defects)


def _result(options: Options, defect: Defect) -> Path:
    return options.out / "planted" / f"{defect.id}.json"


def _bench(name: str, standards: Sequence[str], options: Options) -> Bench:
    chosen = load_case(name)
    inside = dataclasses.replace(options, out=options.out / "reference" / chosen.name)
    return set_up(chosen, load_standards(standards or chosen.standards, chosen), inside)


def _planted(defect: Defect, bench: Bench, directory: Path, execute: Execute) -> Planted:
    shutil.rmtree(directory, ignore_errors=True)
    begun = time.monotonic()
    comparison, findings = judge_subject(bench, defect.runner, directory / "plain", execute)
    named = name_place(bench, defect.runner, directory / "tapped", execute)
    shutil.rmtree(directory)
    return Planted(
        defect=defect,
        case=bench.case.name,
        named=named,
        sightings=sightings(findings),
        rules=other_rules(comparison),
        seconds=round(time.monotonic() - begun, 1),
    )
