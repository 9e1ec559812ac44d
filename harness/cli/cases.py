"""`certify cases`: the shipped cases."""

import contextlib
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer
import yaml
from rich.table import Column, Table

from harness.cases.case import DEFAULT_CASE, Case, load_case, read_case_file, shipped_cases
from harness.cases.mindformers import is_configuration, read_configuration
from harness.cases.mindformers.fields import DEFAULTS_OF, SPEED_UP
from harness.cli.options import JsonOption
from harness.cli.terminal import MET, out_console


def cases(
    show: Annotated[
        str | None,
        typer.Option(
            help="Print one case in full, as YAML to start a new one from; of a file of mindformers, also its defaults."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """List the shipped cases, or print one."""
    if show:
        chosen = load_case(show)
        record, source = chosen.model_dump(mode="json"), _source(show, chosen)
        if as_json:
            print(json.dumps({**record, **source}), end="")
        else:
            print(yaml.safe_dump(record, sort_keys=False) + _comments(source), end="")
        return MET
    loaded = [load_case(name) for name in shipped_cases()]
    if as_json:
        print(json.dumps({one.name: {"title": one.title, "digest": one.digest()} for one in loaded}))
        return MET
    name = Column("case", no_wrap=True)  # so that it can be copied
    table = Table(name, "description", "steps", "standards", "digest", box=None, pad_edge=False)
    for one in loaded:
        table.add_row(one.name, one.title, str(one.training.steps), ", ".join(one.standards), one.digest()[:12])
    out_console.print(table)
    out_console.print(
        f"\nThe default is {DEFAULT_CASE}. 'certify cases --show NAME' prints one to start your own from."
    )
    return MET


def _source(name_or_path: str, case: Case) -> dict[str, Any]:
    """Of a configuration of mindformers: which of its defaults the case has, what of the case is of this program and of
    no file of mindformers, what its file of transfers states, and notes. Empty for a case."""
    written = read_case_file(name_or_path)
    if not is_configuration(written.value):
        return {}
    read = read_configuration(written)
    notes = list(read.notes)
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        if (installed := f"mindformers {importlib.metadata.version('mindformers')}") != DEFAULTS_OF:
            notes.append(f"{installed} is installed here: its defaults may differ from those of {DEFAULTS_OF}")
    defaults = {"of": DEFAULTS_OF, "fields": dict(read.defaults)}
    own = {"initialization.norm_std": case.initialization.norm_std, **read.for_size}
    return {"defaults": defaults, "own": own, "parallel_speed_up": read.speed_up, "notes": notes}


def _comments(source: Mapping[str, Any]) -> str:
    """The same as comments of YAML."""
    if not source:
        return ""
    lines = [f"Not given, so the default of {source['defaults']['of']}:"]
    lines += [f"  {path}: {json.dumps(value)}" for path, value in source["defaults"]["fields"].items()]
    lines += [
        "Of this program. Norm weights begin around 1, so that no two of them are equal; mindformers' begin with 1:"
    ]
    if len(source["own"]) > 1:
        lines[-1:] = [
            lines[-1][:-1] + ".",
            "A model of this size leaves sketches of its tensors; the oracle takes no steps:",
        ]
    lines += [f"  {path}: {json.dumps(value)}" for path, value in source["own"].items()]
    if source["parallel_speed_up"] is not None:
        lines += ["Transfers are configured by:", f"  {SPEED_UP}: {json.dumps(source['parallel_speed_up'])}"]
    lines += source["notes"]
    return "".join(f"# {line}\n" for line in lines)
