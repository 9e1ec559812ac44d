"""A dry run of real layouts on stub libraries: mindformers' graph and this model's, compiled for Ascend without one."""

import functools
import json
from pathlib import Path

import pytest

from harness.base.errors import InputError
from harness.cli.dry_run import print_dry_run
from harness.planning.dry_run import COLLECTED, GUIDE, MINDFORMERS, OWN, STUBS, described, dry_run
from harness.planning.operators import FUSED
from tests.support.full import full
from tests.support.processes import processes_of, until

LAYOUT = "qwen3-tied-tp2-pp2"
MICRO_BATCHES = 2

pytestmark = pytest.mark.usefixtures("without_cann")


@pytest.fixture
def without_cann(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASCEND_HOME_PATH", raising=False)


# The stage of a rank, the rank that it sends to, and those that share its part of the model.
FIRST, LAST = {0: (0, 2, [0, 1])}, {3: (1, 1, [2, 3])}
OF_MINDFORMERS = full(
    held_by="tests/end_to_end/test_dry_run_of_a_layout.py::test_the_graphs_of_this_model_are_compiled_too"
)


@OF_MINDFORMERS
@pytest.mark.parametrize("expected", [LAST, FIRST | LAST], ids=["last", "both"])
def test_ranks_are_compiled_and_send_to_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], expected: dict[int, tuple[int, int, list[int]]]
) -> None:
    print_it = functools.partial(print_dry_run, LAYOUT, [*expected], None, as_json=True, directory=tmp_path)
    assert print_it(subjects=[MINDFORMERS]) == 0
    ranks = json.loads(capsys.readouterr().out)["ranks"]
    for one, (stage, peer, shard) in zip(ranks, expected.values(), strict=True):
        assert one["stage"] == stage
        sent = {(each["kind"], each["peer"]): each["runs"] for each in one["communication"] if each["peer"] is not None}
        # once for each micro batch, and once for the gradient or the weight of the embedding that the head is tied to
        assert sent == {("Send", peer): MICRO_BATCHES + 1, ("Receive", peer): MICRO_BATCHES + 1}
        groups = {tuple(each["ranks"]) for each in one["communication"] if each["kind"] == "AllReduce"}
        assert tuple(shard) in groups
        assert one["libraries"] == STUBS and Path(one["strategy"]).is_file()
        assert one["seconds"] > 0 and one["peak_memory"] > 0
    assert {path.name for path in (tmp_path / LAYOUT / MINDFORMERS).iterdir()} == {f"rank_{rank}" for rank in expected}


def test_the_graphs_of_this_model_are_compiled_too(tmp_path: Path) -> None:
    (one,) = dry_run(*described(LAYOUT), [3], tmp_path, subject=OWN)
    groups = {(each.kind, each.ranks) for each in one.communication}
    # over the two halves of a layer, between the stages, over both ends for the tied embedding, and over all ranks
    assert {("AllReduce", (2, 3)), ("AllReduce", (1, 3)), ("AllReduce", (0, 1, 2, 3))} <= groups
    # what goes between stages is no sum: the last one receives what the first one sends, and sends its gradient back
    assert {(each.kind, each.peer) for each in one.communication if each.peer is not None} == {
        ("Send", 1),
        ("Receive", 1),
    }
    assert one.graphs > 1 and one.libraries == STUBS and "mindformers" not in one.versions


def test_a_layer_on_ascend_is_made_of_fused_operators_unless_the_case_declines_them(tmp_path: Path) -> None:
    case, configuration = described("qwen3-tiny-bf16", layers=1)
    plain_case = case.with_changes(precision={**case.precision.dtypes, "fused": False})
    (fused,) = dry_run(case, configuration, [0], tmp_path / "fused")
    (plain,) = dry_run(plain_case, configuration, [0], tmp_path / "plain")
    # the norms of a layer are two of its own and those of query and key; the last norm comes after all layers
    expected = {"FlashAttentionScore": 1, "RmsNorm": 5, "RmsNormGrad": 5, "RotaryPositionEmbedding": 4, "Swiglu": 1}
    assert expected.items() <= fused.operators.items()
    assert not set(FUSED) & set(plain.operators)
    assert sum(plain.operators.values()) > sum(fused.operators.values())


