"""What a configuration of mindformers does not state is what mindformers takes, or must be stated."""

import json
from pathlib import Path
from typing import Any

import pytest

from harness.base.errors import InputError
from harness.base.written import Written
from harness.cases.case import Case, load_case
from harness.cases.mindformers import Configuration, known_fields, read_configuration
from tests.support.command_line import caller
from tests.support.configurations import file_of, small, staged
from tests.support.examples import ROOT

GUIDE = ROOT / "qwen3_model" / "configs" / "pretrain_qwen3_32b_4k.yaml"
MODEL, CONFIG = "model.model_config", "train_dataset.data_loader.config"


def read(content: dict[str, Any], origin: str = "small.yaml") -> Configuration:
    return read_configuration(Written(value=content, origin=origin))


def case_of(content: dict[str, Any]) -> Case:
    return Case.model_validate(read(content).case.value)


def refusal_of(content: dict[str, Any]) -> str:
    with pytest.raises(InputError) as refused:
        read(content)
    return str(refused.value)


def at(case: Case, path: str) -> Any:
    found: Any = case
    for part in path.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize(
    ("left_out", "place", "default"),
    [
        ("optimizer.betas", "optimizer.betas", (0.9, 0.999)),
        ("optimizer.eps", "optimizer.eps", 1e-8),
        ("optimizer.weight_decay", "optimizer.weight_decay", 0.0),
        (f"{MODEL}.compute_dtype", "precision.compute_dtype", "bfloat16"),
        (f"{MODEL}.compute_dtype", "standards", ("official", "strict-bf16")),
        (f"{MODEL}.fp32_residual_connection", "precision.residual_dtype", "float32"),  # that of the products
        ("runner_wrapper.use_clip_grad", "training.clip_grad", None),
        ("runner_config.epochs", "training.steps", 20),
        ("runner_config.batch_size", "training.steps", 40),
    ],
)
def test_what_is_left_out_is_what_mindformers_takes(left_out: str, place: str, default: Any) -> None:
    assert at(case_of(small(without=(left_out,))), place) == default


def test_the_seed_and_the_base_of_the_positions_are_those_of_mindformers_too() -> None:
    case = case_of(small())
    assert (case.initialization.seed, case.data.seed, case.model.rope_theta) == (1, 1234, 10000.0)
    assert not case.model.tie_word_embeddings and case.model.rms_norm_eps == 1e-6 and case.lr_schedule.lr_end == 0


def test_a_residual_stream_that_is_not_stated_is_as_wide_as_the_products() -> None:
    without = (f"{MODEL}.compute_dtype", f"{MODEL}.fp32_residual_connection")
    assert case_of(small(without=without)).precision.residual_dtype == "bfloat16"


@pytest.mark.parametrize(("content", "clip"), [(small, None), (staged, 1.0)])
def test_clipping_is_on_by_default_with_stages_and_off_without(content: Any, clip: float | None) -> None:
    assert case_of(content(without=("runner_wrapper.use_clip_grad",))).training.clip_grad == clip


@pytest.mark.parametrize(
    ("schedule", "steps"),
    [
        ({"warmup_ratio": 0, "warmup_steps": 10}, 0),
        ({"warmup_ratio": 0.1, "warmup_steps": 5}, 2),
        ({"warmup_ratio": None, "warmup_steps": 5}, 5),
        ({"warmup_steps": 5}, 5),
        ({"warmup_ratio": 0.25}, 5),
        ({"warmup_ratio": "1e-1"}, 2),
        ({"type": "CosineWithWarmUpLR"}, 0),
        ({"type": "cosine", "warmup_steps": 3}, 3),
    ],
)
def test_a_ratio_of_warm_up_counts_before_a_number_of_steps(schedule: dict[str, Any], steps: int) -> None:
    content = small()
    content["lr_schedule"] = {"type": "ConstantWarmUpLR", "learning_rate": 1e-4, **schedule}
    assert case_of(content).lr_schedule.warmup_steps == steps
    ignored = "warmup_steps" in schedule and schedule.get("warmup_ratio") is not None
    assert any("has no effect" in note for note in read(content).notes) == ignored


def test_a_constant_rate_needs_its_warm_up_as_in_mindformers() -> None:
    content = small(without=("lr_schedule.warmup_ratio",))
    assert "lr_schedule.warmup_ratio: missing: mindformers' ConstantWarmUpLR needs it" in refusal_of(content)


@pytest.mark.parametrize(
    ("left_out", "message"),
    [
        ("use_legacy", "use_legacy: missing: mindformers takes True, which is not supported, only false"),
        (f"{MODEL}.hidden_dropout", "hidden_dropout: missing: mindformers takes 0.1, which is not supported, only 0"),
        (f"{MODEL}.seq_length", "mindformers' default 4096 contradicts"),
        ("optimizer", "optimizer.type: missing"),
        ("runner_wrapper", "runner_wrapper.type: missing"),
        ("lr_schedule", "lr_schedule.learning_rate: missing"),
        ("run_mode", "run_mode: missing"),
        (f"{MODEL}.hidden_size", "hidden_size: missing"),
        (f"{CONFIG}.split", "split: missing"),
    ],
)
def test_what_has_no_default_that_fits_must_be_given(left_out: str, message: str) -> None:
    assert message in refusal_of(small(without=(left_out,)))


