"""What a run changed of the shipped case that it is named after, in words."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from harness.cases.case import Case, load_case, shipped_cases

# They change no run, so that they are not in the digest of a case either.
ASIDE = ("name", "title", "standards")
ASIDE_OF_TRAINING = ("checkpoint_every", "step_timeout_s", "start_timeout_s", "floor_repeats")
DIGEST, SHOWN = "sha256", 12
ABSENT = "absent"
# What --layers, --vocab and --steps append to the name of a case.
BY_OPTIONS = re.compile(r"(-\d+(l|v|steps))+$")


def changes(case: Case) -> tuple[str, ...]:
    """Each field of a case that differs from the shipped case that it is named after, as `FIELD VALUE, shipped VALUE`.

    Of a case that is not shipped there is nothing to compare, so its digest identifies it. The digest of a corpus or a
    tokenizer is recorded by every run, so it differs only if another kind of file was read.
    """
    name = case.name if case.name in shipped_cases() else BY_OPTIONS.sub("", case.name)
    if name not in shipped_cases():
        return (f"not a shipped case, digest {case.digest()[:SHOWN]}",)
    before, now = (dict(_flat(_running(one))) for one in (load_case(name), case))
    return tuple(
        f"{key} {_shown(key, now)}, shipped {_shown(key, before)}"
        for key in dict.fromkeys((*before, *now))
        if before.get(key) != now.get(key) and not _only_recorded(key, before, now)
    )


def _running(case: Case) -> dict[str, Any]:
    record = {key: value for key, value in case.record().items() if key not in ASIDE}
    record["training"] = {key: value for key, value in record["training"].items() if key not in ASIDE_OF_TRAINING}
    return record


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _only_recorded(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    owner, _, name = key.rpartition(".")
    kind = f"{owner}.kind"
    return name == DIGEST and before.get(key) is None and before.get(kind) == now.get(kind)


def _shown(key: str, values: Mapping[str, Any]) -> str:
    value = values.get(key)
    if value is None:
        return ABSENT
    return str(value)[:SHOWN] if key.endswith(DIGEST) else str(value)
