"""`certify launch`: the runs of a case over several machines, with one command per node."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import InputError
from harness.cases.case import Case, load_case, written_for_mindformers
from harness.certify import case_options, flow, train_mindformers
from harness.certify.jobs import MSRUN_LOG, Options, plan, protection_of
from harness.cli.options import (
    DEFAULT_WORKERS,
    BaselineOption,
    BaselineTrustOption,
    CaseArgument,
    JsonOption,
    ProfileOption,
    ProtectionOption,
    ThreadsOption,
    WorkersOption,
    check_device,
)
from harness.cli.progress import Progress
from harness.cli.run import baselines_of, exit_code, print_profile, run_shown, trust_of
from harness.cli.terminal import BROKEN, MET, Interrupted, error_console, out_console
from harness.cli.verdict import print_verdict
from harness.corpus.draw import draw_weights
from harness.levels.certificate import Level
from harness.runners.job import Nodes
from harness.runners.profile import ASCEND, profile_variables
from harness.runners.ranks import CLUSTER_SECONDS, msrun_arguments, node_of, reporting_rank
from harness.runners.starting import PROCESS_LOG
from harness.runs.files import PLOG
from qwen3_model.checkpoints import Checkpoint, write_hugging_face

BUNDLE, COLLECTED, INITIAL_WEIGHTS = "bundle", "collected", "initial"
TRAINING_MODULE = "harness.certify.train_mindformers"
PORT = 8118  # msrun's own
OF_EVERY_LINE = ("case", "nnodes", "node_rank", "master", "port", "print_", "as_json")
UNPROTECTED = "Protection: none: a trainer of its own could read recorded answers. Who signs answers for its numbers."
NO_CONFIGURATION = (
    "Not a configuration of mindformers, so run_mindformer.py cannot read it. If you have one: "
    "certify launch FILE.yaml --print"
)


def launch(
    context: typer.Context,
    case: CaseArgument,
    nnodes: Annotated[int, typer.Option("--nnodes", min=1, help="Machines.")] = 1,
    node_rank: Annotated[int, typer.Option("--node-rank", min=0, help="Number of this node, from 0.")] = 0,
    master: Annotated[str, typer.Option(help="Address of node 0.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=1024, max=65000, help="First port on node 0. Each run uses four ports from here on.")
    ] = PORT,
    output: Annotated[Path, typer.Option(help="Directory for bundle, msrun_log and checkpoint.")] = Path("output"),
    device: Annotated[str, typer.Option(help="Device of the subject: CPU or Ascend.")] = "CPU",
    threads: ThreadsOption = None,
    workers: WorkersOption = DEFAULT_WORKERS,
    level: Annotated[Level, typer.Option(help="The level required for exit code 0.")] = Level.PRELIMINARY,
    baseline: BaselineOption = None,
    trust: BaselineTrustOption = None,
    protection: ProtectionOption = "auto",
    profile: ProfileOption = None,
    trainer: Annotated[
        str | None,
        typer.Option(help="mindformers: its own Trainer trains the configuration CASE, and the run is collected."),
    ] = None,
    print_: Annotated[bool, typer.Option("--print", help="Print the commands of every node, and run nothing.")] = False,
    as_json: JsonOption = False,
) -> int:
    """Run this node's part of a case over several machines: the same command on each, with its --node-rank.

    The node with the true loss, on the last stage, collects the bundle and judges it. The other nodes keep the job
    descriptions of their ranks, so a lost node loses no recorded step. Logs are in OUTPUT/msrun_log, the last
    checkpoint in OUTPUT/checkpoint. Exit codes are those of 'certify run'; on the other nodes 0 if their part
    succeeded, 3 if not.

    With --trainer mindformers, its own Trainer trains instead, once, as run_mindformer.py does, and the run is
    collected in OUTPUT/collected, for 'certify judge'.
    """
    chosen = load_case(case)
    ranks = chosen.parallel.world_size
    check_device(device)
    if trainer is not None:
        nodes = Nodes(count=nnodes, rank=node_rank, master=master, port=port)
        return collect(chosen, case, trainer, nodes, output, device, show=print_)
    _check(chosen, case, nnodes, node_rank)
    nodes = Nodes(count=nnodes, rank=node_rank, master=master, port=port)
    if print_:
        lines = list(commands(case, nodes, ranks, output, given(context), device))
        print(json.dumps({"commands": lines}) if as_json else "\n".join(lines))
        return MET
    options = Options(
        out=output / BUNDLE,
        device=device,
        threads=threads,
        workers=workers,
        command=("certify", *sys.argv[1:]),
        baselines=baselines_of(baseline, chosen.name),
        trust=trust_of(trust, baseline),
        nodes=nodes,
        output=output,
        protection=protection_of(protection),
        profile=case_options.profiled_steps(profile, chosen),
    )
    judging = node_of(reporting_rank(chosen.parallel), ranks, nnodes)
    if node_rank != judging:
        return _take_part(chosen, options, judging, quiet=as_json)
    standards = case_options.load_standards(chosen.standards, chosen)
    bundle, certificate = run_shown(chosen, standards, options, quiet=as_json)
    print_verdict(bundle, certificate, as_json)
    if not as_json and options.profile:
        print_profile(bundle)
    return exit_code(bundle, certificate, level)


def collect(case: Case, file: str, trainer: str, nodes: Nodes, output: Path, device: str, *, show: bool) -> int:
    """Lets a trainer train this node's part of a case with the collector in it: 0, or 3 if it failed."""
    if trainer != "mindformers":
        raise InputError(f"--trainer {trainer!r}: only mindformers' own Trainer is started here. See docs/collect.md.")
    if not written_for_mindformers(file):
        raise InputError(f"{file} is not a configuration of mindformers, so its Trainer cannot read it.")
    if nodes.rank >= nodes.count or case.parallel.world_size % nodes.count:
        _check(case, file, nodes.count, nodes.rank)
    command = training_command(case, file, nodes, output, device)
    if show:
        out_console.print(shlex.join(command), markup=False, soft_wrap=True)
        return MET
    initial = output / INITIAL_WEIGHTS
    if not initial.exists():
        drawn = Checkpoint(config=case.model, step=0, parameters=draw_weights(case), moments={})
        write_hugging_face(drawn, initial)
    done = subprocess.run(command, env={**os.environ, **trainer_variables(device, output)}, check=False)
    if done.returncode:
        error_console.print(f"mindformers' Trainer ended with code {done.returncode}.", markup=False)
        return BROKEN
    judged = shlex.join(
        ["certify", "judge", file, "--reference", "BASELINE_OR_RUN", "--subject", str(output / COLLECTED)]
    )
    out_console.print(f"Collected in {output / COLLECTED}. Judge it: {judged}", markup=False, soft_wrap=True)
    out_console.print(UNPROTECTED, markup=False, soft_wrap=True)
    return MET


