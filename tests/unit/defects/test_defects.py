"""The catalogue of defects and a user's own file, read without a framework."""

import re
from datetime import date
from pathlib import Path

import pytest

from harness.base.errors import InputError
from harness.cases.case import DEFAULT_CASE, load_case, shipped_cases
from harness.defects import (
    AREAS,
    AREAS_OF_TASK,
    INFERENCE,
    MODULES,
    Defect,
    defects_of_file,
    load_defect,
    shipped_defects,
)
from harness.standards import dated_criteria

MINE = '''
from harness.defects import defect
from harness.runners.mindspore_subject import MindSporeSubject
from qwen3_model.modeling_qwen3_train import Qwen3Trainer


@defect(area="schedule", imitates="A rate of another run", source="https://example.org/1", size=0.5)
class HalfRate(MindSporeSubject):
    """Every learning rate is half
    of what it should be.

    More on it.
    """

    class trainer(Qwen3Trainer):
        def learning_rate(self, step):
            return 0.5 * super().learning_rate(step)
'''


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def test_shipped_defects_are_ordered_by_area_and_keyed_by_id() -> None:
    shipped = shipped_defects()
    assert list(dict.fromkeys(one.area for one in shipped.values())) == list(AREAS)
    assert all(key == one.id for key, one in shipped.items())
    assert list(shipped) == list(shipped_defects())


def test_no_two_shipped_defects_share_an_id() -> None:
    directory = Path(__file__).parents[3] / "harness" / "defects"
    marked = sum(path.read_text().count("\n@defect(") for path in directory.glob("*.py"))
    assert len(shipped_defects()) == marked >= 66


@pytest.mark.parametrize("defect", shipped_defects().values(), ids=lambda one: one.id)
def test_every_shipped_defect_has_a_complete_description(defect: Defect) -> None:
    assert defect.what.endswith(".") and defect.imitates
    assert defect.source.startswith("https://")
    assert defect.case in shipped_cases()
    assert defect.size is None or 0 < defect.size < 1
    own_file = defect.runner.partition(":")[0].removeprefix("harness.defects.")
    assert own_file in MODULES and (own_file == defect.area or defect.area in ("model", INFERENCE))
    assert defect.area in AREAS_OF_TASK[load_case(defect.case).task.name]


def test_every_shipped_defect_has_the_day_since_which_it_is_in_the_catalogue() -> None:
    shipped = shipped_defects().values()
    assert all(one.since is not None and date.fromisoformat(one.since) >= date(2026, 11, 24) for one in shipped)


def test_fifteen_faults_of_training_are_bugs_of_others_each_with_its_report() -> None:
    others = [one for one in shipped_defects().values() if one.reported and one.area != INFERENCE]
    assert len({one.source for one in others}) >= 15
    report = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+")
    for one in others:
        assert report.fullmatch(one.source), one.source
        assert date.fromisoformat(str(one.reported)) < date.fromisoformat(str(one.since))


def test_the_faults_planted_after_every_criterion_are_new_and_described() -> None:
    """Those of `benchmarks` stay out of the catalogue, so that no criterion is built by them."""
    directory = Path(__file__).parents[3] / "benchmarks" / "faults_of_december"
    later = [one for path in sorted(directory.glob("*.py")) for one in defects_of_file(path)]
    assert len({one.id for one in later} - set(shipped_defects())) == len(later) == 50
    newest = max(one.since for one in dated_criteria() if one.standard in ("official", "strict-fp32"))
    for one in later:
        assert one.what.endswith(".") and one.imitates and one.source.startswith("https://"), one.id
        assert str(one.since) > newest and one.case == DEFAULT_CASE, one.id


def test_a_users_defect_is_one_file(mine: Path) -> None:
    expected = Defect(
        id="half-rate",
        area="schedule",
        runner=f"{mine}:HalfRate",
        what="Every learning rate is half of what it should be.",
        note="More on it.",
        imitates="A rate of another run",
        source="https://example.org/1",
        size=0.5,
        case=DEFAULT_CASE,
    )
    assert load_defect(str(mine)) == load_defect(f"{mine}:HalfRate") == expected


def test_reading_a_file_does_not_run_it(mine: Path) -> None:
    mine.write_text("raise SystemExit(1)\n" + MINE)
    assert [one.id for one in defects_of_file(mine)] == ["half-rate"]


def test_a_shipped_defect_is_found_by_its_id() -> None:
    assert load_defect("rotary-base").runner == "harness.defects.rotary:RotaryBase"


def test_with_several_defects_in_a_file_one_must_be_named(mine: Path) -> None:
    mine.write_text(MINE + MINE.replace("HalfRate", "OtherRate"))
    with pytest.raises(InputError, match=r"holds several defects\. Name one of them: .*:HalfRate, .*:OtherRate"):
        load_defect(str(mine))
    with pytest.raises(InputError, match=r"holds no defect 'NoRate'\. Name one of them"):
        load_defect(f"{mine}:NoRate")
    assert load_defect(f"{mine}:OtherRate").id == "other-rate"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("@defect(", "@other("), "holds no defect: it has no class with @defect"),
        (("size=0.5", "size=1 / 2"), "is not described by literals"),
        (('"schedule"', '"weather"'), "area: Input should be 'model', 'loss'"),
        (("size=0.5", "place='model.norm'"), "place and direction: give both or neither"),
        (("size=0.5", "colour='red'"), "colour: unknown"),
        (('imitates="A rate of another run", ', ""), "imitates: Field required"),
        (('"https://example.org/1"', '""'), "source: empty"),
        (("size=0.5", "reported='last year'"), "reported: String should match pattern"),
        (("class HalfRate(", "class HalfRate(("), "is not Python"),
    ],
)
def test_a_file_without_a_valid_defect_is_an_error(mine: Path, change: tuple[str, str], words: str) -> None:
    mine.write_text(MINE.replace(*change))
    with pytest.raises(InputError) as refused:
        load_defect(str(mine))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no-such", "There is no defect 'no-such': neither one of the"),
        ("no_such.py", "cannot be read: No such file"),
    ],
)
def test_a_missing_defect_is_an_error(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_defect(name)
