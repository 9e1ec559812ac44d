"""What a case becomes under the options of a command or of a study: other sources, model, layout or standards."""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from harness.base.errors import InputError
from harness.cases.case import Case, check_trains
from harness.cases.data import Corpus, Tokenizer
from harness.cases.runs_of_a_case import judges_layout
from harness.cases.sections import Checkpoint
from harness.corpus.tokenizers import FILES as TOKENIZER_FILES
from harness.corpus.tokenizers import check_directory, load_tokenizer
from harness.runs.inputs import Inputs
from harness.standards import Standard, load_standard
from qwen3_model.config_problems import Qwen3ConfigError
from qwen3_model.configuration_qwen3 import Qwen3Config

VOCABULARY_MULTIPLE = 64
PROFILED = re.compile(r"([1-9][0-9]*)(?:-([1-9][0-9]*))?")
# Values of fields, by section of a case.
Changes = Mapping[str, Mapping[str, Any]]


def with_fields(case: Case, *changes: Changes, name: str | None = None) -> Case:
    """The case with other values of fields, by section; every other field stays. Later changes take precedence.

    A layout is given whole: what is omitted of it is 1, not what the case has.

    Raises:
        InputError: the changed case is not valid.
    """
    sections = {
        section: functools.reduce(lambda one, other: {**one, **other.get(section, {})}, changes, _fields(case, section))
        for section in dict.fromkeys(section for change in changes for section in change)
    }
    return case.with_changes(**({"name": name} if name else {}), **sections)


def _fields(case: Case, section: str) -> Mapping[str, Any]:
    if section == "parallel":
        return {}
    fields: Mapping[str, Any] = case.model.to_hf() if section == "model" else getattr(case, section).model_dump()
    return fields


def with_options(
    case: Case,
    *,
    text: Path | None,
    data: Path | None,
    tokenizer: Path | None,
    model: Path | None,
    layers: int | None = None,
    vocabulary: int | None = None,
    steps: int | None = None,
) -> Case:
    """The case with the files that a command line names, cut as it states, in that number of steps.

    Raises:
        InputError: the options contradict each other or the case.
    """
    chosen = with_sources(case, text, data, tokenizer)
    chosen = chosen if model is None else with_model(chosen, model)
    return in_steps(cut(chosen, layers, vocabulary), steps)


def cut(case: Case, layers: int | None, vocabulary: int | None) -> Case:
    """The case with the first layers of its model only, and with the first ids of its corpus; None is all of them.

    Raises:
        InputError: it has no more than that, or is not valid so.
    """
    changes: dict[str, dict[str, Any]] = {"model": {}, "data": {}}
    name = case.name
    for option, field, wanted in (("--layers", "num_hidden_layers", layers), ("--vocab", "vocab_size", vocabulary)):
        if wanted is None:
            continue
        if wanted >= (there := getattr(case.model, field)):
            raise InputError(f"{option} {wanted} cuts nothing: {case.name} has {there:,}. Omit it.")
        changes["model"][field] = wanted
        name += f"-{wanted}{option[2]}"
    if vocabulary is not None:
        changes["data"]["cut_vocabulary"] = True
    if case.checkpoint is not None:
        changes |= case.with_checkpoint(case.checkpoint.model_copy(update={"cut": True}))
    return case if name == case.name else with_fields(case, changes, name=name)


def shortened(case: Case, rows: int | None, length: int | None) -> Case:
    """The case with steps of fewer rows, and of shorter ones; None is all of them.

    Raises:
        InputError: it has no more than that.
    """
    data, training = dict[str, Any](), dict[str, Any]()
    for option, field, wanted in (("--rows", "global_batch_size", rows), ("--length", "seq_length", length)):
        if wanted is None:
            continue
        if wanted > (there := getattr(case.data, field)):
            raise InputError(f"{option} {wanted} is more than {case.name} has: {there}.")
        data[field] = wanted
    if data.get("global_batch_size", 0) % case.training.gradient_accumulation_steps:
        training["gradient_accumulation_steps"] = 1
    return with_fields(case, {"data": data, "training": training}) if data else case


def in_proportion(case: Case, steps: int) -> Changes:
    """The fields of a case of another number of steps that name single ones: those that it examines, and the one after
    which a run is resumed, at the same part of the run. None but the first becomes the first, where an optimizer has no
    moments yet."""
    training = case.training

    def moved(step: int) -> int:
        return max(min(step, 2), round(step * steps / training.steps))

    resumed = None if training.resume_after is None else min(moved(training.resume_after), steps - 1)
    examined = tuple(sorted({moved(step) for step in training.examined_steps}))
    return {"training": {"examined_steps": examined, "resume_after": resumed}}


def in_steps(case: Case, steps: int | None) -> Case:
    """The case in so many steps; None is as many as it has.

    Those that it names move in proportion, and the schedule ends with the last. Its limits stay.

    Raises:
        InputError: it takes no steps, or is not valid so.
    """
    if steps is not None and not case.takes_steps:
        raise InputError(f"--steps {steps}: {case.name} takes no step of training. Omit it.")
    if steps is None or steps == case.training.steps:
        return case
    other = {"training": {"steps": steps, "lr_zero_steps": min(steps, case.training.lr_zero_steps)}}
    return with_fields(case, in_proportion(case, steps), other, name=f"{case.name}-{steps}steps")


