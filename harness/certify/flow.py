"""The flow on one screen: case -> inputs -> runs -> bundle -> level -> page."""

import dataclasses
import datetime
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.base.errors import EvidenceError, InputError, MissingPrerequisite
from harness.base.locks import locked
from harness.base.records import parse, read_json, write_json
from harness.cases.case import Case
from harness.certify import environment, prerequisites
from harness.certify.baseline import (
    Statement,
    check_drawn,
    check_new,
    check_recordable,
    find_baseline,
    place,
    reference_code_of,
    store,
    workplace,
)
from harness.certify.blocking import blocking_repeat
from harness.certify.case_options import named_by_digest
from harness.certify.estimate import runs_at_once
from harness.certify.forecast import Forecast, forecast
from harness.certify.jobs import INITIAL, RECORDED_SIDES, Options, outputs_of, plan, recorded_jobs, threads_of
from harness.certify.start import draw_start
from harness.certify.workspace import claimed
from harness.corpus.draw import draw_inputs, write_weights
from harness.evidence.bundle import Bundle, finish_bundle, read_run
from harness.evidence.bundle_files import ATTESTATIONS, CASE, FINDINGS, INPUTS, MANIFEST, PAGE, RECORD, RUN
from harness.evidence.kept import Disturbed, Kept
from harness.evidence.provenance import (
    BASELINE,
    ENVIRONMENT,
    SOURCE,
    START,
    Baseline,
    Environment,
    Occasion,
    read_baseline_record,
    read_environment,
    read_occasion,
    read_source,
)
from harness.levels.certificate import Certificate
from harness.levels.rule import certify
from harness.levels.submission import submitted
from harness.report import write_report
from harness.runners.environment_of_a_run import recorded_variables
from harness.runners.executor import Listener
from harness.runners.job import Job
from harness.runners.launcher import Launcher
from harness.runners.protection import Guard, obstacle
from harness.runners.registry import file_of
from harness.runners.starting import variables
from harness.runs.inputs import VOCABULARY, WEIGHTS, Inputs, read_inputs, read_weights, weights_files
from harness.runs.trace import Run, Side, Trace
from harness.standards import Standard
from qwen3_model.checkpoints import Checkpoint, write_hugging_face

NOTE_SECONDS = 10.0
WRITTEN_AFTER = (RUN, FINDINGS, MANIFEST, RECORD, PAGE, f"{ATTESTATIONS}/")  # the runs of a bundle have ended


def run(
    case: Case,
    standards: Sequence[Standard],
    options: Options,
    listener: Listener,
    announce: Callable[[str], None] = lambda line: None,
    explain: Callable[[str], None] = lambda sentence: None,
) -> tuple[Bundle, Certificate]:
    """Runs a case, judges it and writes bundle and page. Before they start, `announce` gets what is not known of the
    versions here, and how long the runs take; a line each. `explain` gets what a repeat in blocking mode shows, where
    one is made.

    Raises:
        CertifyError: the case, a package, the device or the output directory cannot be used.
        KeyboardInterrupt: the runs were interrupted; `options.resume` goes on with them.
    """
    if options.baselines is not None:
        check_recordable(case)
    for warning in prerequisites.check(case, options, options.sides):
        announce(f"Warning: {warning}")
    check_protection(options)
    recorded = recorded_jobs(case, options) if options.baselines else []
    baseline = find_baseline(options.baselines, case, recorded, trust=options.trust) if options.baselines else None
    if options.resume:
        check_same_baseline(options.out, baseline)
    if (ahead := _ahead(case, options)) and (text := ahead.stated(case.name)):
        announce(text)
    with claimed(options.out, resume=options.resume):
        case, inputs = prepare(case, standards, options)
        if baseline is not None:
            check_drawn(baseline, case, inputs)
        # A bundle with a broken run is complete as evidence, but its runs go on now, so what was concluded goes.
        (options.out / MANIFEST).unlink(missing_ok=True)
        if options.baselines is not None:
            place(options.baselines, case.name, options.out, recorded)
        write_json(options.out / INPUTS, inputs)
        before = read_occasion(options.out / RUN) if options.resume and (options.out / RUN).is_file() else None
        clock = _Clock(options, before)
        kept = Kept(options.out)
        kept.add_all()
        kept.forget(*WRITTEN_AFTER)
        guard = guard_of(options, lambda job: kept.add_run(job.run))
        clock.note()
        try:
            launcher = Launcher(workers=at_once(case, options), guard=guard)
            launcher.execute(plan(case, options), case, clock.listening(listener))
        finally:
            clock.note()
            kept.add([RUN])
        if explained := blocking_repeat(case, options):
            explain(explained)
    environment.check_bytecode()  # also what a run wrote
    drawn = options.out / "inputs" / WEIGHTS
    if options.keep_weights:
        _keep(case, drawn, options.weights / INITIAL)
    if case.evidence == "sketches":
        for path in weights_files(drawn):
            kept.forget(path.relative_to(options.out).as_posix())
            path.unlink(missing_ok=True)
    now = datetime.datetime.now(datetime.UTC)
    submission = submitted(_judged(options.out, kept), options.trust, now)
    certificate = certify(submission, now)
    write_report(submission, certificate)
    return submission.bundle, certificate


