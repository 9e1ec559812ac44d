"""What ran, on which machine, with which inputs, how long, and how to repeat it.

Timings are shown and never judged; if a line cannot be read, they are shown as unknown.
"""

import math
import shlex
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from harness.cases.case import Case
from harness.evidence.bundle import Bundle
from harness.evidence.protection_of_runs import protection_sentences
from harness.evidence.provenance import Baseline, Source
from harness.evidence.summary import collected_notices
from harness.evidence.timing import read_timing
from harness.levels.recorded import recorded_where, vouched_for
from harness.levels.submission import Submission
from harness.report.words import Fact, Mark, count, duration, number, purpose
from harness.runs.files import PROFILE, TIMING
from harness.runs.trace import Run
from qwen3_model.precision_policy import PLAIN_OPERATORS, PrecisionPolicy

UNKNOWN = "not recorded"
MIB_OF_A_GIB = 1 << 10
MARKS = {
    "completed": Mark(glyph="✓", word="completed", tone="pass"),
    "non_finite": Mark(glyph="✕", word="not finite", tone="fail"),
}


@dataclass(frozen=True, kw_only=True)
class RunRow:
    name: str
    purpose: str
    runner: str
    mark: Mark
    steps: str
    resumed: str
    total: str
    compiled: str
    per_step: str
    memory: str


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line and what it does."""

    line: str
    purpose: str


@dataclass(frozen=True, kw_only=True)
class Provenance:
    started: str
    lasted: str
    host: str
    inputs: tuple[Fact, ...]
    case: tuple[Fact, ...]
    case_yaml: str
    machine: tuple[Fact, ...]
    packages: tuple[Fact, ...]
    variables: tuple[Fact, ...]
    source: tuple[Fact, ...]
    baseline: tuple[Fact, ...]
    runs: tuple[RunRow, ...]
    protection: tuple[str, ...]
    notices: tuple[str, ...]
    timed: bool
    commands: tuple[Command, ...]


def build_provenance(submission: Submission, inputs: tuple[Fact, ...]) -> Provenance:
    """Inputs, case, environment, source, runs and commands of a bundle; `inputs` are those of its task only."""
    bundle = submission.bundle
    environment = vars(bundle.environment)
    rows = tuple(_run_rows(bundle))
    return Provenance(
        started=bundle.occasion.started,
        lasted=duration(bundle.occasion.seconds),
        host=bundle.occasion.host,
        inputs=(*_inputs(bundle), *inputs),
        case=_case(bundle),
        case_yaml=yaml.safe_dump(bundle.case.record(), sort_keys=False, allow_unicode=True),
        machine=tuple(_flat({k: v for k, v in environment.items() if k not in ("packages", "variables") and v})),
        packages=tuple(_flat(bundle.environment.packages)),
        variables=tuple(_flat(bundle.environment.variables)),
        source=(*_source(bundle.source), *_started_by_site(bundle)),
        baseline=_baseline(bundle.baseline, submission) if bundle.baseline else (),
        runs=rows,
        protection=_protection(bundle),
        notices=(
            *([_from_baseline(bundle.baseline, submission)] if bundle.baseline else []),
            *collected_notices(bundle),
            *(f"{row.name} was {row.resumed}." for row in rows if row.resumed),
        ),
        timed=any(row.per_step != UNKNOWN for row in rows),
        commands=_commands(bundle),
    )


def _protection(bundle: Bundle) -> tuple[str, ...]:
    answers, each_other = protection_sentences(bundle)
    return f"{answers}.", f"{each_other[0].upper()}{each_other[1:]}."


def _inputs(bundle: Bundle) -> tuple[Fact, ...]:
    inputs = bundle.inputs
    return (
        Fact(term="Case", text=bundle.case.digest(), code=True),
        Fact(term="Initial weights", text=inputs.weights, code=True),
        Fact(term="Token batches", text=inputs.batches, code=True),
        Fact(term="Corpus", text=inputs.corpus),
        Fact(term="Corpus digest", text=inputs.corpus_sha256, code=True),
        Fact(term="Corpus size", text=count(inputs.corpus_tokens, "token")),
        _tokenizer(bundle),
        Fact(term="Epochs", text=number(inputs.epochs)),
        Fact(term="Parameters", text=number(inputs.parameters)),
        Fact(term="Target tokens", text=number(inputs.target_tokens)),
        *_reach(bundle),
    )


def _reach(bundle: Bundle) -> Iterator[Fact]:
    """How much of the model its batches reach."""
    wholes = {"vocabulary": bundle.case.model.vocab_size, "positions": bundle.case.model.max_position_embeddings}
    for term, what in (("Ids reached", "vocabulary"), ("Positions reached", "positions")):
        if f"inputs.{what}" in bundle.comparison:
            whole, (fraction,) = wholes[what], bundle.comparison[f"inputs.{what}"].values
            yield Fact(term=term, text=f"{number(round(fraction * whole))} of {number(whole)}")


def _tokenizer(bundle: Bundle) -> Fact:
    digest = bundle.inputs.tokenizer_sha256
    return Fact(term="Tokenizer", text=digest or f"{bundle.case.data.tokenizer.kind}, no file", code=bool(digest))


def _case(bundle: Bundle) -> tuple[Fact, ...]:
    case, model = bundle.case, bundle.case.model
    heads = f"{model.num_attention_heads} heads, {model.num_key_value_heads} key-value heads of width {model.head_dim}"
    return (
        Fact(term="Model", text=f"{count(model.num_hidden_layers, 'layer')} of width {model.hidden_size}, {heads}"),
        Fact(term="Vocabulary", text=number(model.vocab_size)),
        Fact(term="Precision", text=", ".join(_precision(case.precision))),
        Fact(term="Rows", text=f"{case.data.global_batch_size} of {case.data.seq_length} tokens, {case.data.packing}"),
        *(_training(case) if case.takes_steps else ()),
    )


def _precision(policy: PrecisionPolicy) -> Iterator[str]:
    yield from (f"{key} {value}" for key, value in policy.dtypes.items())
    if not policy.fused:
        yield PLAIN_OPERATORS


def _training(case: Case) -> tuple[Fact, ...]:
    schedule, training = case.lr_schedule, case.training
    return (
        Fact(term="Steps", text=number(training.steps)),
        Fact(
            term="Learning rate",
            text=f"{schedule.type}, {schedule.learning_rate:g} after {count(schedule.warmup_steps, 'warm-up step')}",
        ),
        Fact(term="Clipping", text="none" if training.clip_grad is None else f"{training.clip_grad:g}"),
        Fact(term="Optimizer", text=f"{case.optimizer.type}, weight decay {case.optimizer.weight_decay:g}"),
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[Fact]:
    """A nested record as facts; a list is one line."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{key}.")
        else:
            text = ", ".join(map(str, item)) if isinstance(item, list) else str(item)
            yield Fact(term=f"{prefix}{key}", text=text)


