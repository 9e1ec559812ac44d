"""Clean runs: correct subjects over benign variation, none of which may be refused."""

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness.certify import Options, all_jobs, load_standards, named_by_digest
from harness.comparison import Comparison
from harness.corpus.batches import Batches, draw_batches
from harness.corpus.draw import draw_inputs
from harness.evidence import compare_runs
from harness.judge import Finding, judge
from harness.power import Clean, other_rules, sightings
from harness.power.pool import Pool
from harness.power.variations import Variation
from harness.records import parse, read_json, write_json

AT_ONCE = 2  # one run's subject trains while another's reference does


def run_clean(variations: Sequence[Variation], limit: int | None, options: Options) -> Iterator[Clean]:
    """Each clean run with what refused it, in order. What a directory holds from before is not run again.

    `limit` takes so many of the runs, one of each variation first.
    """
    asked = chosen(variations, limit)
    for threads in sorted({variation.threads for variation, _ in asked}):
        with Pool(threads) as pool, ThreadPoolExecutor(AT_ONCE) as at_once:
            for variation in variations:
                seeds = [seed for one, seed in asked if one is variation and one.threads == threads]
                missing = [seed for seed in seeds if not _result(options, variation, seed).is_file()]
                batches = draw_batches(variation.case(0)) if missing else None
                made = [at_once.submit(_run, variation, seed, batches, options, pool) for seed in seeds]
                yield from (one.result() for one in made)


def chosen(variations: Sequence[Variation], limit: int | None) -> list[tuple[Variation, int]]:
    """The runs by variation and seed: every variation's first, then every second, and so on up to the limit."""
    most = max(variation.seeds for variation in variations)
    runs = [(one, seed) for seed in range(most) for one in variations if seed < one.seeds]
    return runs[:limit]


def _result(options: Options, variation: Variation, seed: int) -> Path:
    return options.out / "clean" / f"{variation.name}-{seed}.json"


def _run(variation: Variation, seed: int, batches: Batches | None, options: Options, pool: Pool) -> Clean:
    result = _result(options, variation, seed)
    if not result.is_file():
        write_json(result, dataclasses.asdict(_made(variation, seed, batches, options, pool)))
    clean: Clean = parse(Clean, read_json(result), result)
    return clean


def _made(variation: Variation, seed: int, batches: Batches | None, options: Options, pool: Pool) -> Clean:
    directory = options.out / "at-work" / f"{variation.name}-{seed}"
    shutil.rmtree(directory, ignore_errors=True)
    inside = dataclasses.replace(options, out=directory, subject=variation.subject, threads=variation.threads)
    drawn = variation.case(seed)
    inputs = draw_inputs(drawn, directory / "inputs", batches)
    case = named_by_digest(drawn, inputs)
    pool.execute(all_jobs(case, inside))
    _, comparison = compare_runs(directory, case, inputs)
    findings = [finding for one in load_standards(case.standards, case) for finding in judge(comparison, one)]
    shutil.rmtree(directory)
    return _concluded(variation, seed, case.digest(), comparison, findings)


def _concluded(
    variation: Variation, seed: int, case_digest: str, comparison: Comparison, findings: Sequence[Finding]
) -> Clean:
    used = [
        (judged.value / judged.limit.value, f"{finding.standard}/{finding.criterion}")
        for finding in findings
        for judged in finding.judged
        if judged.value is not None and judged.limit.comparator == "at_most" and judged.limit.value > 0
    ]
    most, closest = max(used)
    return Clean(
        variation=variation.name,
        seed=seed,
        case_digest=case_digest,
        sightings=sightings(findings),
        rules=other_rules(comparison),
        closest=closest,
        used=round(most, 4),
    )
