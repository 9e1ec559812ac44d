"""The floor: what a study holds, the limits that follow from it, and the shipped ones that cite one."""

import dataclasses
import json
import math
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.base.errors import EvidenceError, InputError
from harness.base.records import write_json
from harness.cases.case import load_case, shipped_cases
from harness.evidence import floor as evidence_floor
from harness.evidence.bundle import Bundle
from harness.evidence.floor import (
    QUANTITIES,
    SAFETY_FACTOR,
    FloorStudy,
    Repeat,
    ceiling,
    floor_of,
    not_measured,
    quantity,
    read_study,
    rounded_up,
    shipped_studies,
)
from harness.evidence.summary import remarks
from harness.levels.rule import certify
from harness.levels.submission import Submission
from harness.standards import Limit, Standard, load_standard, shipped_standards
from harness.studies import floor
from harness.studies.variations import TRAINED
from tests.support.bundles import write_example
from tests.support.examples import FAKES, options, small_case, text_case

SIZES = st.floats(1e-12, 1e3)
# How the source of a limit names the study that it follows from.
CITES = re.compile(r"Floor of (?P<case>[a-z0-9.-]+), twice the widest of (?P<repeats>\d+) repeats")


def study(**values: tuple[float, ...]) -> FloorStudy:
    """The shipped study of the bfloat16 case, with other values of some quantities."""
    shipped = shipped_studies()["qwen3-tiny-bf16"]
    return dataclasses.replace(shipped, values={**shipped.values, **values})


def with_loss(of: str, *values: float) -> FloorStudy:
    return study(**{quantity("train.loss.relative", of): values})


def citing(standard: Standard) -> list[tuple[Limit, re.Match[str]]]:
    limits = [limit for criterion in standard.criteria for limit in criterion.limits]
    return [(limit, found) for limit in limits if (found := CITES.match(limit.source))]


@given(SIZES)
def test_a_limit_is_rounded_up_and_to_two_digits(value: float) -> None:
    rounded = rounded_up(value)
    assert value * (1 - 1e-9) <= rounded <= value * 1.1001
    assert f"{rounded:.1e}" == f"{float(repr(rounded)):.1e}" and math.isclose(rounded, float(f"{rounded:.1e}"))


@given(st.lists(SIZES, min_size=1), SIZES)
def test_a_wider_repeat_never_narrows_a_limit(values: list[float], wider: float) -> None:
    before, after = (
        with_loss("maximum", *v).limit("train.loss.relative", "maximum") for v in (values, [*values, wider])
    )
    assert before <= after


@pytest.mark.parametrize(
    ("measurement", "of", "most"),
    [
        ("train.loss.relative", "first", 0.005),
        ("train.loss.relative", "mean", 0.01),
        ("train.loss.signed", "bias", 0.01),
        ("train.grad_norm.relative", "mean", 0.10),
        ("train.grad_norm.signed", "bias", 0.10),
    ],
)
def test_no_floor_makes_a_limit_looser_than_the_published_ceiling(measurement: str, of: str, most: float) -> None:
    wide = study(**{quantity(measurement, "mean" if of == "bias" else of): (0.2, -0.5)})
    assert wide.limit(measurement, of) == most == ceiling(measurement, of)


def test_both_sides_of_the_envelope_count() -> None:
    measured = study(**{quantity("train.loss.signed", "mean"): (-3e-6, 1e-6)})
    assert measured.envelope("train.loss.signed", "mean") == (-3e-6, 1e-6)
    assert measured.limit("train.loss.signed", "bias") == pytest.approx(SAFETY_FACTOR * 3e-6)


def test_what_was_not_recorded_gives_no_limit() -> None:
    with pytest.raises(InputError, match=r"does not record the rms of train\.loss\.relative"):
        study().limit("train.loss.relative", "rms")


@pytest.mark.parametrize("name", shipped_studies())
def test_a_shipped_study_is_of_a_shipped_case_as_it_is_and_of_committed_code(name: str) -> None:
    found = shipped_studies()[name]
    assert found.case == name and name in shipped_cases()
    assert found.case_digest == load_case(name).digest(), "the case has changed: measure its floor again"
    assert found.source.revision and not found.source.dirty
    assert {repeat.attention for repeat in found.repeats} == {"eager", "sdpa"}
    assert len({repeat.threads for repeat in found.repeats}) > 1
    assert len({repeat.seed for repeat in found.repeats}) > 10


@pytest.mark.parametrize("name", shipped_standards())
def test_a_limit_that_cites_a_floor_is_the_one_that_follows_from_it(name: str) -> None:
    for limit, cited in citing(load_standard(name)):
        measured = shipped_studies()[cited["case"]]
        assert limit.value == measured.limit(limit.measurement, limit.statistic), limit
        assert int(cited["repeats"]) == len(measured.repeats)