def _source(source: Source) -> tuple[Fact, ...]:
    state = "files differed from this revision" if source.dirty else "clean: every file as committed"
    return (
        Fact(term="Revision", text=source.revision or "not a checkout", code=source.revision is not None),
        Fact(term="State", text=state if source.revision else "unknown"),
    )


def _started_by_site(bundle: Bundle) -> Iterator[Fact]:
    """What Python read by itself before the runs of a side began, as their processes state it; each content once."""
    seen = set[tuple[str, str, str]]()
    for run in bundle.runs.values():
        stated = run.trace.header.provenance.get("started_by_site") if run.trace else None
        for name, digest in stated.items() if run.trace and isinstance(stated, Mapping) else ():
            one = (run.trace.header.side if run.trace else "", str(name), str(digest))
            if one not in seen:
                yield Fact(term=f"{name}, read before the runs of the {one[0]}", text=one[2], code=True)
            seen.add(one)


def _baseline(baseline: Baseline, submission: Submission) -> tuple[Fact, ...]:
    return (
        Fact(term="Recorded", text=baseline.recorded),
        Fact(term="By", text=baseline.author),
        Fact(term="Reason", text=baseline.reason),
        Fact(term="Recorded on", text=recorded_where(submission.bundle) or UNKNOWN),
        Fact(term="Signature", text=vouched_for(submission)),
        Fact(term="Baseline digest", text=baseline.seal, code=True),
        *_source(baseline.source),
        *_flat({"machine": baseline.environment.machine, "packages": baseline.environment.packages}),
        Fact(term="Command", text=shlex.join(baseline.command), code=True),
    )


