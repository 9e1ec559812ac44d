"""A row states what was changed from the shipped case, also where an option changed its name."""

import pytest

from harness.cases.case import load_case
from harness.certify.case_options import cut, in_steps
from harness.site.changed import changes


def test_a_shipped_case_as_it_is_changes_nothing() -> None:
    assert changes(load_case("qwen3-tiny-fp32")) == ()


def test_another_number_of_steps_is_stated_and_not_a_digest() -> None:
    stated = changes(in_steps(load_case("qwen3-tiny-sft-fp32"), 1000))
    assert "training.steps 1000, shipped 200" in stated
    assert all(one.startswith("training.") for one in stated)


def test_a_cut_model_in_fewer_steps_is_named_after_its_shipped_case() -> None:
    stated = changes(in_steps(cut(load_case("qwen3-0.6b-fp32"), 2, 1000), 10))
    assert {"training.steps 10, shipped 20", "model.num_hidden_layers 2, shipped 28"} <= set(stated)
    assert "model.vocab_size 1000, shipped 151936" in stated


@pytest.mark.parametrize("name", ["mine", "mine-20steps", "qwen3-tiny-fp32-mine", "qwen3-tiny-fp32-"])
def test_a_case_of_ones_own_has_its_digest(name: str) -> None:
    case = load_case("qwen3-tiny-fp32").with_changes(name=name)
    assert changes(case) == (f"not a shipped case, digest {case.digest()[:12]}",)
