"""`certify checkpoint`: what several ranks saved, for another layout or for Hugging Face."""

from pathlib import Path
from typing import Annotated

import typer

from harness.case import load_case
from harness.cli.terminal import CASE_HELP, MET, out_console
from harness.errors import InputError
from qwen3_model.checkpoints import read_checkpoint, write_checkpoint, write_hugging_face
from qwen3_model.weights import WeightsError


def checkpoint(
    source: Annotated[Path, typer.Argument(help="Directory of a checkpoint, with a file of every rank.")],
    out: Annotated[Path, typer.Argument(help="New directory for what is written.")],
    layout: Annotated[
        str | None, typer.Option(help=f"Write it for the layout of a case. {CASE_HELP} Without it: for transformers.")
    ] = None,
) -> int:
    """Put a checkpoint's parts together and write them for another layout, or as Hugging Face's safetensors.

    No number changes. Moments and step come along to another layout; Hugging Face's format has the parameters alone.
    """
    if out.exists():
        raise InputError(f"{out} exists. Choose a new directory: a checkpoint is not written over.")
    try:
        whole = read_checkpoint(source)
    except WeightsError as error:
        raise InputError(str(error)) from None
    if layout is None:
        paths, what = write_hugging_face(whole, out), "for transformers"
    else:
        case = load_case(layout)
        if case.model != whole.config:
            raise InputError(f"{case.name} is of another model than the checkpoint in {source}.")
        paths, what = write_checkpoint(whole, out, case.parallel), f"for {case.parallel}"
    total = sum(tensor.size for tensor in whole.parameters.values())
    out_console.print(
        f"Step {whole.step}, {total:,} parameters, {what}: {len(paths)} file{'s' * (len(paths) > 1)} in {out}",
        markup=False,
        soft_wrap=True,
    )
    return MET
