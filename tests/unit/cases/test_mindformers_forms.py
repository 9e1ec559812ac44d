"""The configurations that mindformers has shipped or documented since 1.6: read, or refused in words that say why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.errors import InputError
from harness.base.written import Written
from harness.cases.case import Case, load_case
from harness.cases.mindformers import is_configuration, read_configuration
from tests.support.command_line import caller
from tests.support.configurations import file_of, small, staged
from tests.support.examples import ROOT

GUIDE = ROOT / "qwen3_model" / "configs" / "pretrain_qwen3_32b_4k.yaml"
MODEL, CONFIG = "model.model_config", "train_dataset.data_loader.config"
ROWS = ["input_ids", "labels", "loss_mask", "position_ids", "attention_mask"]


def guide(changes: dict[str, Any], *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The file of 1.8 and 1.9 with other values."""
    content = yaml.safe_load(GUIDE.read_text(encoding="utf-8"))
    for path, value in changes.items():
        *parents, last = path.split(".")
        section = content
        for part in parents:
            section = section[part]
        section[last] = value
    for path in without:
        *parents, last = path.split(".")
        section = content
        for part in parents:
            section = section[part]
        del section[last]
    content["train_dataset_task"]["dataset_config"] = content["train_dataset"]
    return content


# What differs from the file of 1.9, by release.
WITH_A_MASK = {
    f"{CONFIG}.create_attention_mask": True,
    "train_dataset.input_columns": ROWS,
    "train_dataset.construct_args_key": ROWS,
    "parallel.dataset_strategy": [[1, 1], [1, 1], [1, 1], [1, 1], [1, 1, 1, 1]],
}
RELEASES: dict[str, Callable[[], dict[str, Any]]] = {
    "1.9": lambda: guide({}),
    "1.7": lambda: guide(
        {**WITH_A_MASK, f"{MODEL}.residual_dtype": "float32"}, without=(f"{MODEL}.fp32_residual_connection",)
    ),
    "July 2025": lambda: guide(
        {
            **WITH_A_MASK,
            "parallel_config.vocab_emb_dp": True,
            "recompute_config.recompute_slice_activation": True,
            f"{MODEL}.residual_dtype": "float32",
            f"{MODEL}.use_contiguous_weight_layout": False,
        },
        without=(f"{MODEL}.fp32_residual_connection", f"{MODEL}.use_contiguous_weight_layout_attention"),
    ),
    "the guide's section of recomputation": lambda: guide(
        {
            "recompute_config": {
                "recompute": True,
                "select_recompute": False,
                "parallel_optimizer_comm_recompute": True,
                "mp_comm_recompute": True,
                "recompute_slice_activation": True,
            }
        }
    ),
}


@pytest.mark.parametrize("release", RELEASES)
def test_the_file_of_32b_of_each_release_is_the_same_case(release: str) -> None:
    case = Case.model_validate(read_configuration(Written(value=RELEASES[release](), origin="32b.yaml")).case.value)
    own = load_case(str(GUIDE))
    assert case.model == own.model and case.precision == own.precision and case.training == own.training
    assert case.lr_schedule == own.lr_schedule and case.data == own.data and case.optimizer == own.optimizer
    layout = {**vars(case.parallel), "vocab_emb_dp": False}
    assert layout == vars(own.parallel)


# The dense template of 1.7 to 1.9: the model is in a directory, and the file has keys of every kind.
TEMPLATE: dict[str, Any] = {
    "pretrained_model_dir": "path/to/model_dir",
    "seed": 0,
    "auto_trans_ckpt": True,
    "resume_training": False,
    f"{CONFIG}.create_attention_mask": True,
    f"{CONFIG}.eod": 1,
    f"{MODEL}.router_dense_type": "float32",
    f"{MODEL}.qkv_concat": True,
    "recompute_config.recompute_slice_activation": False,
    "optimizer.eps": 1e-6,
    "optimizer.weight_decay": 0.01,
    "lr_schedule.type": "CosineWithWarmUpLR",
    "lr_schedule.lr_end": 1e-6,
    "lr_schedule.warmup_ratio": 0,
    "parallel.gradients_mean": False,
    "parallel.parallel_optimizer_config": {"gradient_accumulation_shard": False, "parallel_optimizer_threshold": 64},
    "context.save_graphs": False,
    "context.save_graphs_path": "./graph",
    "context.memory_optimize_level": "O1",
    "context.ascend_config": {"parallel_speed_up_json_path": "path/to/parallel_speed_up.json"},
}


