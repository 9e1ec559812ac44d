"""The parts of a dry run that need no framework: reading a graph, writing mindformers' configuration, errors."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import CertifyError, InputError
from harness.base.written import Written
from harness.cases.case import load_case
from harness.cases.mindformers import read_configuration
from harness.cli import dry_run as cli
from harness.planning.communication import Communication, read_communication
from harness.planning.dry_run import (
    GUIDE,
    MINDFORMERS,
    NOT_SHOWN,
    OWN,
    STUBS,
    CompiledRank,
    as_configuration,
    described,
    dry_run,
)
from harness.planning.operators import read_operators
from tests.support.examples import ROOT

LAYOUT = "qwen3-tied-tp2-pp2"
# The graph that MindSpore 2.9.0 saves for rank 0 of 4, with shortened names and without most operators and attributes.
GRAPH = """\
# IR entry: @7_step_1
# Total subgraphs: 4
subgraph attr:
subgraph instance: 7_step_1 : 0x55
subgraph @7_step_1() {
  %1(CNode_1) = call @8_▸forward_2(%para1_a, %para2_b) cnode_attrs: {micro: I64(0)}
      : (<Tensor[Float32], (8)>) -> (<Tensor[Float32], (8)>)
  %2(equiv_9) = Send(%1) {instance name: Send} primitive_attrs: {dst_global_rank: I64(2), group: "27eSend", \
group_rank_ids: (0, 2), group_back: "27eSend"}
  %3(CNode_3) = call @8_▸forward_2(%2, %para2_b) cnode_attrs: {micro: I64(1)}
  %4(equiv_2) = Send(%3) {instance name: Send} primitive_attrs: {dst_global_rank: I64(2), group: "27eSend", \
group_rank_ids: (0, 2), group_back: "27eSend"}
  %5(dx) = Receive(%4) primitive_attrs: {group: "27eSend", group_rank_ids: (0, 2), src_rank: I64(1), \
group_back: "hccl_world_group", src_global_rank: I64(2)}
  %6(CNode_6) = %1[@Partial(@9_◂backward_3)](%5) cnode_attrs: {micro: I64(0), is_bp: Bool(1)}
  %7(CNode_7) = %3[@Partial(@9_◂backward_3)](%5) cnode_attrs: {micro: I64(1), is_bp: Bool(1)}
  %8(flag) = AllReduce(%7) {instance name: allreduce} primitive_attrs: {group: "hccl_world_group", \
group_rank_ids: (0, 1, 2, 3)}
  %9(CNode_9) = Partial(@10_✓update_4, %para1_a)
  %10(CNode_10) = %9[@FuncUnion(Partial(@10_✓update_4), Partial(@11_✗leave_5))](%8)
}
subgraph attr:
subgraph @8_▸forward_2(%para3_a, %para4_b) {
  %0(output) = AllReduce(%para3_a) primitive_attrs: {group: "389f", rank_list: (0, 1, 2, 3), \
group_rank_ids: (0, 1, 2, 3)}
      # In file layers.py:182, 21~69/            output = ops.AllReduce(group=self.group)(output_parallel)/
  %1(CNode_12) = PrimFunc_ReduceAll(%0, None, Bool(0))
  %2(CNode_13) = Partial(@9_◂backward_3, %para3_a)
}
subgraph @9_◂backward_3(%para5_a) {
  %0(dx) = PrimFunc_AllReduce(%para5_a) primitive_attrs: {group: "tp-0-1", group_rank_ids: (0, 1)}
}
subgraph @10_✓update_4(%para6_a) {
  %0(all) = AllGather(%para6_a) primitive_attrs: {group: "tp-0-1", group_rank_ids: (0, 1)}
}
subgraph @11_✗leave_5(%para7_a) {
}
"""
MADE_IN_PYTHON = {"389f": [0, 1]}


def sent(kind: str, ranks: tuple[int, ...], found: int, runs: int, peer: int | None = None) -> Communication:
    return Communication(kind=kind, ranks=ranks, peer=peer, found=found, runs=runs)


def test_operators_of_a_micro_batch_count_once_per_micro_batch() -> None:
    assert read_communication(GRAPH, MADE_IN_PYTHON) == (
        sent("AllGather", (0, 1), found=1, runs=1),
        sent("AllReduce", (0, 1), found=2, runs=4),
        sent("AllReduce", (0, 1, 2, 3), found=1, runs=1),
        sent("Receive", (0, 2), found=1, runs=1, peer=2),
        sent("Send", (0, 2), found=2, runs=2, peer=2),
    )


def test_the_graph_alone_states_wrong_ranks_for_a_group_made_in_python() -> None:
    from_the_graph = read_communication(GRAPH, {})
    assert sent("AllReduce", (0, 1, 2, 3), found=2, runs=3) in from_the_graph


def test_the_peer_of_a_transfer_written_by_hand_is_its_number_in_the_group() -> None:
    by_hand = """\
