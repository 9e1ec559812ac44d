"""From a case or a bundle to a diagnosis: the same inputs, three tapped runs, the judgement, the page."""

import shutil
from pathlib import Path

from harness.base.errors import InputError
from harness.base.records import write_json
from harness.base.whole_files import whole_file
from harness.cases.case import Case, check_trains, load_case
from harness.cases.runs_of_a_case import ORACLE, REFERENCE, SUBJECT
from harness.certify import flow, prerequisites, workspace
from harness.certify.jobs import ALL_SIDES, Options, job_of
from harness.diagnosis.diagnosis import CURVES, Diagnosis, diagnose, record, run_name
from harness.evidence.bundle import Bundle, read_bundle
from harness.evidence.bundle_files import CASE, INPUTS
from harness.report.diagnosis import render_diagnosis
from harness.runners.executor import Listener
from harness.runners.job import Job
from harness.runners.launcher import Launcher
from harness.runs.files import TRACE
from harness.runs.trace import Side

RECORD, PAGE = "diagnosis.json", "diagnosis.html"
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
    return run.trace.header.runner


def investigate(what: Case | Bundle, options: Options, listener: Listener) -> Diagnosis:
    """Runs all three sides with taps in `options.out`, judges them, and writes record and page there.

    Raises:
        CertifyError: a package, the device or the directory cannot be used, or reference or oracle broke.
        KeyboardInterrupt: the runs were interrupted; none is left.
    """
    case = what if isinstance(what, Case) else what.case
    prerequisites.check(case, options, ALL_SIDES)
    with workspace.claimed(options.out, resume=False):
        if isinstance(what, Case):
            case, inputs = flow.prepare(case, (), options)
            write_json(options.out / INPUTS, inputs)
        else:
            _take_over(what, options.out)
        Launcher(workers=flow.at_once(case, options)).execute(jobs(case, options), case, listener)
    return conclude(options.out)


def jobs(case: Case, options: Options) -> list[Job]:
    """A tapped run of each side; the subject's first, which takes longest."""
    order: tuple[Side, ...] = ("subject", "reference", "oracle")
    return [job_of(case, options, run_name(side), side, "taps", keep=True) for side in order]


def conclude(directory: Path) -> Diagnosis:
    """Judges three finished tapped runs and writes `diagnosis.json` and `diagnosis.html`."""
    diagnosis = diagnose(directory)
    write_json(directory / RECORD, record(diagnosis))
    with whole_file(directory / PAGE, overwrite=True) as file:
        file.write(render_diagnosis(diagnosis).encode())
    return diagnosis


def _take_over(bundle: Bundle, out: Path) -> None:
    """The case and the inputs of a bundle, and the traces of its long runs."""
    (out / CURVES).mkdir()
    shutil.copyfile(bundle.path / CASE, out / CASE)
    shutil.copytree(bundle.path / "inputs", out / "inputs")
    for side, run in CURVE_OF.items():
        trace = bundle.path / "runs" / run / TRACE
        if trace.is_file():
            shutil.copyfile(trace, out / CURVES / f"{side}.jsonl")
    shutil.copyfile(bundle.path / INPUTS, out / INPUTS)