class _Clock:
    """Records how long the attempts of a bundle have taken together, also those that were interrupted or killed."""

    def __init__(self, options: Options, before: Occasion | None) -> None:
        self._options, self._before = options, before
        self._begun, self._noted = time.monotonic(), 0.0
        self._started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    def note(self) -> None:
        """Writes it as it is now."""
        before, self._noted = self._before, time.monotonic()
        occasion = Occasion(
            command=tuple(self._options.command),
            started=before.started if before else self._started,
            seconds=round(self._noted - self._begun + (before.seconds if before else 0.0), 1),
            host=socket.gethostname(),
        )
        write_json(self._options.out / RUN, occasion)

    def listening(self, listener: Listener) -> Listener:
        """The same listener, which now and then writes it: a process that is killed cannot."""

        def noting(run: str, trace: Trace) -> None:
            if time.monotonic() - self._noted >= NOTE_SECONDS:
                self.note()
            listener(run, trace)

        return noting


def check_protection(options: Options) -> None:
    """Refuses namespaces that are required and not given here.

    Raises:
        MissingPrerequisite: why there are none.
    """
    if options.protection == "namespaces" and (why := obstacle()):
        raise MissingPrerequisite(f"--protection namespaces: this machine does not give them ({why}). Use auto.")


def guard_of(options: Options, ended: Callable[[Job], None]) -> Guard:
    """What keeps the subject's runs from the answers here; `ended` is called with each job whose run has ended."""
    why = "--protection order" if options.protection == "order" else obstacle()
    file = file_of(options.subject)
    named = (file.parent if file else None, options.output)
    return Guard(
        kind="order" if why else "namespaces",
        why=why,
        answers=(options.baselines,) if options.baselines else (),
        needed=tuple(path.resolve() for path in named if path is not None),
        outputs=outputs_of(options),
        ended=ended,
    )


def _judged(out: Path, kept: Kept) -> Bundle:
    """The bundle of finished runs. Runs that something else wrote to are never resumed: their directory loses what a
    resumption needs.

    Raises:
        EvidenceError: as `finish_bundle`.
    """
    try:
        return finish_bundle(out, kept)
    except Disturbed:
        (out / INPUTS).unlink(missing_ok=True)
        raise


def _ahead(case: Case, options: Options) -> Forecast | None:
    """How long the runs take that are left; None where that is not known."""
    jobs = [job for job in plan(case, options) if not (options.resume and _completed(Path(job.directory)))]
    needed = prerequisites.needs(case, options, options.sides)
    return forecast(case, jobs, at_once=at_once(case, options), memory=needed.memory, disk=needed.disk)


