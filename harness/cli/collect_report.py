"""`certify collect-report`: one archive of a run that did not work, to send to someone who can help."""

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.base import ascend
from harness.certify import environment, prerequisites
from harness.certify.problem_report import texts_of, without_secrets, write_archive
from harness.cli.options import JsonOption, check_device
from harness.cli.terminal import MET, out_console
from harness.runners.profile import ASCEND, settings_of
from harness.runners.starting import variables

ARCHIVE = Path("certify-report.tar.gz")


def collect_report(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Directory of a run, finished or not.")],
    out: Annotated[Path, typer.Option(help="The archive.")] = ARCHIVE,
    device: Annotated[str, typer.Option(help="Device of the subject: CPU or Ascend.")] = ASCEND,
    as_json: JsonOption = False,
) -> int:
    """Pack what explains a failed run into one archive: case, machine, outcomes, ends of logs. No weights, no inputs.

    Names of host, user and home, addresses, and values that may be secret are replaced. Read it before you send it.
    Exit code 0: it is written. 2: there is no such directory, or the archive exists.
    """
    check_device(device)
    texts = {f"run/{name}": text for name, text in texts_of(directory)}
    texts["environment-now.json"] = json.dumps(_environment(device), indent=1)
    if device == ASCEND:
        texts["npu-smi.txt"] = ascend.shown()
    write_archive(texts, out)
    sizes = {name: len(without_secrets(text)) for name, text in sorted(texts.items())}
    if as_json:
        print(json.dumps({"archive": str(out), "files": sizes}))
        return MET
    for name, size in sizes.items():
        out_console.print(f"{size:>10,}  {name}", markup=False, highlight=False, soft_wrap=True)
    out_console.print(f"{out}: {len(sizes)} files. Read it before you send it.", markup=False, soft_wrap=True)
    return MET


def _environment(device: str) -> dict[str, object]:
    here = environment.describe(device, 1, variables(1, device))
    settings = settings_of(device)
    needed = prerequisites.of_ascend(ranks=1, mindspore=here.packages["mindspore"]) if device == ASCEND else ()
    return {
        **vars(here),
        "source": vars(environment.source()),
        "settings": vars(settings) if settings else {},
        "prerequisites": [vars(one) for one in needed],
    }