def test_the_general_template_is_read_once_its_directory_and_its_dropout_are_stated(tmp_path: Path) -> None:
    template = staged(TEMPLATE, without=(f"{MODEL}.hidden_dropout",))
    with pytest.raises(InputError) as refused:
        load_case(str(file_of(template, tmp_path)))
    assert "pretrained_model_dir: path/to/model_dir" in str(refused.value)
    assert "hidden_dropout: missing: mindformers takes 0.1" in str(refused.value)
    assert "(2 problems)" in str(refused.value)
    filled = staged({**TEMPLATE, "pretrained_model_dir": ""})
    case = load_case(str(file_of(filled, tmp_path)))
    assert (case.lr_schedule.type, case.optimizer.eps, case.initialization.seed) == ("cosine", 1e-6, 0)


@pytest.mark.parametrize(
    "harmless",
    [
        {"train_precision_sync": True},
        {"print_separate_loss": True},
        {"runner_config.sink_mode": True, "runner_config.sink_size": 1},
        {"monitor_config": {"monitor_on": False, "local_norm_format": "log"}},
        {"swap_config": {"swap": False, "default_prefetch": 1}},
        {"moe_config": {"expert_num": 1}},
        {"metric": {"type": "PerplexityMetric"}},
        {"eval_dataset": {"drop_remainder": False}, "do_eval": False},
        {"optimizer.learning_rate": 5e-5},
        {"lr_scale": False, "lr_scale_factor": 256},
        {f"{MODEL}.sliding_window": 4096, f"{MODEL}.use_sliding_window": False},
        {f"{MODEL}.rope_scaling": None, f"{MODEL}.torch_dtype": "bfloat16"},
        {f"{MODEL}.normalization": "RMSNorm", f"{MODEL}.gated_linear_unit": True},
        {"context.enable_graph_kernel": False, "context.max_call_depth": 10000},
        {"parallel.auto_parallel_search_mode": "recursive_programming"},
        {f"{CONFIG}.eod": -1, f"{CONFIG}.path_to_cache": "/tmp/x"},
        {"profile_level": 1, "mstx": False},
    ],
)
def test_keys_without_effect_are_read_and_change_nothing(harmless: dict[str, Any]) -> None:
    with_them, without = (
        Case.model_validate(read_configuration(Written(value=content, origin="small.yaml")).case.value)
        for content in (small(harmless), small())
    )
    assert with_them == without


