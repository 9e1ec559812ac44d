"""The defaults of `mindformers_fields.csv` are those of the installed mindformers, read off its own objects."""

import inspect
from typing import Any

import mindformers
import mindspore
import numpy as np
import pytest
import yaml
from mindformers import MindFormerConfig
from mindformers.core.lr import ConstantWarmUpLR, CosineWithWarmUpLR
from mindformers.core.optim import AdamW
from mindformers.dataset.dataloader.blended_megatron_dataloader import MegatronDatasetBuilder
from mindformers.models.qwen3.configuration_qwen3 import Qwen3Config
from mindformers.tools.register.template import ConfigTemplate
from mindformers.wrapper import MFPipelineWithLossScaleCell, MFTrainOneStepCell
from mindspore import Parameter, Tensor

from harness.base.errors import InputError
from harness.base.written import Written
from harness.cases.case import Case
from harness.cases.mindformers import known_fields, read_configuration
from harness.cases.mindformers.fields import CLIPS, DEFAULTS_OF
from harness.collect.mindformers import CertifyCosine
from tests.support.configurations import small, staged

MODEL, CONFIG = "model.model_config.", "train_dataset.data_loader.config."
# By the names of mindformers' TransformerConfig where they are not those of the file.
RENAMED = {
    "num_hidden_layers": "num_layers",
    "rms_norm_eps": "layernorm_epsilon",
    "rope_theta": "rotary_base",
    "initializer_range": "init_method_std",
    "attention_bias": "add_qkv_bias",
}
# Fixed by the class of the model or read by no training, so no attribute of TransformerConfig.
ELSEWHERE = {"use_cache", "qk_layernorm", "input_sliced_sig", "model_type", "use_sliding_window"}


def defaults(prefix: str) -> dict[str, Any]:
    """The table's defaults of a section, by the rest of their names."""
    known = known_fields().items()
    return {
        name.removeprefix(prefix): field.default
        for name, field in known
        if name.startswith(prefix) and field.default is not None
    }


def default_of(function: Any, name: str) -> Any:
    return inspect.signature(function).parameters[name].default


def read(content: dict[str, Any]) -> Case:
    return Case.model_validate(read_configuration(Written(value=content, origin="small.yaml")).case.value)


def words(value: Any) -> Any:
    """A dtype of MindSpore by the name that files have."""
    return str(value).lower() if "Float" in str(value) else value


def test_the_installed_version_is_the_one_that_is_named() -> None:
    assert f"mindformers {mindformers.__version__}" == DEFAULTS_OF


def test_the_defaults_of_the_model_are_those_of_the_built_configuration() -> None:
    required = {name for name in known_fields() if name.startswith(MODEL) and known_fields()[name].required}
    sizes = {name.removeprefix(MODEL): small()["model"]["model_config"][name.removeprefix(MODEL)] for name in required}
    built = Qwen3Config(**sizes).convert_to_transformer_config()
    found = {name: words(getattr(built, RENAMED.get(name, name))) for name in set(defaults(MODEL)) - ELSEWHERE}
    assert found == {name: value for name, value in defaults(MODEL).items() if name in found}
    assert set(defaults(MODEL)) - set(found) == ELSEWHERE


@pytest.mark.parametrize("layers", [1])
def test_qwen3_builds_norms_of_queries_and_keys_whatever_the_file_says(layers: int) -> None:
    from mindformers.models.qwen3 import modeling_qwen3_train

    assert "qk_layernorm=True" in inspect.getsource(modeling_qwen3_train.TrainingQwen3ForCausalLM.__init__)


def test_the_defaults_of_the_optimizer_are_those_of_a_built_one() -> None:
    built = AdamW([Parameter(Tensor(np.zeros(2, np.float32)), name="w")])
    case = read(small(without=("optimizer.betas", "optimizer.eps", "optimizer.weight_decay")))
    assert [built.beta1.asnumpy().item(), built.beta2.asnumpy().item()] == [np.float32(b) for b in case.optimizer.betas]
    assert built.eps.asnumpy().item() == np.float32(case.optimizer.eps)
    assert float(built.weight_decay) == case.optimizer.weight_decay == 0.0


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (ConstantWarmUpLR, {"warmup_ratio": 0, "warmup_steps": 10}),
        (ConstantWarmUpLR, {"warmup_ratio": 0.25, "warmup_steps": 10}),
        (ConstantWarmUpLR, {"warmup_steps": 10}),
        (CosineWithWarmUpLR, {}),
        (CosineWithWarmUpLR, {"warmup_steps": 10}),
        (CosineWithWarmUpLR, {"warmup_ratio": 0.1}),
    ],
)
def test_the_warm_up_is_that_of_a_built_schedule(kind: Any, given: dict[str, Any]) -> None:
    content = small()
    content["lr_schedule"] = {"type": kind.__name__, "learning_rate": 1e-4, **given}
    case = read(content)
    built = kind(learning_rate=1e-4, total_steps=case.training.steps, **given)
    assert built.warmup_steps.asnumpy().item() == case.lr_schedule.warmup_steps
    assert built.warmup_lr_init == 0
    if kind is CosineWithWarmUpLR:
        assert built.lr_end.asnumpy().item() == case.lr_schedule.lr_end and built.num_cycles == 0.5


