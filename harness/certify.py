"""The flow on one screen: case -> inputs -> runs -> bundle -> level -> page."""

import contextlib
import dataclasses
import datetime
import fcntl
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from harness import environment
from harness.baseline import Statement, check_drawn, check_new, check_recordable, find_baseline, place, store, workplace
from harness.bundle_files import CASE, INPUTS, MANIFEST, OUTCOME, RUN
from harness.case import Case, Checkpoint
from harness.case_data import Corpus, Tokenizer
from harness.corpus.draw import draw_inputs
from harness.corpus.tokenizers import load_tokenizer
from harness.errors import EvidenceError, InputError, MissingPrerequisite
from harness.evidence import Bundle, finish_bundle, read_run
from harness.inputs import Inputs, read_inputs
from harness.jobs import RECORDED_SIDES, Options, plan, recorded_jobs
from harness.levels import Certificate, certify
from harness.provenance import (
    BASELINE,
    ENVIRONMENT,
    SOURCE,
    Baseline,
    Environment,
    Occasion,
    read_baseline_record,
    read_environment,
    read_source,
)
from harness.records import parse, read_json, write_json
from harness.report import write_report
from harness.roles import judges_layout
from harness.runners import check_mindformers, check_policy
from harness.runners.launcher import Listener, run_jobs, variables
from harness.standards import Standard, load_standard
from harness.submission import Submission
from harness.trace import ENDED, Run, Side
from qwen3_model.configuration_qwen3 import Qwen3Config, Qwen3ConfigError, parameter_shapes

VOCABULARY_MULTIPLE = 64
GIB = 2**30


def with_sources(case: Case, text: Path | None, data: Path | None, tokenizer: Path | None) -> Case:
    """The case with another corpus or tokenizer; the vocabulary grows to the tokenizer's where it has to.

    Raises:
        InputError: the options contradict each other or the case.
    """
    if text and data:
        raise InputError("--text and --data each name a corpus; give one of them.")
    if data and tokenizer:
        raise InputError("--data holds token ids already, so --tokenizer has nothing to do.")
    changed, model = case.data.model_dump(), case.model.to_hf()
    if text:
        changed["corpus"] = Corpus(kind="text", path=str(text)).model_dump()
    if data:
        changed["corpus"] = Corpus(kind="megatron", path=str(data)).model_dump()
    if tokenizer:
        changed["tokenizer"] = Tokenizer(kind="huggingface", path=str(tokenizer)).model_dump()
        size = load_tokenizer(Tokenizer(kind="huggingface", path=str(tokenizer))).vocab_size
        model["vocab_size"] = max(model["vocab_size"], -(-size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE)
    return case.with_changes(data=changed, model=model)


def with_model(case: Case, directory: Path) -> Case:
    """The case that asks a checkpoint in Hugging Face's form, by its own configuration and tokenizer.

    Raises:
        InputError: the case is of training, or the directory is of no Qwen3 that is implemented.
    """
    if case.inference is None:
        raise InputError(f"--model {directory} names weights to ask; {case.name} is a case of training.")
    try:
        model = Qwen3Config.from_hf(directory)
    except Qwen3ConfigError as error:
        raise InputError(f"{directory} cannot be asked: {error}") from None
    weights = Checkpoint(kind="huggingface", path=str(directory)).model_dump()
    data = case.data.model_dump()
    if (directory / "tokenizer.json").is_file():
        data["tokenizer"] = Tokenizer(kind="huggingface", path=str(directory)).model_dump()
    return case.with_changes(
        data=data, model=model.to_hf(), inference={**case.inference.model_dump(), "weights": weights}
    )


def run(case: Case, standards: Sequence[Standard], options: Options, listener: Listener) -> tuple[Bundle, Certificate]:
    """Runs a case, judges it and writes bundle and page.

    Raises:
        CertifyError: the case, a package, the device or the output directory cannot be used.
        KeyboardInterrupt: the runs were interrupted; `options.resume` goes on with them.
    """
    if options.baselines is not None:
        check_recordable(case)
    check_prerequisites(case, options, options.sides)
    recorded = recorded_jobs(case, options) if options.baselines else []
    baseline = find_baseline(options.baselines, case, recorded) if options.baselines else None
    if options.resume:
        check_same_baseline(options.out, baseline)
    started, begun = datetime.datetime.now(datetime.UTC), time.monotonic()
    case, inputs = prepare(case, standards, options)
    if baseline is not None:
        check_drawn(baseline, case, inputs)
    with locked(options.out):
        # A bundle with a broken run is complete as evidence, but its runs go on now, so what was concluded goes.
        (options.out / MANIFEST).unlink(missing_ok=True)
        if options.baselines is not None:
            place(options.baselines, case.name, options.out, recorded)
        write_json(options.out / INPUTS, vars(inputs))
        run_jobs(plan(case, options), case, workers=options.workers, listener=listener)
    occasion = Occasion(
        command=tuple(options.command),
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - begun, 1),
        host=socket.gethostname(),
    )
    write_json(options.out / RUN, vars(occasion))
    submission = Submission(bundle=finish_bundle(options.out))
    certificate = certify(submission, datetime.datetime.now(datetime.UTC))
    write_report(submission, certificate)
    return submission.bundle, certificate