def _from_baseline(baseline: Baseline, submission: Submission) -> str:
    return (
        f"Reference and oracle did not run with the subject: {baseline.author} recorded them on {baseline.recorded}. "
        f"Device: {recorded_where(submission.bundle) or UNKNOWN}; {vouched_for(submission)}."
    )


def _run_rows(bundle: Bundle) -> Iterator[RunRow]:
    for run in bundle.runs.values():
        yield _run_row(bundle, run)
    for name in bundle.absent:
        yield RunRow(
            name=name,
            purpose=purpose(name, bundle.case.task),
            runner="",
            mark=Mark(glyph="!", word="not run", tone="error"),
            steps="0",
            resumed="",
            total=UNKNOWN,
            compiled="",
            per_step=UNKNOWN,
            memory="",
        )


def _run_row(bundle: Bundle, run: Run) -> RunRow:
    status, resumed = run.outcome.status, run.outcome.resumed_after
    timing = read_timing(bundle.path / "runs" / run.name / TIMING)
    seconds = [taken for _, taken in timing.steps]
    steps = "no trace" if run.trace is None else f"{len(run.trace.lines)} of {run.trace.header.steps}"
    notes = [f"resumed after step {', '.join(map(str, resumed))}"] if resumed else []
    if (bundle.path / "runs" / run.name / PROFILE).is_dir():
        notes.append("profiled: its times are no evidence")
    return RunRow(
        name=run.name,
        purpose=purpose(run.name, bundle.case.task),
        runner=run.trace.header.runner if run.trace else "",
        mark=MARKS.get(status) or Mark(glyph="!", word=status, tone="error"),
        steps=steps,
        resumed="; ".join(notes),
        total=duration(math.fsum(seconds)) if seconds else UNKNOWN,
        compiled=duration(math.fsum(timing.compiling)) if timing.compiling else "",
        per_step=duration(statistics.median(seconds)) if seconds else UNKNOWN,
        memory=_gib(timing.peak),
    )


def most_memory(bundle: Bundle) -> str:
    """The most memory that a run of a bundle had; empty where no run recorded it."""
    peaks = [read_timing(bundle.path / "runs" / name / TIMING).peak for name in bundle.runs]
    return _gib(max((peak for peak in peaks if peak is not None), default=None))


def _gib(peak: float | None) -> str:
    return "" if peak is None else f"{peak / MIB_OF_A_GIB:.1f} GiB"


def _commands(bundle: Bundle) -> tuple[Command, ...]:
    diagnose = Command(
        line="certify diagnose BUNDLE", purpose="Names the module, gradient or check that differs first."
    )
    return (
        Command(
            line=shlex.join(bundle.occasion.command),
            purpose="Judges these runs again." if bundle.collected else "Repeats this run.",
        ),
        *([diagnose] if bundle.case.task.judges_steps and not bundle.collected else []),
        Command(line="certify verify BUNDLE", purpose="Checks every byte and recomputes everything."),
        Command(
            line="certify level DIRECTORY --trust TRUST.yaml",
            purpose="Shows the level on a day, with the verified signatures.",
        ),
        Command(
            line="certify compare BUNDLE/runs/reference-1/trace.jsonl BUNDLE/runs/subject-1/trace.jsonl",
            purpose="Compares two traces, of this bundle or of any other.",
        ),
    )
