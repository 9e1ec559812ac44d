"""`certify plan`: what a layout costs in memory and traffic, and which one to take."""

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from harness.base.errors import InputError
from harness.base.near_names import did_you_mean
from harness.cases.case import Case, check_trains, load_case, read_case_file
from harness.cases.mindformers import is_configuration, read_configuration
from harness.cases.runs_of_a_case import required_runs, role
from harness.certify.estimate import disk_of_a_case, memory_of_the_host
from harness.certify.jobs import ALONE
from harness.cli.dry_run import print_dry_run
from harness.cli.options import CaseArgument, JsonOption, check_device
from harness.cli.plan_reference import print_reference_plan
from harness.cli.terminal import MET, NOT_MET, out_console
from harness.planning.dry_run import PROGRAMS
from harness.planning.memory import GIB, StageMemory, memory
from harness.planning.search import ERROR, Candidate, Fit, candidate, search
from harness.planning.traffic import traffic
from harness.planning.work import seconds_of_a_step, work

SHOWN = 5
TERA, HOUR = 1e12, 3600.0
HELD = ("weights", "gradients", "moments", "buffers")


def plan(
    case: CaseArgument,
    cards: Annotated[int | None, typer.Option(min=1, help="Search the best layout for this number of cards.")] = None,
    memory_: Annotated[
        str | None,
        typer.Option("--memory", help="Memory of a device, such as 58GB; default: that in mindformers' file."),
    ] = None,
    device: Annotated[str, typer.Option(help="Ascend or CPU: selects fused or plain operators.")] = "Ascend",
    compile_: Annotated[
        bool,
        typer.Option("--compile", help="Let MindSpore compile the Ascend graph of some ranks, without a device."),
    ] = False,
    rank: Annotated[
        list[int] | None,
        typer.Option(help="With --compile: a rank; may be given several times. Default: first and last."),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(min=1, help="With --compile: this number of layers instead of all.")
    ] = None,
    subject: Annotated[
        list[str] | None,
        typer.Option(
            help="With --compile: mindspore for this model's graphs, or mindformers; may be given twice. Default: "
            "mindspore, and over several ranks both."
        ),
    ] = None,
    reference: Annotated[
        bool,
        typer.Option("--reference", help="What recording a baseline takes: memory of each GPU, hours, and bytes."),
    ] = False,
    reference_processes: Annotated[
        int | None,
        typer.Option("--reference-processes", min=1, help="With --reference: GPUs. Default: 1, 2, 4 and 8."),
    ] = None,
    tflops: Annotated[
        float | None,
        typer.Option(min=0.001, help="10^12 operations that a device makes in a second in this case: gives times."),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Print the memory of each stage of a layout, what its ranks send, and whether it fits; or search a layout.

    Nothing is run. Exit code 0: it fits, or no limit is known. 1: it does not, or is too close to decide. 2: the layout
    or the file is invalid. With --compile MindSpore compiles the graphs of ranks by a dry run, those of this model and
    those of mindformers, and their operators are listed; this needs CANN, or the tools for stub libraries:
    pip install 'mindspore-certify[plan]'. With --reference it is about the PyTorch side, on GPUs.
    """
    if reference:
        if compile_ or cards is not None:
            raise InputError("--reference plans the PyTorch side: omit --compile and --cards.")
        return print_reference_plan(case, reference_processes, _bytes(memory_), tflops, as_json)
    if reference_processes:
        raise InputError("--reference-processes is about the PyTorch side: give --reference too.")
    if tflops and (compile_ or cards is not None):
        raise InputError("--tflops gives the time of a layout: omit --compile and --cards.")
    if compile_:
        return print_dry_run(case, rank or [], layers, as_json, subjects=_subjects(subject or []))
    if rank or layers or subject:
        raise InputError("--rank, --layers and --subject select what is compiled: give --compile too.")
    check_device(device)
    chosen, limit = load_case(case), _bytes(memory_ or _stated_memory(case))
    check_trains(chosen, "'certify plan' computes the memory of a training step")
    ascend = device == "Ascend"
    if cards is not None:
        if limit is None:
            raise InputError("A search needs the memory of a device: give --memory, such as 58GB.")
        found = search(chosen, cards, limit, ascend)
        _print_found(found, as_json)
        return MET
    own = candidate(chosen, ascend)
    fits = limit is None or own.fit(limit) is Fit.FITS
    if as_json:
        print(json.dumps(_record(own, ascend, limit, tflops)))
    else:
        _print_plan(own, ascend, limit)
        _print_time(chosen, tflops)
        if not fits and limit is not None:
            _print_advice(chosen, limit, ascend)
    return MET if fits else NOT_MET


def _subjects(names: Sequence[str]) -> Sequence[str]:
    for name in names:
        if name not in PROGRAMS:
            raise InputError(
                f"--subject must be one of {', '.join(PROGRAMS)}, got {name!r}.{did_you_mean(name, PROGRAMS)}"
            )
    return names


def _stated_memory(case: str) -> str | None:
    """The memory that a device may use by a configuration of mindformers."""
    written = read_case_file(case)
    return read_configuration(written).max_device_memory if is_configuration(written.value) else None


def _bytes(stated: str | None) -> int | None:
    if stated is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*GB", stated.strip())
    if found is None or float(found[1]) == 0:
        raise InputError(f"{stated!r} is not an amount of memory: write it as 58GB.")
    return int(float(found[1]) * GIB)


def _layout(case: Case) -> str:
    return f"{case.parallel}, recompute" if case.training.recompute else str(case.parallel)


def _print_plan(own: Candidate, ascend: bool, limit: int | None) -> None:
    case = own.case
    ranks = case.parallel.world_size
    out_console.print(f"{case.name}: {_layout(case)}; {ranks} rank{'s' * (ranks > 1)}", markup=False, soft_wrap=True)
    columns = ("stage", "layers", "parameters", *HELD, "kept", "total", "sent", "10^12 operations")
    table = Table(*columns, box=None, pad_edge=False)
    for stage, sent, done in zip(memory(case, ascend), traffic(case), work(case), strict=True):
        kept = stage.total - sum(getattr(stage, name) for name in HELD)
        amounts = (*(getattr(stage, name) for name in HELD), kept, stage.total, sent.total)
        layers, millions = f"{stage.layers.start}-{stage.layers.stop - 1}", f"{stage.parameters / 1e6:,.2f} M"
        operations = f"{done.total / TERA:,.3g}"
        table.add_row(str(stage.stage), layers, millions, *(f"{amount / GIB:.2f}" for amount in amounts), operations)
    out_console.print(table)
    exact = (
        "GiB per rank. Weights, gradients and moments are exact; kept is what the backward pass needs, or clipping if "
        "that is more. Buffers are HCCL's, exact for each group of ranks. On a CPU the total is within 8 % of what "
        "MindSpore allocates. No device was measured; kernels need additional memory."
    )
    out_console.print(exact, soft_wrap=True)
    if case.parallel.pipeline_stage > 1:
        kept = max(stage.total for stage in memory(case, ascend, stages_kept=True))
        out_console.print(
            "A stage keeps the inputs of its micro batches in flight (1F1B) and runs forward again for each backward "
            f"pass. If it keeps all activations instead, as mindformers does, the largest needs {kept / GIB:.1f} GiB.",
            soft_wrap=True,
        )
    if ascend:
        whole = memory_of_the_host(case, ranks)
        host = (
            f"On its host a rank needs {whole / ranks:.1f} GiB of memory, and all {ranks} ranks {whole:.1f} GiB; the "
            f"runs take {disk_of_a_case(case):.1f} GiB of disk."
        )
        out_console.print(host, soft_wrap=True)
    if limit is not None:
        own_fit = own.fit(limit)
        reason = f" The estimate may be {ERROR:.0%} off." if own_fit is Fit.TOO_CLOSE else ""
        needed = f"The largest stage needs {own.bytes / GIB:.1f} of {limit / GIB:.1f} GiB"
        out_console.print(f"{needed}: it {own_fit}.{reason}")


def _print_time(case: Case, tflops: float | None) -> None:
    """How long steps take at a given speed."""
    if tflops is None:
        return
    step, steps = seconds_of_a_step(case, tflops * TERA), steps_over_ranks(case)
    out_console.print(
        f"At {tflops:g} x 10^12 operations per second and rank, a step takes {step:.3g} s, and the {steps} steps of "
        f"the subject's runs {steps * step / HOUR:.3g} h, without transfers and compiling. No device was measured.",
        soft_wrap=True,
    )


def steps_over_ranks(case: Case) -> int:
    """The steps of all runs of the subject together that the ranks of the case make."""
    known = (role(name, case) for name in required_runs(case))
    return sum(case.steps_of(*one) for one in known if one and one[0] == "subject" and one[1] not in ALONE)


def _print_advice(case: Case, limit: int, ascend: bool) -> None:
    ranks = case.parallel.world_size
    while ranks <= 64 * case.parallel.world_size:
        try:
            best = search(case, ranks, limit, ascend)[0]
        except InputError:
            ranks *= 2
            continue
        out_console.print(
            f"It would fit on {ranks} cards with {_layout(best.case)}: {best.bytes / GIB:.1f} GiB.", markup=False
        )
        return
    out_console.print(f"It does not fit on up to {ranks // 2} cards either.")


def _print_found(found: list[Candidate], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"layouts": [_summary(one) for one in found]}))
        return
    table = Table("layout", "GiB per rank", "GiB sent", "time", box=None, pad_edge=False)
    for one in found[:SHOWN]:
        table.add_row(_layout(one.case), f"{one.bytes / GIB:.1f}", f"{one.traffic / GIB:.1f}", f"{one.time:.2f}")
    out_console.print(table)
    more = f"; {len(found) - SHOWN} more fit" if len(found) > SHOWN else ""
    out_console.print(f"Time: of a step, as a multiple of one without bubbles, recomputation and transfers{more}.")


def _summary(one: Candidate) -> dict[str, Any]:
    layout = dataclasses.asdict(one.case.parallel)
    return {
        "parallel": layout,
        "recompute": one.case.training.recompute,
        "bytes": one.bytes,
        "sent": one.traffic,
        "time": one.time,
    }


def _record(own: Candidate, ascend: bool, limit: int | None, tflops: float | None) -> dict[str, Any]:
    stages = [_stage(stage) for stage in memory(own.case, ascend)]
    sent = [{**vars(one), "total": one.total} for one in traffic(own.case)]
    fit = None if limit is None else own.fit(limit).name
    return {
        "case": own.case.name,
        **_summary(own),
        "stages": stages,
        "traffic": sent,
        "operations": [one.total for one in work(own.case)],
        **({"seconds_of_a_step": seconds_of_a_step(own.case, tflops * TERA)} if tflops else {}),
        "limit": limit,
        "fit": fit,
        **_host(own.case, ascend),
    }


def _host(case: Case, ascend: bool) -> dict[str, Any]:
    """What a run takes of the machine that has the devices, in GiB."""
    ranks = case.parallel.world_size
    memory_of_all = memory_of_the_host(case, ranks)
    host = {"memory_of_a_rank": memory_of_all / ranks, "memory": memory_of_all, "disk": disk_of_a_case(case)}
    return {"host": host} if ascend else {}


def _stage(stage: StageMemory) -> dict[str, Any]:
    return {**vars(stage), "layers": list(stage.layers), "total": stage.total}
