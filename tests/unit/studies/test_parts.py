"""A study that several machines make is the study that one would: no run is lost, made twice, or counted alone."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import EvidenceError, InputError
from harness.base.parts import Part, Share, interleaved, read_part
from harness.base.records import write_json
from harness.cases.case import load_case
from harness.cases.task import PRETRAIN
from harness.defects import PARALLEL, shipped_defects
from harness.evidence.floor import FloorStudy, read_study, shipped_studies
from harness.power.record import PowerStudy, read_power
from harness.studies.floor import repeats, share_of
from harness.studies.power import StudyPlan
from tests.support.command_line import Call, caller
from tests.support.examples import ROOT

STUDY = read_power(ROOT / "reports" / "power-qwen3-tiny-fp32.json")
DEFECTS = tuple(one for one in shipped_defects().values() if one.task == PRETRAIN and one.area != PARALLEL)[:7]
PLAN = StudyPlan(defects=DEFECTS, case=None, standards=(), clean=9)


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


def in_parts(study: PowerStudy, of: int) -> list[PowerStudy]:
    """What each of so many machines records of a study."""
    found = []
    for number in range(1, of + 1):
        part = Part(number=number, of=of)
        share = Share(part=str(part), plan="p" * 64)
        own = {"planted": tuple(part.share(study.planted)), "clean": tuple(part.share(study.clean))}
        found.append(dataclasses.replace(study, share=share, seconds=10.0, **own))
    return found


def floor_in_parts(study: FloorStudy, of: int) -> list[FloorStudy]:
    found = []
    for number in range(1, of + 1):
        part = Part(number=number, of=of)
        values = {name: tuple(part.share(each)) for name, each in study.values.items()}
        share = Share(part=str(part), plan="p" * 64)
        found.append(dataclasses.replace(study, repeats=tuple(part.share(study.repeats)), values=values, share=share))
    return found


def files(directory: Path, parts: Sequence[Any]) -> list[str]:
    for number, part in enumerate(parts, 1):
        write_json(directory / f"part-{number}.json", part)
    return [str(directory / f"part-{number}.json") for number in range(1, len(parts) + 1)]


def gathering(paths: Sequence[str]) -> list[str]:
    return [word for path in paths for word in ("--gather", path)]


@given(st.lists(st.integers(), max_size=30), st.integers(1, 9))
def test_interleaved_parts_are_the_whole(items: list[int], of: int) -> None:
    parts = [Part(number=number, of=of).share(items) for number in range(1, of + 1)]
    assert list(interleaved(parts)) == items


@given(st.integers(1, 6))
@settings(max_examples=6)
def test_the_parts_of_a_plan_have_each_run_once_and_are_of_one_plan(of: int) -> None:
    parts = [dataclasses.replace(PLAN, part=Part(number=number, of=of)) for number in range(1, of + 1)]
    assert sorted(one.id for part in parts for one in part.defects_here) == sorted(one.id for one in DEFECTS)
    clean = [(variation.name, seed) for part in parts for variation, seed in part.clean_here]
    assert sorted(clean) == sorted((one.name, seed) for one, seed in PLAN.clean_here)
    shares = [part.share for part in parts]
    assert len({share.plan for share in shares if share}) == 1 and PLAN.share is None
    assert sum(part.size for part in parts) == PLAN.size


def test_other_options_are_another_plan_and_a_part_without_runs_is_refused() -> None:
    part = Part(number=1, of=2)
    plans = [
        dataclasses.replace(PLAN, part=part),
        dataclasses.replace(PLAN, part=part, clean=8),
        dataclasses.replace(PLAN, part=part, steps=20),
        dataclasses.replace(PLAN, part=part, defects=DEFECTS[1:]),
    ]
    assert len({one.share.plan for one in plans if one.share}) == len(plans)
    with pytest.raises(InputError, match="has nothing to run"):
        _ = dataclasses.replace(PLAN, part=read_part("999/999")).share


def test_gathered_parts_are_the_study(certify_: Call, tmp_path: Path) -> None:
    paths = files(tmp_path, in_parts(STUDY, 3))
    done = certify_("power", *gathering(paths[::-1]), "--out", tmp_path / "all.json", "--json")
    made = read_power(tmp_path / "all.json")
    same = ("planted", "clean", "criteria", "standards", "source", "environment", "recorded")
    assert all(getattr(made, name) == getattr(STUDY, name) for name in same), done
    assert made.share is None and made.seconds == 30.0
    assert (tmp_path / "all.html").is_file() and json.loads(done.out)["rates"]


def test_a_part_that_did_not_come_is_named_and_nothing_is_recorded(certify_: Call, tmp_path: Path) -> None:
    paths = files(tmp_path, in_parts(STUDY, 4))
    done = certify_("power", *gathering([paths[0], paths[2]]), "--out", tmp_path / "all.json")
    assert done.code == 2 and "Not run: part 2/4 and part 4/4" in done.said and "--part 2/4" in done.said
    assert not (tmp_path / "all.json").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"share": None}, "is no part"),
        ({"share": Share(part="1/2", plan="p" * 64)}, "are both part 1/2"),
        ({"share": Share(part="2/2", plan="q" * 64)}, "parts of different wholes"),
        ({"share": Share(part="2/3", plan="p" * 64)}, "parts of different wholes"),
        ({"source": dataclasses.replace(STUDY.source, sha256="0" * 64)}, "their code differ"),
        ({"standards": dict.fromkeys(STUDY.standards, "0" * 64)}, "their standards differ"),
        ({"environment": dataclasses.replace(STUDY.environment, packages={})}, "their versions differ"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(
    certify_: Call, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    first, second = in_parts(STUDY, 2)
    paths = files(tmp_path, [first, dataclasses.replace(second, **changes)])
    done = certify_("power", *gathering(paths), "--out", tmp_path / "all.json")
    assert done.code == 2 and said in done.said, done


def test_a_part_alone_is_no_study(tmp_path: Path) -> None:
    """Its rates would be those of a choice."""
    (path, _) = files(tmp_path, in_parts(STUDY, 2))
    with pytest.raises(EvidenceError, match="is part 1/2 of a study"):
        read_power(Path(path))
    shipped = shipped_studies()["qwen3-tiny-bf16"]
    (path, _) = files(tmp_path, floor_in_parts(shipped, 2))
    with pytest.raises(EvidenceError, match="is part 1/2 of a study"):
        read_study(Path(path))


def test_gathered_parts_are_the_floor(certify_: Call, tmp_path: Path) -> None:
    name, shipped = "qwen3-tiny-bf16", shipped_studies()["qwen3-tiny-bf16"]
    paths = files(tmp_path, floor_in_parts(shipped, 4))
    done = certify_("floor", name, *gathering(paths), "--out", tmp_path / "all.json", "--json")
    assert done.code == 0, done
    made = read_study(tmp_path / "all.json")
    assert (made.repeats, made.values, made.share) == (shipped.repeats, shipped.values, None)
    lacking = certify_("floor", name, *gathering(paths[1:]), "--out", tmp_path / "other.json")
    assert lacking.code == 2 and f"certify floor {name} --part 1/4" in lacking.said


def test_the_parts_of_a_floor_have_each_repeat_once() -> None:
    case, every = load_case("qwen3-tiny-fp32"), repeats(3)
    shares = [share_of(case, every, Part(number=number, of=4)) for number in range(1, 5)]
    assert interleaved([own for own, _ in shares]) == every and share_of(case, every, None) == (every, None)
    assert len({share.plan for _, share in shares if share}) == 1
    with pytest.raises(InputError, match="has no repeat"):
        share_of(case, every, read_part("99/99"))


@pytest.mark.parametrize(
    "words", [["--part", "1/2"], ["--drawn", "3"], ["--clean", "2"], ["--case", "qwen3-tiny-fp32"]]
)
def test_gathering_takes_no_option_of_a_study(certify_: Call, tmp_path: Path, words: list[str]) -> None:
    done = certify_("power", "--gather", "a.json", *words, "--out", tmp_path / "all.json")
    assert done.code == 2 and "--gather runs nothing" in done.said