OTHERS: dict[str, tuple[dict[str, Any], str]] = {
    "Llama": (
        {
            "trainer": {"type": "CausalLanguageModelingTrainer", "model_name": "llama3_1_8b"},
            "model": {"model_config": {"type": "LlamaConfig"}, "arch": {"type": "LlamaForCausalLM"}},
        },
        "is a configuration of LlamaForCausalLM (llama3_1_8b), not of Qwen3",
    ),
    "Qwen2.5": (
        {
            "trainer": {"type": "CausalLanguageModelingTrainer", "model_name": "qwen2_5_7b"},
            "parallel_config": {"data_parallel": 8},
            "model": {"arch": {"type": "LlamaForCausalLM"}, "model_config": {"type": "LlamaConfig", "num_layers": 28}},
        },
        "is a configuration of LlamaForCausalLM (qwen2_5_7b), not of Qwen3",
    ),
    "Qwen2 by its type": ({"model": {"model_config": {"model_type": "qwen2"}}}, "is a configuration of qwen2, not"),
    "experts": (
        {"model": {"model_config": {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]}}},
        "is a configuration of qwen3_moe, not of Qwen3",
    ),
    "a template for experts": (
        {"run_mode": "train", "model": {"model_config": {"num_experts": 16, "moe_grouped_gemm": True}}},
        "is a configuration of a model of experts, not of Qwen3",
    ),
    "DeepSeek": (
        {"model": {"model_config": {"architectures": ["DeepseekV3ForCausalLM"]}}},
        "is a configuration of DeepseekV3ForCausalLM, not of Qwen3",
    ),
    "2.x": (
        {"run_mode": "train", "training_args": {"epochs": 2}, "model_config": {"model_type": "qwen3"}},
        "it is in the form of mindformers 2.x",
    ),
    "2.x, layout only": ({"distribute_parallel_config": {"tensor_model_parallel_size": 4}}, "mindformers 2.x"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_configuration_of_something_else_is_refused_in_one_sentence(
    other: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, message = OTHERS[other]
    assert is_configuration(content)
    done = caller(capsys, monkeypatch)("plan", file_of(content, tmp_path))
    assert done.code == 2 and message in done.said and "problem" not in done.said


@pytest.mark.parametrize("content", [{"parallel_config": {"model_parallel": 4}}, {"runner_config": {"epochs": 1}}])
def test_a_part_of_a_configuration_is_told_what_it_lacks(content: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.model_config\.hidden_size: missing"):
        load_case(str(file_of(content, tmp_path)))


def test_of_another_mode_the_mode_is_the_only_problem(tmp_path: Path) -> None:
    predict = {
        "run_mode": "predict",
        "use_legacy": False,
        "pretrained_model_dir": "/path/hf_dir",
        "parallel": {"parallel_mode": "MANUAL_PARALLEL"},
        "trainer": {"type": "CausalLanguageModelingTrainer", "model_name": "qwen3"},
        "model": {"model_config": {"compute_dtype": "bfloat16", "hidden_dropout": 0.0}},
        "context": {"mode": 0, "enable_graph_kernel": False},
    }
    with pytest.raises(InputError) as refused:
        load_case(str(file_of(predict, tmp_path)))
    assert "(1 problem)" in str(refused.value) and "run_mode: 'predict' is not supported" in str(refused.value)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("lr_schedule.warmup_ration", "'lr_schedule.warmup_ratio'"),
        ("parallel_cofig.model_parallel", "'parallel_config.model_parallel'"),
        ("betas", "'optimizer.betas'"),
        ("train_dataset.data_loader.load_func", None),
        ("nothing_like_it.x", None),
    ],
)
def test_an_unknown_key_has_a_suggestion_only_where_one_is_near(key: str, near: str | None) -> None:
    with pytest.raises(InputError) as refused:
        read_configuration(Written(value=small({key: 1}), origin="small.yaml"))
    assert str(refused.value).endswith(f"{key}: unknown key" + (f"; did you mean {near}?" if near else ""))


LEAVES: dict[str, tuple[dict[str, Any], str]] = {
    "text of a strategy": ({"train_dataset.dataset_strategy": [1, 1]}, "did you mean 'parallel.dataset_strategy'"),
    "a flat strategy": ({"parallel.dataset_strategy": [1, 1]}, "expected a list of lists"),
    "memory as a number": ({"context.max_device_memory": 58}, "58 is no amount of memory; write it as 58GB"),
    "memory without a unit": ({"context.max_device_memory": "58"}, "'58' is no amount of memory"),
    "memory in another unit": ({"context.max_device_memory": "59392MB"}, "'59392MB' is no amount of memory"),
    "an offset in the wrong section": ({"parallel_config.offset": 1}, "did you mean 'model.model_config.offset'"),
    "an offset for every stage": ({f"{MODEL}.offset": 1}, "1 is neither 0 nor a list"),
    "a ratio in words": ({"lr_schedule.warmup_ratio": "a tenth"}, "'a tenth' is no number from 0 to 1"),
    "a list for a number": ({"lr_schedule.warmup_steps": [1], "lr_schedule.warmup_ratio": None}, "[1] is no whole"),
    "a section that is a number": ({"recompute_config": 5}, "recompute_config: 5 is not a section with keys such as"),
    "a section that is empty": ({"parallel_config": {}}, "parallel_config: {} is not a section with keys such as"),
    "a dtype of another name": ({f"{MODEL}.compute_dtype": "bf16"}, "expected one of float32, bfloat16, got 'bf16'"),
    "a size as text": ({f"{MODEL}.vocab_size": "320"}, "model.vocab_size: expected int, got '320'"),
    "betas as text": ({"optimizer.betas": "0.9, 0.95"}, "optimizer.betas: expected a list"),
    "one beta": ({"optimizer.betas": [0.9]}, "optimizer.betas.1: Field required"),
    "a path that is no list": ({f"{CONFIG}.data_path": "/somewhere/tokens"}, "data_path is a list"),
    "a flag for a number of rows": ({"train_dataset.data_loader.sizes": [True, 0, 0]}, "three numbers of rows"),
    "a flag in words": ({"parallel.full_batch": "yes"}, "'yes' is not supported, only true, false"),
}


@pytest.mark.parametrize("leaf", LEAVES)
@pytest.mark.parametrize("command", [("plan",), ("run", "--config")])
def test_a_leaf_of_another_kind_is_refused_with_file_line_key_and_what_was_expected(
    leaf: str,
    command: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes, message = LEAVES[leaf]
    path = file_of(small(changes), tmp_path)
    done = caller(capsys, monkeypatch)(*command, path)
    line = 1 + next(
        index
        for index, text in enumerate(path.read_text().splitlines())
        if text.strip().startswith(next(iter(changes)).rpartition(".")[2] + ":")
    )
    assert done.code == 2 and f"{path}:{line}: " in done.said and message in done.said


def test_a_number_that_only_yaml_reads_as_text_is_a_number(tmp_path: Path) -> None:
    text = file_of(small(), tmp_path).read_text()
    path = tmp_path / "numbers.yaml"
    changed = text.replace("warmup_ratio: 0.1", "warmup_ratio: 1e-1").replace(
        "learning_rate: 0.0001", "learning_rate: 1e-4"
    )
    assert changed != text
    path.write_text(changed.replace("eps: 1.0e-08", "eps: 1e-8"))
    case = load_case(str(path))
    assert case.lr_schedule.warmup_steps == 2 and case.lr_schedule.learning_rate == 1e-4 and case.optimizer.eps == 1e-8
