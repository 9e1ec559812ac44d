"""The floor: the measured difference of two correct implementations, and the limits derived from it.

A study repeats the reference with changes that a correct implementation may have: another order of sums (threads),
another attention, weights moved by one unit in the last place; for the case itself and optionally for other shapes.
Each repeat is compared as if it were the subject. Reads such studies, computes their envelopes and derives limits from
them; judges nothing.
"""

import dataclasses
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.base.errors import EvidenceError, InputError
from harness.base.parts import Share
from harness.base.records import LATER, read_record
from harness.cases.case import load_case
from harness.cases.runs_of_a_case import floor_runs
from harness.cases.task import PRETRAIN
from harness.comparison.catalogue import CATALOGUE
from harness.evidence.bundle import Bundle
from harness.evidence.judge import statistic
from harness.evidence.provenance import Environment, Source
from harness.standards import STANDARDS_DIR, load_standard

FORMAT = "certify-floor/1"
FLOORS_DIR = STANDARDS_DIR / "floors"
# The reference is one correct implementation and not their centre: two of them can be twice as far apart as the
# furthest is from the reference.
SAFETY_FACTOR = 2.0
NUMBERS = ("loss", "grad_norm")
CPU = "CPU"
DEVICES = {"cuda": "CUDA", "npu": "Ascend"}  # as the command line names them, and as a job does

# What a study records for each repeat: measurement and statistic. Signed means keep their sign, so that the envelope
# has two sides; a limit on their bias allows the same on both sides.
OF_EVERY_CASE: tuple[tuple[str, str], ...] = (
    ("train.loss.relative", "first"),
    ("train.loss.relative", "mean"),
    ("train.loss.relative", "maximum"),
    ("train.loss.signed", "mean"),
    ("train.loss.scaled", "first"),
    ("train.loss.scaled", "mean"),
    ("train.loss.scaled", "maximum"),
    ("train.loss.drift", "mean"),
    ("train.grad_norm.relative", "first"),
    ("train.grad_norm.relative", "mean"),
    ("train.grad_norm.relative", "maximum"),
    ("train.grad_norm.signed", "mean"),
    ("train.grad_norm.scaled", "first"),
    ("train.grad_norm.scaled", "mean"),
    ("train.grad_norm.scaled", "maximum"),
    ("train.grad_norm.drift", "mean"),
    ("lr_zero.loss.relative", "maximum"),
    ("lr_zero.grad_norm.relative", "maximum"),
    ("lr_zero.loss.scaled", "maximum"),
    ("lr_zero.grad_norm.scaled", "maximum"),
    ("train.parameters.relative", "maximum"),
    ("oracle.loss.subject", "mean"),
    ("oracle.loss.subject", "maximum"),
    ("oracle.grad_norm.subject", "mean"),
    ("oracle.grad_norm.subject", "maximum"),
    ("oracle.loss.scaled", "mean"),
    ("oracle.loss.scaled", "maximum"),
    ("oracle.grad_norm.scaled", "mean"),
    ("oracle.grad_norm.scaled", "maximum"),
    ("oracle.gradients.subject", "maximum"),
    ("oracle.gradients.ratio", "mean"),
    ("oracle.gradients.ratio", "rms"),
    ("oracle.gradients.ratio", "maximum"),
    ("oracle.lines.ratio", "maximum"),
    ("oracle.loss.ratio", "mean"),
    ("oracle.loss.ratio", "rms"),
    ("oracle.loss.ratio", "maximum"),
    ("oracle.gradients.along.subject", "maximum"),
    ("oracle.updates.along.subject", "maximum"),
    ("oracle.gradients.length.subject", "maximum"),
    ("oracle.updates.length.subject", "maximum"),
    ("oracle.decades.ratio", "maximum"),
    ("train.zeros.relative", "maximum"),
    ("train.denormals.relative", "maximum"),
    ("train.values.relative", "maximum"),
)
# The same, of a case that examines steps.
OF_EXAMINED_STEPS: tuple[tuple[str, str], ...] = (
    ("oracle.step_gradients.ratio", "maximum"),
    ("oracle.step_updates.ratio", "maximum"),
    ("oracle.examined_gradients.ratio", "rms"),
    ("oracle.examined_gradients.ratio", "maximum"),
    ("oracle.examined_updates.ratio", "rms"),
    ("oracle.examined_updates.ratio", "maximum"),
    ("oracle.change.ratio", "rms"),
    ("oracle.change.ratio", "maximum"),
    ("oracle.change.along.subject", "maximum"),
    ("oracle.change.length.subject", "maximum"),
)
QUANTITIES = OF_EVERY_CASE + OF_EXAMINED_STEPS


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """One repeat of the reference: its attention, its threads, and the seed by which each weight was moved by one unit
    in the last place (None: not moved). `shape` names what the case was varied to (None: as it is). `device` is where
    it was made (None: on a CPU), and `processes` how many made it together (None: one)."""

    attention: str
    threads: int
    seed: int | None
    shape: str | None = None
    device: str | None = dataclasses.field(default=None, metadata=LATER)
    processes: int | None = dataclasses.field(default=None, metadata=LATER)

    @property
    def kind(self) -> str:
        """What it was made with: device, processes and attention."""
        processes = self.processes or 1
        return f"{self.device or CPU}, {processes} process{'es' * (processes > 1)}, {self.attention}"

    def __str__(self) -> str:
        moved = "weights as they are" if self.seed is None else f"weights moved by seed {self.seed}"
        shape = f"{self.shape}, " if self.shape else ""
        processes = f"{self.processes} processes, " if self.processes else ""
        device = f"{self.device}, " if self.device else ""
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"{shape}{device}{processes}{self.attention} attention, {threads}, {moved}"


