"""Which part of a gradient differs, from the gradient itself and from its projections."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness.comparison.located import located
from harness.runs.sketches import recorded

Array = npt.NDArray[Any]
HEAD_DIM, HEADS, WIDTH = 16, 8, 96
ERROR = 1e-6  # of a correct side, relative
QUERY, OUT = "layers.20.self_attn.q_proj.weight", "layers.20.self_attn.o_proj.weight"
HEAD, NORM, DOWN = "lm_head.weight", "norm.weight", "mlp.down_proj.weight"


def nothing(gradient: Array) -> None:
    """No change."""


def sides(
    name: str,
    spoil: Callable[[Array], object],
    shape: tuple[int, ...] = (HEADS * HEAD_DIM, WIDTH),
    shaped: Callable[[Array], object] = nothing,
) -> list[Any]:
    """The exact tensor, the reference's and the subject's, each rounded in its own way; the last one spoiled."""
    random = np.random.RandomState(3)
    exact = random.standard_normal(shape)
    shaped(exact)
    found = [exact, *(exact * (1 + ERROR * random.standard_normal(shape)) for _ in range(2))]
    spoil(found[2])
    return [{name: one.astype(np.float64 if one is exact else np.float32)} for one in found]


def sketches(of: list[Any]) -> list[Any]:
    return [recorded(name, one, located=True) for side in of for name, one in side.items()]


@pytest.fixture(params=["tensors", "sketches"])
def left(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return (lambda *given: sides(*given)) if request.param == "tensors" else (lambda *given: sketches(sides(*given)))


def heads_exchanged(gradient: Array) -> None:
    heads = gradient.reshape(HEADS, HEAD_DIM, -1)
    heads[[2, 5]] = heads[[5, 2]]


def column_of_a_head(gradient: Array) -> None:
    gradient[:, 3 * HEAD_DIM : 4 * HEAD_DIM] *= 1.01


@pytest.mark.parametrize(
    ("name", "spoil", "where"),
    [
        (QUERY, heads_exchanged, "query heads 2 and 5"),
        (OUT, column_of_a_head, "query head 3"),
        (QUERY, lambda g: g[17].fill(0), "row 17"),
        (HEAD, lambda g: g[17].fill(0), "token 17"),
        (DOWN, lambda g: g[:, 40].fill(0), "column 40"),
        (DOWN, lambda g: np.copyto(g[5:9], np.nan), "rows 5 to 8"),
    ],
)
def test_the_wrong_part_of_a_matrix_is_named(
    left: Callable[..., Any], name: str, spoil: Callable[[Array], object], where: str
) -> None:
    assert located(name, *left(name, spoil), head_dim=HEAD_DIM) == where


def test_many_parts_are_counted(left: Callable[..., Any]) -> None:
    def spoil(gradient: Array) -> None:
        gradient[[3, 4, 5, 9, 70, 90, 91]] = 0

    assert located(HEAD, *left(HEAD, spoil)) == "tokens 3 to 5, 9, 70 and 2 more"


@pytest.mark.parametrize("spoil", [lambda g: None, lambda g: np.multiply(g, 0.99, out=g), lambda g: g.fill(0)])
def test_no_part_is_named_of_a_matrix_that_is_right_or_wrong_as_a_whole(
    left: Callable[..., Any], spoil: Callable[[Array], object]
) -> None:
    assert located(DOWN, *left(DOWN, spoil)) is None


def test_rows_that_are_large_are_off_by_more_and_seldom_taken_for_wrong(left: Callable[..., Any]) -> None:
    """As in the gradient of an embedding: a few tokens have most of it, and every side is off there by more. Of eight
    such rows, one may be near the exact value on the reference's side by chance."""

    def named(seed: int) -> str | None:
        random = np.random.RandomState(100 + seed)

        def off_everywhere(gradient: Array) -> None:
            gradient += 3 * ERROR * gradient * random.standard_normal(gradient.shape)

        def with_large_rows(gradient: Array) -> None:
            gradient *= np.where(np.arange(len(gradient)) % 16 == seed % 16, 300.0, 1.0)[:, None]

        return located(HEAD, *left(HEAD, off_everywhere, (HEADS * HEAD_DIM, WIDTH), with_large_rows))

    assert len(list(filter(None, map(named, range(100))))) <= 5


def test_a_vector_has_no_parts(left: Callable[..., Any]) -> None:
    assert located(NORM, *left(NORM, lambda g: g[:3].fill(0), (WIDTH,))) is None


def test_what_was_not_left_or_has_another_shape_is_no_error() -> None:
    exact, reference, _ = sides(DOWN, lambda g: None)
    assert located(DOWN, exact, reference, {}) is None
    assert located(DOWN, exact, reference, {DOWN: np.zeros((3, 3))}) is None
