"""`certify judge`: judges runs that trainers made by themselves, from what the collector wrote."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.attestation import load_trust
from harness.cases.case import load_case
from harness.certify import case_options, workspace
from harness.certify.judging import judge_collected
from harness.cli.options import (
    BaselineTrustOption,
    CaseArgument,
    DataOption,
    JsonOption,
    LayersOption,
    ModelOption,
    StepsOption,
    TextOption,
    TokenizerOption,
    VocabularyOption,
)
from harness.cli.run import exit_code
from harness.cli.verdict import print_verdict
from harness.levels.certificate import Level
from harness.levels.requirements_of_a_bundle import RULES_OF_OTHERS
from harness.standards import shipped_standards


def judge(
    case: CaseArgument,
    reference: Annotated[
        list[Path],
        typer.Option(help="Directory of a recorded baseline, or of a collected run; of several, give each."),
    ],
    subject: Annotated[list[Path], typer.Option(help="Directory of a collected run; of several, give each.")],
    text: TextOption = None,
    data: DataOption = None,
    tokenizer: TokenizerOption = None,
    model: ModelOption = None,
    layers: LayersOption = None,
    vocab: VocabularyOption = None,
    steps: StepsOption = None,
    standard: Annotated[list[str] | None, typer.Option(help="Standard by name or file, instead of the case's.")] = None,
    rules: Annotated[
        bool, typer.Option("--rules", help="Report the rules of papers and other teams too; they carry no level.")
    ] = False,
    level: Annotated[Level, typer.Option(help="The level required for exit code 0.")] = Level.PRELIMINARY,
    out: Annotated[
        Path | None, typer.Option(help="Directory for the bundle; default: a new one under certify-runs/.")
    ] = None,
    trust: BaselineTrustOption = None,
    as_json: JsonOption = False,
) -> int:
    """Judge collected runs: the runs of mindformers' Trainer, of Hugging Face's Trainer, or of any loop.

    The inputs of the case are drawn again, and every row that a run read is compared with them. What was not collected
    is INCONCLUSIVE. Next to a recorded baseline, a collected subject can reach what any subject can; a collected
    reference carries no Validated. Exit codes are those of 'certify run'.
    """
    chosen = case_options.with_options(
        load_case(case),
        text=text,
        data=data,
        tokenizer=tokenizer,
        model=model,
        layers=layers,
        vocabulary=vocab,
        steps=steps,
    )
    names = [*(standard or chosen.standards), *(rules_of_others() if rules else ())]
    chosen, standards = case_options.judged_by(chosen, names)
    directory = out or workspace.new_directory(Path("certify-runs"), chosen.name)
    command = ("certify", *sys.argv[1:])
    trusted = load_trust(trust) if trust else None
    bundle, certificate = judge_collected(chosen, standards, reference, subject, directory, command, trusted)
    print_verdict(bundle, certificate, as_json)
    return exit_code(bundle, certificate, level)


def rules_of_others() -> list[str]:
    """The shipped standards that hold the rules of papers and other teams."""
    return [name for name in shipped_standards() if name.startswith(RULES_OF_OTHERS)]
