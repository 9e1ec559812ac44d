"""`certify env`: the environment of a run."""

import json
from typing import Annotated, Any

import typer
import yaml

from harness.certify import environment, prerequisites
from harness.cli.options import JsonOption, check_device
from harness.cli.terminal import MET, out_console
from harness.runners.launcher import variables
from harness.runners.profile import CPU, settings_of


def env(
    device: Annotated[str, typer.Option(help="Device of the subject: CPU or Ascend.")] = CPU,
    as_json: JsonOption = False,
) -> int:
    """Show the environment of a run: device, machine, packages, variables, source revision; on Ascend also the settings
    of its process, and what one rank needs of this machine."""
    check_device(device)
    threads = 1  # of most cases
    here = environment.describe(device, threads, variables(threads, device))
    found: dict[str, Any] = {**vars(here), "source": vars(environment.source())}
    if (settings := settings_of(device)) is not None:
        needed = [vars(one) for one in prerequisites.of_ascend(ranks=1)]
        found |= {"settings": vars(settings), "prerequisites": needed}
    if as_json:
        print(json.dumps(found))
        return MET
    out_console.print(yaml.safe_dump(found, sort_keys=False), end="", markup=False)
    missing = [name for name in ("mindspore", "torch", "transformers") if here.packages[name] is None]
    if missing:
        out_console.print(f"A run also needs: {', '.join(missing)}. Install with: pip install '.[run]'", markup=False)
    return MET
