"""A case over several real ranks, from case to level; what becomes of it when a rank is lost; two nodes of a case.

All of them are started by `msrun`, with the collectives of a CPU.
"""

import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cases.case import Case, load_case
from harness.cases.runs_of_a_case import ROLES_OF_LAYOUT, SUBJECT, SUBJECT_REPEAT
from harness.certify.flow import prepare
from harness.certify.jobs import job
from harness.evidence.bundle import Bundle, read_bundle, read_run
from harness.evidence.judge import Outcome
from harness.runners.job import Job, Nodes
from harness.runners.launcher import Launcher
from harness.runners.processes import free_port
from harness.runs.trace import Run, Trace
from qwen3_model.checkpoints import read_checkpoint
from tests.support.certify_process import start_certify
from tests.support.examples import ROOT, options, shorter
from tests.support.full import full
from tests.support.processes import processes_of, until

BY_A_FAKE = (
    "tests/unit/runners/test_launcher.py::test_a_kill_is_named_by_its_signal, "
    "tests/unit/runners/test_launcher.py::test_a_run_that_hangs_is_ended_with_all_that_it_started"
)
# Ranks of one node, started by msrun as a run starts its own; and where the ranks of several nodes meet.
BY_ONE_NODE = (
    "tests/model/test_qwen3_parallel.py::test_several_ranks_make_the_steps_of_one_process, "
    "tests/unit/cli/test_launch_cli.py::test_no_run_of_several_nodes_meets_where_another_does"
)
LAYOUT = "qwen3-tiny-pp2"  # its true loss is on the last rank, so on the second node
STEPS = 12
FOR_LONG_RUNS = {"official-steps", "converges", "converges-trend", "no-spikes"}


def short(name: str, **training: Any) -> Case:
    return shorter(load_case(name), **{"steps": STEPS, "warmup_steps": 4, "lr_zero_steps": 3, **training})


def written(case: Case, directory: Path) -> Path:
    path = directory / f"{case.name}.yaml"
    path.write_text(yaml.safe_dump(case.model_dump(mode="json")))
    return path


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, int, str]]:
    """Two nodes of one case, both on this machine; where each wrote, how it ended, and what it said."""
    directory, port = tmp_path_factory.mktemp("nodes"), free_port()
    case = written(short(LAYOUT), directory)
    asked = ("launch", case, "--nnodes", 2, "--master", "127.0.0.1", "--port", port, "--node-rank")
    began = [start_certify(*asked, rank, "--output", directory / f"node-{rank}") for rank in (0, 1)]
    said = ["".join(process.communicate(timeout=900)) for process in began]
    return [(directory / f"node-{rank}", began[rank].returncode, said[rank]) for rank in (0, 1)]


@pytest.fixture(scope="module")
def bundle(nodes: Any) -> Bundle:
    """What came of the case on the node of its true loss."""
    _, (last, _, said) = nodes
    assert (last / "bundle" / "manifest.json").is_file(), said
    return read_bundle(last / "bundle")


LONG = 200


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, float]:
    """The same case in more steps with both ranks on one node, of which one is killed on the way; and how long after
    that the run ended."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        case, asked = begun(tmp_path_factory.mktemp("killed"), LAYOUT, steps=LONG)
        kill = Once(Path(asked.directory), signal.SIGKILL)
        return ended(case, asked, kill), time.monotonic() - kill.at


@pytest.fixture(scope="module")
def on_one_node(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """The subject's first run of the same case with both ranks on one node, as `certify run` makes it."""
    return run_of(tmp_path_factory.mktemp("one") / "out", STEPS)


def run_of(out: Path, steps: int, nodes: Nodes | None = None) -> tuple[Path, Run]:
    """The subject's first run of the case on one of these nodes: its directory and what it left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        case, one = begun(out, LAYOUT, nodes, steps=steps)
        return Path(one.directory), ended(case, one, lambda run, trace: None)


def begun(out: Path, layout: str, nodes: Nodes | None = None, **training: Any) -> tuple[Case, Job]:
    """The case of a layout and the job of the subject's first run, with what it reads in place."""
    asked = dataclasses.replace(options(out), subject="mindspore", nodes=nodes)
    case, _ = prepare(short(layout, **training), (), asked)
    return case, job(case, asked, SUBJECT)


