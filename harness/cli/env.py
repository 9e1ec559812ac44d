"""`certify env`: the environment of a run."""

import json

import yaml

from harness.certify import environment
from harness.cli.options import JsonOption
from harness.cli.terminal import MET, out_console
from harness.runners.launcher import variables


def env(as_json: JsonOption = False) -> int:
    """Show the environment of a run: device, machine, packages, variables, source revision."""
    threads = 1  # of most cases
    here = environment.describe("CPU", threads, variables(threads))
    found = {**vars(here), "source": vars(environment.source())}
    if as_json:
        print(json.dumps(found))
        return MET
    out_console.print(yaml.safe_dump(found, sort_keys=False), end="", markup=False)
    missing = [name for name in ("mindspore", "torch", "transformers") if here.packages[name] is None]
    if missing:
        out_console.print(f"A run also needs: {', '.join(missing)}. Install with: pip install '.[run]'", markup=False)
    return MET
