"""How long runs take, as stated before they start."""

from pathlib import Path
from typing import Any

from harness.cases.case import Case, load_case
from harness.certify.case_options import cut
from harness.certify.forecast import Forecast, forecast
from harness.certify.jobs import plan
from tests.support.examples import inference_case, options, small_case


def of(case: Case, tmp_path: Path, at_once: int = 1, **more: Any) -> Forecast | None:
    return forecast(case, plan(case, options(tmp_path, **more)), at_once=at_once, memory=15.0, disk=17.0, rate=5e10)


def test_a_large_case_is_announced_with_hours_memory_and_disk(tmp_path: Path) -> None:
    case = load_case("qwen3-0.6b-fp32")
    ahead = of(case, tmp_path)
    assert ahead is not None
    said = ahead.stated(case.name)
    assert said is not None and " h here, 1 run at a time, each with up to 15 GiB of memory; 17 GiB of disk" in said
    assert all(f"{job.run} " in said for job in plan(case, options(tmp_path)))


def test_nothing_is_said_of_what_is_soon_over(tmp_path: Path) -> None:
    ahead = of(small_case(), tmp_path, at_once=2)
    assert ahead is not None and ahead.stated("small") is None


def test_more_layers_take_longer_and_more_runs_at_once_less_long(tmp_path: Path) -> None:
    case = load_case("qwen3-0.6b-fp32")
    few, one, two = of(cut(case, 4, None), tmp_path), of(case, tmp_path), of(case, tmp_path, at_once=2)
    assert few is not None and one is not None and two is not None
    assert few.total < one.total and 0.4 < two.total / one.total < 0.8


def test_what_is_not_known_is_not_guessed(tmp_path: Path) -> None:
    assert of(load_case("qwen3-8b-bf16"), tmp_path, device="Ascend") is None


def test_answers_take_longer_the_more_is_asked_and_the_oracle_answers_no_questions(tmp_path: Path) -> None:
    case = load_case("qwen3-0.6b-inference-fp32")
    asked = case.inference_section
    more = {
        "a document more": {"documents": 2 * asked.documents},
        "more tokens": {"max_new_tokens": 2 * asked.max_new_tokens},
    }
    before = of(case, tmp_path)
    assert before is not None and 60 < before.total < 4 * 3600
    for what, changes in more.items():
        after = of(case.with_changes(inference={**asked.model_dump(), **changes}), tmp_path)
        assert after is not None
        longer = {run for run, seconds in after.seconds.items() if seconds > before.seconds[run]}
        oracle = {run for run in before.seconds if "oracle" in run}
        assert longer == set(before.seconds) - (oracle if what == "a document more" else set()), what


def test_a_case_that_trains_what_it_asks_is_forecast_whole(tmp_path: Path) -> None:
    ahead = of(inference_case(), tmp_path)
    assert ahead is not None and set(ahead.seconds) == {job.run for job in plan(inference_case(), options(tmp_path))}


def test_the_speed_of_this_machine_is_measured_for_a_large_case(tmp_path: Path) -> None:
    case = load_case("qwen3-0.6b-fp32")
    ahead = forecast(case, plan(case, options(tmp_path)), at_once=1, memory=15.0, disk=17.0)
    assert ahead is not None and 60 < ahead.total < 1e7
