"""A dry run: MindSpore compiles the Ascend graph of chosen ranks without a device; the result is its communication.

Takes a case or a training configuration of mindformers. Each rank is a process of its own, in which the trainer of
`qwen3_model` (`harness.planning.compile_subject`) or that of mindformers (`harness.planning.compile_rank`) builds the
model and MindSpore compiles it; nothing is executed. The result lists the operators of the final graphs, and those of
communication by their ranks. A host with CANN compiles against CANN, any other host against stub libraries without code
(`harness.planning.cann_stubs`). `NOT_SHOWN` lists what a dry run does not show.

Source: MindSpore 2.9, `MS_SIMULATION_LEVEL`; level 0 compiles and needs no device.
"""

import contextlib
import copy
import functools
import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import qwen3_model
from harness.base.ascend import cann_home, cann_version
from harness.base.errors import InputError, MissingPrerequisite
from harness.base.yaml_files import read_yaml
from harness.cases.case import Case, check_trains, load_case, read_case_file
from harness.cases.mindformers import is_configuration, known_fields
from harness.cases.mindformers.fields import CONFIG, DATA, MODEL, SPEED_UP, UNTIED
from harness.cases.mindformers.transfers import speed_up_file
from harness.planning.cann_stubs import stub_libraries
from harness.planning.communication import Communication, merged, read_communication
from harness.planning.memory import micro_rows
from harness.planning.operators import read_operators
from harness.runners.processes import log_error

GUIDE = Path(qwen3_model.__file__).parent / "configs" / "pretrain_qwen3_32b_4k.yaml"
LIMIT_SECONDS = 900.0
STUBS = "stub libraries: symbols without code"
NOT_SHOWN = (
    "no kernel ran",
    "no memory of a device was allocated",
    "no message was sent between ranks",
    "no number was computed",
    "the data pipeline was not compiled",
)
CONFIGURATION, JOB, DONE, LOG, GRAPHS = "configuration.yaml", "job.json", "done.json", "log.txt", "graphs"
COLLECTED = "collected"  # what a collector of mindformers' trainer began there
FINAL_PASS = "backend_pass"  # the last pass before kernels are selected
OWN, MINDFORMERS = "mindspore", "mindformers"  # as in `certify run --subject`
PROGRAMS = {OWN: "harness.planning.compile_subject", MINDFORMERS: "harness.planning.compile_rank"}


@dataclass(frozen=True, kw_only=True)
class CompiledRank:
    """The result of one rank's dry run.

    Attributes:
        subject: whose graphs: those of `qwen3_model` ("mindspore") or of mindformers.
        graphs: the number of graphs of a step; mindformers compiles one.
        seconds: from the start of its process to the end.
        peak_memory: the largest number of bytes of the compiling process on the host; not device memory.
        operators: how many of each operator the final graphs have.
        strategy: MindSpore's file with the sharding of each parameter.
        libraries: the libraries it was compiled against: CANN and its version, or stub libraries.
        versions: of MindSpore, and of mindformers if the graphs are its own.
    """

    subject: str
    graphs: int
    rank: int
    stage: int
    seconds: float
    peak_memory: int
    communication: tuple[Communication, ...]
    operators: Mapping[str, int]
    strategy: str
    libraries: str
    versions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """The libraries that a rank is compiled against, and their directory if it has to be added to the search path."""

    name: str
    cann: bool
    directory: Path | None


def described(case_or_yaml: str, layers: int | None = None) -> tuple[Case, dict[str, Any]]:
    """A case and its configuration for mindformers' trainer.

    A file of mindformers is used unchanged. A case is converted: model, layout, precision, optimizer, clipping and
    recomputation are the case's; the learning rates are those of the pretraining guide's file.

    Args:
        case_or_yaml: a case, as for `harness.cases.case.load_case`.
        layers: a smaller number of layers for a quick run; they are divided evenly over the stages.

    Raises:
        InputError: the case is not valid or does not train, or the layers cannot be divided.
    """
    case = load_case(case_or_yaml)
    check_trains(case, "'certify plan --compile' compiles a training step")
    content = read_case_file(case_or_yaml).value
    if layers is not None:
        layout = {**vars(case.parallel), "offset": ()}
        case = case.with_changes(model={**case.model.to_hf(), "num_hidden_layers": layers}, parallel=layout)
    own = is_configuration(content)
    configuration = content if own else as_configuration(case)
    _find_speed_up(configuration, case_or_yaml if own else str(GUIDE))
    if layers is not None:
        configuration["model"]["model_config"].update(num_hidden_layers=layers, offset=0)
    return case, configuration


