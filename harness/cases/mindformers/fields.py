"""The table of mindformers' fields, `fields.csv`: the handling of each field, its default and its other names.

A field is copied into the case, fixed to the only values that a case supports, without effect on any number, or read by
a rule of its own. The table states which and why, and has the names in Hugging Face and Megatron-LM.

Source: mindformers 1.9.0: its configuration guide, `configs/qwen3/`, `trainer/base_trainer.py`; defaults
`tools/register/template.py`, `parallel_core/transformer_config.py`, `models/qwen3/configuration_qwen3.py`,
`core/optim/adamw.py`, `core/lr/lr_schedule.py`, `wrapper/wrapper.py`.
"""

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

FIELDS = Path(__file__).parent / "fields.csv"
DEFAULTS_OF = "mindformers 1.9.0"
REQUIRED = "required"
# Names of fields and sections.
UNTIED = "untie_embeddings_and_output_weights"
DATA, CONFIG, MODEL = "train_dataset", "train_dataset.data_loader.config", "model.model_config"
MODE = "run_mode"
SPEED_UP = "parallel_speed_up_json_path"
CLIPS = "runner_wrapper.use_clip_grad"
NARROW, WIDE = f"{MODEL}.residual_dtype", f"{MODEL}.fp32_residual_connection"
Fate = Literal["case", "only", "idle", "read"]


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of mindformers: its place in a case, its other names, and how it is handled and why.

    `default` is what mindformers takes if the field is not given; None if that is not a fixed value. A `required`
    field must be given: mindformers has no default for it, or one of another model.
    """

    mindformers: str
    case: str
    hugging_face: str
    megatron: str
    fate: Fate
    about: str
    default: Any = None
    required: bool = False


@functools.cache
def known_fields() -> Mapping[str, Field]:
    """The table, by mindformers' dotted names."""
    with FIELDS.open(encoding="utf-8", newline="") as file:
        return {row["mindformers"]: _field(row) for row in csv.DictReader(file)}


def _field(row: Mapping[str, str]) -> Field:
    rule, words = row["rule"], row["rule"].partition(": " if row["rule"].startswith("idle") else " ")
    fate: Any = words[0] if rule else "case"
    names = {name: row[name] for name in ("mindformers", "case", "hugging_face", "megatron")}
    required = row["default"] == REQUIRED
    default = None if required else _values(row["default"])
    return Field(**names, fate=fate, about=words[2], default=default, required=required)


@functools.cache
def allowed(about: str) -> list[Any]:
    """The values that the table lists, as YAML has them."""
    values: list[Any] = _values(f"[{about}]")
    return values


def _values(text: str) -> Any:
    from harness.base.yaml_files import parse_yaml  # here: the process of a run reads none

    return parse_yaml(text, str(FIELDS)).value
