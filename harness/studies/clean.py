"""Clean runs: correct subjects over benign variation, none of which may be rejected."""

import dataclasses
import functools
import itertools
import math
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from harness.base.records import parse, read_json, write_json
from harness.cases.case import Case
from harness.certify.case_options import named_by_digest
from harness.certify.jobs import Options, all_jobs
from harness.comparison.measurement import Comparison
from harness.corpus.batches import Batches, draw_batches
from harness.corpus.draw import draw_inputs
from harness.evidence.bundle import compare_runs
from harness.evidence.judge import Finding, Outcome, closest, judge
from harness.power.record import Clean, sightings
from harness.power.rules import other_rules
from harness.runners.executor import Executor
from harness.standards import Standard
from harness.studies.pool import Pool
from harness.studies.variations import Variation

LOG = "clean.log"
SENSE = "subject.sense"
AT_ONCE = 4  # while a subject is compiled, the references of the next runs go on


def run_clean(
    wanted: Sequence[tuple[Variation, int]], case: Case, standards: Sequence[Standard], options: Options
) -> Iterator[Clean]:
    """Each clean run with the criteria that rejected it. Recorded results are not run again.

    `case` is what varies; `wanted` are the runs by variation and seed, as `chosen`.
    """
    variations = {one.name: one for one, _ in wanted}
    places = {name: place for place, name in enumerate(variations)}
    runs_to_make = sorted(wanted, key=lambda run: (run[0].threads, places[run[0].name]))
    for threads, of_these in itertools.groupby(runs_to_make, key=lambda run: run[0].threads):
        with Pool(threads, options.out / LOG) as pool, ThreadPoolExecutor(AT_ONCE) as at_once:
            runs = {
                one.name: _Runs(variation=one, case=case, standards=standards, options=options, executor=pool)
                for one in variations.values()
            }
            yield from at_once.map(lambda run, runs=runs: runs[run[0].name].run(run[1]), of_these)


def chosen(variations: Sequence[Variation], limit: int | None) -> list[tuple[Variation, int]]:
    """The runs by variation and seed: every variation's first, then every second, and so on up to the limit."""
    most = max(variation.seeds for variation in variations)
    runs = [(one, seed) for seed in range(most) for one in variations if seed < one.seeds]
    return runs[:limit]


@dataclass(frozen=True, kw_only=True)
class _Runs:
    """The runs of one variation of a case."""

    variation: Variation
    case: Case
    standards: Sequence[Standard]
    options: Options
    executor: Executor

    def run(self, seed: int) -> Clean:
        """The result, made now or before."""
        result = self.options.out / "clean" / f"{self.variation.name}-{seed}.json"
        if not result.is_file():
            write_json(result, self._made(seed))
        clean: Clean = parse(Clean, read_json(result), result)
        return clean

    def _made(self, seed: int) -> Clean:
        name, drawn = self.variation.name, self.variation.case(self.case, seed)
        directory = self.options.out / "at-work" / f"{name}-{seed}"
        shutil.rmtree(directory, ignore_errors=True)
        inside = dataclasses.replace(
            self.options, out=directory, subject=self.variation.subject, threads=self.variation.threads
        )
        inputs = draw_inputs(drawn, directory / "inputs", self._batches)
        case = named_by_digest(drawn, inputs)
        self.executor.execute(all_jobs(case, inside), case)
        _, comparison = compare_runs(directory, case, inputs)
        findings = [finding for one in self.standards for finding in judge(comparison, one)]
        shutil.rmtree(directory)
        return _concluded(self.variation, seed, case, comparison, findings)

    @functools.cached_property
    def _batches(self) -> Batches:
        """The same for every seed, which is one of the weights."""
        return draw_batches(self.variation.case(self.case, 0))


def _shows_closeness(finding: Finding) -> bool:
    """Whether a finding shows how close a run was to an alarm. An INCONCLUSIVE finding rejects nothing, and the quality
    of a model's predictions does not show whether it is computed correctly."""
    measured = {judged.limit.measurement for judged in finding.judged}
    return finding.outcome is not Outcome.INCONCLUSIVE and SENSE not in measured


def _concluded(
    variation: Variation, seed: int, case: Case, comparison: Comparison, findings: Sequence[Finding]
) -> Clean:
    nearest = closest(filter(_shows_closeness, findings))
    assert nearest is not None, "every shipped standard has limits that allow something"
    used, finding, _ = nearest
    return Clean(
        variation=variation.name,
        seed=seed,
        case_digest=case.digest(),
        sightings=sightings(findings),
        rules=other_rules(comparison, case.task),
        closest=f"{finding.standard}/{finding.criterion}",
        used=round(used, 4) if math.isfinite(used) else None,
    )
