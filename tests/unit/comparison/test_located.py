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


def sides(name: str, spoil: Callable[[Array], object], shape: tuple[int, ...] = (HEADS * HEAD_DIM, WIDTH)) -> list[Any]:
    """The exact tensor, the reference's and the subject's, each rounded in its own way; the last one spoiled."""
    random = np.random.RandomState(3)
    exact = random.standard_normal(shape)
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


def test_a_vector_has_no_parts(left: Callable[..., Any]) -> None:
    assert located(NORM, *left(NORM, lambda g: g[:3].fill(0), (WIDTH,))) is None


def test_what_was_not_left_or_has_another_shape_is_no_error() -> None:
    exact, reference, _ = sides(DOWN, lambda g: None)
    assert located(DOWN, exact, reference, {}) is None
    assert located(DOWN, exact, reference, {DOWN: np.zeros((3, 3))}) is None
