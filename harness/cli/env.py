"""`certify env`: the environment of a run, and which of its versions were tried."""

import json
from typing import Annotated, Any

import typer
import yaml

from harness.base.code import started_by_site
from harness.certify import environment, prerequisites
from harness.certify.versions import VersionState, against_constraints, all_known
from harness.cli.options import JsonOption, check_device
from harness.cli.terminal import MET, out_console
from harness.runners.environment_of_a_run import left_out, recorded_variables
from harness.runners.profile import CPU, settings_of
from harness.runners.starting import variables


def env(
    device: Annotated[str, typer.Option(help="Device of the subject: CPU or Ascend.")] = CPU,
    as_json: JsonOption = False,
) -> int:
    """Show the environment of a run, and which of its versions were tried with this program.

    That is device, machine, packages and source revision; every variable of this shell that a run gets and that can
    change a number, the places of PYTHONPATH that it does not search, and what Python reads before it begins. On Ascend
    also the settings of its process, and what one rank needs of this machine. Exit code 0 for any.
    """
    check_device(device)
    threads = 1  # of most cases
    here = environment.describe(device, threads, {**recorded_variables(()), **variables(threads, device)})
    tried = {one.package: one for one in all_known(here.packages)}
    found: dict[str, Any] = {
        **{name: value for name, value in vars(here).items() if value is not None},
        **({"not searched": list(omitted)} if (omitted := left_out(())) else {}),
        "read before a run begins": started_by_site(),
        "source": vars(environment.source()),
        "tried": {
            name: f"{one.version}: {one.state}" + f" ({one.note})" * bool(one.note) for name, one in tried.items()
        },
    }
    if (settings := settings_of(device)) is not None:
        needed = [vars(one) for one in prerequisites.of_ascend(ranks=1, mindspore=here.packages["mindspore"])]
        found |= {"settings": vars(settings), "prerequisites": needed}
    if as_json:
        print(json.dumps(found))
        return MET
    out_console.print(yaml.safe_dump(found, sort_keys=False), end="", markup=False)
    if other := against_constraints(here.packages, tuple(tried)):
        out_console.print(
            f"The published evidence was made with other versions: {other}.", markup=False, soft_wrap=True
        )
    for one in tried.values():
        if one.state is VersionState.NOT_WORKING:
            out_console.print(f"{one.package} {one.version} does not work: {one.note}", markup=False, soft_wrap=True)
    missing = [name for name in ("mindspore", "torch", "transformers") if here.packages[name] is None]
    if missing:
        out_console.print(f"A run also needs: {', '.join(missing)}. Install with: pip install '.[run]'", markup=False)
    return MET
