"""The smallest fault of a gradient that its sketch shows, by simulation, and whether its projections name the place.

    python benchmarks/sketch_limits.py [--trials N]

A gradient of random numbers gets two correct sides, each with a rounding error of the usual size of a precision, and a
subject that has a fault besides. Of each fault this prints the ratio of errors that the sketches give, which a standard
limits to 10 in float32 and to 2.8 in bfloat16 for one parameter, and how often the named place is the right one. The
directions of the fault are drawn anew in every trial; so are the signs, by the name of the tensor.
"""

import argparse
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.comparison.distance import error_ratio
from harness.comparison.left import difference
from harness.comparison.located import located
from harness.runs.sketches import BUCKETS_OF_FIRST_GRADIENT, recorded

Array = npt.NDArray[Any]
# Relative rounding errors of a gradient, and the limits of `gradients-maximum`: docs/design/tolerances.md.
ERRORS: Mapping[str, float] = {"float32": 5e-7, "bfloat16": 5e-3}
LIMITS: Mapping[str, float] = {"float32": 10.0, "bfloat16": 2.8}
HEAD = 128
SHAPES: Mapping[str, tuple[int, int]] = {"self_attn.q_proj.weight": (2048, 1024), "lm_head.weight": (19_456, 1024)}


def main() -> None:
    """Prints a line for each precision, matrix and fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5)
    trials = parser.parse_args().trials
    print(f"{'precision':9} {'matrix':24} {'fault':34} {'ratio':>22} {'shown':>6} {'named':>6}")
    for precision, error in ERRORS.items():
        for matrix, shape in SHAPES.items():
            for fault, (spoil, place) in FAULTS.items():
                ratios, named = zip(
                    *(_trial(f"{matrix}/{n}", matrix, shape, error, spoil, n) for n in range(trials)), strict=True
                )
                shown = sum(ratio > LIMITS[precision] for ratio in ratios)
                right = sum(place is not None and name is not None and place in name for name in named)
                spread = f"{statistics.median(ratios):.3g} ({min(ratios):.3g} to {max(ratios):.3g})"
                found = f"{right}/{trials}" if place else "-"
                print(f"{precision:9} {matrix:24} {fault:34} {spread:>22} {shown:>3}/{trials} {found:>6}")


def _trial(
    label: str, matrix: str, shape: tuple[int, int], error: float, spoil: Callable[[Array, Any], None], seed: int
) -> tuple[float, str | None]:
    random, name = np.random.RandomState(seed), f"model.{label}.{matrix}"
    exact = random.standard_normal(shape)
    sides = [exact + error * random.standard_normal(shape) for _ in range(2)]
    spoil(sides[1], random)
    left = [recorded(name, one, BUCKETS_OF_FIRST_GRADIENT, located=True) for one in (exact, *sides)]
    ratio = error_ratio(*(difference(name, left[0], side)[0] for side in left[1:]))
    return ratio, located(name, *left, head_dim=HEAD)


def _scaled(by: float) -> Callable[[Array, Any], None]:
    return lambda gradient, random: np.multiply(gradient, 1 + by, out=gradient)


def _row(gradient: Array, random: Any) -> None:
    gradient[7] = 0


def _heads(gradient: Array, random: Any) -> None:
    heads = gradient.reshape(-1, HEAD, gradient.shape[1])
    heads[[2, 5]] = heads[[5, 2]]


def _direction(size: float) -> Callable[[Array, Any], None]:
    def spoil(gradient: Array, random: Any) -> None:
        gradient += size * random.standard_normal(gradient.shape)

    return spoil


FAULTS: Mapping[str, tuple[Callable[[Array, Any], None], str | None]] = {
    "none": (lambda gradient, random: None, None),
    "scaled by 1 + 1e-3": (_scaled(1e-3), None),
    "scaled by 1 + 1e-5": (_scaled(1e-5), None),
    "one row zero": (_row, " 7"),
    "two heads exchanged": (_heads, "2"),
    "an arbitrary direction of 1e-2": (_direction(1e-2), None),
    "an arbitrary direction of 1e-5": (_direction(1e-5), None),
}


if __name__ == "__main__":
    main()
