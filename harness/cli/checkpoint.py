"""`certify checkpoint`: converts a checkpoint of several ranks, or the weights of a bundle, for another use."""

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import InputError
from harness.cases.case import load_case
from harness.cases.runs_of_a_case import runs_of
from harness.certify.jobs import TRAINED
from harness.cli.options import CASE_HELP
from harness.cli.terminal import MET, out_console
from harness.evidence.bundle import read_bundle
from harness.evidence.bundle_files import MANIFEST
from harness.runs.evaluation import TOKENIZER
from harness.runs.inputs import read_tensors
from harness.runs.watched import split
from qwen3_model.checkpoints import Checkpoint, read_checkpoint, write_checkpoint, write_hugging_face
from qwen3_model.weights import WeightsError


def checkpoint(
    source: Annotated[Path, typer.Argument(help="Directory of a checkpoint, with one file per rank; or a bundle.")],
    out: Annotated[Path, typer.Argument(help="New directory for the written files.")],
    layout: Annotated[
        str | None, typer.Option(help=f"Write it for the layout of a case. {CASE_HELP} Default: for transformers.")
    ] = None,
) -> int:
    """Merge the parts of a checkpoint, and write it for another layout or as Hugging Face's safetensors.

    No number changes. Another layout gets parameters, moments and step; Hugging Face's format gets only parameters.
    From a bundle, the final weights of its subject are written, with the tokenizer if the bundle has one.
    """
    if out.exists():
        raise InputError(f"{out} exists. Choose a new directory: a checkpoint is never overwritten.")
    try:
        whole = _of_bundle(source, layout) if (source / MANIFEST).is_file() else read_checkpoint(source)
    except WeightsError as error:
        raise InputError(str(error)) from None
    if layout is None:
        paths, what = [*write_hugging_face(whole, out), *_tokenizer(source, out)], "for transformers"
    else:
        case = load_case(layout)
        if case.model != whole.config:
            raise InputError(f"{case.name} has another model than the checkpoint in {source}.")
        paths, what = write_checkpoint(whole, out, case.parallel), f"for {case.parallel}"
    total = sum(tensor.size for tensor in whole.parameters.values())
    out_console.print(
        f"Step {whole.step}, {total:,} parameters, {what}: {len(paths)} file{'s' * (len(paths) > 1)} in {out}",
        markup=False,
        soft_wrap=True,
    )
    return MET


def _of_bundle(directory: Path, layout: str | None) -> Checkpoint:
    """The final weights of a bundle's subject.

    Raises:
        InputError: the bundle has none, or a layout is given: that needs moments, which a bundle does not have.
    """
    bundle = read_bundle(directory)
    if layout is not None:
        raise InputError(f"{directory} is a bundle: it has no moments to continue training from. Omit --layout.")
    if bundle.case.evidence == "sketches":
        raise InputError(_only_sketches(directory, bundle.occasion.command))
    path = directory / "tensors" / f"{runs_of(bundle.case).trained}.safetensors"
    if not path.is_file():
        raise InputError(f"{directory} has no trained weights: {path.name} is missing.")
    parameters, _ = split(read_tensors(path))
    return Checkpoint(config=bundle.case.model, step=bundle.case.training.steps, parameters=parameters, moments={})


def _only_sketches(directory: Path, command: Sequence[str]) -> str:
    """What to do where weights were not kept."""
    out = directory.with_name(f"{directory.name}-again")
    words = [word for word in command if word != "--resume"]
    if "--out" in words:
        at = words.index("--out")
        del words[at : at + 2]
    again = shlex.join([*words, "--keep-weights", "--out", str(out)])
    then = shlex.join(["certify", "checkpoint", str(out.with_name(f"{out.name}-weights") / TRAINED), "NEW"])
    return (
        f"{directory} has sketches of its weights, and not the weights. Run the case again and keep them: {again}\n"
        f"Then convert them: {then}"
    )


def _tokenizer(source: Path, out: Path) -> list[Path]:
    """The tokenizer in a bundle of inference."""
    files = sorted((source / "inputs" / TOKENIZER).glob("*"))
    return [Path(shutil.copyfile(path, out / path.name)) for path in files]
