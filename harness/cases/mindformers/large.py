"""What the case of a large model has that no file of mindformers states: evidence, limits and times for its size."""

import math
from collections.abc import Mapping
from typing import Any

from qwen3_model.configuration_qwen3 import Qwen3Config, parameter_shapes

# Evidence of tensors takes 44 bytes for each: 440 MB here, 1.4 TB for 32B.
MOST_WITH_TENSORS = 10_000_000
# An oracle of thousands of steps in float64 would take months; compiling and a step may take an hour.
TRAINING = {"oracle": "probe", "step_timeout_s": 3600.0, "start_timeout_s": 7200.0}


def for_its_size(case: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the content of a case that its size changes, by their dotted names; none of a small model, or of
    one that is none."""
    try:
        shapes = [shape for _, shape in parameter_shapes(Qwen3Config.from_hf(case["model"]))]
    except (ValueError, TypeError):  # the case states what is wrong
        return {}
    if sum(map(math.prod, shapes)) <= MOST_WITH_TENSORS:
        return {}
    # those of other standards were derived from two layers, or need what the oracle does not take
    standards = [name.replace("strict-", "strict-probe-") for name in case["standards"]]
    return {
        **{f"training.{name}": value for name, value in TRAINING.items()},
        "evidence": "sketches",
        "standards": standards,
    }


def with_fields(case: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a case with fields by dotted names of at most two parts."""
    changed = dict(case)
    for path, value in fields.items():
        section, _, name = path.rpartition(".")
        if section:
            changed[section] = {**changed.get(section, {}), name: value}
        else:
            changed[name] = value
    return changed