def _find_speed_up(configuration: dict[str, Any], origin: str) -> None:
    """Makes the path of the file that configures transfers absolute, and removes it where there is no such file: it is
    in mindformers' source tree, but not in its wheel."""
    ascend = (configuration.get("context") or {}).get("ascend_config") or {}
    path = speed_up_file(ascend, origin)
    if SPEED_UP in ascend:
        del ascend[SPEED_UP]
    if path is not None:
        ascend[SPEED_UP] = str(path.resolve())


def as_configuration(case: Case) -> dict[str, Any]:
    """A case in mindformers' form: the pretraining guide's file with the values of the case."""
    configuration: dict[str, Any] = read_yaml(GUIDE).value
    record, layout = case.model_dump(mode="json"), case.parallel
    for field in known_fields().values():
        if field.fate == "case" and not field.mindformers.startswith("lr_schedule."):
            _put(configuration, field.mindformers, functools.reduce(dict.__getitem__, field.case.split("."), record))
    _put(configuration, f"{MODEL}.{UNTIED}", not case.model.tie_word_embeddings)
    _put(configuration, f"{MODEL}.seq_length", case.data.seq_length)
    _put(configuration, f"{MODEL}.offset", list(layout.offset) or 0)
    wide = case.precision.residual_dtype == "float32"
    _put(configuration, f"{MODEL}.fp32_residual_connection", wide)
    _put(configuration, "runner_config", {"epochs": 1, "batch_size": micro_rows(case), **_accumulation(case)})
    _put(configuration, f"{DATA}.data_loader.sizes", [case.data.global_batch_size * case.training.steps, 0, 0])
    _put(configuration, f"{CONFIG}.data_path", ["1", "none"])
    _put(configuration, f"{CONFIG}.eod", -1 if case.data.eod is None else case.data.eod)
    configuration["train_dataset_task"]["dataset_config"] = configuration["train_dataset"]
    _put(configuration, "parallel.dataset_strategy", [[layout.data_parallel, 1]] * 4)
    _put(configuration, "runner_wrapper.use_clip_grad", case.training.clip_grad is not None)
    _put(configuration, "runner_wrapper.max_grad_norm", case.training.clip_grad or 1.0)
    return configuration


def _accumulation(case: Case) -> dict[str, int]:
    # with stages, gradients are accumulated over the micro batches
    steps = 1 if case.parallel.pipeline_stage > 1 else case.training.gradient_accumulation_steps
    return {"gradient_accumulation_steps": steps}


