"""From a case or a bundle to a diagnosis: the same inputs, three tapped runs, the judgement, the page.

A case that keeps no tensors is diagnosed by sketches. Where they name a place, the runs are made once more and leave
the tensors around that place, which show what kind of fault it is.

A dump of msprobe may stand for the subject. Then only reference and oracle run, and its modules are compared with
theirs.

A later step than the first is diagnosed from the weights that the subject has before it: reference and oracle begin
with them too, so that only what is wrong in the step itself differs.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from harness.base.digest import digest_tensors
from harness.base.errors import EvidenceError, InputError, MissingPrerequisite
from harness.base.records import read_json, write_json
from harness.base.whole_files import whole_file
from harness.cases.case import Case, as_argument, check_trains, load_case
from harness.cases.runs_of_a_case import ORACLE, REFERENCE, SUBJECT
from harness.certify import case_options, environment, flow, prerequisites, workspace
from harness.certify.estimate import memory_of_a_diagnosis
from harness.certify.jobs import ALL_SIDES, RECORDED_SIDES, Options, job_of
from harness.corpus.draw import write_weights
from harness.diagnosis.diagnosis import (
    CURVES,
    DUMPED,
    STEP,
    Diagnosis,
    Dumped,
    diagnose,
    for_a_clue,
    record,
    run_name,
)
from harness.diagnosis.dump_export import export, save_array
from harness.diagnosis.dumps import Dump, find_dump, read_dump
from harness.diagnosis.first_difference import Named
from harness.evidence.bundle import Bundle, read_bundle
from harness.evidence.bundle_files import CASE, INPUTS
from harness.evidence.summary import first_failure
from harness.report.diagnosis import render_diagnosis
from harness.runners.executor import Executor, Listener, no_listener
from harness.runners.job import Job
from harness.runners.launcher import Launcher
from harness.runs.files import TRACE
from harness.runs.inputs import BATCHES, VOCABULARY, WEIGHTS, read_tensors, read_weights, weights_files, write_tensors
from harness.runs.trace import Side

RECORD, PAGE = "diagnosis.json", "diagnosis.html"
RUNS, TENSORS = "runs", "tensors"
INPUTS_OF_RUNS = "inputs"
LATER = "step-{}"  # the directory of a later step
SHORTEST = 4  # the bits of the shortest length of a row that is advised
CURVE_OF: dict[Side, str] = {"reference": REFERENCE, "subject": SUBJECT, "oracle": ORACLE}


def find(what: str) -> Case | Bundle:
    """The bundle of a directory, checked as `certify verify` checks it, or the case of a name or a file.

    Raises:
        CertifyError: it is neither, or of inference.
    """
    found = read_bundle(Path(what)) if Path(what).is_dir() else load_case(what)
    case = found.case if isinstance(found, Bundle) else found
    check_trains(case, "'certify diagnose' looks into a step of training")
    return found


def runner_of(bundle: Bundle, side: Side) -> str:
    """The runner that a bundle's side was made by.

    Raises:
        InputError: that side left no trace.
    """
    run = bundle.runs.get(CURVE_OF[side])
    if run is None or run.trace is None:
        raise InputError(f"{bundle.path} holds no trace of {CURVE_OF[side]}; name the runner with --{side}.")
    if bundle.collected:
        raise InputError(
            f"{bundle.path} holds runs that were collected from trainers, which take no step for a diagnosis. Diagnose "
            f"the case with a runner of the harness: certify diagnose {as_argument(bundle.case.name)}"
        )
    return run.trace.header.runner


def chosen(
    what: Case | Bundle,
    *,
    model: Path | None = None,
    layers: int | None = None,
    vocabulary: int | None = None,
    rows: int | None = None,
    length: int | None = None,
) -> Case:
    """What is diagnosed under the options of a command: a case, or the case of a bundle.

    Raises:
        InputError: the options contradict each other, or what is diagnosed.
    """
    if isinstance(what, Case):
        case = case_options.with_options(
            what, text=None, data=None, tokenizer=None, model=model, layers=layers, vocabulary=vocabulary
        )
        return case_options.shortened(case, rows, length)
    if layers is not None or vocabulary is not None:
        raise InputError("--layers and --vocab cut a case; a bundle is diagnosed as its runs were made.")
    case = what.case
    if model is not None:
        if case.checkpoint is None:
            raise InputError(f"{what.path} began with drawn weights; omit --model.")
        case = case.with_changes(**case.with_checkpoint(case.checkpoint.model_copy(update={"path": str(model)})))
    return case_options.shortened(case, rows, length)


def later_step(what: Case | Bundle, case: Case, step: int | None) -> int | None:
    """The step that is diagnosed where the first one agrees: the given one or, of a bundle, the first that is beyond a
    limit. None if there is none.

    Raises:
        InputError: the case has no such step, or several processes make its steps.
    """
    if step is not None and not 1 < step <= case.training.steps:
        raise InputError(f"--step {step}: {case.name} has the steps 2 to {case.training.steps} after the first.")
    if step is not None and case.parallel.world_size > 1:
        raise InputError(f"--step {step}: a step of {case.name} is made by several processes, and is not tapped.")
    if step is None and isinstance(what, Bundle) and case.parallel.world_size == 1:
        step = (first_failure(what) or (1, None))[0]
    return step if step != 1 else None


def investigate(
    what: Case | Bundle,
    case: Case,
    options: Options,
    listener: Listener,
    later: int | None = None,
    dump: Path | None = None,
) -> Diagnosis:
    """Runs all three sides with taps in `options.out`, judges them, and writes record and page there.

    Args:
        what: a case, or the bundle whose inputs are used.
        case: the case of it, as `chosen`.
        options: the runners, and how they run.
        listener: see `harness.runners.executor`.
        later: see `later_step`. Its record and page take the place of those of the first step if it names a place.
        dump: a dump of msprobe, which stands for the subject; that is not run then.

    Raises:
        InputError: the dump cannot be used.
        CertifyError: a package, the device, the memory or the directory cannot be used, or reference or oracle broke.
        KeyboardInterrupt: the runs were interrupted; none is left.
    """
    found_dump = _dump_of(case, dump) if dump is not None else None
    prerequisites.check(case, options, RECORDED_SIDES if found_dump else ALL_SIDES)
    check_memory(case, environment.machine()["memory_gib"])
    launcher = Launcher(workers=flow.at_once(case, options))
    with workspace.claimed(options.out, resume=False):
        if isinstance(what, Case):
            case, inputs = flow.prepare(case, (), options)
            write_json(options.out / INPUTS, inputs)
        else:
            _take_over(what, case, options.out)
        if found_dump is not None:
            launcher.execute(jobs_beside(case, options, found_dump), case, listener)
            _place(found_dump, options.out)
            return conclude(options.out)
        launcher.execute(jobs(case, options), case, listener)
        found = conclude(options.out)
        # The page of the first runs is there already, whatever becomes of the second.
        if case.evidence == "sketches" and (whole := for_a_clue(options.out, found)):
            for made in (RUNS, TENSORS):
                shutil.rmtree(options.out / made)
            launcher.execute(jobs(case, options, whole), case, listener)
            found = conclude(options.out)
        if later is not None and not names_the_cause(found.named):
            inside = dataclasses.replace(options, out=options.out / LATER.format(later))
            at_step = look_later(case, inside, options.out, later, launcher, listener)
            found = _written(options.out, at_step) if names_the_cause(at_step.named) else found
        if case.evidence == "sketches":
            for drawn in (options.out / INPUTS_OF_RUNS, *options.out.glob(f"{LATER.format('*')}/{INPUTS_OF_RUNS}")):
                for path in weights_files(drawn / WEIGHTS):
                    path.unlink(missing_ok=True)
    return found


def jobs(case: Case, options: Options, whole: tuple[str, ...] = ()) -> list[Job]:
    """A tapped run of each side; the subject's first, which takes longest. `whole`: what is left whole in any case."""
    order: tuple[Side, ...] = ("subject", "reference", "oracle")
    every = [job_of(case, options, run_name(side), side, "taps", keep=True) for side in order]
    return [dataclasses.replace(job, whole=whole) for job in every]


