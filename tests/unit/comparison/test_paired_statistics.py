"""What a difference of two scores is at most: never less than the difference, and not small for a small evaluation."""

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from harness.comparison.paired_statistics import CONFIDENCE, Interval, discordance_bound, perplexity_difference
from harness.evidence.judge import Outcome, judge
from harness.standards import load_standard
from tests.support.answering import TASKS
from tests.support.bundles import write_example
from tests.support.examples import inference_case

CEILING = 0.004
RIGHT = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=200)
TEXTS = st.lists(st.tuples(st.floats(-500, -1), st.floats(-0.5, 0.5), st.integers(1, 80)), min_size=10, max_size=30)


@given(RIGHT)
def test_a_difference_of_accuracy_is_never_beyond_its_bound(pairs: list[tuple[float, float]]) -> None:
    found = discordance_bound(*zip(*pairs, strict=True))
    assert 0 <= found.value <= found.bound <= 1


@given(st.integers(1, 2000), st.data())
def test_the_bound_is_the_exact_one_of_the_discordant_pairs(count: int, data: st.DataObject) -> None:
    discordant = data.draw(st.integers(0, count - 1))
    found = discordance_bound([1.0] * count, [0.0] * discordant + [1.0] * (count - discordant))
    # by its definition: so few discordant pairs would be seen in one of twenty evaluations if the part was the bound
    assert binom.cdf(discordant, count, found.bound) == pytest.approx(1 - CONFIDENCE, rel=1e-6)


def test_where_all_differ_nothing_is_excluded() -> None:
    assert discordance_bound([1.0, 0.0], [0.0, 1.0]) == Interval(value=0.0, bound=1.0)


@pytest.mark.parametrize(("count", "shown"), [(747, False), (748, True), (1000, True)])
def test_so_many_agreements_show_that_scores_are_within_the_ceiling(count: int, shown: bool) -> None:
    found = discordance_bound([1.0] * count, [1.0] * count)
    assert found.value == 0 and (found.bound <= CEILING) is shown
    assert found.bound == pytest.approx(CEILING, rel=1e-3) or count == 1000


@given(TEXTS)
def test_a_difference_of_perplexities_is_never_beyond_its_bound(texts: list[tuple[float, float, int]]) -> None:
    reference = [likelihood for likelihood, _, _ in texts]
    subject = [likelihood + apart for likelihood, apart, _ in texts]
    found = perplexity_difference(reference, subject, [words for _, _, words in texts])
    assert 0 <= found.value <= found.bound


@given(TEXTS)
def test_equal_likelihoods_are_no_difference_whatever_is_drawn(texts: list[tuple[float, float, int]]) -> None:
    reference = [likelihood for likelihood, _, _ in texts]
    words = [words for _, _, words in texts]
    assert perplexity_difference(reference, reference, words) == Interval(value=0.0, bound=0.0)


def test_a_perplexity_is_that_of_all_words_and_no_mean_of_texts() -> None:
    found = perplexity_difference([-10.0] * 10, [-10.0] * 9 + [-12.0], [2] * 9 + [182])
    assert found.value == pytest.approx(math.expm1(2 / 200))


def test_few_texts_show_nothing() -> None:
    assert perplexity_difference([-10.0] * 9, [-10.0] * 9, [5] * 9) == Interval(value=0.0, bound=math.inf)
    assert perplexity_difference([-10.0] * 10, [-10.0] * 10, [5] * 10).bound == 0.0


def test_the_same_numbers_give_the_same_bound() -> None:
    reference, words = [-40.0 - n for n in range(20)], [9] * 20
    subject = [likelihood * (1 + 1e-3 * (-1) ** n) for n, likelihood in enumerate(reference)]
    bounds = {perplexity_difference(reference, subject, words).bound for _ in range(3)}
    assert len(bounds) == 1


def outcome(bundle: Any, criterion: str) -> Outcome:
    findings = judge(bundle.comparison, load_standard("official-inference"))
    return {finding.criterion: finding.outcome for finding in findings}[criterion]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"documents": 747}, Outcome.INCONCLUSIVE),
        ({"documents": 748}, Outcome.PASS),
        ({"documents": 748, "texts": 9}, Outcome.INCONCLUSIVE),
    ],
)
def test_a_small_evaluation_shows_nothing_and_is_no_failure(
    tmp_path: Any, asked: dict[str, int], expected: Outcome
) -> None:
    bundle = write_example(tmp_path / "b", case=inference_case(**asked))
    assert outcome(bundle, "score-ceiling") is Outcome.PASS
    assert outcome(bundle, "score-shown") is expected


@pytest.mark.parametrize("task", TASKS)
def test_a_difference_beyond_the_ceiling_fails_in_any_task(tmp_path: Any, task: str) -> None:
    def worse(run: str, line: Any) -> Any:
        if not run.startswith("subject") or getattr(line, "task", None) != task:
            return line
        score = line.score * 1.01 if task == "text" else 0.0
        return dataclasses.replace(line, score=score)

    bundle = write_example(tmp_path / "b", case=inference_case(), change=worse)
    assert outcome(bundle, "score-ceiling") is Outcome.FAIL
