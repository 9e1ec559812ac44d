"""A whole study: every planted defect, then every clean run, recorded in one file. What was done is not done again."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from harness.base.digest import canonical_json, digest_json
from harness.base.errors import InputError
from harness.base.parts import Part, Share, check_alike, interleaved, whole
from harness.base.records import parse, read_json, write_json
from harness.cases.case import Case, load_case
from harness.cases.task import Task
from harness.certify import case_options, environment, flow, prerequisites
from harness.certify.case_options import at_most
from harness.certify.jobs import ALL_SIDES, Options
from harness.defects import PARALLEL, Defect
from harness.evidence.provenance import Source
from harness.power.record import FORMAT, Clean, Planted, PowerStudy, read_power
from harness.runners.launcher import terminate_as_interrupt
from harness.standards import Standard
from harness.studies.clean import chosen, run_clean
from harness.studies.planted import run_planted
from harness.studies.variations import Variation, variations_of

# What clean runs vary whose defects need several ranks.
USUAL_LAYOUT = "qwen3-tiny-dp2-tp2"
BEGUN, TOOK = "begun.json", "took.json"
Listener = Callable[[Planted | Clean], None]


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """What a study is to hold: defects of one task; the case (None: each defect's own, and for clean runs the usual one
    of the task, or of layouts where all defects are of those); in how many steps at most (None: all of a case); by
    which standards (empty: those of the case); how many of the clean runs (None: all); and whether a defect that its
    first runs reject is repeated and resumed too. `part`: which share of its runs are made here; None: all."""

    defects: tuple[Defect, ...]
    case: str | None
    standards: tuple[str, ...]
    clean: int | None
    steps: int | None = None
    every_run: bool = False
    part: Part | None = None

    @property
    def task(self) -> Task:
        """The task of all of its cases."""
        return self.defects[0].task

    @functools.cached_property
    def ground(self) -> Case:
        """The case whose variations are its clean runs.

        Raises:
            InputError: it cannot be read.
        """
        over_ranks = all(defect.area == PARALLEL for defect in self.defects)
        return load_case(self.case or (USUAL_LAYOUT if over_ranks else self.task.usual_case))

    @property
    def variations(self) -> tuple[Variation, ...]:
        """What its clean runs vary in."""
        return variations_of(self.ground)

    @property
    def size(self) -> int:
        """How many results the study has."""
        return len(self.defects_here) + len(self.clean_here)

    @property
    def defects_here(self) -> Sequence[Defect]:
        """The defects that are planted here."""
        return self.part.share(self.defects) if self.part else self.defects

    @property
    def clean_here(self) -> Sequence[tuple[Variation, int]]:
        """The clean runs that are made here, by variation and seed."""
        every = chosen(self.variations, self.clean)
        return self.part.share(every) if self.part else every

    @property
    def share(self) -> Share | None:
        """Which part of which study is made here; None for a whole one.

        Raises:
            InputError: the part has no run.
        """
        if self.part is None:
            return None
        if not self.size:
            raise InputError(f"--part {self.part} has nothing to run: the study has fewer runs.")
        plan = {
            "defects": [defect.id for defect in self.defects],
            "clean": [[variation.name, seed] for variation, seed in chosen(self.variations, self.clean)],
            "case": self.case,
            "steps": self.steps,
            "standards": list(self.standards),
            "every_run": self.every_run,
        }
        return Share(part=str(self.part), plan=digest_json(plan))

    def cases(self) -> tuple[Case, ...]:
        """The case of each defect.

        Raises:
            InputError: one cannot be read, or they are of several tasks.
        """
        read, ground = functools.cache(load_case), self.ground
        cases = tuple(at_most(read(self.case or defect.case), self.steps) for defect in self.defects)
        for defect, case in zip(self.defects, cases, strict=True):
            if not defect.task == case.task == ground.task:
                raise InputError(
                    f"{defect.id} is a defect of {defect.task}, {case.name} a case of {case.task}, and the clean runs "
                    f"are of {ground.task}: a study is of one task. Plant the others in a study of their own."
                )
        return cases


def run_study(plan: StudyPlan, options: Options, listener: Listener) -> PowerStudy:
    """Runs a study in `options.out`, where it goes on with what is there.

    Raises:
        CertifyError: a package is missing, a case cannot be run, or the directory is of another study.
        KeyboardInterrupt: the runs were interrupted; what was concluded stays.
    """
    ground, cases, share = plan.ground, plan.cases(), plan.share
    standards: dict[str, tuple[Standard, ...]] = {}
    for case in (ground, *cases):
        if case.name not in standards:
            prerequisites.check(case, options, ALL_SIDES)
            standards[case.name] = case_options.load_standards(plan.standards or case.standards, case)
    _begin(plan, options)
    before, begun = _took(options), time.monotonic()

    def report(one: Planted | Clean) -> None:
        write_json(options.out / TOOK, round(before + time.monotonic() - begun, 1))
        listener(one)

    planted, clean = list[Planted](), list[Clean]()
    with terminate_as_interrupt():
        pairs = list(zip(plan.defects, cases, strict=True))
        here = plan.part.share(pairs) if plan.part else pairs
        for one in run_planted(here, standards, options, every_run=plan.every_run):
            planted.append(one)
            report(one)
        for run in run_clean(plan.clean_here, ground, standards[ground.name], options):
            clean.append(run)
            report(run)
    judged = {standard.name: standard for every in standards.values() for standard in every}
    return PowerStudy(
        format=FORMAT,
        recorded=datetime.now(UTC).isoformat(timespec="seconds"),
        command=options.command,
        environment=flow.described(ground, options),
        source=environment.source(),
        standards={name: standard.digest() for name, standard in judged.items()},
        criteria=tuple(f"{name}/{c.id}" for name, standard in judged.items() for c in standard.criteria),
        planted=tuple(planted),
        clean=tuple(clean),
        seconds=round(before + time.monotonic() - begun, 1),
        share=share,
    )


def gather(files: Sequence[Path], command: Sequence[str], again: Callable[[Part], str]) -> PowerStudy:
    """One study of the recorded parts of it; a command made it, and `again` gives the one that makes a part.

    Raises:
        InputError: a part is missing or given twice, or they are not of one study, one code and one set of versions.
        EvidenceError: a file is no study.
    """
    read = {str(path): read_power(path, part=True) for path in files}
    parts = [read[name] for name in whole({name: one.share for name, one in read.items()}, again)]
    check_alike(
        {
            "code": {one.source.sha256 for one in parts},
            "standards": {canonical_json(dict(one.standards)) for one in parts},
            "devices": {one.environment.device for one in parts},
            "versions": {canonical_json(dict(one.environment.packages)) for one in parts},
        }
    )
    return dataclasses.replace(
        parts[0],
        recorded=max(one.recorded for one in parts),
        command=tuple(command),
        planted=interleaved([one.planted for one in parts]),
        clean=interleaved([one.clean for one in parts]),
        criteria=tuple(dict.fromkeys(criterion for one in parts for criterion in one.criteria)),
        seconds=round(sum(one.seconds for one in parts), 1),
        share=None,
    )


def _took(options: Options) -> float:
    """Seconds that were spent on this study before."""
    path = options.out / TOOK
    return float(read_json(path)) if path.is_file() else 0.0


@dataclass(frozen=True, kw_only=True)
class _Begun:
    case: str | None
    steps: int | None
    standards: tuple[str, ...]
    every_run: bool
    source: Source


def _begin(plan: StudyPlan, options: Options) -> None:
    """Marks a new directory, or refuses one whose results were not made by this code and these standards.

    Raises:
        InputError: it belongs to another study.
    """
    path = options.out / BEGUN
    now = _Begun(
        case=plan.case,
        steps=plan.steps,
        standards=plan.standards,
        every_run=plan.every_run,
        source=environment.source(),
    )
    if not path.is_file():
        if options.out.exists() and any(options.out.iterdir()):
            raise InputError(f"{options.out} is not empty and holds no study. Choose another --work.")
        write_json(path, now)
    elif not options.resume:
        raise InputError(f"{options.out} holds a study already. Go on with it: --resume. Or choose another --work.")
    elif parse(_Begun, read_json(path), path) != now:
        raise InputError(
            f"{options.out} was begun with other code, another case or other standards. "
            "Begin again with another --work."
        )