def jobs_beside(case: Case, options: Options, dump: Dump) -> list[Job]:
    """The tapped runs that a dump is compared with. They leave the tensors whole that it has."""
    whole = tuple(sorted({*dump.tensors, *dump.statistics})) if case.evidence == "sketches" else ()
    return [one for one in jobs(case, options, whole) if one.side != "subject"]


def _dump_of(case: Case, directory: Path) -> Dump:
    """The dump of a directory, as places of a step of a case.

    Raises:
        InputError: it is no dump of a step of this case.
    """

    def load(path: Path) -> Any:
        from harness.runners.pt_files import read_tensor  # here: only a dump of PyTorch has such files

        return read_tensor(path)

    return read_dump(find_dump(directory), case, load)


def _place(dump: Dump, out: Path) -> None:
    """Has a dump stand for the subject's tapped run."""
    if dump.tensors:
        write_tensors(dict(dump.tensors), out / TENSORS / f"{run_name('subject')}.safetensors")
    dumped = Dumped(described=dump.described, sha256=dump.sha256, statistics=dump.statistics, omitted=dump.omitted)
    write_json(out / DUMPED, dumped)


def export_taps(directory: Path, to: Path) -> tuple[Path, ...]:
    """Writes what the taps of a diagnosis saw as dumps of msprobe, one for each side that left tensors; returns their
    directories. The subject's is one of MindSpore, the others are of PyTorch.

    Raises:
        InputError: there is something at the place of a dump, or no side left tensors of its places.
    """
    written = list[Path]()
    for side in ALL_SIDES:
        file = directory / TENSORS / f"{run_name(side)}.safetensors"
        tensors = read_tensors(file) if file.is_file() else {}
        if not any(name.startswith("forward.") for name in tensors):
            continue
        if (to / side).exists():
            raise InputError(f"{to / side} exists. Choose another --export.")
        if side == "subject":
            written.append(export(tensors, to / side, "mindspore", save_array))
            continue
        from harness.runners.pt_files import write_tensor  # here: whoever exports nothing needs no PyTorch

        written.append(export(tensors, to / side, "pytorch", write_tensor))
    if not written:
        raise InputError(f"{directory} holds no tensors of places, so there is nothing to export.")
    return tuple(written)


