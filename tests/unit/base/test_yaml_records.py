"""Records from YAML: every problem at once, each with its file, its line and the keys that lead to it."""

from dataclasses import dataclass
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from harness.base.errors import InputError
from harness.base.written import Problem, Written
from harness.base.yaml_files import parse_yaml
from harness.base.yaml_records import Problems, Record, validated


@dataclass(frozen=True)
class Plain:
    """A dataclass of another package, as a section of a record."""

    ranks: int = 1
    stages: int = 1


class Item(Record):
    number: int = Field(ge=0)
    note: str | None = None


class Order(Record):
    name: str
    items: tuple[Item, ...] = Field(min_length=1)
    layout: Plain = Plain()
    extra: Item | None = None

    @model_validator(mode="after")
    def _numbers_once(self) -> Self:
        numbers = [item.number for item in self.items]
        twice = [
            Problem(keys=("items", index, "number"), message=f"{number} is there twice")
            for index, number in enumerate(numbers)
            if number in numbers[:index]
        ]
        if twice:
            raise Problems(twice)
        return self


def problems(text: str) -> list[str]:
    """The lines of the message but the first, which counts them."""
    with pytest.raises(InputError) as error:
        validated(Order, parse_yaml(text, "f"), "order")
    first, *lines = str(error.value).splitlines()
    assert first == f"f is not a valid order ({len(lines)} problem{'s' * (len(lines) > 1)}):"
    return [line.removeprefix("  ") for line in lines]


def test_what_is_valid_is_a_record() -> None:
    order = validated(Order, parse_yaml("name: a\nitems: [{number: 1}]\nlayout: {ranks: 2}", "f"), "order")
    assert order == Order(name="a", items=(Item(number=1),), layout=Plain(ranks=2))


def test_every_problem_is_told_at_once_in_the_order_of_the_file() -> None:
    text = "items:\n  - number: -1\n  - numbr: 2\n    note: x\nlayout:\n  rnks: 2\nextra:\n  number: 1\n  size: 3\n"
    assert problems(text) == [
        "f:1: name: Field required",
        "f:2: items.0.number: Input should be greater than or equal to 0",
        "f:3: items.1.number: Field required",
        "f:3: items.1.numbr: unknown key; did you mean 'number'?",
        "f:6: layout.rnks: unknown key; did you mean 'ranks'?",
        "f:9: extra.size: unknown key; known: number, note",
    ]


def test_problems_between_fields_have_their_own_lines() -> None:
    text = "name: a\nitems:\n  - number: 1\n  - number: 2\n  - number: 1\n  - note: x\n    number: 2\n"
    assert problems(text) == ["f:5: items.2.number: 1 is there twice", "f:7: items.3.number: 2 is there twice"]


@pytest.mark.parametrize("text", ["", "[]", "words", "3", "2026-01-01"])
def test_what_is_no_mapping_is_told_the_keys(text: str) -> None:
    assert problems(text) == ["f:1: (whole file): expected a mapping with the keys name, items, layout, extra"]


def test_a_section_that_is_no_mapping_is_told_the_keys() -> None:
    assert problems("name: a\nitems:\n  - 3\nlayout: 4") == [
        "f:3: items.0: expected a mapping with the keys number, note",
        "f:4: layout: expected a mapping with the keys ranks, stages",
    ]


def test_an_empty_list_is_too_short_and_one_with_wrong_items_is_not() -> None:
    assert problems("name: a\nitems: []")[0].startswith("f:2: items: Tuple should have at least 1 item")
    assert problems("name: a\nitems: [{}]") == ["f:2: items.0.number: Field required"]


def test_a_key_that_is_a_number_is_refused() -> None:
    assert problems("name: a\nitems: [{number: 1}]\n7: x\n") == ["f:3: 7: Keys should be strings"]


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_a_number_that_is_not_finite_is_refused(value: str) -> None:
    class Rate(Record):
        rate: float

    with pytest.raises(InputError, match="f:1: rate: Input should be a finite number"):
        validated(Rate, parse_yaml(f"rate: {value}", "f"), "rate")


def test_content_without_lines_names_its_origin_and_its_keys() -> None:
    with pytest.raises(InputError) as error:
        validated(Order, Written(value={"name": 1}, origin="the record"), "order")
    assert str(error.value).splitlines() == [
        "the record is not a valid order (2 problems):",
        "  name: Input should be a valid string",
        "  items: Field required",
    ]


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(ANY, st.dictionaries(st.sampled_from(["name", "items", "layout", "extra", "none"]), ANY))
def test_no_content_ends_in_anything_but_a_record_or_a_message(whole: Any, sections: dict[str, Any]) -> None:
    for value in (whole, sections):
        try:
            validated(Order, Written(value=value, origin="f"), "order")
        except InputError as error:
            assert str(error).startswith("f is not a valid order (")


class Numbers(Record):
    """A record of numbers, and of one that may also be on or off."""

    rate: float = 1.0
    steps: int | None = None
    either: bool | int = False


@pytest.mark.parametrize("word", ["yes", "on", "true", "off"])
@pytest.mark.parametrize("name", ["rate", "steps"])
def test_a_word_that_yaml_reads_as_a_boolean_is_no_number(word: str, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name}: expected a number, got (True|False)"):
        validated(Numbers, parse_yaml(f"{name}: {word}\n", "file.yaml"), "thing")
    assert validated(Numbers, parse_yaml(f"either: {word}\nrate: 2\n", "file.yaml"), "thing").rate == 2.0
