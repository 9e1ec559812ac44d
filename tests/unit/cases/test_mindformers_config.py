"""A configuration of mindformers as a case: every field is handled, and what a case does not support is an error."""

import contextlib
import copy
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import InputError
from harness.base.written import Written
from harness.cases.case import Case, load_case, parse_case
from harness.cases.mindformers import known_fields, read_configuration
from harness.certify import environment
from qwen3_model.parallel_config import ParallelConfig
from qwen3_model.sizes import PUBLISHED
from tests.support.command_line import caller
from tests.support.configurations import file_of, small
from tests.support.examples import ROOT

GUIDE = ROOT / "qwen3_model" / "configs" / "pretrain_qwen3_32b_4k.yaml"
DOCUMENT = ROOT / "docs" / "mindformers-config.md"


CONTENT: dict[str, Any] = yaml.safe_load(GUIDE.read_text(encoding="utf-8"))


def guide() -> dict[str, Any]:
    return copy.deepcopy(CONTENT)


def written(content: dict[str, Any]) -> Written:
    return Written(value=content, origin="guide.yaml")


def test_the_guides_configuration_is_a_case() -> None:
    case = load_case(str(GUIDE))
    published = PUBLISHED["32B"]
    for name in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        assert getattr(case.model, name) == getattr(published, name)
    assert case.model.hidden_act == "silu" and not case.model.tie_word_embeddings
    assert case.parallel == ParallelConfig(model_parallel=4, pipeline_stage=4, micro_batch_num=4, offset=(-1, -1, 1, 1))
    assert (case.data.global_batch_size, case.training.steps, case.data.num_samples) == (4, 4000, 8000)
    assert (case.data.order, case.data.seq_length, case.data.split) == ("mindformers", 4096, "1, 0, 0")
    assert (case.precision.compute_dtype, case.precision.residual_dtype) == ("bfloat16", "float32")
    assert case.training.recompute and case.training.graph_mode and case.training.clip_grad == 1.0
    assert (case.lr_schedule.type, case.optimizer.weight_decay) == ("constant", 0.0)
    assert case.standards == ("official", "strict-probe-bf16")


@pytest.mark.parametrize(("layers", "large"), [(2, False), (64, True)])
def test_a_large_model_leaves_sketches_and_its_oracle_takes_no_steps(tmp_path: Path, layers: int, large: bool) -> None:
    """Evidence of tensors takes 44 bytes a parameter, 1.4 TB for 32B, and its oracle would compute for months."""
    changes = {"num_hidden_layers": layers, "hidden_size": 512, "intermediate_size": 1536}
    content = small({f"model.model_config.{name}": value for name, value in changes.items()})
    case = load_case(str(file_of(content, tmp_path)))
    assert (case.evidence == "sketches", case.training.oracle == "probe") == (large, large)
    assert (case.training.step_timeout_s >= 3600) == large
    assert all(("probe" in name) == large for name in case.standards[1:])


def test_every_field_of_it_has_a_fate_and_every_case_field_exists() -> None:
    read = read_configuration(written(guide()))
    assert {field.fate for field, _ in read.fields} == {"case", "only", "idle", "read"}
    assert read.max_device_memory == "58GB"
    record = load_case(str(GUIDE)).model_dump()
    record["data"]["corpus"]["data_path"] = None
    for field in known_fields().values():
        assert field.about if field.fate in ("only", "idle") else True, field.mindformers
        inside = record
        for part in field.case.split(".") if field.case else ():
            inside = inside[part]


