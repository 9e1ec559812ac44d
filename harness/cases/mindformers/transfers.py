"""The file with which a configuration sets how transfers between ranks are fused: where it is, and its content."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.cases.mindformers.fields import SPEED_UP
from harness.cases.mindformers.given import Given

ASCEND_CONFIG = "context.ascend_config"


def speed_up_file(ascend_config: Any, origin: str) -> Path | None:
    """The file that `parallel_speed_up_json_path` of `context.ascend_config` names: from this directory, as mindformers
    opens it, or next to the configuration `origin`. None if it is not given or not there."""
    stated = _stated(ascend_config)
    if not isinstance(stated, str) or not stated:
        return None
    places = (Path(stated), Path(origin).parent / Path(stated).name)
    return next((place for place in places if place.is_file()), None)


def read_speed_up(fields: Given, origin: str) -> Mapping[str, Any] | None:
    """The content of the file that configures transfers; `origin` is the configuration's own name.

    None if there is no such file: that it is named and not there becomes a note, other content a problem.
    """
    stated = _stated(fields.get(ASCEND_CONFIG))
    path = speed_up_file(fields.get(ASCEND_CONFIG), origin)
    if path is None:
        if stated:
            fields.notes.append(f"{SPEED_UP} names {stated!r}, which is not there: it decides how transfers are fused")
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        content = error
    if not isinstance(content, dict):
        fields.refuse(ASCEND_CONFIG, f"{SPEED_UP}: {path} holds no JSON object: {content}"[:300])
        return None
    return content


def _stated(ascend_config: Any) -> Any:
    return ascend_config.get(SPEED_UP) if isinstance(ascend_config, Mapping) else None