def trainer_variables(device: str, output: Path) -> dict[str, str]:
    """The variables of a trainer's processes: the profile of the device, and on Ascend where CANN logs."""
    logs = {PROCESS_LOG: str(output.resolve() / PLOG)} if device == ASCEND else {}
    return {**profile_variables(device), **logs}


def training_command(case: Case, file: str, nodes: Nodes, output: Path, device: str) -> list[str]:
    """What trains a configuration with the collector in it: one process, or `msrun` for several ranks."""
    root = output.resolve()
    words = [str(Path(file).resolve()), str(root / COLLECTED), str(root / INITIAL_WEIGHTS), device]
    if case.parallel.world_size == 1:
        return [sys.executable, "-m", TRAINING_MODULE, *words]
    module = str(Path(train_mindformers.__file__).resolve())
    return ["msrun", *msrun_arguments(case.parallel.world_size, nodes, str(root / MSRUN_LOG)), module, *words]


def _check(case: Case, named: str, nnodes: int, node_rank: int) -> None:
    ranks = case.parallel.world_size
    if ranks == 1:
        raise InputError(
            f"{case.name} has one process, so there is nothing to launch. Run it: certify run {shlex.quote(named)}"
        )
    if ranks % nnodes:
        raise InputError(
            f"{case.name} has {ranks} ranks ({case.parallel}), which cannot be divided evenly over {nnodes} nodes: "
            f"choose --nnodes among the divisors of {ranks}."
        )
    if node_rank >= nnodes:
        raise InputError(f"--node-rank {node_rank}: there are {nnodes} nodes, counted from 0.")