@pytest.mark.parametrize("name", ["strict-bf16", "strict-bf16-long"])
def test_the_limits_of_bfloat16_come_from_a_floor(name: str) -> None:
    standard = load_standard(name)
    cited = {limit.measurement for limit, _ in citing(standard)}
    assert len(cited) >= 8
    assert all(measurement in {name for name, _ in QUANTITIES} for measurement in cited)


@pytest.mark.parametrize("name", [name for name in shipped_standards() if name != "official"])
def test_no_strict_limit_is_looser_than_the_published_ceiling(name: str) -> None:
    for criterion in load_standard(name).criteria:
        for limit in criterion.limits:
            assert limit.value <= ceiling(limit.measurement, limit.statistic), criterion.id


@pytest.mark.parametrize("name", ["strict-bf16", "strict-bf16-long"])
def test_in_the_longest_unit_that_is_allowed_no_limit_is_looser_than_the_published_ceiling(name: str) -> None:
    limits = [limit for criterion in load_standard(name).criteria for limit in criterion.limits]
    longest = {limit.measurement: limit.value for limit in limits if limit.measurement.endswith(".unit")}
    scaled = [limit for limit in limits if limit.measurement.startswith("train.") and ".scaled" in limit.measurement]
    assert len(scaled) == 6
    for limit in scaled:
        number = limit.measurement.split(".")[1]
        allowed = limit.value * longest[f"oracle.{number}.unit"]
        assert allowed < ceiling(f"train.{number}.relative", limit.statistic)


def test_the_floor_of_a_case_is_that_of_its_own_shape() -> None:
    shipped = shipped_studies()["qwen3-tiny-bf16"]
    own = shipped.of_its_case()
    assert len(own.repeats) == 23 and {repeat.shape for repeat in own.repeats} == {None}
    assert own.envelope("train.loss.relative", "maximum") < shipped.envelope("train.loss.relative", "maximum")


def test_a_bundle_without_repeats_takes_the_floor_of_its_very_case(tmp_path: Path) -> None:
    bundle = write_example(tmp_path / "bundle", case=small_case())
    assert floor_of(bundle) is None
    shipped = shipped_studies()["qwen3-tiny-bf16"].of_its_case()
    floor = floor_of(dataclasses.replace(bundle, case=load_case("qwen3-tiny-bf16")))
    assert floor == {
        "loss": max(shipped.values["maximum of train.loss.relative"]),
        "grad_norm": max(shipped.values["maximum of train.grad_norm.relative"]),
    }


DAMAGED: dict[str, Any] = {
    "another format": lambda s: s.update(format="certify-floor/0"),
    "no repeat": lambda s: s.update(repeats=[], values={name: [] for name in s["values"]}),
    "a repeat without its values": lambda s: s["repeats"].pop(),
    "a value too many": lambda s: s["values"]["mean of train.loss.signed"].append(0.0),
    "a quantity less": lambda s: s["values"].pop("mean of train.loss.signed"),
    "a quantity more": lambda s: s["values"].update(more=[0.0] * len(s["repeats"])),
    "a value in words": lambda s: s["values"]["mean of train.loss.signed"].__setitem__(0, "0.0"),
    "a field less": lambda s: s.pop("source"),
    "a field more": lambda s: s.update(limit=1.0),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_study_that_was_edited_is_refused(tmp_path: Path, name: str) -> None:
    content = json.loads(json.dumps(dataclasses.asdict(study())))
    DAMAGED[name](content)
    write_json(tmp_path / "floor.json", content)
    with pytest.raises(EvidenceError, match=r"floor\.json"):
        read_study(tmp_path / "floor.json")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, forked_runs: None) -> None:
    monkeypatch.setattr(floor, "ATTENTION", dict.fromkeys(("eager", "sdpa"), f"{FAKES}:Fake"))