def take_part(case: Case, options: Options, listener: Listener) -> list[Run]:
    """Makes this node's part of the runs that several nodes make together; another one judges them.

    Raises:
        CertifyError: the case, a package, the device or the output directory cannot be used.
        KeyboardInterrupt: the runs were interrupted.
    """
    check_prerequisites(case, options, ("subject",))
    case, _ = prepare(case, (), options)
    jobs = [job for job in plan(case, options) if job.nodes]
    with locked(options.out):
        run_jobs(jobs, case, workers=options.workers, listener=listener)
    return [read_run(Path(job.directory)) for job in jobs]


def record(
    case: Case, options: Options, statement: Statement, directory: Path, listener: Listener, *, replace: bool
) -> Baseline:
    """Runs reference and oracle of a case and stores them as its baseline under `directory`, all or nothing.

    Of the options, runners, threads and workers count.

    Raises:
        CertifyError: something is missing, a baseline is there and `replace` is not set, or a run is no good as one.
        KeyboardInterrupt: the runs were interrupted; nothing is left of them.
    """
    check_recordable(case)
    check_new(directory, case.name, statement, replace=replace)
    check_prerequisites(case, options, RECORDED_SIDES)
    with workplace(directory, case.name) as work:
        inside = dataclasses.replace(options, out=work / "runs")
        case, inputs = prepare(case, (), inside)
        run_jobs(recorded_jobs(case, inside), case, workers=options.workers, listener=listener)
        return store(work, inside.out, case, inputs, statement, directory / case.name)


def check_same_baseline(out: Path, baseline: Baseline | None) -> None:
    """Refuses to go on with runs that were begun against another reference.

    Raises:
        InputError: the directory was begun with another baseline, without one, or with one that is not asked for now.
    """
    begun_with = read_baseline_record(out / BASELINE) if (out / BASELINE).is_file() else None
    if (out / INPUTS).is_file() and begun_with != baseline:
        raise InputError(
            f"{out} was begun with another baseline, or one of both without any; it cannot be resumed so. "
            "Give --baseline as then, or begin again with another --out."
        )


# The packages that each named runner needs, each with the extra that installs it; a runner given as MODULE:CLASS
# states its own needs.
NEEDS_OF_INFERENCE: Mapping[str, Mapping[str, str]] = {
    "torch": {"torch": "torch", "transformers": "torch", "lm_eval": "inference"},
    "oracle": {"torch": "torch", "transformers": "torch", "lm_eval": "inference"},
    "mindspore": {"mindspore": "mindspore", "transformers": "torch", "lm_eval": "inference"},
}
NEEDS: Mapping[str, Mapping[str, str]] = {
    "torch": {"torch": "torch", "transformers": "torch"},
    "oracle": {"torch": "torch"},
    "mindspore": {"mindspore": "mindspore"},
    "mindformers": {"mindspore": "mindspore", "mindformers": "mindformers"},
}