@full(held_by=BY_A_FAKE)
def test_a_killed_rank_ends_the_run_soon_and_leaves_nothing_behind(killed: tuple[Run, float]) -> None:
    run, seconds = killed
    assert seconds < 60
    assert run.outcome.status == "crashed" and STEPS <= run.outcome.last_step < LONG
    assert run.trace is not None and not run.trace.complete


@full(held_by=BY_ONE_NODE)
def test_a_run_of_two_nodes_has_the_bits_of_one_node(tmp_path: Path, killed: tuple[Run, float]) -> None:
    port, places = free_port(), (tmp_path / "first", tmp_path / "last")
    nodes = [Nodes(count=2, rank=rank, master="127.0.0.1", port=port) for rank in (0, 1)]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        ran = [*pool.map(run_of, places, (LONG, LONG), nodes)]
    alone, _ = killed
    assert alone.trace is not None and alone.trace.header.provenance["ranks"] == 2
    for _, run in ran:
        assert run.trace is not None and run.trace.complete
        assert run.trace.steps[: len(alone.trace.steps)] == alone.trace.steps


@full(
    held_by="tests/model/test_qwen3_parallel.py::test_several_ranks_make_the_steps_of_one_process, "
    "tests/model/test_qwen3_parallel.py::test_the_gradient_of_every_parameter_is_that_of_one_process, "
    "tests/model/test_qwen3_parallel.py::test_the_parameters_stay_those_of_one_process"
)
def test_a_layout_keeps_every_limit_beside_one_process_and_beside_the_reference(bundle: Bundle) -> None:
    assert set(ROLES_OF_LAYOUT) <= set(bundle.runs)
    bad = [f.message for f in bundle.findings if f.outcome is not Outcome.PASS and f.criterion not in FOR_LONG_RUNS]
    assert bad == []
    assert {f.standard for f in bundle.findings} == {"official", "strict-fp32", "layout-fp32"}


@full(held_by=BY_ONE_NODE)
def test_ranks_are_in_the_evidence_and_their_logs_beside_it(bundle: Bundle, on_one_node: tuple[Path, Run]) -> None:
    directory, run = on_one_node
    assert run.trace is not None and run.trace.header.provenance["ranks"] == 2
    assert len(list((directory / "ranks" / "log").glob("worker_*.log"))) == 2
    assert not list(directory.glob("**/checkpoint")), "a rank's checkpoint has the size of its weights and moments"
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    assert not [name for name in manifest["files"] if "/ranks/" in name]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Case, Job]]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def start(**training: Any) -> tuple[Case, Job]:
        return begun(tmp_path / "out", "qwen3-tiny-tp2", **training)

    return start


def ended(case: Case, asked: Job, listener: Callable[[str, Trace], None]) -> Run:
    Launcher(workers=2).execute([asked], case, listener)
    until(lambda: not processes_of(Path(asked.directory)), "every process of the run is gone")
    return read_run(Path(asked.directory))


class Once:
    """Sends a signal to one rank after some steps."""

    def __init__(self, directory: Path, number: int) -> None:
        self.directory, self.number, self.at = directory, number, 0.0

    def __call__(self, run: str, trace: Trace) -> None:
        if len(trace.steps) >= STEPS and not self.at:
            self.at = time.monotonic()
            os.kill(self.last_rank(), self.number)

    def last_rank(self) -> int:
        """`msrun` starts other processes beside the ranks, and all of them have the variables of the last one."""
        ranks = {pid: Path(f"/proc/{pid}/environ").read_bytes() for pid in processes_of(self.directory)}
        command = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in ranks}
        return max(p for p, told in ranks.items() if b"MS_ROLE=MS_WORKER" in told and b"ranks.py" in command[p])


