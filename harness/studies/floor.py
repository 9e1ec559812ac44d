"""The study of a case's floor: perturbed repeats of the reference, each compared as if it was the subject.

Every repeat makes the runs that a subject makes to be compared: the training run, the run at learning rate 0 and the
probe. Limits that are to hold for other shapes than that of the case need repeats of such. The recorded study holds
numbers alone; the command that made it makes them again.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from harness.base.digest import canonical_json, digest_each, digest_json
from harness.base.errors import InputError
from harness.base.parts import Part, Share, check_alike, interleaved, whole
from harness.cases.case import Case
from harness.cases.runs_of_a_case import (
    ORACLE,
    ORACLE_PROBE,
    REFERENCE,
    REFERENCE_LR_ZERO,
    REFERENCE_PROBE,
    SUBJECT,
    SUBJECT_LR_ZERO,
    SUBJECT_PROBE,
)
from harness.certify import prerequisites
from harness.certify.flow import prepare
from harness.certify.jobs import RECORDED_SIDES, Options, job
from harness.comparison.measurement import Comparison, Tensors
from harness.comparison.training import measure
from harness.evidence.bundle import read_run, unusable
from harness.evidence.floor import CPU, FORMAT, OF_EVERY_CASE, QUANTITIES, FloorStudy, Repeat, quantity, read_study
from harness.evidence.judge import statistic
from harness.evidence.measuring import expected_of
from harness.evidence.provenance import ENVIRONMENT, SOURCE, read_environment, read_source
from harness.runners.executor import Listener
from harness.runners.job import Job
from harness.runners.launcher import Launcher
from harness.runs.inputs import Inputs, read_inputs, read_tensors
from harness.runs.trace import Run, Trace
from harness.runs.watched import split
from harness.studies.variations import TRAINED

ATTENTION = {
    "eager": "harness.runners.torch_reference:TorchReference",
    "sdpa": "harness.runners.torch_reference:FusedAttentionReference",
}
THREADS = (1, 2)
# The ends of what decides how large rounding is: depth, width, outputs, tokens a step, sizes of weights and of epsilon.
SHAPES = (
    "one-layer", "six-layers", "width-32", "vocabulary-1024", "norm-eps-1e-5", "wider-initialization", "seq-16",
    "batch-1",
)  # fmt: skip
SEED = 100  # of the weights of a shape: no clean run of a study of power begins with them
MEASURED_BY = (REFERENCE, REFERENCE_LR_ZERO, REFERENCE_PROBE, ORACLE, ORACLE_PROBE)
# What a repeat runs, and its role in the comparison.
STANDS_FOR = {REFERENCE: SUBJECT, REFERENCE_LR_ZERO: SUBJECT_LR_ZERO, REFERENCE_PROBE: SUBJECT_PROBE}


def repeats(seeds: int) -> tuple[Repeat, ...]:
    """With each attention: the weights as they are by each number of threads, and `seeds` times moved, each time by a
    seed of its own. The reference itself is omitted."""
    found = []
    for number, attention in enumerate(ATTENTION):
        found += [Repeat(attention=attention, threads=threads, seed=None) for threads in THREADS]
        first = 1 + number * seeds
        found += [Repeat(attention=attention, threads=THREADS[0], seed=seed) for seed in range(first, first + seeds)]
    return tuple(found[1:])


def repeats_of_shapes() -> tuple[Repeat, ...]:
    """With each shape: the other attention as it is, and each attention with weights moved by a seed of its own."""
    moved = (("sdpa", False), ("eager", True), ("eager", True), ("sdpa", True))
    numbers = itertools.count(1001)
    return tuple(
        Repeat(attention=attention, threads=THREADS[0], seed=next(numbers) if seeded else None, shape=shape)
        for shape in SHAPES
        for attention, seeded in moved
    )


def repeats_of_kinds(seeds: int, device: str = CPU, processes: int = 1) -> tuple[Repeat, ...]:
    """With each attention, on another device than a CPU and over several processes: the weights as they are, and
    `seeds` times moved. None of what is as in the reference."""
    kinds = [(device, None)] if device != CPU else []
    others: list[tuple[str | None, int | None]] = [*kinds, *([(None, processes)] if processes > 1 else [])]
    numbers = itertools.count(2001)
    return tuple(
        Repeat(
            attention=attention,
            threads=THREADS[0],
            seed=next(numbers) if moved else None,
            device=on,
            processes=over,
        )
        for on, over in others
        for attention in ATTENTION
        for moved in (False, *(True for _ in range(seeds)))
    )


def names_of_runs(case: Case, options: Options, perturbed: Sequence[Repeat]) -> list[str]:
    """The names of a study's runs, as its listener gets them."""
    return [
        _shown(shape, one.run)
        for shape, of_these in _by_shape(perturbed)
        for one in _jobs(_varied(case, shape), options, of_these)
    ]