@dataclass(frozen=True, kw_only=True)
class FloorStudy:
    """What was measured: `values` holds, by quantity (`STATISTIC of MEASUREMENT`), one value per repeat. A case that
    examines no steps has no quantities of them. `share`: it has the repeats of one machine of several."""

    format: str
    case: str
    case_digest: str
    recorded: str
    command: tuple[str, ...]
    environment: Environment
    source: Source
    repeats: tuple[Repeat, ...]
    values: Mapping[str, tuple[float, ...]]
    share: Share | None = dataclasses.field(default=None, metadata=LATER)

    def of_its_case(self) -> "FloorStudy":
        """The repeats of the case as it is."""
        return self._only([number for number, repeat in enumerate(self.repeats) if repeat.shape is None])

    def by_kind(self) -> Mapping[str, "FloorStudy"]:
        """The repeats of the case as it is, by what they were made with: each kind is a correct implementation, and its
        values are its distance from the reference, which is one process on a CPU in eager attention."""
        own = self.of_its_case()
        kinds = dict.fromkeys(repeat.kind for repeat in own.repeats)
        return {
            kind: own._only([number for number, repeat in enumerate(own.repeats) if repeat.kind == kind])
            for kind in kinds
        }

    @property
    def devices(self) -> frozenset[str]:
        """The kinds of devices that references were compared on."""
        return frozenset({CPU, *(repeat.device for repeat in self.repeats if repeat.device)})

    def _only(self, kept: Sequence[int]) -> "FloorStudy":
        values = {name: tuple(each[number] for number in kept) for name, each in self.values.items()}
        return dataclasses.replace(self, repeats=tuple(self.repeats[number] for number in kept), values=values)

    def envelope(self, measurement: str, of: str) -> tuple[float, float]:
        """The lowest and the highest value of any repeat.

        Raises:
            InputError: the study did not record this quantity.
        """
        try:
            values = self.values[quantity(measurement, of)]
        except KeyError:
            raise InputError(
                f"The floor of {self.case} does not record the {of} of {measurement}. Known: {', '.join(self.values)}."
            ) from None
        return min(values), max(values)

    def limit(self, measurement: str, of: str) -> float:
        """The derived limit: twice the largest value on either side, rounded up to two digits, and never more than an
        official ceiling of the same quantity.

        Raises:
            InputError: the study did not record this quantity.
        """
        widest = max(map(abs, self.envelope(measurement, "mean" if of == "bias" else of)))
        return min(rounded_up(SAFETY_FACTOR * widest), ceiling(measurement, of))


def quantity(measurement: str, of: str) -> str:
    """The name under which a study records a statistic of a measurement."""
    return f"{of} of {measurement}"


def rounded_up(value: float) -> float:
    """The next number of two significant digits that is not below a value."""
    if value == 0:
        return 0.0
    exponent = math.floor(math.log10(value)) - 1
    digits = math.ceil(value / 10.0**exponent - 1e-9)
    return float(f"{digits}e{exponent}")