def set_to(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for part in parents:
            content = content.setdefault(part, {})
        content[last] = value

    return change


MODEL, CONFIG = "model.model_config", "train_dataset.data_loader.config"
WRONG: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "an unknown key": (set_to("parallel_config.model_paralel", 4), "did you mean 'parallel_config.model_parallel'"),
    "an unknown section": (set_to("fusion_config.fuse", True), "fusion_config.fuse: unknown key"),
    "another mode": (set_to("run_mode", "finetune"), "run_mode: 'finetune' is not supported, only train"),
    "a checkpoint": (set_to("load_checkpoint", "/some/where"), "load_checkpoint: '/some/where' is not supported"),
    "another optimizer": (set_to("optimizer.type", "Muon"), "optimizer.type: 'Muon' is not supported, only AdamW"),
    "another schedule": (set_to("lr_schedule.type", "LinearWithWarmUpLR"), "lr_schedule.type"),
    "other steps": (set_to("lr_schedule.total_steps", 17), "17, but 2 x 8000 rows in steps of 4 are 4000"),
    "rows for a test": (set_to("train_dataset.data_loader.sizes", [8000, 1, 0]), "only for training"),
    "no sizes": (set_to("train_dataset.data_loader.sizes", 8000), "three numbers of rows"),
    "another loader": (set_to("train_dataset.data_loader.type", "MindDataset"), "only BlendedMegatronDataset"),
    "positions that begin again": (set_to(f"{CONFIG}.reset_position_ids", True), "True is not supported, only false"),
    "two data sets": (
        lambda c: c["train_dataset_task"].update(dataset_config={"drop_remainder": True}),
        "train_dataset_task.dataset_config: contradicts train_dataset",
    ),
    "two lengths": (set_to(f"{MODEL}.seq_length", 2048), f"2048 contradicts {CONFIG}.seq_length"),
    "tied and untied": (set_to(f"{MODEL}.tie_word_embeddings", True), "True contradicts untie_embeddings"),
    "no query norm": (set_to(f"{MODEL}.qk_layernorm", False), "False is not supported, only true"),
    "another activation": (set_to(f"{MODEL}.hidden_act", "gelu"), "hidden_act: 'gelu' is not supported"),
    "dropout": (set_to(f"{MODEL}.hidden_dropout", 0.1), "hidden_dropout: 0.1 is not supported, only 0"),
    "context parallel": (set_to("parallel_config.context_parallel", 2), "context_parallel: 2 is not supported"),
    "half a rank": (set_to("parallel_config.data_parallel", 0.5), "0.5 is no whole number above 0"),
    "accumulation that has no effect": (
        set_to("runner_config.gradient_accumulation_steps", 2),
        "without effect where pipeline_stage is above 1",
    ),
    "ranks without use_parallel": (set_to("use_parallel", False), "False contradicts the 16 ranks"),
    "rows alone are shared": (set_to("parallel.parallel_mode", 0), "0 splits only the batch"),
    "another strategy": (set_to("parallel.dataset_strategy", [[2, 1]]), "2 contradicts data_parallel 1"),
    "a mode of its own": (set_to("context.mode", 2), "2 is not supported, only 0 (GRAPH), 1 (PYNATIVE)"),
    "a scaled loss": (set_to("runner_wrapper.scale_sense", 1024), "1024 is not supported, only 1"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_a_case_does_not_support_is_an_error_with_its_reason(wrong: str) -> None:
    content = guide()
    change, message = WRONG[wrong]
    change(content)
    with pytest.raises(InputError) as refused:
        read_configuration(written(content))
    assert "guide.yaml cannot be read as a case (1 problem)" in str(refused.value)
    assert message in str(refused.value)


LAYOUTS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "heads": (set_to("parallel_config.model_parallel", 3), "num_attention_heads: 64 cannot be split evenly over 3"),
    "micro batches": (set_to("parallel_config.micro_batch_num", 2), "2 micro batches never fill 4 stages"),
    "offset": (set_to(f"{MODEL}.offset", [0, 0, 0, 1]), "the stages hold 65 layers, and the model has 64"),
    "stages of offset": (set_to(f"{MODEL}.offset", [1, -1]), "2 numbers for 4 stages"),
    "moments": (set_to("parallel.enable_parallel_optimizer", True), "moments are split over replicas"),
}


@pytest.mark.parametrize("wrong", LAYOUTS)
def test_a_layout_that_cannot_be_is_refused_when_the_file_is_read(wrong: str, tmp_path: Path) -> None:
    content = guide()
    change, message = LAYOUTS[wrong]
    change(content)
    path = tmp_path / "Wrong Layout.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError) as refused:
        load_case(str(path))
    assert message in str(refused.value) and str(path) in str(refused.value)


def test_all_problems_are_reported_at_once() -> None:
    content = guide()
    for wrong, (change, _) in WRONG.items():
        if wrong != "another mode":
            change(content)
    with pytest.raises(InputError) as refused:
        read_configuration(written(content))
    assert str(refused.value).count("\n") >= 20


def test_a_problem_is_at_the_line_of_its_field(tmp_path: Path) -> None:
    path = tmp_path / "guide.yaml"
    lines = GUIDE.read_text(encoding="utf-8").splitlines()
    at = next(index for index, line in enumerate(lines) if line.lstrip().startswith("model_parallel:"))
    lines[at] = lines[at].replace("model_parallel:", "model_paralel:")
    path.write_text("\n".join(lines))
    with pytest.raises(InputError) as refused:
        load_case(str(path))
    key = "parallel_config.model_paralel: unknown key; did you mean 'parallel_config.model_parallel'?"
    assert f"{path}:{at + 1}: {key}" in str(refused.value)


def test_a_problem_of_the_case_is_at_the_line_of_the_field_that_gave_it(tmp_path: Path) -> None:
    path = tmp_path / "guide.yaml"
    lines = GUIDE.read_text(encoding="utf-8").splitlines()
    at = next(index for index, line in enumerate(lines) if line.lstrip().startswith("micro_batch_num:"))
    lines[at] = lines[at].partition(":")[0] + ": 2"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError) as refused:
        load_case(str(path))
    assert f"{path}:{at + 1}: parallel.micro_batch_num: pipeline_stage: 2 micro batches" in str(refused.value)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(st.dictionaries(st.sampled_from(sorted(known_fields())), ANY, min_size=1, max_size=3))