def needs_of(case: Case, runner: str) -> Mapping[str, str]:
    """The packages that a runner needs for a case, each with the extra that installs it."""
    return (NEEDS if case.inference is None else NEEDS_OF_INFERENCE).get(runner, {})


def check_prerequisites(case: Case, options: Options, sides: Sequence[Side]) -> None:
    """Refuses what these sides cannot be run with here, before anything is written; the corpus is read later.

    Raises:
        MissingPrerequisite: a framework of a chosen runner is not installed, or the device is not there.
    """
    installed = environment.packages()
    for runner in (getattr(options, side) for side in sides):
        for package, extra in needs_of(case, runner).items():
            if installed[package] is None:
                raise MissingPrerequisite(
                    f"The {runner!r} runner needs {package}. Install it with: pip install '.[{extra}]'"
                )
    if options.reference == "torch":
        check_policy(case)
    if options.subject == "mindformers":
        check_mindformers(case)
    _check_memory(case)
    if options.device == "Ascend" and not any(Path("/dev").glob("davinci[0-9]*")):
        raise MissingPrerequisite(
            "There is no Ascend device here (no /dev/davinci*). Run with --device CPU, or on a machine with an NPU."
        )


def _check_memory(case: Case) -> None:
    """Refuses a model whose weights are drawn and digested here and do not fit twice, before the machine swaps."""
    needed = 2 * 4 * sum(math.prod(shape) for _, shape in parameter_shapes(case.model)) / GIB
    there = environment.machine()["memory_gib"]
    if there and needed > there:
        raise InputError(
            f"{case.name} needs {needed:.0f} GiB of memory for its weights alone, and this machine has {there}. "
            f"Choose a smaller case; 'certify plan {case.name}' says what each device would need."
        )


def prepare(case: Case, standards: Sequence[Standard], options: Options) -> tuple[Case, Inputs]:
    """Draws the inputs into the output directory, or on resume takes those that are there.

    The case that comes back names its corpus and tokenizer by digest.

    Raises:
        InputError: the directory holds something else, cannot be written, or belongs to another case.
    """
    claim(options.out, options.resume)
    stored = options.out / INPUTS
    if options.resume and stored.is_file():
        inputs = parse(Inputs, read_json(stored), stored)
        case = named_by_digest(case, inputs)
        if read_json(options.out / CASE) != case.record():
            raise InputError(
                f"{options.out} was begun with another case or other options; it cannot be resumed with these."
            )
        if read_environment(options.out / ENVIRONMENT) != described(options):
            raise InputError(
                f"{options.out} was begun with another device, number of threads, machine or set of packages. "
                "Its runs cannot go on with these; begin again with another --out."
            )
        if read_source(options.out / SOURCE) != environment.source():
            raise InputError(
                f"The code has changed since {options.out} was begun, so its runs cannot go on. "
                "Begin again with another --out."
            )
        try:
            read_inputs(options.out / "inputs", inputs)
        except EvidenceError as error:
            raise InputError(f"{error} Begin again with another --out.") from None
        return case, inputs
    inputs = draw_inputs(case, options.out / "inputs")
    case = named_by_digest(case, inputs)
    write_json(options.out / CASE, case.record())
    for standard in standards:
        write_json(options.out / "standards" / f"{standard.name}.json", standard.model_dump(mode="json"))
    write_json(options.out / ENVIRONMENT, vars(described(options)))
    write_json(options.out / SOURCE, vars(environment.source()))
    return case, inputs