@pytest.mark.parametrize("given", [{}, {"warmup_steps": 2}, {"warmup_ratio": 0.5, "lr_end": 1e-5}])
def test_the_cosine_of_the_collector_has_the_rates_of_a_case_and_the_meaning_of_mindformers(
    given: dict[str, Any],
) -> None:
    content = small()
    content["lr_schedule"] = {"type": "CertifyCosine", "learning_rate": 1e-4, **given}
    case = read(content)
    steps, asked = case.training.steps, {"learning_rate": 1e-4, "total_steps": case.training.steps, **given}
    exact, built, own = case.lr_schedule.over(steps), CertifyCosine(**asked), CosineWithWarmUpLR(**asked)
    for done in range(steps):
        step = Tensor([done], mindspore.int32)
        rate = built(step).asnumpy().item()
        assert rate == np.float32(exact.learning_rate(done + 1))
        assert rate == pytest.approx(own(step).asnumpy().item(), rel=1e-6, abs=1e-11)  # of a peak of 1e-4
    for done in (steps, steps + 5):  # after the last step mindformers stays at the end of the schedule
        assert built(Tensor([done], mindspore.int32)).asnumpy().item() == np.float32(case.lr_schedule.lr_end)


def test_the_cosine_of_the_collector_refuses_what_no_case_means() -> None:
    CertifyCosine(learning_rate=1e-4, total_steps=8, num_cycles=0.5, warmup_lr_init=0.0)
    with pytest.raises(InputError, match=r"lr_schedule: CertifyCosine takes no decay_steps, num_cycles\."):
        CertifyCosine(learning_rate=1e-4, total_steps=8, num_cycles=1.5, decay_steps=4)


@pytest.mark.parametrize(("cell", "content"), [(MFTrainOneStepCell, small), (MFPipelineWithLossScaleCell, staged)])
def test_clipping_is_that_of_the_cell_that_mindformers_takes(cell: Any, content: Any) -> None:
    case = read(content(without=(CLIPS,)))
    clips, norm = default_of(cell.__init__, "use_clip_grad"), default_of(cell.__init__, "max_grad_norm")
    assert case.training.clip_grad == (norm if clips else None)
    assert default_of(cell.__init__, "scale_sense") == known_fields()["runner_wrapper.scale_sense"].default


def test_the_defaults_of_each_section_are_those_of_the_template() -> None:
    """mindformers fills a file by its template; what the template does not know has its default elsewhere."""
    given = {*small(), "runner_config.epochs", "runner_config.batch_size"}
    filled = MindFormerConfig(**yaml.safe_load(yaml.safe_dump(small())))
    ConfigTemplate.apply_template(filled)
    own = {"optimizer", "lr_schedule", "train_dataset", "model", "runner_wrapper", "trainer"}
    for name, field in known_fields().items():
        section, _, key = name.partition(".")
        if field.default is None or section in own or name in given:
            continue
        held = filled[section] if key else filled
        if isinstance(held, dict) and (key or section) in held:
            # its models of now split the embedding whatever the file says: see the test of the model
            expected = False if name == "parallel_config.vocab_emb_dp" else held[key or section]
            assert field.default == expected, name


def test_the_defaults_of_the_data_are_those_of_the_loader() -> None:
    built = MegatronDatasetBuilder("GPTDataset", {"seq_length": 8, "split": "1,0,0", "data_path": ["1", "x"]})
    config = built.init_gpt_dataset_config()
    renamed = {"seed": "random_seed"}
    assert {name: getattr(config, renamed.get(name, name)) for name in defaults(CONFIG)} == defaults(CONFIG)
    assert config.create_attention_mask is True


def test_the_embedding_is_split_whatever_the_file_says() -> None:
    sizes = {name: value for name, value in small()["model"]["model_config"].items() if not name.endswith("dtype")}
    asked = Qwen3Config(**sizes)
    assert asked.parallel_config.vocab_emb_dp is True, "mindformers' own default of the section"
    assert asked.convert_to_transformer_config().vocab_emb_dp is False