def at_most(case: Case, steps: int | None) -> Case:
    """The case in so many steps, if it has more; see `in_steps`."""
    return in_steps(case, steps) if steps is not None and steps < case.training.steps else case


def profiled_steps(text: str | None, case: Case) -> tuple[int, int] | None:
    """The first and the last of the steps that an option names; None where it is not given.

    Raises:
        InputError: it is not written so, the case has no such steps, or takes none.
    """
    if text is None:
        return None
    check_trains(case, "'--profile' profiles steps of training")
    found = PROFILED.fullmatch(text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 0 < first <= last <= case.training.steps:
        raise InputError(
            f"--profile {text!r}: write a step or the first and the last, such as 5 or 5-7; {case.name} has the "
            f"steps 1 to {case.training.steps}."
        )
    return first, last


def with_layout(case: Case, layout: Mapping[str, Any] | None) -> Case:
    """The case in another layout; None is its own.

    Raises:
        InputError: it cannot be laid out so.
    """
    return case if layout is None else with_fields(case, {"parallel": layout})


def with_sources(case: Case, text: Path | None, data: Path | None, tokenizer: Path | None) -> Case:
    """The case with another corpus or tokenizer; the vocabulary grows to the tokenizer's where it has to.

    Raises:
        InputError: the options contradict each other or the case.
    """
    if text and data:
        raise InputError("--text and --data each name a corpus; give one of them.")
    if data and tokenizer:
        raise InputError("--data holds token ids already, so --tokenizer has nothing to do.")
    sources, model = dict[str, Any](), dict[str, Any]()
    if text:
        kind: Literal["conversations", "text"] = "conversations" if case.data.corpus.of_conversations else "text"
        sources["corpus"] = Corpus(kind=kind, path=str(text)).model_dump()
    if data:
        # Files of token ids are taken as they are, row by row in the order of their trainer.
        sources |= {"corpus": Corpus(kind="megatron", path=str(data)).model_dump(), "sweep_vocabulary": False}
    if tokenizer:
        named = Tokenizer(kind="huggingface", path=str(tokenizer))
        sources["tokenizer"] = named.model_dump()
        size = -(-load_tokenizer(named).vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
        model["vocab_size"] = max(case.model.vocab_size, size)
    return with_fields(case, {"data": sources, "model": model})


def with_model(case: Case, directory: Path) -> Case:
    """The case with the weights of a checkpoint in Hugging Face's form, and its configuration and tokenizer: a training
    begins with them, and inference runs with them.

    Raises:
        InputError: the directory is of no Qwen3 that is implemented, or its tokenizer cannot be used.
    """
    try:
        model = Qwen3Config.from_hf(directory)
    except Qwen3ConfigError as error:
        raise InputError(f"{directory} cannot be used: {error}") from None
    sources = dict[str, Any]()
    if any((directory / name).is_file() for name in TOKENIZER_FILES):
        check_directory(directory, chat=case.inference is not None or case.data.corpus.of_conversations)
        sources["tokenizer"] = Tokenizer(kind="huggingface", path=str(directory)).model_dump()
    weights = case.with_checkpoint(Checkpoint(kind="huggingface", path=str(directory)))
    return with_fields(case, {"data": sources, "model": model.to_hf(), **weights})


def named_by_digest(case: Case, inputs: Inputs) -> Case:
    """The case with the digests of its corpus, tokenizer and checkpoint, whichever file they were read from."""
    sources = {
        "corpus": {**case.data.corpus.model_dump(), "sha256": inputs.corpus_sha256},
        "tokenizer": {**case.data.tokenizer.model_dump(), "sha256": inputs.tokenizer_sha256},
    }
    weights = dict[str, dict[str, Any]]()
    if case.checkpoint is not None:
        weights = case.with_checkpoint(case.checkpoint.model_copy(update={"sha256": inputs.weights}))
    return with_fields(case, {"data": sources, **weights})


def with_recorded_sources(case: Case, recorded: Case) -> Case:
    """The case with the corpus, tokenizer and checkpoint of its recording, which the command line may have named.

    A Hugging Face tokenizer may have grown the vocabulary, so that comes with it; a checkpoint has a model of its own.
    """
    then = recorded.data.model_dump()
    sources = {name: then[name] for name in ("corpus", "tokenizer", "sweep_vocabulary")}
    changes = {"data": sources, "model": dict[str, Any]()}
    if recorded.data.tokenizer.kind != case.data.tokenizer.kind:
        changes["model"] = {"vocab_size": recorded.model.vocab_size}
    if case.inference is not None and recorded.inference is not None:
        changes["model"] = recorded.model.to_hf()
        changes["inference"] = {"weights": recorded.inference.weights.model_dump()}
    elif recorded.checkpoint is not None:
        changes["model"] = recorded.model.to_hf()
        changes |= case.with_checkpoint(recorded.checkpoint)
    return with_fields(case, changes)


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
        if standard.task != case.task.judged_as:
            raise InputError(f"{standard.name} judges {standard.task}; {case.name} is of {case.task}.")
        if standard.compute_dtype not in (None, case.precision.compute_dtype):
            raise InputError(
                f"The limits of {standard.name} were derived for {standard.compute_dtype}; "
                f"{case.name} computes in {case.precision.compute_dtype}."
            )
        if judges_layout(standard.name) and case.parallel.world_size == 1:
            raise InputError(f"{standard.name} compares several ranks with one process; {case.name} has one rank.")
    return standards