@full(held_by="tests/end_to_end/test_dry_run_of_a_layout.py::test_the_graphs_of_this_model_are_compiled_too")
def test_positions_and_moments_are_gathered_and_scattered_by_operators_of_their_own(tmp_path: Path) -> None:
    (one,) = dry_run(*described("qwen3-tiny-dp2-tp2-sharded", layers=1), [3], tmp_path, subject=OWN)
    found = {(each.kind, each.ranks): each.found for each in one.communication}
    # one layer: before and behind attention and MLP, behind the embedding and before the head, and all of it backward
    assert found["AllGather", (2, 3)] == found["ReduceScatter", (2, 3)] == 6
    assert found["AllGather", (1, 3)] == 14, "the updated rows of each parameter"


@full(held_by="tests/end_to_end/test_dry_run_of_a_layout.py::test_the_graphs_of_this_model_are_compiled_too")
def test_a_published_model_in_one_process_is_compiled_whole(tmp_path: Path) -> None:
    case, configuration = described("qwen3-0.6b-bf16")
    (one,) = dry_run(case, configuration, [0], tmp_path, subject=OWN)
    assert one.communication == () and one.graphs == 2, "one of a micro batch and one of the update"
    assert case.training.recompute, "so each layer is there twice, and the last norm once"
    assert one.operators["RmsNorm"] == 2 * 4 * case.model.num_hidden_layers + 1


def test_what_mindspore_refuses_is_an_error_with_the_end_of_the_log(tmp_path: Path) -> None:
    case, configuration = described(LAYOUT)
    configuration["parallel_config"]["model_parallel"] = 3
    with pytest.raises(InputError, match="Rank 0 was not compiled; its process ended") as refused:
        dry_run(case, configuration, [0], tmp_path, subject=MINDFORMERS)
    assert "Error" in str(refused.value) and "Traceback" not in str(refused.value)


def test_a_time_limit_ends_the_process(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Rank 0 was not compiled within 0\.5 s; its process was killed"):
        dry_run(*described(LAYOUT), [0], tmp_path, limit_seconds=0.5)
    until(lambda: not processes_of(tmp_path), "its process is gone")


@full(held_by="tests/end_to_end/test_dry_run_of_a_layout.py::test_the_graphs_of_this_model_are_compiled_too")
def test_the_guides_graph_of_16_cards_is_compiled_with_the_collector_in_place(tmp_path: Path) -> None:
    """Rank 15 is of the last stage, and has the true loss: its collector writes the trace, states configuration and
    optimizer, and its parts of the last layer, of the last norm and of the head."""
    case, configuration = described(str(GUIDE), layers=4)
    configuration["callbacks"] = [*(configuration.get("callbacks") or []), {"type": "CertifyCollector"}]
    (one,) = dry_run(case, configuration, [15], tmp_path, subject=MINDFORMERS)
    assert case.parallel.world_size == 16 and one.stage == 3
    begun = json.loads((tmp_path / MINDFORMERS / "rank_15" / COLLECTED / "trace.jsonl").read_bytes())
    assert begun["runner"] == "collected:mindformers" and begun["provenance"]["ranks"] == 16
    assert begun["provenance"]["collected"]["reporting"] == 15
    assert begun["alignment"] and begun["provenance"]["collected"]["omitted"] == []
    stated = (tmp_path / MINDFORMERS / "rank_15" / COLLECTED / "parts" / "15.jsonl").read_bytes().splitlines()
    parts = {one["name"]: (one["axis"], one["index"], one["of"]) for one in map(json.loads, stated[1:])}
    halves = case.parallel.model_parallel
    assert {name.removeprefix("model.layers.3.") for name in parts} >= {"lm_head.weight", "mlp.down_proj.weight"}
    assert all(name.startswith("model.layers.3.") for name in parts if ".layers." in name)
    assert parts["model.norm.weight"] == (0, 0, 1)
    assert parts["model.layers.3.mlp.down_proj.weight"] == (1, 15 % halves, halves)