def names_the_cause(named: Named | None) -> bool:
    """Whether a diagnosis has found what is wrong: then no later step is diagnosed."""
    return named is not None and named.is_cause


def look_later(
    case: Case, options: Options, begun: Path, step: int, executor: Executor, listener: Listener = no_listener
) -> Diagnosis:
    """The diagnosis of a later step in `options.out`, a new directory; `begun` holds the inputs of the case.

    Raises:
        EvidenceError: reference or oracle broke, or the subject took no such step.
    """
    inputs = options.out / INPUTS_OF_RUNS
    inputs.mkdir(parents=True)
    write_json(options.out / CASE, case.record())
    write_json(options.out / STEP, step)
    batches = read_tensors(begun / INPUTS_OF_RUNS / BATCHES)
    write_tensors({name: tensor[step - 1 : step].copy() for name, tensor in batches.items()}, inputs / BATCHES)
    subject, *others = jobs(case, options)
    there = (begun / INPUTS_OF_RUNS).resolve()
    subject = dataclasses.replace(
        subject,
        inputs=str(there),
        weights=str(there / WEIGHTS),
        weights_left=str(inputs.resolve() / WEIGHTS),
        steps=step - 1,
    )
    (made,) = executor.execute([subject], case, listener)
    if not (inputs / WEIGHTS).is_file():
        raise EvidenceError(f"The subject took no step {step}: {made.outcome.detail}.\n{made.outcome.log_tail}")
    executor.execute([dataclasses.replace(job, steps=1) for job in others], case, listener)
    return conclude(options.out)


def conclude(directory: Path) -> Diagnosis:
    """Judges three finished tapped runs and writes `diagnosis.json` and `diagnosis.html`."""
    return _written(directory, diagnose(directory))


def _written(directory: Path, diagnosis: Diagnosis) -> Diagnosis:
    write_json(directory / RECORD, record(diagnosis))
    with whole_file(directory / PAGE, overwrite=True) as file:
        file.write(render_diagnosis(diagnosis).encode())
    return diagnosis


def check_memory(case: Case, there: float) -> None:
    """Refuses a diagnosis that does not fit into so many GiB; 0 is not known.

    Raises:
        MissingPrerequisite: with the options that make it fit, if any do.
    """
    if not there or (needed := memory_of_a_diagnosis(case)) <= there:
        return
    lengths = (case.data.seq_length >> halved for halved in range(case.data.seq_length.bit_length() - SHORTEST))
    fit = next((n for n in lengths if memory_of_a_diagnosis(case_options.shortened(case, 1, n)) <= there), None)
    advice = f"Diagnose a smaller step: --rows 1 --length {fit}." if fit else "Use a machine with more."
    raise MissingPrerequisite(
        f"{case.name} cannot be diagnosed here: what is inside a step takes about {needed:.0f} GiB with the run, and "
        f"this machine has {there:.0f}. {advice}"
    )


def _take_over(bundle: Bundle, case: Case, out: Path) -> None:
    """The inputs of a bundle, as much of them as the case has, and the traces of its long runs.

    Raises:
        InputError: the initial weights, which sketched evidence does not hold, are not those of the bundle.
    """
    (out / CURVES).mkdir()
    write_json(out / CASE, case.record())
    inputs = out / "inputs"
    shutil.copytree(bundle.path / "inputs", inputs)
    rows, length = case.data.global_batch_size, case.data.seq_length
    batches = read_tensors(inputs / BATCHES)
    if batches["loss_mask"].shape[1:] != (rows, length):
        tokens, mask = batches["tokens"][:, :rows, : length + 1], batches["loss_mask"][:, :rows, :length]
        fewer = {"tokens": np.ascontiguousarray(tokens), "loss_mask": np.ascontiguousarray(mask)}
        write_tensors(fewer, inputs / BATCHES)
    if case.evidence == "sketches":
        kept = inputs / VOCABULARY
        write_weights(case, inputs, read_json(kept) if kept.is_file() else None)
        if digest_tensors(read_weights(inputs / WEIGHTS)) != bundle.inputs.weights:
            raise InputError(f"The weights are not those that the runs of {bundle.path} began with.")
    for side, run in CURVE_OF.items():
        trace = bundle.path / "runs" / run / TRACE
        if trace.is_file():
            shutil.copyfile(trace, out / CURVES / f"{side}.jsonl")
    shutil.copyfile(bundle.path / INPUTS, out / INPUTS)
