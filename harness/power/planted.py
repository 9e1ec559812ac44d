"""Planted defects: each is a subject that trains in processes of its own, beside a reference half that ran once."""

import dataclasses
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.case import load_case
from harness.certify import Options, load_standards
from harness.defects import Defect
from harness.power import Planted, other_rules, sightings
from harness.power.bench import Bench, Execute, judge_subject, name_place, set_up
from harness.records import parse, read_json, write_json


def run_planted(
    defects: Sequence[Defect], case: str | None, standards: Sequence[str], options: Options, execute: Execute
) -> Iterator[Planted]:
    """Each defect with what saw it, as soon as it is known. What a directory holds from before is not run again.

    A defect runs on the case that it says, or all on `case`; it is judged by the case's standards, or by `standards`.

    Raises:
        CertifyError: a case cannot be run here.
    """
    benches: dict[str, Bench] = {}
    for defect in defects:
        result = options.out / "planted" / f"{defect.id}.json"
        if not result.is_file():
            name = case or defect.case
            if name not in benches:
                benches[name] = _bench(name, standards, options, execute)
            made = _planted(defect, benches[name], options.out / "at-work", execute)
            write_json(result, dataclasses.asdict(made))
        planted: Planted = parse(Planted, read_json(result), result)
        yield planted


def _bench(name: str, standards: Sequence[str], options: Options, execute: Execute) -> Bench:
    chosen = load_case(name)
    inside = dataclasses.replace(options, out=options.out / "reference" / name)
    return set_up(chosen, load_standards(standards or chosen.standards, chosen), inside, execute)


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
