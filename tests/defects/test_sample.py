"""All defects are planted when anything that they depend on changed; a fixed sample otherwise."""

from pathlib import Path

import pytest

from harness.base.records import write_json
from harness.defects import shipped_defects
from tests.support import catalogue

DEFECTS = [*shipped_defects().values()][:3]
FIRST, *OTHERS = [one.id for one in DEFECTS]
TEST = "tests/defects/test_sample.py::test_without_a_change_only_the_sample_is_planted"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose catalogues were run whole."""
    for name in catalogue.DEPENDS_ON:
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "module.py").write_text("VALUE = 1\n")
    write_json(tmp_path / "whole.json", dict(catalogue.covered(tmp_path)))
    return tmp_path


def left_to_full() -> list[str]:
    return [one.id for one in catalogue.planted(DEFECTS, [FIRST], TEST) if one.marks]


@pytest.mark.parametrize("name", catalogue.DEPENDS_ON)
def test_an_edit_of_what_defects_depend_on_is_a_change(checkout: Path, name: str) -> None:
    assert not catalogue.changed(checkout / "whole.json", checkout)
    (checkout / name / "inner" / "module.py").write_text("VALUE = 2\n")
    assert catalogue.changed(checkout / "whole.json", checkout)


def test_a_file_more_and_a_missing_record_are_changes(checkout: Path) -> None:
    assert catalogue.changed(checkout / "none.json", checkout)
    (checkout / "qwen3_model" / "more.yaml").touch()
    assert catalogue.changed(checkout / "whole.json", checkout)


def test_without_a_change_only_the_sample_is_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "changed", lambda: False)
    assert left_to_full() == OTHERS


def test_after_a_change_every_defect_is_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "changed", lambda: True)
    assert left_to_full() == []