# IR entry: @1_step
subgraph @1_step() {
  %1(a) = Send(%0) {instance name: send} primitive_attrs: {sr_tag: I64(0), dest_rank: I64(1), group: "ranks-2-6"}
  %2(b) = Receive(%1) {instance name: receive} primitive_attrs: {src_rank: I64(0), group: "ranks-6-9"}
}
"""
    assert read_communication(by_hand, {"ranks-2-6": [2, 6], "ranks-6-9": [6, 9]}) == (
        sent("Receive", (6, 9), found=1, runs=1, peer=6),
        sent("Send", (2, 6), found=1, runs=1, peer=6),
    )


def test_operators_are_counted_by_name_without_what_launches_no_kernel() -> None:
    assert read_operators(GRAPH) == {"AllGather": 1, "AllReduce": 3, "ReduceAll": 1, "Receive": 1, "Send": 2}


def test_a_graph_without_an_entry_is_an_error() -> None:
    with pytest.raises(InputError, match="has no line '# IR entry'"):
        read_communication(GRAPH.replace("IR entry", "entry"), {})


@pytest.mark.parametrize("name", ["qwen3-tied-tp2-pp2", "qwen3-tiny-dp2-tp2", "qwen3-32b-bf16"])
def test_a_case_written_for_mindformers_reads_back_as_the_same_case(name: str) -> None:
    case = load_case(name)
    again = read_configuration(Written(value=as_configuration(case), origin=name)).case.value
    record: dict[str, Any] = case.model_dump(mode="json")
    for section in ("model", "precision", "parallel", "optimizer"):
        for key, value in again[section].items():
            assert value == record[section][key] or list(value) == list(record[section][key]), (section, key)
    assert again["training"]["recompute"] == case.training.recompute
    assert again["training"]["clip_grad"] == case.training.clip_grad
    assert again["data"]["seq_length"] == case.data.seq_length
    assert again["data"]["global_batch_size"] == case.data.global_batch_size


def test_fewer_layers_are_divided_evenly() -> None:
    case, configuration = described(str(GUIDE), layers=4)
    assert [len(layers) for layers in case.parallel.layers(case.model.num_hidden_layers)] == [1, 1, 1, 1]
    model = configuration["model"]["model_config"]
    assert (model["num_hidden_layers"], model["offset"], model["hidden_size"]) == (4, 0, 5120)
    with pytest.raises(InputError, match="the stages hold 4 layers, and the model has 6"):
        described(str(GUIDE), layers=6)


def test_mindformers_has_no_graph_for_one_process(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"qwen3-tiny-fp32 has one process.*--subject mindspore"):
        dry_run(*described("qwen3-tiny-fp32"), [0], tmp_path, subject=MINDFORMERS)
    assert list(tmp_path.iterdir()) == []


def test_a_case_that_does_not_train_has_no_step_to_compile() -> None:
    with pytest.raises(InputError, match="compiles a training step"):
        described("qwen3-tiny-inference")


@pytest.mark.parametrize("rank", [4, -1])
def test_an_unknown_rank_is_an_error_before_any_file_is_written(rank: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no rank {rank}: {LAYOUT} has 4, from 0 to 3"):
        dry_run(*described(LAYOUT), [0, rank], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces the compilation of every rank."""

    def instantly(
        case: Any, configuration: Any, ranks: Any, directory: Path, *, subject: str, listener: Any
    ) -> list[CompiledRank]:
        for rank in ranks:
            listener(rank)
        mindformers = {"mindformers": "1.9.0"} if subject == MINDFORMERS else {}
        return [
            CompiledRank(
                subject=subject,
                graphs=1,
                rank=rank,
                stage=case.parallel.coordinates(rank).stage,
                seconds=61.2,
                peak_memory=3 * 2**30,
                communication=read_communication(GRAPH, MADE_IN_PYTHON),
                operators={"MatMul": 1200, "RmsNorm": 5, "RmsNormGrad": 4},
                strategy="",
                libraries=STUBS,
                versions={"mindspore": "2.9.0", **mindformers},
            )
            for rank in ranks
        ]

    monkeypatch.setattr(cli, "dry_run", instantly)


@pytest.mark.usefixtures("compiled")
def test_the_output_states_what_a_dry_run_does_not_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.print_dry_run(LAYOUT, [], None, as_json=False) == 0
    printed = capsys.readouterr()
    out = " ".join(printed.out.split())
    assert "Compiled by mindformers 1.9.0, mindspore 2.9.0 against stub libraries: symbols without code." in out
    sent = "AllGather 0-1 1 1 AllReduce 0-1 2 4 AllReduce 0-3 1 1 Receive peer 2 1 1 Send peer 2 2 2"
    for subject in (OWN, MINDFORMERS):
        assert f"{subject} 0 0 61 3.0 {sent}" in out
        assert f"{subject} 3 1 61 3.0 AllGather" in out, "by default the first and the last rank"
    assert f"Operators of {OWN}, rank 3: 1,209. Fused: RmsNorm 5, RmsNormGrad 4." in out
    assert all(statement in out for statement in NOT_SHOWN)
    every = [f"Compiling rank {rank} of 4 ({subject}) ..." for subject in (OWN, MINDFORMERS) for rank in (0, 3)]
    assert printed.err.splitlines() == every


@pytest.mark.usefixtures("compiled")
def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.print_dry_run(LAYOUT, [2, 2], None, as_json=True, subjects=[OWN]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [(one["subject"], one["rank"]) for one in record["ranks"]] == [(OWN, 2)]
    assert record["not_shown"] == list(NOT_SHOWN) and record["ranks"][0]["libraries"] == STUBS


def test_an_unknown_rank_is_an_error_of_certify() -> None:
    with pytest.raises(CertifyError):
        cli.print_dry_run(LAYOUT, [9], None, as_json=False)


def test_the_file_that_configures_transfers_is_found_next_to_a_configuration(tmp_path: Path) -> None:
    guide = ROOT / "qwen3_model" / "configs" / "pretrain_qwen3_32b_4k.yaml"
    for case in (str(guide), "qwen3-tiny-tp2"):
        ascend = described(case)[1]["context"]["ascend_config"]
        assert Path(ascend["parallel_speed_up_json_path"]) == guide.with_name("parallel_speed_up.json")
    alone = tmp_path / "alone.yaml"
    alone.write_text(guide.read_text(encoding="utf-8"), encoding="utf-8")
    assert "parallel_speed_up_json_path" not in described(str(alone))[1]["context"]["ascend_config"]