def described(options: Options) -> Environment:
    """What the runs have here, as the bundle records it."""
    return environment.describe(options.device, options.threads, variables(options.threads))


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Holds a directory against a second `certify run` in it; the lock ends with the process.

    Raises:
        InputError: another process runs in it.
    """
    directory = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InputError(f"Another certify run is at work in {out}. Wait for it, or choose another --out.") from None
    finally:
        os.close(directory)


def claim(out: Path, resume: bool) -> None:
    """Makes the output directory, and never takes one that holds something.

    Raises:
        InputError: it cannot be made or written, is not empty, or on resume is finished.
    """
    try:
        if (out / MANIFEST).exists() and not (resume and unfinished(out)):
            raise InputError(
                f"{out} holds a finished bundle. Choose another --out; 'certify report {out}' shows this one."
            )
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()) and not resume:
            raise InputError(f"{out} is not empty. Choose another --out, or go on with what is there: --resume.")
        if any(out.iterdir()) and not (out / INPUTS).is_file():
            raise InputError(f"{out} holds no run that can go on (no {INPUTS}). Choose another --out.")
        probe = out / ".write-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(
            f"The output directory {out} cannot be written: {error.strerror}. Choose another --out."
        ) from None


def unfinished(out: Path) -> bool:
    """Whether a directory is of a run that did not come to its end, or holds a run that did not."""
    outcomes = [read_json(path) for path in out.glob(f"runs/*/{OUTCOME}")]
    broken = any(outcome["status"] not in ENDED for outcome in outcomes)
    return broken or not (out / MANIFEST).exists()


def named_by_digest(case: Case, inputs: Inputs) -> Case:
    """The case with the digests of its corpus, tokenizer and checkpoint, whichever file they were read from."""
    data = case.data.model_dump()
    data["corpus"]["sha256"] = inputs.corpus_sha256
    data["tokenizer"]["sha256"] = inputs.tokenizer_sha256
    if case.inference is None or case.inference.trains:
        return case.with_changes(data=data)
    asked = case.inference.model_dump()
    asked["weights"]["sha256"] = inputs.weights
    return case.with_changes(data=data, inference=asked)


def find_unfinished(base: Path, case_name: str) -> Path:
    """The newest directory of a case under `base` that holds no finished bundle.

    Raises:
        InputError: there is none.
    """
    candidates = sorted(base.glob(f"{case_name}-*")) if base.is_dir() else []
    found = [path for path in candidates if path.is_dir() and unfinished(path)]
    if not found:
        raise InputError(f"There is no unfinished run of {case_name} under {base}. Begin one without --resume.")
    return found[-1]


def new_directory(base: Path, case_name: str) -> Path:
    """A directory name that no earlier run has: case and time to the second, and a number where that is taken."""
    stem = f"{case_name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    names = [stem, *(f"{stem}-{number}" for number in range(2, 100))]
    return base / next(name for name in names if not os.path.lexists(base / name))


def judged_by(case: Case, names: Sequence[str]) -> tuple[Case, tuple[Standard, ...]]:
    """A case that is judged by these standards, or by its own where none is named; and the standards.

    Raises:
        InputError: see `load_standards`.
    """
    standards = load_standards(names or case.standards, case)
    return case.with_changes(standards=tuple(one.name for one in standards)), standards


def load_standards(names: Sequence[str], case: Case) -> tuple[Standard, ...]:
    """The standards by name or file, each once.

    Raises:
        InputError: one is not known or not valid, two have one name, or one was derived for another precision.
    """
    standards = tuple(load_standard(name) for name in dict.fromkeys(names))
    found = [standard.name for standard in standards]
    if len(set(found)) < len(found):
        raise InputError(f"Two of the standards have one name: {', '.join(sorted(found))}.")
    for standard in standards:
        if standard.task != case.task:
            raise InputError(f"{standard.name} judges {standard.task}; {case.name} is of {case.task}.")
        if standard.compute_dtype not in (None, case.precision.compute_dtype):
            raise InputError(
                f"The limits of {standard.name} were derived for {standard.compute_dtype}; "
                f"{case.name} computes in {case.precision.compute_dtype}."
            )
        if judges_layout(standard.name) and case.parallel.world_size == 1:
            raise InputError(f"{standard.name} compares several ranks with one process; {case.name} has one rank.")
    return standards