def _by_shape(perturbed: Sequence[Repeat]) -> list[tuple[str | None, list[Repeat]]]:
    return [(shape, list(group)) for shape, group in itertools.groupby(perturbed, key=lambda repeat: repeat.shape)]


def _varied(case: Case, shape: str | None) -> Case:
    return next(one for one in TRAINED if one.name == shape).case(case, SEED) if shape else case


def _shown(shape: str | None, run: str) -> str:
    return f"{shape}/{run}" if shape else run


def _jobs(case: Case, options: Options, perturbed: Sequence[Repeat]) -> list[Job]:
    """The runs with one shape: reference and oracle, then three a repeat."""
    own = [job(case, options, name) for name in MEASURED_BY]
    return own + [
        one for number, repeat in enumerate(perturbed, 1) for one in _of_repeat(case, options, number, repeat)
    ]


def _of_repeat(case: Case, options: Options, number: int, repeat: Repeat) -> Iterable[Job]:
    root = options.out.resolve()
    for stands_for in STANDS_FOR:
        base, run = job(case, options, stands_for), _name(number, stands_for)
        yield dataclasses.replace(
            base,
            run=run,
            runner=ATTENTION[repeat.attention],
            threads=repeat.threads,
            perturbation=repeat.seed,
            device=repeat.device or base.device,
            ranks=repeat.processes or base.ranks,
            starter="torchrun" if repeat.processes else base.starter,
            directory=str(root / "runs" / run),
            keep_tensors=str(root / "tensors" / f"{run}.safetensors") if base.keep_tensors else None,
        )


def _name(number: int, stands_for: str) -> str:
    return f"repeat-{number}-{stands_for.removeprefix('reference-')}"


def gather(files: Sequence[Path], command: Sequence[str], again: Callable[[Part], str]) -> FloorStudy:
    """One study of the recorded parts of it; a command made it, and `again` gives the one that makes a part.

    Raises:
        InputError: a part is missing or given twice, or they are not of one study, one code and one set of versions.
        EvidenceError: a file is no study.
    """
    read = {str(path): read_study(path, part=True) for path in files}
    parts = [read[name] for name in whole({name: one.share for name, one in read.items()}, again)]
    check_alike(
        {
            "case": {one.case_digest for one in parts},
            "code": {one.source.sha256 for one in parts},
            "versions": {canonical_json(dict(one.environment.packages)) for one in parts},
        }
    )
    return dataclasses.replace(
        parts[0],
        recorded=max(one.recorded for one in parts),
        command=tuple(command),
        repeats=interleaved([one.repeats for one in parts]),
        values={name: interleaved([one.values[name] for one in parts]) for name in parts[0].values},
        share=None,
    )


