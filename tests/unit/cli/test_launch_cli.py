"""`certify launch`: which commands it prints, and what it refuses before anything runs."""

import re
import shlex
from pathlib import Path

import pytest

from harness.cases.case import load_case
from harness.certify.jobs import Options, plan
from harness.certify.train_mindformers import with_collector
from harness.cli.launch import trainer_variables
from harness.runners.job import PORTS_OF_A_START, Nodes
from harness.runners.profile import profile_variables
from tests.support.command_line import Call, caller
from tests.support.configurations import file_of, small
from tests.support.examples import ROOT

GUIDE = ROOT / "qwen3_model" / "configs" / "pretrain_qwen3_32b_4k.yaml"


@pytest.fixture
def launch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch, "launch")


def test_the_commands_of_the_guide_are_printed_for_both_nodes(launch: Call) -> None:
    """Sixteen cards on two nodes, by mindformers' script and by msrun, with one difference between the nodes."""
    done = launch(GUIDE, "--nnodes", 2, "--master", "192.168.1.1", "--port", 8118, "--print")
    assert done.code == 0
    for rank in (0, 1):
        script = f"'run_mindformer.py --config {GUIDE}' 16 8 192.168.1.1 8118 {rank} output/msrun_log False 600"
        assert f"bash scripts/msrun_launcher.sh {script}\n" in done.out
        options = (
            f"--worker_num=16 --local_worker_num=8 --master_addr=192.168.1.1 --master_port=8118 --node_rank={rank}"
        )
        assert f"msrun {options} --log_dir=output/msrun_log --join=False --cluster_time_out=600 run_" in done.out
    first, second = re.split(r"^# node 1.*\n", done.out, flags=re.MULTILINE)
    same = first.partition("\n")[2].strip().replace("node_rank=0", "node_rank=1").replace(" 0 output", " 1 output")
    assert same.replace("--node-rank 0", "--node-rank 1") == second.strip()


def test_a_case_that_mindformers_cannot_read_is_given_no_command_of_mindformers(launch: Call) -> None:
    done = launch("qwen3-tiny-tp2", "--nnodes", 2, "--print")
    assert "run_mindformer.py cannot read it" in done.out
    assert not re.search("^(msrun|bash) ", done.out, re.MULTILINE)


def test_the_given_options_are_in_the_command_of_every_node(launch: Call, tmp_path: Path) -> None:
    asked = ["--device", "Ascend", "--output", str(tmp_path / "o u t"), "--level", "Validated", "--baseline"]
    done = launch("qwen3-tiny-tp2", "--nnodes", 2, "--node-rank", 1, "--print", *asked)
    lines = [shlex.split(line) for line in done.out.splitlines() if line.startswith("certify launch")]
    assert [line[line.index("--node-rank") + 1] for line in lines] == ["0", "1"]
    for line in lines:
        assert {*asked} < {*line} and "--print" not in line
        assert line.count("--node-rank") == 1 and line[line.index("--output") + 1] == str(tmp_path / "o u t")


def test_the_variables_of_determinism_come_before_what_imports_the_framework(launch: Call) -> None:
    lines = launch(GUIDE, "--nnodes", 2, "--print").out.splitlines()
    last = max(number for number, line in enumerate(lines[: lines.index("")]) if line.startswith("export "))
    assert all(not line.startswith(("bash", "msrun", "certify")) for line in lines[:last])
    assert "export HCCL_DETERMINISTIC=true" in lines


def test_printing_writes_nothing(launch: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert launch("qwen3-tiny-tp2", "--print").code == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("qwen3-tiny-fp32",), "has one process, so there is nothing to launch. Run it: certify run qwen3-tiny-fp32"),
        (("qwen3-tiny-tp2", "--nnodes", 3), "2 ranks (DP1 x TP2 x PP1), which cannot be divided evenly over 3 nodes"),
        (("qwen3-tiny-tp2", "--nnodes", 2, "--node-rank", 2), "there are 2 nodes, counted from 0"),
    ],
)
def test_what_cannot_be_launched_is_refused(launch: Call, arguments: tuple[object, ...], why: str) -> None:
    done = launch(*arguments)
    assert done.code == 2 and why in done.err


def test_no_run_of_several_nodes_meets_where_another_does(tmp_path: Path) -> None:
    """One node may begin a run while the one before still ends on another node."""
    nodes = Nodes(count=2, rank=1, master="192.168.1.1", port=8118)
    jobs = plan(load_case("qwen3-tiny-tp2"), Options(out=tmp_path, command=(), nodes=nodes))
    ports = [job.nodes.port for job in jobs if job.nodes]
    # Twice, where a run is taken up again, and two each time.
    taken = [port + more for port in ports for more in range(2 * PORTS_OF_A_START)]
    assert ports[0] == 8118 and len(ports) > 3 and len(set(taken)) == len(taken)


def test_the_trainer_of_mindformers_is_started_with_the_collector(launch: Call, tmp_path: Path) -> None:
    alone = launch(file_of(small(), tmp_path), "--trainer", "mindformers", "--output", tmp_path / "o", "--print")
    words = shlex.split(alone.out)
    assert (alone.code, words[1:3]) == (0, ["-m", "harness.certify.train_mindformers"])
    place = (tmp_path / "o").resolve()
    assert words[3:] == [str(tmp_path / "small.yaml"), str(place / "collected"), str(place / "initial"), "CPU"]
    guide = shlex.split(launch(GUIDE, "--trainer", "mindformers", "--nnodes", 2, "--device", "Ascend", "--print").out)
    assert guide[:3] == ["msrun", "--worker_num=16", "--local_worker_num=8"]
    assert Path(guide[-5]).name == "train_mindformers.py" and guide[-1] == "Ascend"
    assert not (tmp_path / "o").exists()


def test_the_logs_of_cann_are_next_to_those_of_a_trainer(tmp_path: Path) -> None:
    own = trainer_variables("Ascend", tmp_path)
    assert own == {**profile_variables("Ascend"), "ASCEND_PROCESS_LOG_PATH": str(tmp_path.resolve() / "plog")}
    assert trainer_variables("CPU", tmp_path) == profile_variables("CPU")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((GUIDE, "--trainer", "megatron"), "only mindformers' own Trainer is started here"),
        (("qwen3-tiny-tp2", "--trainer", "mindformers"), "is not a configuration of mindformers"),
        ((GUIDE, "--trainer", "mindformers", "--nnodes", 3), "cannot be divided evenly over 3 nodes"),
    ],
)
def test_a_trainer_that_cannot_be_started_is_refused(launch: Call, arguments: tuple[object, ...], why: str) -> None:
    done = launch(*arguments)
    assert done.code == 2 and why in done.err


def test_the_collector_replaces_the_one_of_the_configuration() -> None:
    given = [{"type": "MFLossMonitor"}, {"type": "CertifyCollector", "directory": "elsewhere", "arm": "lr_zero"}]
    assert with_collector(given, "here") == [given[0], {**given[1], "directory": "here"}]
    assert with_collector([], "here") == [{"type": "CertifyCollector", "directory": "here"}]


def test_the_protection_is_taken_and_is_in_the_command_of_every_node(launch: Call) -> None:
    done = launch("qwen3-tiny-tp2", "--nnodes", 2, "--print", "--protection", "order")
    lines = [line for line in done.out.splitlines() if line.startswith("certify launch")]
    assert len(lines) == 2 and all(line.endswith("--protection order") for line in lines)
    refused = launch("qwen3-tiny-tp2", "--protection", "namespace")
    assert refused.code == 2 and "none of auto, namespaces, order" in refused.said
