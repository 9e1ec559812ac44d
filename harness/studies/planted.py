"""Planted defects: each is a subject with processes of its own, compared with a reference half that ran once."""

import dataclasses
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.base.records import parse, read_json, write_json
from harness.cases.case import Case
from harness.certify.jobs import Options, threads_of
from harness.defects import Defect
from harness.power.record import Planted, Sighting, sightings
from harness.power.rules import other_rules
from harness.runners.executor import Executor
from harness.runners.launcher import Launcher
from harness.standards import Standard
from harness.studies.bench import Bench, correct_bits, judge_subject, name_place, set_up
from harness.studies.forks import Forks


def run_planted(
    defects: Sequence[tuple[Defect, Case]],
    standards: Mapping[str, Sequence[Standard]],
    options: Options,
    *,
    every_run: bool,
) -> Iterator[Planted]:
    """Each defect in its case with the criteria that detected it, in order. Recorded results are not run again.

    `standards` are those of a case, by its name; all cases are of one task. As many defects run at a time as there are
    workers. `every_run`: a defect that its first runs reject is repeated and resumed too.

    Raises:
        CertifyError: reference or oracle of a case broke, or a defect does not run.
    """
    if not defects:
        return
    missing = {case.name: case for defect, case in defects if not _result(options, defect).is_file()}
    benches = {}
    for name, case in missing.items():
        inside = dataclasses.replace(options, out=options.out / "reference" / name)
        benches[name] = set_up(case, standards[name], inside, Launcher(workers=options.workers))

    def made(defect: Defect, case: Case) -> Planted:
        result = _result(options, defect)
        if not result.is_file():
            directory = options.out / "at-work" / defect.id
            write_json(result, _planted(defect, benches[case.name], correct[case.name], directory, forks, every_run))
        found: Planted = parse(Planted, read_json(result), result)
        return found

    of = defects[0][1]
    with ThreadPoolExecutor(options.workers) as at_once, Forks(threads_of(of, options), of.task) as forks:
        correct = {name: correct_bits(bench, forks) for name, bench in benches.items()}
        yield from at_once.map(made, *zip(*defects, strict=True))


def _result(options: Options, defect: Defect) -> Path:
    return options.out / "planted" / f"{defect.id}.json"


def _planted(
    defect: Defect,
    bench: Bench,
    correct: Mapping[str, str],
    directory: Path,
    executor: Executor,
    every_run: bool,
) -> Planted:
    shutil.rmtree(directory, ignore_errors=True)
    begun = time.monotonic()
    judged = judge_subject(bench, defect.runner, directory / "plain", executor, every_run=every_run)
    found = sightings(judged.findings)
    later = _later(found, bench.case) if defect.place else ()  # without a place, none can be named
    named = name_place(bench, defect.runner, directory / "tapped", executor, later)
    shutil.rmtree(directory)
    return Planted(
        defect=defect,
        case=bench.case.name,
        named=named,
        sightings=found,
        rules=other_rules(judged.comparison, bench.case.task),
        seconds=round(time.monotonic() - begun, 1),
        differs=any(correct[run] != bits for run, bits in judged.bits.items()),
        unmade=judged.unmade,
    )


def _later(found: Sequence[Sighting], case: Case) -> list[int]:
    """The steps after the first that a diagnosis looks into: the first that a criterion rejects, and the last."""
    if not found:
        return []
    steps = {one.step for one in found if one.step is not None and one.step > 1}
    return sorted({min(steps, default=case.training.steps), case.training.steps})