def share_of(case: Case, perturbed: Sequence[Repeat], part: Part | None) -> tuple[Sequence[Repeat], Share | None]:
    """The repeats of a part, and what they are a share of; without a part all, and None.

    Raises:
        InputError: it has none.
    """
    if part is None:
        return perturbed, None
    if not (own := part.share(perturbed)):
        raise InputError(f"--part {part} has no repeat: the study has {len(perturbed)}.")
    return own, Share(part=str(part), plan=digest_json([case.digest(), [vars(one) for one in perturbed]]))


def study(
    case: Case, options: Options, perturbed: Sequence[Repeat], listener: Listener, share: Share | None = None
) -> FloorStudy:
    """Runs a study in a directory for temporary files, and leaves nothing of the runs: inside a checkout they would
    make its tree dirty. Of the options `out` does not count. `share`: what the repeats are a part of.

    Raises:
        CertifyError: something is missing, or a run did not finish with finite numbers.
        KeyboardInterrupt: the runs were interrupted; nothing is left of them.
    """
    prerequisites.check(case, options, RECORDED_SIDES)
    for one in {(repeat.device or CPU, repeat.processes or 1) for repeat in perturbed} - {(CPU, 1)}:
        kind = dataclasses.replace(options, reference_device=one[0], reference_processes=one[1])
        prerequisites.check(case, kind, RECORDED_SIDES)
    compared: list[Comparison] = []
    with tempfile.TemporaryDirectory(prefix=f"floor-{case.name}-") as work:
        for shape, of_these in _by_shape(perturbed):
            inside = dataclasses.replace(options, out=Path(work) / (shape or "as-it-is"))
            varied, inputs = prepare(_varied(case, shape), (), inside)

            def named(run: str, trace: Trace, shape: str | None = shape) -> None:
                listener(_shown(shape, run), trace)

            Launcher(workers=options.workers).execute(_jobs(varied, inside, of_these), varied, named)
            compared += _compared(varied, inputs, inside.out, of_these)
        had, source = read_environment(inside.out / ENVIRONMENT), read_source(inside.out / SOURCE)
    return FloorStudy(
        format=FORMAT,
        case=case.name,
        case_digest=case.digest(),
        recorded=datetime.now(UTC).isoformat(timespec="seconds"),
        command=options.command,
        environment=had,
        source=source,
        repeats=tuple(perturbed),
        values={
            quantity(name, of): tuple(statistic(of, comparison[name].values) for comparison in compared)
            for name, of in (QUANTITIES if case.training.examined_steps else OF_EVERY_CASE)
        },
        share=share,
    )


def _compared(case: Case, inputs: Inputs, directory: Path, perturbed: Sequence[Repeat]) -> Iterable[Comparison]:
    """Each repeat against the reference and the oracle, as if it was the subject."""
    weights = read_inputs(directory / "inputs", inputs)
    expected = expected_of(case, inputs, digest_each(weights))
    shared = {name: _good(directory, name) for name in MEASURED_BY}
    kept, steps = _tensors(directory, {name: name for name in MEASURED_BY})
    for number in range(1, len(perturbed) + 1):
        names = {role: _name(number, stands_for) for stands_for, role in STANDS_FOR.items()}
        own = {role: _good(directory, name) for role, name in names.items()}
        tensors, own_steps = _tensors(directory, names)
        yield measure({**shared, **own}, expected, {"weights": weights, **kept, **tensors}, {**steps, **own_steps})


def _good(directory: Path, name: str) -> Run:
    run = read_run(directory / "runs" / name)
    if why := unusable(run):
        raise InputError(f"No floor: {why}")
    return run


def _tensors(directory: Path, names: dict[str, str]) -> tuple[dict[str, Tensors], dict[str, Tensors]]:
    """What the runs left of their tensors, and of their steps, by the role that each plays in the comparison."""
    paths = {role: directory / "tensors" / f"{name}.safetensors" for role, name in names.items()}
    left = {role: split(read_tensors(path)) for role, path in paths.items() if path.is_file()}
    return {role: tensors for role, (tensors, _) in left.items()}, {role: steps for role, (_, steps) in left.items()}