def _completed(directory: Path) -> bool:
    try:
        return read_run(directory).outcome.status == "completed"
    except EvidenceError:
        return False


def _keep(case: Case, weights: Path, directory: Path) -> None:
    """Writes initial weights as a checkpoint of Hugging Face."""
    if not directory.exists():
        drawn = Checkpoint(config=case.model, step=0, parameters=read_weights(weights), moments={})
        write_hugging_face(drawn, directory)


def take_part(case: Case, options: Options, listener: Listener) -> list[Run]:
    """Makes this node's part of the runs that several nodes make together; another node judges them.

    Raises:
        CertifyError: the case, a package, the device or the output directory cannot be used.
        KeyboardInterrupt: the runs were interrupted.
    """
    prerequisites.check(case, options, ("subject",))
    check_protection(options)
    with claimed(options.out, resume=options.resume):
        case, inputs = prepare(case, (), options)
        write_json(options.out / INPUTS, inputs)
        jobs = [job for job in plan(case, options) if job.nodes]
        guard = guard_of(options, lambda job: None)
        return Launcher(workers=at_once(case, options), guard=guard).execute(jobs, case, listener)


def record(
    case: Case, options: Options, statement: Statement, directory: Path, listener: Listener, *, replace: bool
) -> Baseline:
    """Runs reference and oracle of a case and stores them as its baseline under `directory`, all or nothing.

    Of the options, runners, threads and workers count.

    Raises:
        CertifyError: something is missing, a baseline exists and `replace` is not set, or a run cannot be a baseline.
        KeyboardInterrupt: the runs were interrupted; nothing of them is kept.
    """
    check_recordable(case)
    check_new(directory, case.name, statement, replace=replace)
    prerequisites.check(case, options, RECORDED_SIDES)
    held = locked(directory / f".{case.name}.lock", user="recording of this case", option="--baselines")
    with held, workplace(directory, case.name) as work:
        check_new(directory, case.name, statement, replace=replace)  # another recording may have come and gone
        inside = dataclasses.replace(options, out=work / "runs")
        case, inputs = prepare(case, (), inside)
        Launcher(workers=at_once(case, options)).execute(recorded_jobs(case, inside), case, listener)
        return store(work, inside.out, case, inputs, statement, directory / case.name)


def extract(bundle: Bundle, statement: Statement, directory: Path, *, replace: bool) -> Baseline:
    """Stores the reference half of a bundle as a baseline under `directory`, all or nothing. It states the machine, the
    code, the time and the command of the bundle.

    Raises:
        InputError: the bundle was judged by a baseline itself, a baseline exists and `replace` is not set, or its runs
            cannot be a baseline.
    """
    case = bundle.case
    if bundle.baseline is not None:
        raise InputError(
            f"{bundle.path} was judged by a baseline, recorded {bundle.baseline.recorded} by {bundle.baseline.author}. "
            "Copy the directory of that one."
        )
    check_recordable(case)
    code = reference_code_of(bundle.source, bundle.path)
    statement = dataclasses.replace(statement, command=bundle.occasion.command)
    check_new(directory, case.name, statement, replace=replace)
    held = locked(directory / f".{case.name}.lock", user="recording of this case", option="--baselines")
    with held, workplace(directory, case.name) as work:
        check_new(directory, case.name, statement, replace=replace)
        return store(
            work,
            bundle.path,
            case,
            bundle.inputs,
            statement,
            directory / case.name,
            recorded=bundle.occasion.started,
            reference_code=code,
        )


def at_once(case: Case, options: Options) -> int:
    """How many runs work at the same time: as many as are asked for, or as fit into the memory of this machine."""
    return runs_at_once(case, options.workers, environment.machine()["memory_gib"])