def _take_part(case: Case, options: Options, judging: int, quiet: bool) -> int:
    """This node's processes of every run; the bundle is made on another one."""
    runs = [job.run for job in plan(case, options) if job.nodes]
    try:
        with Progress(error_console, runs, quiet=quiet) as progress:
            made = flow.take_part(case, options, progress.update)
    except KeyboardInterrupt:
        raise Interrupted("Interrupted; no process is left behind.") from None
    bad = [run for run in made if not run.outcome.ended]
    for run in bad:
        error_console.print(f"{run.name}: {run.outcome.detail}\n{run.outcome.log_tail}", markup=False)
    kinds = sorted({run.outcome.protection or "not recorded" for run in made})
    where = (
        f"Judged on node {judging}; the outcomes of this node are in {options.out / 'runs'}. "
        f"Protection on this node: {', '.join(kinds)}"
    )
    out_console.print(f"{len(made) - len(bad)} of {len(made)} runs succeeded. {where}", markup=False, soft_wrap=True)
    return BROKEN if bad else MET


def given(context: typer.Context) -> list[str]:
    """The options of this command line that are the same on every node, except those that every line has."""
    found = []
    for one in context.command.params:
        source = context.get_parameter_source(one.name)
        if source is None or source.name != "COMMANDLINE" or one.name in OF_EVERY_LINE:
            continue
        value = context.params[one.name]
        found += [one.opts[0]] if value is True else [one.opts[0], str(value)]
    return found


def commands(case: str, nodes: Nodes, ranks: int, output: Path, options: Sequence[str], device: str) -> Iterator[str]:
    """The lines that start a case on every node: by `certify launch`, and for a configuration of mindformers also by
    its own training script and `msrun`."""
    logs = str(output / MSRUN_LOG)
    own = written_for_mindformers(case)
    if not own:
        yield f"# {NO_CONFIGURATION}"
    for node in range(nodes.count):
        here = Nodes(count=nodes.count, rank=node, master=nodes.master, port=nodes.port)
        yield f"# node {node}, ranks {node * ranks // nodes.count} to {(node + 1) * ranks // nodes.count - 1}"
        yield from (f"export {name}={value}" for name, value in profile_variables(ASCEND if own else device).items())
        if own:
            yield from _of_mindformers(case, here, ranks, logs)
        certified = ["certify", "launch", case, "--nnodes", str(nodes.count), "--node-rank", str(node)]
        yield shlex.join([*certified, "--master", here.master, "--port", str(here.port), *options])
        yield ""


def _of_mindformers(case: str, here: Nodes, ranks: int, logs: str) -> Iterator[str]:
    script = f"run_mindformer.py --config {shlex.quote(case)}"
    numbers = (str(ranks), str(ranks // here.count), here.master, str(here.port), str(here.rank))
    yield shlex.join(["bash", "scripts/msrun_launcher.sh", script, *numbers, logs, "False", str(CLUSTER_SECONDS)])
    arguments = [one.replace("--join=True", "--join=False") for one in msrun_arguments(ranks, here, logs)]
    yield f"msrun {shlex.join(arguments)} {script}"