@full(held_by=BY_A_FAKE)
def test_a_rank_that_hangs_ends_the_run_within_its_limit(started: Any) -> None:
    case, asked = started(steps=2000, step_timeout_s=5)
    stop = Once(Path(asked.directory), signal.SIGSTOP)
    run = ended(case, asked, stop)
    assert time.monotonic() - stop.at < 30
    assert run.outcome.status == "hung" and "no step within 5 s" in run.outcome.detail


@full(held_by="tests/unit/cli/test_launch_cli.py::test_what_cannot_be_launched_is_refused")
def test_another_number_of_ranks_than_the_layout_has_is_an_error(started: Any) -> None:
    case, asked = started()
    wider = case.with_changes(
        model={**case.model.to_hf(), "num_key_value_heads": 4},
        parallel=dataclasses.asdict(dataclasses.replace(case.parallel, model_parallel=4)),
    )
    run = ended(case, dataclasses.replace(asked, case=wider.record()), lambda run, trace: None)
    assert run.outcome.status == "crashed"
    assert "has 4 ranks, and 2 were started" in run.outcome.log_tail


@full(held_by=BY_ONE_NODE)
def test_two_nodes_make_one_bundle_where_the_true_loss_is_with_the_bits_of_one_node(
    nodes: Any, bundle: Bundle, on_one_node: tuple[Path, Run]
) -> None:
    (_, code, said), (*_, told) = nodes
    assert code == 0 and "Judged on node 1" in said, said + told
    _, alone = on_one_node
    assert alone.trace is not None and bundle.runs[SUBJECT].trace.steps == alone.trace.steps


@full(
    held_by=f"{BY_ONE_NODE}, "
    "tests/model/test_qwen3_parallel.py::test_the_checkpoint_of_all_ranks_is_taken_up_by_one_process"
)
def test_each_node_has_its_logs_and_its_part_of_the_checkpoint_where_the_guide_says(nodes: Any, bundle: Bundle) -> None:
    (first, *_), (last, *_) = nodes
    assert sorted(path.name for path in (first / "msrun_log").glob("worker_*.log")) == ["worker_0.log"]
    assert sorted(path.name for path in (last / "msrun_log").glob("worker_*.log")) == ["worker_1.log"]
    for path in (last / "checkpoint").iterdir():
        os.link(path, first / "checkpoint" / path.name)
    saved = read_checkpoint(first / "checkpoint")
    assert saved.step == STEPS and set(saved.parameters) == set(bundle.runs[SUBJECT].trace.footer.parameters)


@full(held_by=BY_ONE_NODE)
def test_the_other_node_keeps_what_its_ranks_were_told(nodes: Any, bundle: Bundle) -> None:
    (first, *_), _ = nodes
    assert read_run(first / "bundle" / "runs" / SUBJECT).trace.steps == bundle.runs[SUBJECT].trace.steps


@full(held_by=BY_A_FAKE)
def test_a_node_that_is_lost_leaves_the_other_with_what_it_had(tmp_path: Path) -> None:
    case, port = written(short("qwen3-tiny-tp2", steps=400, step_timeout_s=10), tmp_path), free_port()
    asked = ("launch", case, "--nnodes", 2, "--master", "127.0.0.1", "--port", port, "--node-rank")
    lost, kept = (start_certify(*asked, rank, "--output", tmp_path / f"node-{rank}") for rank in (1, 0))
    runs = tmp_path / "node-0" / "bundle" / "runs"
    until(lambda: trace_lines(runs / SUBJECT) > 5, "the first run has steps", seconds=600)
    lost.send_signal(signal.SIGKILL)
    said = "".join(kept.communicate(timeout=900))
    lost.communicate()
    assert kept.returncode == 3, said
    until(lambda: not processes_of(tmp_path), "nothing is left on either node")
    first, second = (read_run(runs / name) for name in (SUBJECT, SUBJECT_REPEAT))
    assert first.outcome.status in ("crashed", "hung") and first.trace is not None and len(first.trace.steps) > 4
    assert second.outcome.status == "missing" and "one of them may be gone" in second.outcome.detail


def trace_lines(run: Path) -> int:
    path = run / "trace.jsonl"
    return path.read_bytes().count(b"\n") if path.is_file() else 0
