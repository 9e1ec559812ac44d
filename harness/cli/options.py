"""The options that several commands have, and their values."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from harness.base.errors import InputError
from harness.base.near_names import did_you_mean

DEVICES = ("CPU", "Ascend")
# The names that PyTorch gives the devices of a job.
REFERENCE_DEVICES = {"cpu": "CPU", "cuda": "CUDA", "npu": "Ascend"}
CASE_HELP = "A shipped case by name (see 'certify cases') or the path of a YAML file, also one of mindformers."
DEFAULT_WORKERS = 2

CaseArgument = Annotated[str, typer.Argument(help=CASE_HELP)]
BundleArgument = Annotated[Path, typer.Argument(help="Directory of a finished bundle.")]
EvidenceArgument = Annotated[Path, typer.Argument(help="Directory of a finished bundle, or of a recorded baseline.")]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads of each run; default: those of the case, most often 1.")
]
WorkersOption = Annotated[int, typer.Option("--workers", min=1, help="Number of runs at the same time.")]
ReferenceDeviceOption = Annotated[
    str, typer.Option("--reference-device", help="Device of reference and oracle: cpu, cuda or npu (by torch_npu).")
]
ReferenceProcessesOption = Annotated[
    int,
    typer.Option(
        "--reference-processes", min=1, help="Processes that make each run of reference and oracle, sharded by FSDP2."
    ),
]
SubjectPythonOption = Annotated[
    Path | None,
    typer.Option(
        "--subject-python", help="Interpreter of the subject's runs, where another environment has MindSpore."
    ),
]
ReferencePythonOption = Annotated[
    Path | None,
    typer.Option(
        "--reference-python", help="Interpreter of reference and oracle, where another environment has PyTorch."
    ),
]
BaselineOption = Annotated[
    Path | None,
    typer.Option(
        "--baseline",
        metavar="[DIR]",
        help="Judge against the baseline recorded in DIR, or in baselines/; reference and oracle do not run.",
    ),
]
BaselinesOption = Annotated[Path, typer.Option("--baselines", help="Directory of the recorded baselines.")]
TrustOption = Annotated[
    Path | None, typer.Option("--trust", help="Trust file: whose signatures count, in which role, and when.")
]
BaselineTrustOption = Annotated[
    Path | None,
    typer.Option(
        "--trust", help="Trust file: the baseline must be signed by a person of it, and signatures are shown."
    ),
]
AtOption = Annotated[
    str | None, typer.Option("--at", help="The day or UTC time to judge for, such as 2026-01-31; default: now.")
]
TextOption = Annotated[
    Path | None,
    typer.Option(
        "--text",
        help="Corpus: a WikiText .tokens file or any UTF-8 text; for fine-tuning, conversations as JSON lines.",
    ),
]
DataOption = Annotated[Path | None, typer.Option("--data", help="Corpus: prefix of Megatron .bin and .idx files.")]
TokenizerOption = Annotated[
    Path | None, typer.Option("--tokenizer", help="Hugging Face tokenizer directory; default: bytes.")
]
ModelOption = Annotated[
    Path | None, typer.Option("--model", help="Weights to begin with: a checkpoint in Hugging Face format.")
]
LayersOption = Annotated[
    int | None, typer.Option("--layers", min=1, help="Only so many layers of the model; the level states it.")
]
VocabularyOption = Annotated[
    int | None,
    typer.Option("--vocab", min=2, help="Only so many tokens, the first of the corpus; the level states it."),
]
StepsOption = Annotated[
    int | None,
    typer.Option("--steps", min=2, help="Steps of training, fewer or more than the case has; the level states it."),
]

ProtectionOption = Annotated[
    str,
    typer.Option(
        "--protection",
        help="What keeps the subject's runs from the answers: auto (namespaces, or else order), namespaces, or order.",
    ),
]
PartOption = Annotated[
    str | None,
    typer.Option("--part", help="Make only this share of the runs, K/N such as 2/8; other machines make the others."),
]
GatherOption = Annotated[
    list[Path] | None,
    typer.Option("--gather", help="Run nothing: make one study of the files of all parts; give each."),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="STEPS",
        help="Have MindSpore profile these steps, such as 5 or 5-7, of the subject's repeat, into its profile/.",
    ),
]


def check_device(device: str) -> None:
    """Checks the name of a device.

    Raises:
        InputError: there is no such device; it names those that can be chosen.
    """
    if device not in DEVICES:
        raise InputError(
            f"There is no device {device!r}: choose {' or '.join(DEVICES)}.{did_you_mean(device, DEVICES)}"
        )


def reference_device(name: str) -> str:
    """The device of a job by PyTorch's name for it.

    Raises:
        InputError: PyTorch has no such device; it names those that can be chosen.
    """
    if name not in REFERENCE_DEVICES:
        known = ", ".join(REFERENCE_DEVICES)
        raise InputError(
            f"--reference-device {name!r} is none of {known}.{did_you_mean(name, tuple(REFERENCE_DEVICES))}"
        )
    return REFERENCE_DEVICES[name]


def without_option(command: Sequence[str], option: str) -> list[str]:
    """A command line without an option and its value."""
    words = [word for word in command if not word.startswith(f"{option}=")]
    if option in words:
        at = words.index(option)
        del words[at : at + 2]
    return words


def moment(at: str | None) -> datetime:
    """Now, a time, or the end of a day.

    Raises:
        InputError: it is neither a day nor a time in UTC.
    """
    if at is None:
        return datetime.now(UTC)
    try:
        time = datetime.fromisoformat(at)
    except ValueError:
        raise InputError(f"--at {at!r} is not a day or time such as 2026-01-31 or 2026-01-31T12:00:00+00:00.") from None
    if len(at) == len("2026-01-31"):
        return time.replace(hour=23, minute=59, second=59, tzinfo=UTC)
    if time.utcoffset() != timedelta(0):
        raise InputError(f"--at {at!r} is not in UTC: write it as 2026-01-31T12:00:00+00:00.")
    return time
