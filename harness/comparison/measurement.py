"""A measurement: values at places, or why there are none, under a name of the catalogue."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy.typing as npt

from harness.comparison.catalogue import CATALOGUE, Kind
from harness.runs.trace import Run, Step

Tensors = Mapping[str, npt.NDArray[Any]]
Place = int | str  # a step, a tensor's name or a run's name


@dataclass(frozen=True, kw_only=True)
class Series:
    """Values at places (steps, tensors, runs). `missing` states why there are none, `broken` that a run failed.

    If two numbers were compared at a place, `sides` holds both, and `between` the names of their runs. `within` states
    of some places which part of them differs.
    """

    places: tuple[Place, ...] = ()
    values: tuple[float, ...] = ()
    sides: tuple[tuple[float, float], ...] = ()
    between: tuple[str, str] | None = None
    missing: str | None = None
    broken: str | None = None
    within: Mapping[Place, str] = field(default_factory=dict)

    def named(self, name: str) -> "Measurement":
        """The measurement with these values."""
        return Measurement(name=name, **{one.name: getattr(self, one.name) for one in fields(Series)})


@dataclass(frozen=True, kw_only=True)
class Measurement(Series):
    """A series of values that the catalogue describes.

    Raises:
        ValueError: the catalogue has no such name.
    """

    name: str

    def __post_init__(self) -> None:
        if self.name not in CATALOGUE:
            raise ValueError(f"harness.comparison.catalogue describes no measurement {self.name!r}")

    @property
    def kind(self) -> Kind:
        """Its entry in the catalogue."""
        return CATALOGUE[self.name]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Every measurement of a case's runs, by name."""

    measurements: Mapping[str, Measurement]

    def __getitem__(self, name: str) -> Measurement:
        return self.measurements[name]

    def __contains__(self, name: object) -> bool:
        return name in self.measurements


def why_missing(*runs: Run | None) -> str | None:
    """Why some runs cannot be compared."""
    if any(run is None for run in runs):
        return "not run"
    without = [run.name for run in runs if run and run.trace is None]
    return f"no trace of {', '.join(without)}" if without else None


def why_broken(*runs: Run | None) -> str | None:
    """The outcome of each run that did not finish; a run that stopped at a non-finite number has finished."""
    bad = [run for run in runs if run and not run.outcome.ended]
    return "; ".join(f"{run.name}: {run.outcome.detail}" for run in bad) or None


def steps_of(run: Run | None) -> tuple[Step, ...]:
    """The steps that a run took; none if it was not made."""
    return run.trace.steps if run and run.trace else ()