def check_same_baseline(out: Path, baseline: Baseline | None) -> None:
    """Rejects resuming runs that were started against another reference.

    Raises:
        InputError: the directory was started with another baseline, without one, or with one that is not given now.
    """
    begun_with = read_baseline_record(out / BASELINE) if (out / BASELINE).is_file() else None
    if (out / INPUTS).is_file() and begun_with != baseline:
        raise InputError(
            f"{out} was started with another baseline, or one of both without any; it cannot be resumed like this. "
            "Give --baseline as in the first command, or start again with another --out."
        )


def prepare(case: Case, standards: Sequence[Standard], options: Options) -> tuple[Case, Inputs]:
    """Draws the inputs into the output directory, or on resume reads those that are there.

    The case that comes back names its corpus and tokenizer by digest.

    Raises:
        InputError: the corpus, tokenizer or checkpoint cannot be used, or the directory belongs to another run.
    """
    if options.resume and (options.out / INPUTS).is_file():
        return _resumed(case, options)
    inputs = draw_inputs(case, options.out / "inputs")
    case = named_by_digest(case, inputs)
    write_json(options.out / CASE, case.record())
    for standard in standards:
        write_json(options.out / "standards" / f"{standard.name}.json", standard.model_dump(mode="json"))
    write_json(options.out / ENVIRONMENT, described(case, options))
    write_json(options.out / SOURCE, environment.source(_runners(case, options)))
    write_json(options.out / START, draw_start())
    return case, inputs


def _resumed(case: Case, options: Options) -> tuple[Case, Inputs]:
    stored = options.out / INPUTS
    inputs = parse(Inputs, read_json(stored), stored)
    case = named_by_digest(case, inputs)
    if read_json(options.out / CASE) != case.record():
        raise InputError(
            f"{options.out} was started with another case or other options; it cannot be resumed with these."
        )
    if read_environment(options.out / ENVIRONMENT) != described(case, options):
        raise InputError(
            f"{options.out} was started with another device, number of threads, machine or set of packages. "
            "Its runs cannot be resumed with these; start again with another --out."
        )
    then, now = read_source(options.out / SOURCE), environment.source(_runners(case, options))
    if then.runners != now.runners:
        raise InputError(
            f"{options.out} was started with other runners, or their files have changed since: "
            f"{_named(then.runners)} then, {_named(now.runners)} now. "
            "Its runs cannot be resumed with these; start again with another --out."
        )
    if then != now:
        raise InputError(
            f"The code has changed since {options.out} was started, so its runs cannot be resumed. "
            "Start again with another --out."
        )
    if case.evidence == "sketches":
        kept = options.out / "inputs" / VOCABULARY
        write_weights(case, kept.parent, read_json(kept) if kept.is_file() else None)  # finished runs leave none
    try:
        read_inputs(options.out / "inputs", inputs)
    except EvidenceError as error:
        raise InputError(f"{error} Start again with another --out.") from None
    return case, inputs


def _named(runners: Mapping[str, str] | None) -> str:
    """Runners of one's own with the beginning of their files' digests, as text."""
    return ", ".join(f"{name} ({digest[:12]})" for name, digest in (runners or {}).items()) or "only shipped ones"


def pythons_of(options: Options) -> dict[Side, Path]:
    """The interpreters of the sides that run here and have another than this one."""
    sides = (side for side in ("reference", "subject") if side in options.sides)
    return {side: path.absolute() for side in sides if (path := options.python_of(side)) is not None}


def described(case: Case, options: Options) -> Environment:
    """The environment of the runs here, as the bundle records it."""
    threads = threads_of(case, options)
    own = {**variables(threads, options.reference_device), **variables(threads, options.device)}
    return environment.describe(
        options.device,
        threads,
        {**recorded_variables(_runners(case, options)), **own},
        options.reference_device,
        options.reference_processes,
        pythons_of(options),
    )


def _runners(case: Case, options: Options) -> set[str]:
    """The runners that run here, by the names that their traces state."""
    return {one.runner for one in plan(case, options)}