@pytest.mark.usefixtures("fakes")
def test_a_repeat_that_is_not_moved_is_no_distance_away_and_a_moved_one_is(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeats = floor.repeats(1)
    assert [str(one) for one in repeats][:2] == [
        "eager attention, 2 threads, weights as they are",
        "eager attention, 1 thread, weights moved by seed 1",
    ]
    assert len({one.seed for one in repeats if one.seed is not None}) == 2
    inputs = tmp_path_factory.mktemp("inputs")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = floor.study(text_case(inputs), options(tmp_path), repeats, lambda run, trace: None)
    values = found.values["maximum of train.loss.relative"]
    assert [value > 0 for value in values] == [repeat.seed is not None for repeat in repeats]
    assert list(tmp_path.iterdir()) == [], "what was run is gone"


@pytest.mark.usefixtures("fakes")
def test_a_study_of_shapes_holds_each_and_keeps_them_apart_from_the_case(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floor, "SHAPES", ("seq-16",))
    perturbed = floor.repeats(0) + floor.repeats_of_shapes()
    assert str(perturbed[-1]) == "seq-16, sdpa attention, 1 thread, weights moved by seed 1003"
    case = text_case(tmp_path_factory.mktemp("inputs"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    told: set[str] = set()
    found = floor.study(case, options(tmp_path), perturbed, lambda run, trace: told.add(run))
    assert told == set(floor.names_of_runs(case, options(tmp_path), perturbed))
    assert "seq-16/repeat-4-probe" in told and "reference-1" in told
    assert found.repeats == perturbed and all(len(values) == len(perturbed) for values in found.values.values())
    own = found.of_its_case()
    assert own.repeats == floor.repeats(0)
    assert own.values == {name: values[: len(own.repeats)] for name, values in found.values.items()}


def test_a_kind_of_reference_is_repeated_with_each_attention_as_it_is_and_moved() -> None:
    assert floor.repeats_of_kinds(3) == ()
    found = floor.repeats_of_kinds(1, "CUDA", 4)
    assert [str(one) for one in found][::2] == [
        "CUDA, eager attention, 1 thread, weights as they are",
        "CUDA, sdpa attention, 1 thread, weights as they are",
        "4 processes, eager attention, 1 thread, weights as they are",
        "4 processes, sdpa attention, 1 thread, weights as they are",
    ]
    seeds = [one.seed for one in found if one.seed is not None]
    others = [one.seed for one in floor.repeats(10) + floor.repeats_of_shapes() if one.seed is not None]
    assert len({*seeds}) == len(seeds) == 4 and not {*seeds} & {*others}


def test_a_study_states_how_far_each_kind_of_reference_is_from_it() -> None:
    kinds = [Repeat(attention="sdpa", threads=1, seed=None), *floor.repeats_of_kinds(0, "CUDA", 4)]
    shaped = dataclasses.replace(kinds[0], shape="seq-16")
    values = {name: tuple(float(number) for number in range(6)) for name in study().values}
    found = dataclasses.replace(study(), repeats=(*kinds, shaped), values=values).by_kind()
    assert list(found) == [
        "CPU, 1 process, sdpa",
        "CUDA, 1 process, eager",
        "CUDA, 1 process, sdpa",
        "CPU, 4 processes, eager",
        "CPU, 4 processes, sdpa",
    ]
    assert [one.envelope("train.loss.relative", "maximum") for one in found.values()] == [(n, n) for n in range(5)]


def test_a_study_of_kinds_is_read_as_it_was_written_and_those_before_it_too(tmp_path: Path) -> None:
    made = dataclasses.replace(
        study(), repeats=floor.repeats_of_kinds(0, "CUDA"), values=dict.fromkeys(study().values, (0.0, 1.0))
    )
    write_json(tmp_path / "floor.json", made)
    assert read_study(tmp_path / "floor.json") == made and made.devices == {"CPU", "CUDA"}
    assert all(found.devices == {"CPU"} for found in shipped_studies().values())


def on_device(bundle: Bundle, device: str) -> Bundle:
    """The bundle of a reference that ran on a device."""
    machine = {**bundle.environment.machine, "reference_device": device}
    return dataclasses.replace(bundle, environment=dataclasses.replace(bundle.environment, machine=machine))


def test_limits_of_a_cpu_are_not_measured_for_a_reference_on_another_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_example(tmp_path / "bundle", case=small_case())
    other = on_device(bundle, "CUDA")
    assert not_measured(bundle) is None
    why = not_measured(other)
    assert why and f"certify floor {bundle.case.name} --reference-device cuda --out" in why
    assert any(why in remark for remark in remarks(other)) and not any("not measured" in one for one in remarks(bundle))

    def limits(one: Bundle) -> list[bool]:
        certificate = certify(Submission(bundle=one), datetime.now(UTC))
        return [found.met for found in certificate.requirements if "measured for the reference's device" in found.text]

    assert (limits(bundle), limits(other)) == ([], [False])
    shipped = shipped_studies()["qwen3-tiny-fp32"]
    repeats = (dataclasses.replace(shipped.repeats[0], device="CUDA"), *shipped.repeats[1:])
    measured = {"qwen3-tiny-fp32": dataclasses.replace(shipped, repeats=repeats)}
    monkeypatch.setattr(evidence_floor, "shipped_studies", lambda: measured)
    assert not_measured(other) is None and limits(other) == [True]
    assert not_measured(on_device(bundle, "Ascend")) is not None
    in_bfloat16 = load_case("qwen3-tiny-bf16")
    assert not_measured(dataclasses.replace(other, case=in_bfloat16)) is not None, "of another precision"


def test_the_shapes_of_a_floor_begin_with_weights_of_their_own() -> None:
    assert max(variation.seeds for variation in TRAINED) <= floor.SEED


@pytest.mark.usefixtures("fakes")
def test_a_run_that_breaks_gives_no_floor(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(floor.ATTENTION, "sdpa", f"{FAKES}:Crashes")
    inputs = tmp_path_factory.mktemp("inputs")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InputError, match="No floor: repeat-2-1 did not complete"):
        floor.study(text_case(inputs), options(tmp_path), floor.repeats(0), lambda run, trace: None)
    assert list(tmp_path.iterdir()) == []