def test_no_value_of_a_field_ends_in_anything_but_a_case_or_a_message(changes: dict[str, Any]) -> None:
    content = guide()
    for path, value in changes.items():
        with contextlib.suppress(AttributeError, TypeError):  # another change took the section away
            set_to(path, value)(content)
    try:
        parse_case(read_configuration(written(content)).case.value, "guide.yaml")
    except InputError as error:
        assert str(error).startswith("guide.yaml ")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("lr_schedule.type", ["x"], "lr_schedule.type: ['x'] is not supported"),
        ("lr_schedule.warmup_ratio", "half", "lr_schedule.warmup_ratio: 'half' is no number from 0 to 1"),
        ("context.mode", [0], "context.mode: [0] is not supported"),
        ("context.mode", False, "context.mode: False is not supported"),
        ("context.max_device_memory", 58, "context.max_device_memory: 58 is no amount of memory"),
        ("runner_wrapper.use_clip_grad", "no", "runner_wrapper.use_clip_grad: 'no' is not supported, only true, false"),
        (f"{MODEL}.offset", 3, f"{MODEL}.offset: 3 is neither 0 nor a list"),
        ("parallel.dataset_strategy", 5, "parallel.dataset_strategy: expected a list of lists"),
    ],
)
def test_a_value_of_another_kind_is_refused_and_never_dropped(path: str, value: Any, message: str) -> None:
    content = guide()
    content["parallel"].pop("full_batch", None)
    set_to(path, value)(content)
    with pytest.raises(InputError) as refused:
        read_configuration(written(content))
    assert message in str(refused.value)


def smaller(**changes: Any) -> Case:
    content = guide()
    for path, value in changes.items():
        set_to(path.replace("__", "."), value)(content)
    return load_case_of(content)


def load_case_of(content: dict[str, Any]) -> Case:
    return Case.model_validate(read_configuration(written(content)).case.value)


def test_rows_of_a_step_are_those_of_mindformers() -> None:
    """Replicas and micro batches where there are stages; replicas and accumulation where there are none."""
    assert smaller(runner_config__batch_size=3).data.global_batch_size == 12
    content = guide()
    content["parallel_config"].update(data_parallel=2, pipeline_stage=1, micro_batch_num=1)
    content["parallel"]["dataset_strategy"] = [[2, 1]]
    content["runner_config"]["gradient_accumulation_steps"] = 2
    content["model"]["model_config"]["offset"] = 0
    case = load_case_of(content)
    assert (case.data.global_batch_size, case.training.gradient_accumulation_steps) == (4, 2)


def test_certify_run_takes_it_and_reports_what_this_machine_lacks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    certify = caller(capsys, monkeypatch)
    monkeypatch.setattr(environment, "machine", lambda: {"memory_gib": 24})
    monkeypatch.setattr(environment, "packages", lambda: defaultdict(lambda: "1"))
    done = certify("run", "--config", GUIDE)
    assert done.code == 2 and "GiB of memory for one run" in done.said
    both = certify("run", "qwen3-small-fp32", "--config", GUIDE)
    assert both.code == 2 and "omit qwen3-small-fp32" in both.said


def test_the_documented_table_is_the_one_that_is_used() -> None:
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert rows == [table_row(field) for field in known_fields().values()]


def table_row(field: Any) -> str:
    def code(name: str) -> str:
        return " and ".join(f"`{one}`" for one in name.split(" and ")) if name else ""

    fate = {"case": "as it is", "read": "read with others", "only": f"only {field.about}", "idle": field.about}
    cells = (code(field.mindformers), code(field.case), code(field.hugging_face), code(field.megatron))
    default = "must be given" if field.required else "" if field.default is None else f"`{json.dumps(field.default)}`"
    return f"| {' | '.join((*cells, fate[field.fate], default))} |"
