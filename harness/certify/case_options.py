"""What a case becomes under the options of a command: another corpus, tokenizer, model or standard."""

from collections.abc import Sequence
from pathlib import Path

from harness.base.errors import InputError
from harness.cases.case import Case, Checkpoint
from harness.cases.data import Corpus, Tokenizer
from harness.cases.runs_of_a_case import judges_layout
from harness.corpus.tokenizers import load_tokenizer
from harness.runs.inputs import Inputs
from harness.standards import Standard, load_standard
from qwen3_model.configuration_qwen3 import Qwen3Config, Qwen3ConfigError

VOCABULARY_MULTIPLE = 64


def with_sources(case: Case, text: Path | None, data: Path | None, tokenizer: Path | None) -> Case:
    """The case with another corpus or tokenizer; the vocabulary grows to the tokenizer's where it has to.

    Raises:
        InputError: the options contradict each other or the case.
    """
    if text and data:
        raise InputError("--text and --data each name a corpus; give one of them.")
    if data and tokenizer:
        raise InputError("--data holds token ids already, so --tokenizer has nothing to do.")
    changed, model = case.data.model_dump(), case.model.to_hf()
    if text:
        changed["corpus"] = Corpus(kind="text", path=str(text)).model_dump()
    if data:
        changed["corpus"] = Corpus(kind="megatron", path=str(data)).model_dump()
    if tokenizer:
        changed["tokenizer"] = Tokenizer(kind="huggingface", path=str(tokenizer)).model_dump()
        size = load_tokenizer(Tokenizer(kind="huggingface", path=str(tokenizer))).vocab_size
        model["vocab_size"] = max(model["vocab_size"], -(-size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE)
    return case.with_changes(data=changed, model=model)


def with_model(case: Case, directory: Path) -> Case:
    """The case that asks a checkpoint in Hugging Face's form, by its own configuration and tokenizer.

    Raises:
        InputError: the case is of training, or the directory is of no Qwen3 that is implemented.
    """
    if case.inference is None:
        raise InputError(f"--model {directory} names weights to ask; {case.name} is a case of training.")
    try:
        model = Qwen3Config.from_hf(directory)
    except Qwen3ConfigError as error:
        raise InputError(f"{directory} cannot be asked: {error}") from None
    weights = Checkpoint(kind="huggingface", path=str(directory)).model_dump()
    data = case.data.model_dump()
    if (directory / "tokenizer.json").is_file():
        data["tokenizer"] = Tokenizer(kind="huggingface", path=str(directory)).model_dump()
    return case.with_changes(
        data=data, model=model.to_hf(), inference={**case.inference.model_dump(), "weights": weights}
    )


def named_by_digest(case: Case, inputs: Inputs) -> Case:
    """The case with the digests of its corpus, tokenizer and checkpoint, whichever file they were read from."""
    data = case.data.model_dump()
    data["corpus"]["sha256"] = inputs.corpus_sha256
    data["tokenizer"]["sha256"] = inputs.tokenizer_sha256
    if case.inference is None or case.inference.trains:
        return case.with_changes(data=data)
    asked = case.inference.model_dump()
    asked["weights"]["sha256"] = inputs.weights
    return case.with_changes(data=data, inference=asked)


def judged_by(case: Case, names: Sequence[str]) -> tuple[Case, tuple[Standard, ...]]:
    """A case that is judged by these standards, or by its own where none is named; and the standards.

    Raises:
        InputError: see `load_standards`.
    """
    standards = load_standards(names or case.standards, case)
    return case.with_changes(standards=tuple(one.name for one in standards)), standards


def load_standards(names: Sequence[str], case: Case) -> tuple[Standard, ...]:
    """The standards by name or file, each once.

    Raises:
        InputError: one is not known or not valid, two have one name, or one was derived for another precision.
    """
    standards = tuple(load_standard(name) for name in dict.fromkeys(names))
    found = [standard.name for standard in standards]
    if len(set(found)) < len(found):
        raise InputError(f"Two of the standards have one name: {', '.join(sorted(found))}.")
    for standard in standards:
        if standard.task != case.task.name:
            raise InputError(f"{standard.name} judges {standard.task}; {case.name} is of {case.task}.")
        if standard.compute_dtype not in (None, case.precision.compute_dtype):
            raise InputError(
                f"The limits of {standard.name} were derived for {standard.compute_dtype}; "
                f"{case.name} computes in {case.precision.compute_dtype}."
            )
        if judges_layout(standard.name) and case.parallel.world_size == 1:
            raise InputError(f"{standard.name} compares several ranks with one process; {case.name} has one rank.")
    return standards