def test_ranks_need_use_parallel_which_is_off_by_default() -> None:
    assert "mindformers' default False contradicts the 2 ranks" in refusal_of(staged(without=("use_parallel",)))


def test_accumulation_has_no_effect_in_one_process_and_is_refused() -> None:
    content = small({"runner_config.gradient_accumulation_steps": 2})
    assert "without effect where use_parallel is False" in refusal_of(content)


@pytest.mark.parametrize(("tied", "untied", "fine"), [(None, True, True), (None, False, False), (True, False, True)])
def test_tie_word_embeddings_decides_and_the_other_key_may_not_contradict(
    tied: bool | None, untied: bool, fine: bool
) -> None:
    content = small({f"{MODEL}.untie_embeddings_and_output_weights": untied})
    if tied is not None:
        content["model"]["model_config"]["tie_word_embeddings"] = tied
    if fine:
        assert case_of(content).model.tie_word_embeddings is bool(tied)
    else:
        assert "mindformers' default False contradicts" in refusal_of(content)


def test_every_default_of_a_fixed_field_is_either_allowed_or_known_to_be_refused() -> None:
    """A field with one possible value whose default is another one must be given; there are two."""
    refused = [
        name
        for name, field in known_fields().items()
        if field.fate == "only"
        and field.default is not None
        and f" {name}: missing" in refusal_of({"run_mode": "train"})
    ]
    assert refused == ["use_legacy", f"{MODEL}.hidden_dropout"]


def test_show_lists_the_defaults_and_the_file_of_transfers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    certify = caller(capsys, monkeypatch)
    path = file_of(small(without=("optimizer.betas", "runner_wrapper.use_clip_grad")), tmp_path)
    said = certify("cases", "--show", path).said
    assert "# Not given, so the default of mindformers 1.9.0:" in said
    assert "# optimizer.betas: [0.9, 0.999]" in said and "# runner_wrapper.use_clip_grad: false" in said
    shown = json.loads(certify("cases", "--show", GUIDE, "--json").said)
    assert shown["parallel_speed_up"] == {"dataset_broadcast_opt_level": 3} and shown["notes"] == []
    assert "optimizer.betas" not in shown["defaults"]["fields"]
    assert shown["own"]["initialization.norm_std"] == shown["initialization"]["norm_std"] and "norm_std: 0.05" in said
    assert "evidence" not in said.partition("# Of this program")[2]
    assert shown["own"]["evidence"] == shown["evidence"] == "sketches"
    assert "A model of this size leaves sketches" in certify("cases", "--show", GUIDE).said
    assert "Not given" not in certify("cases", "--show", "qwen3-tiny-fp32").said


def test_a_file_of_transfers_that_is_not_there_is_reported_and_one_that_cannot_be_read_is_refused(
    tmp_path: Path,
) -> None:
    content = small({"context.ascend_config": {"parallel_speed_up_json_path": "path/to/speed.json"}})
    found = read(content, str(tmp_path / "small.yaml"))
    assert found.speed_up is None and any("path/to/speed.json" in note for note in found.notes)
    (tmp_path / "speed.json").write_text('{"enable_grad_comm_opt": true}')
    assert read(content, str(tmp_path / "small.yaml")).speed_up == {"enable_grad_comm_opt": True}
    (tmp_path / "speed.json").write_text("[")
    with pytest.raises(InputError, match=r"holds no JSON object"):
        read(content, str(tmp_path / "small.yaml"))


def test_the_model_may_come_from_a_directory_of_hugging_face_and_the_file_overrides_it(tmp_path: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    config = load_case("qwen3-tiny-fp32").model.to_hf()
    (directory / "config.json").write_text(json.dumps(config))
    sizes = [name for name in small()["model"]["model_config"] if name in config]
    without = tuple(f"{MODEL}.{name}" for name in sizes)
    content = small({"pretrained_model_dir": str(directory)}, without=without)
    idle = {"max_window_layers": case_of(content).model.max_window_layers}
    assert case_of(content).model.to_hf() == {**config, **idle}
    content["model"]["model_config"]["num_hidden_layers"] = 1
    assert case_of(content).model.num_hidden_layers == 1
    content["pretrained_model_dir"] = "path/to/model_dir"
    assert "pretrained_model_dir: path/to/model_dir" in refusal_of(content)


def test_another_installed_version_is_named_where_the_defaults_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file_of(small(), tmp_path)
    certify = caller(capsys, monkeypatch)
    for version, named in (("1.9.0", False), ("1.8.0", True)):
        monkeypatch.setattr("importlib.metadata.version", lambda _, version=version: version)
        said = certify("cases", "--show", path).said
        assert ("mindformers 1.8.0 is installed here: its defaults may differ" in said) == named
