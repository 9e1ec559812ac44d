"""Which YAML is a configuration of mindformers, and which of those can be read: training of Qwen3, in the form of
mindformers 1.x."""

import re
from collections.abc import Mapping
from typing import Any

from harness.base.errors import InputError
from harness.base.written import Written

# Sections that a case does not have. Those of the second line are of mindformers 2.x alone.
SECTIONS = {"runner_config", "trainer", "runner_wrapper", "parallel_config", "train_dataset", "run_mode", "use_legacy"}
SECTIONS_OF_2 = {"training_args", "distribute_parallel_config", "checkpoint_config"}
EXPERTS = r"moe_|num_experts|n_routed_experts|expert_num"  # keys of a model that is not dense


def is_configuration(content: Any) -> bool:
    """Whether a YAML's content is a configuration of mindformers and not a case."""
    if not isinstance(content, dict):
        return False
    model = content.get("model")
    nested = isinstance(model, dict) and bool({"model_config", "arch"} & set(model))
    return nested or bool((SECTIONS | SECTIONS_OF_2) & set(map(str, content)))


def check_kind(written: Written) -> None:
    """Rejects what is no training configuration of Qwen3 in the form of mindformers 1.x, in one sentence.

    Raises:
        InputError: it is of another model, or in the form of mindformers 2.x.
    """
    content, origin = written.value, written.origin
    if newer := sorted(SECTIONS_OF_2 & set(map(str, content))):
        raise InputError(
            f"{origin} has the section {newer[0]}: it is in the form of mindformers 2.x. Only the form of 1.x is read, "
            "with use_legacy: False, such as configs/qwen3/pretrain_qwen3_32b_4k.yaml."
        )
    model = _mapping(content.get("model"))
    of_model, arch = _mapping(model.get("model_config")), _mapping(model.get("arch")).get("type")
    kinds = [arch, of_model.get("type"), of_model.get("model_type"), *_listed(of_model.get("architectures"))]
    other = [str(kind) for kind in kinds if kind is not None and not str(kind).lower().startswith("qwen3for")]
    other = [kind for kind in other if kind.lower() not in ("qwen3", "qwen3config")]
    other += ["a model of experts"] if any(re.match(EXPERTS, str(key)) for key in of_model) else []
    if other:
        name = _mapping(content.get("trainer")).get("model_name")
        named = f" ({name})" if name else ""
        raise InputError(
            f"{origin} is a configuration of {other[0]}{named}, not of Qwen3, and only Qwen3 can be certified. "
            "Start from mindformers' configs/qwen3/pretrain_qwen3_32b_4k.yaml."
        )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
