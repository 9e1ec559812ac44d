"""`certify cases`: the shipped cases."""

import json
from typing import Annotated

import typer
import yaml
from rich.table import Column, Table

from harness.cases.case import DEFAULT_CASE, load_case, shipped_cases
from harness.cli.options import JsonOption
from harness.cli.terminal import MET, out_console


def cases(
    show: Annotated[str | None, typer.Option(help="Print one case in full, as YAML to start a new one from.")] = None,
    as_json: JsonOption = False,
) -> int:
    """List the shipped cases, or print one."""
    if show:
        chosen = load_case(show)
        record = chosen.model_dump(mode="json")
        print(json.dumps(record) if as_json else yaml.safe_dump(record, sort_keys=False), end="")
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
