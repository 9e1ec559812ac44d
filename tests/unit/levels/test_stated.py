"""What is stated is data with source and date; a table that is not such data is refused with every line at fault."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.base.errors import InputError
from harness.levels.certificate import Level
from harness.levels.stated import LEVELS, SETTINGS, STATED_DIR, VERSIONS, load_stated
from qwen3_model.sizes import PUBLISHED


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    for name in (LEVELS, SETTINGS, VERSIONS):
        shutil.copy(STATED_DIR / name, tmp_path / name)
    return tmp_path


def edit(path: Path, change: Callable[[str], str]) -> None:
    before = path.read_text()
    assert change(before) != before
    path.write_text(change(before))


def test_every_published_size_and_task_is_stated_with_source_and_date() -> None:
    stated = load_stated().levels
    cells = {(one.size, one.task): one for one in stated}
    dense = {size for size, _ in cells if size in PUBLISHED}
    assert dense == set(PUBLISHED) and {size for size, _ in cells} - dense == {"30B-A3B", "235B-A22B"}
    assert all({(size, task) for task in ("finetune", "lora", "inference")} <= set(cells) for size in dense)
    assert len(cells) == len(stated) == 22
    assert all("@" in one.source and one.read_on.year == 2026 for one in stated)


def test_a_layout_comes_with_its_recompute_and_memory_settings() -> None:
    (one,) = [one for one in load_stated().levels if (one.size, one.task) == ("32B", "pretrain")]
    assert (one.stated_level, one.recompute, one.max_device_memory) == (Level.VALIDATED, True, "58GB")
    assert str(one.layout) == "DP1 x TP4 x PP4, 4 micro batches, whole embeddings"
    assert one.settings["recompute_slice_activation"] == "True" and one.settings["select_recompute"] == "False"
    (other,) = [one for one in load_stated().levels if (one.size, one.task) == ("8B", "inference")]
    assert (other.sequence_length, other.recompute, other.settings) == (None, None, {})


def test_a_changed_table_has_another_digest(tables: Path) -> None:
    assert load_stated(tables).digest == load_stated().digest
    edit(tables / VERSIONS, lambda text: text.replace("1.9.0", "1.9.1"))
    load_stated.cache_clear()
    assert load_stated(tables).digest != load_stated().digest


def test_every_problem_of_a_table_is_reported_with_its_line(tables: Path) -> None:
    edit(tables / LEVELS, lambda text: text.replace("Released", "Perfect", 1).replace(",16,", ",many,", 1))
    with pytest.raises(InputError) as refused:
        load_stated(tables)
    message = str(refused.value)
    assert "line 2: cards" in message and "line 15: stated_level" in message and str(tables / LEVELS) in message


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda text: text.replace("architecture", "style", 1), "expected the columns"),
        (lambda text: text + text.splitlines()[-1] + "\n", "both state a level of Qwen3 235B-A22B, inference"),
        (lambda text: text.replace("Untested", "none", 1), "no level that is stated"),
        (lambda text: text.replace("@27998af", "", 1), "line 2: source"),
        (lambda text: text.replace("58GB,", "58GB,more,", 1), "line 2"),
    ],
)
def test_a_table_that_states_something_else_is_refused(tables: Path, change: Callable[[str], str], why: str) -> None:
    edit(tables / LEVELS, change)
    with pytest.raises(InputError, match=why):
        load_stated(tables)


def test_a_missing_table_is_named(tables: Path) -> None:
    (tables / SETTINGS).unlink()
    with pytest.raises(InputError, match=r"settings.csv cannot be read"):
        load_stated(tables)