def _put(configuration: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    functools.reduce(lambda section, part: section[part], sections, configuration)[name] = value


def dry_run(
    case: Case,
    configuration: Mapping[str, Any],
    ranks: Sequence[int],
    directory: Path,
    *,
    subject: str = OWN,
    limit_seconds: float = LIMIT_SECONDS,
    listener: Callable[[int], None] = lambda rank: None,
) -> list[CompiledRank]:
    """Compiles the graphs of each rank, one rank after the other.

    Args:
        case, configuration: as `described` gives them.
        directory: for each rank's log, strategy file and final graphs, under `SUBJECT/rank_N`.
        subject: whose graphs, one of `PROGRAMS`.
        limit_seconds: for one rank; after that its process is killed.
        listener: called with each rank before it is compiled.

    Raises:
        InputError: there is no such rank, mindformers has no graph for one process, or MindSpore failed to compile
            the rank: with the end of its log.
        MissingPrerequisite: MindSpore, mindformers or a tool that makes stub libraries is not installed.
    """
    stages = {rank: _stage(case, rank) for rank in ranks}
    if subject == MINDFORMERS and case.parallel.world_size == 1:
        raise InputError(
            f"{case.name} has one process. mindformers' graph is compiled for a layout only: choose a case with one, "
            f"or --subject {OWN}."
        )
    tools = toolchain(subject)
    compiled = []
    for rank, stage in stages.items():
        listener(rank)
        place = directory.resolve() / subject / f"rank_{rank}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        job: dict[str, Any] = {"cann": tools.cann, "rank": rank}
        if subject == MINDFORMERS:
            _write_configuration(place, configuration)
        else:
            job["case"] = case.record()
        (place / JOB).write_text(json.dumps(job), encoding="utf-8")
        began = time.monotonic()
        environment = _environment(place, rank, case.parallel.world_size, tools)
        _run(place, PROGRAMS[subject], environment, rank, limit_seconds)
        compiled.append(_read(place, subject, rank, stage, time.monotonic() - began, tools))
    return compiled


def _stage(case: Case, rank: int) -> int:
    try:
        return case.parallel.coordinates(rank).stage
    except ValueError:
        ranks = case.parallel.world_size
        raise InputError(f"There is no rank {rank}: {case.name} has {ranks}, from 0 to {ranks - 1}.") from None


def toolchain(subject: str) -> Toolchain:
    """CANN if it is set up in this shell, else stub libraries.

    Raises:
        MissingPrerequisite: MindSpore, mindformers or a tool that makes stub libraries is not installed.
    """
    found = importlib.util.find_spec("mindspore")
    if found is None:
        raise MissingPrerequisite("A dry run needs MindSpore. Install it with: pip install 'mindspore-certify[run]'")
    if subject == MINDFORMERS and importlib.util.find_spec(MINDFORMERS) is None:
        raise MissingPrerequisite(
            "A dry run of mindformers needs mindformers. Install it with: pip install mindformers==1.9.0"
        )
    home = cann_home()
    if home and (home / "lib64" / "libascendcl.so").is_file():
        return Toolchain(name=f"CANN {cann_version() or 'of unknown version'}", cann=True, directory=None)
    package = Path((found.submodule_search_locations or [""])[0])
    libraries = stub_libraries(package, importlib.metadata.version("mindspore"))
    return Toolchain(name=STUBS, cann=False, directory=libraries)


def _write_configuration(place: Path, configuration: Mapping[str, Any]) -> None:
    own = copy.deepcopy(dict(configuration))
    own.update(output_dir=str(place / "output"), profile=False)
    own.setdefault("context", {})["device_target"] = "Ascend"  # there is no dry run for a CPU
    (place / CONFIGURATION).write_text(yaml.safe_dump(own), encoding="utf-8")


def _environment(place: Path, rank: int, ranks: int, tools: Toolchain) -> dict[str, str]:
    of_a_cluster = ("MS_ROLE", "MS_WORKER_NUM", "RANK_TABLE_FILE", "DEVICE_ID")
    inherited = {name: value for name, value in os.environ.items() if name not in of_a_cluster}

    def before(name: str, first: Path | None) -> str:
        return os.pathsep.join(str(part) for part in (first, inherited.get(name)) if part)

    return {
        **inherited,
        "MS_SIMULATION_LEVEL": "0",
        "RANK_SIZE": str(ranks),
        "RANK_ID": str(rank),
        "LD_LIBRARY_PATH": before("LD_LIBRARY_PATH", tools.directory),
        "PYTHONPATH": before("PYTHONPATH", Path(__file__).parents[2]),
        "GLOG_v": "3",  # errors only, so that the log of a failed compilation ends with the reason
        "MS_DEV_SAVE_GRAPHS": "1",
        "MS_DEV_SAVE_GRAPHS_PATH": str(place / GRAPHS),
        "MS_DEV_DUMP_IR_PASSES": FINAL_PASS,
    }


def _run(place: Path, program: str, environment: Mapping[str, str], rank: int, limit_seconds: float) -> None:
    command = [sys.executable, "-m", program, str(place / JOB), str(os.getpid())]
    log = place / LOG
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=place,  # MindSpore and mindformers write files to the working directory
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit_seconds)
        except subprocess.TimeoutExpired:
            why = f"was not compiled within {limit_seconds:g} s; its process was killed"
            raise InputError(f"Rank {rank} {why}. Its log: {log}") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code:
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        raise InputError(f"Rank {rank} was not compiled; its process ended {how}. Its log, {log}:\n{log_error(log)}")


def final_graphs(place: Path) -> list[Path]:
    """The graphs that MindSpore saved for a rank, in the order of their compilation.

    Raises:
        InputError: there is none.
    """
    found = sorted((place / GRAPHS).rglob(f"[0-9]*_{FINAL_PASS}_*.ir"))
    if not found:
        raise InputError(f"MindSpore saved no final graph in {place / GRAPHS}.")
    return found


def _read(place: Path, subject: str, rank: int, stage: int, seconds: float, tools: Toolchain) -> CompiledRank:
    done = json.loads((place / DONE).read_text(encoding="utf-8"))
    # mindformers' trainer is one graph, of which MindSpore may save several states
    saved = final_graphs(place)[-1:] if subject == MINDFORMERS else final_graphs(place)
    texts = [path.read_text(encoding="utf-8") for path in saved]
    communication = merged(read_communication(text, done["groups"]) for text in texts)
    for number, path in enumerate(saved, 1):
        path.replace(place / f"final-{number}.ir")
    shutil.rmtree(place / GRAPHS)
    strategies = sorted(place.glob("output/strategy/*.ckpt"))
    return CompiledRank(
        subject=subject,
        graphs=len(saved),
        rank=rank,
        stage=stage,
        seconds=seconds,
        peak_memory=done["peak_memory"],
        communication=communication,
        operators=dict(sorted(sum(map(read_operators, texts), Counter()).items())),
        strategy=str(strategies[0]) if strategies else "",
        libraries=tools.name,
        versions={name: done[name] for name in ("mindspore", MINDFORMERS) if name in done},
    )