def ceiling(measurement: str, of: str) -> float:
    """The official ceiling of a quantity, or infinity. A bias is never above the mean of the absolute values."""
    if of == "bias":
        measurement, of = CATALOGUE[measurement].unsigned or measurement, "mean"
    limits = [limit for criterion in load_standard(PRETRAIN.official).criteria for limit in criterion.limits]
    found = [limit.value for limit in limits if (limit.measurement, limit.statistic) == (measurement, of)]
    return min(found, default=math.inf)


def read_study(path: Path, *, part: bool = False) -> FloorStudy:
    """A recorded study, or a `part` of one.

    Raises:
        EvidenceError: it is missing, of another format, does not hold what it should, or is a part.
    """
    study: FloorStudy = read_record(FloorStudy, path, FORMAT)
    if study.share is not None and not part:
        raise EvidenceError(
            f"{path} is part {study.share.part} of a study. Gather all: certify floor CASE --gather FILE ..."
        )
    all_of_them, least = ({quantity(*one) for one in some} for some in (QUANTITIES, OF_EVERY_CASE))
    numbers = [number for values in study.values.values() for number in values]
    held = set(study.values) in (all_of_them, least)
    if not held or any(len(values) != len(study.repeats) for values in study.values.values()):
        raise EvidenceError(f"{path} does not hold one value a repeat of each quantity.")
    if not study.repeats or not all(map(math.isfinite, numbers)):
        raise EvidenceError(f"{path} holds no repeat, or a value that is not finite.")
    return study


@cache
def shipped_studies() -> Mapping[str, FloorStudy]:
    """The shipped studies, by the name of their case."""
    return {path.stem: read_study(path) for path in sorted(FLOORS_DIR.glob("*.json"))}


def floor_of(bundle: Bundle) -> Mapping[str, float] | None:
    """How far loss and grad norm of two correct runs of a bundle's case may be apart at any step, relative.

    From the perturbed repeats in the bundle, if it has as many as its case states; else from the shipped study of its
    very case. None where neither is, and for inference, whose results must agree bit for bit.
    """
    return _own_floor(bundle) or _shipped_floor(bundle)


def common_floor(a: Bundle, b: Bundle) -> Mapping[str, float] | None:
    """The floor within which two bundles of one case may be apart: the smaller one of their own perturbed repeats, if
    both measured it, so that neither widens it for the other; else that of the shipped study."""
    first, second = _own_floor(a), _own_floor(b)
    if first and second:
        return {number: min(first[number], second[number]) for number in first}
    return _shipped_floor(a)


def device_of_reference(bundle: Bundle) -> str:
    """The kind of device that the reference of a bundle ran on, also where it was recorded elsewhere: CPU, CUDA or
    Ascend."""
    environment = bundle.baseline.environment if bundle.baseline else bundle.environment
    return str(environment.machine.get("reference_device", CPU))


def not_measured(bundle: Bundle) -> str | None:
    """Why the strict limits are not known to hold for the reference of a bundle, and which command measures it; None
    where they were measured for its kind of device, by a shipped study of a case with the same precision."""
    device = device_of_reference(bundle)
    if device == CPU or not bundle.case.task.judges_steps:
        return None
    of_precision = [
        study for study in shipped_studies().values() if load_case(study.case).precision == bundle.case.precision
    ]
    if any(device in study.devices for study in of_precision):
        return None
    named = next((name for name, word in DEVICES.items() if word == device), device)
    name = bundle.case.name
    command = shlex.join(["certify", "floor", name, "--reference-device", named, "--out", f"floors/{name}.json"])
    return (
        f"not measured: the strict limits come from implementations on a CPU, and this reference ran on {device}. "
        f"How far apart correct references on both are: {command}"
    )


def _own_floor(bundle: Bundle) -> Mapping[str, float] | None:
    repeats = floor_runs(bundle.case)
    if not repeats or any(name not in bundle.runs for name in repeats):
        return None
    own = {number: bundle.comparison[f"floor.{number}.relative"].values for number in NUMBERS}
    if not all(own.values()):
        return None
    return {number: statistic("maximum", values) for number, values in own.items()}


def _shipped_floor(bundle: Bundle) -> Mapping[str, float] | None:
    if not bundle.case.task.judges_steps:
        return None
    for study in shipped_studies().values():
        if study.case_digest == bundle.case.digest():
            as_it_is = study.of_its_case()
            return {number: as_it_is.envelope(f"train.{number}.relative", "maximum")[1] for number in NUMBERS}
    return None
