"""The standards: shipped ones are sound, each limit has a reason, and any change is another digest."""

import dataclasses
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.base.errors import InputError
from harness.cases.case import load_case
from harness.cases.runs_of_a_case import REQUIRED_RUNS
from harness.evidence.judge import Outcome
from harness.levels.certificate import Level
from harness.runs.trace import Step
from harness.standards import dated_criteria, load_standard, parse_standard, shipped_standards
from tests.support.bundles import certified, write_example
from tests.support.examples import small_case

SHIPPED = tuple(shipped_standards())


def content(name: str = "official") -> Any:
    return yaml.safe_load(shipped_standards()[name].read_text())


def test_the_shipped_standards_are_known() -> None:
    assert SHIPPED == (
        "layout-fp32",
        "official-inference",
        "official",
        "rule-liger",
        "rule-megatron-bridge",
        "rule-mindspeed-llm",
        "rule-msprobe",
        "rule-torchtitan",
        "rule-verl",
        "strict-bf16-long",
        "strict-bf16",
        "strict-fp32",
        "strict-inference-fp32",
        "strict-probe-bf16",
        "strict-probe-fp32",
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_standard_is_named_like_its_file(name: str) -> None:
    assert load_standard(name).name == name
    assert load_standard(str(shipped_standards()[name])) == load_standard(name)


def test_every_criterion_has_a_day_that_is_looked_at_again_with_each_version() -> None:
    """A limit that was changed after a fault was known is not older than the fault."""
    every = [load_standard(name) for name in SHIPPED]
    dated = dated_criteria()
    assert [(one.standard, one.version, one.criterion) for one in dated] == [
        (standard.name, standard.version, criterion.id) for standard in every for criterion in standard.criteria
    ]
    assert all(date.fromisoformat(one.since) >= date(2026, 11, 24) for one in dated)


def test_every_limit_looks_at_something_that_is_measured(tmp_path: Path) -> None:
    bundle = write_example(tmp_path / "b", case=small_case())
    wanted = {limit.measurement for one in bundle.standards for c in one.criteria for limit in c.limits}
    assert wanted and not [name for name in wanted if name not in bundle.comparison]
    assert set(bundle.runs) == set(REQUIRED_RUNS)


def test_the_official_ceilings_are_the_published_ones() -> None:
    limits = {(c.id, limit.measurement): limit for c in load_standard("official").criteria for limit in c.limits}
    assert limits["official-first-loss", "train.loss.absolute"].value == 0.005
    assert limits["official-first-loss", "train.loss.relative"].value == 0.005
    assert limits["official-mean-loss", "train.loss.absolute"].value == 0.01
    assert limits["official-mean-loss", "train.loss.relative"].value == 0.01
    assert limits["official-grad-norm", "train.grad_norm.relative"].value == 0.10
    assert limits["official-steps", "subject.steps"].value == 1000


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s["criteria"][0]["limits"][0].update(value=1),
        lambda s: s["criteria"][0]["limits"][0].update(reason="because"),
        lambda s: s["criteria"].pop(),
        lambda s: s["criteria"].reverse(),
        lambda s: s.update(version=99),
        lambda s: s["criteria"][0]["limits"][0].update(comparator="below"),
    ],
)
def test_any_edit_is_another_digest(edit: Callable[[Any], Any]) -> None:
    changed = content()
    edit(changed)
    assert parse_standard(changed, "x").digest() != load_standard("official").digest()


def test_how_a_file_is_written_does_not_matter() -> None:
    assert parse_standard(yaml.safe_load(yaml.safe_dump(content())), "x").digest() == load_standard("official").digest()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s["criteria"][0]["limits"][0].pop("reason"), "criteria.0.limits.0.reason"),
        (lambda s: s["criteria"][0]["limits"][0].update(reason=""), "criteria.0.limits.0.reason"),
        (lambda s: s["criteria"][0]["limits"][0].update(source=""), "criteria.0.limits.0.source"),
        (lambda s: s["criteria"][0]["limits"][0].update(value=float("inf")), "criteria.0.limits.0.value"),
        (lambda s: s["criteria"][0]["limits"][0].update(value=float("nan")), "criteria.0.limits.0.value"),
        (lambda s: s["criteria"][0]["limits"][0].update(statistic="median"), "criteria.0.limits.0.statistic"),
        (lambda s: s["criteria"][0]["limits"][0].update(comparator="about"), "criteria.0.limits.0.comparator"),
        (lambda s: s["criteria"][0].update(limits=[]), "criteria.0.limits"),
        (lambda s: s["criteria"][0].update(unmet="PASS"), "criteria.0.unmet"),
        (lambda s: s["criteria"][0].update(tolerance=1), "criteria.0.tolerance"),
        (lambda s: s.update(criteria=[]), "criteria"),
        (lambda s: s.update(name="../official"), "name"),
        (
            lambda s: s["criteria"].append(s["criteria"][0]),
            "criteria.26.id: another criterion has the id 'runs-complete'",
        ),
    ],
)
def test_an_unsound_standard_is_refused(edit: Callable[[Any], Any], message: str) -> None:
    changed = content()
    edit(changed)
    with pytest.raises(InputError, match=message):
        parse_standard(changed, "x")


def test_every_problem_is_reported_at_once() -> None:
    changed = content()
    changed["criteria"][0]["limits"][0].pop("reason")
    changed["criteria"][1].pop("title")
    changed["extra"] = 1
    with pytest.raises(InputError) as error:
        parse_standard(changed, "x")
    message = str(error.value)
    assert all(place in message for place in ("criteria.0.limits.0.reason", "criteria.1.title", "extra"))


def limiting(tmp_path: Path, task: str = "pretrain", **limit: Any) -> str:
    """A file whose only limit has these fields, in this order."""
    fields = {"statistic": "maximum", "value": 1.0, "reason": "r", "source": "s", **limit}
    lines = [
        "name: mine", "version: 1", "title: Mine", f"task: {task}", "criteria:", "  - id: only", "    title: Only",
        "    limits:", *[f"      {'-' if not index else ' '} {key}: {fields[key]}" for index, key in enumerate(fields)],
    ]  # fmt: skip
    path = tmp_path / "mine.yaml"
    path.write_text("\n".join(lines))
    return str(path)


NONSENSE: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt measurement": (
        {"measurement": "train.los.relative"},
        "measurement: nothing measures 'train.los.relative'. Did you mean 'train.loss.relative'?",
    ),
    "a measurement of inference": (
        {"measurement": "oracle.logits.ratio"},
        "measurement: 'oracle.logits.ratio' is measured for inference, not for pretrain",
    ),
    "a measurement of training": (
        {"measurement": "train.loss.relative", "task": "inference"},
        "measurement: 'train.loss.relative' is measured for pretrain, finetune, not for inference",
    ),
    "the first of what has no steps": (
        {"measurement": "train.parameters.relative", "statistic": "first"},
        "statistic: 'train.parameters.relative' has a value for each tensor, and 'first' is the value of step 1",
    ),
    "a first step in inference": (
        {"measurement": "train.batch.differs", "statistic": "first", "task": "inference"},
        "statistic: 'train.batch.differs' has a value for each document, and 'first' is the value of step 1",
    ),
    "a bias without a sign": (
        {"measurement": "train.loss.relative", "statistic": "bias"},
        "statistic: the values of 'train.loss.relative' have no sign; use 'mean'",
    ),
    "one side of a signed difference": (
        {"measurement": "train.loss.signed", "statistic": "maximum"},
        "statistic: 'train.loss.signed' has a sign, and 'maximum' would pass any number below 0; use 'bias' or 'rms', "
        "or limit 'train.loss.relative'",
    ),
    "the best of all errors": (
        {"measurement": "train.loss.relative", "statistic": "minimum"},
        "statistic: 'minimum' would pass all values of 'train.loss.relative' but the best one",
    ),
    "an error that is required": (
        {"measurement": "train.loss.relative", "comparator": "at_least"},
        "comparator: a lower 'train.loss.relative' is better; use 'at_most' or 'below'",
    ),
    "a largest number of steps": (
        {"measurement": "subject.steps", "comparator": "at_most"},
        "comparator: a higher 'subject.steps' is better; use 'at_least'",
    ),
}


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_a_limit_that_cannot_show_a_fault_is_refused_when_it_is_loaded(nonsense: str, tmp_path: Path) -> None:
    limit, message = NONSENSE[nonsense]
    path = limiting(tmp_path, **limit)
    with pytest.raises(InputError) as refused:
        load_standard(path)
    first, *problems = str(refused.value).splitlines()
    key = message.partition(":")[0]
    line = 1 + next(index for index, text in enumerate(Path(path).read_text().splitlines()) if f" {key}:" in text)
    assert first == f"{path} is not a valid standard ({len(problems)} problem{'s' * (len(problems) > 1)}):"
    assert [one for one in problems if one.startswith(f"  {path}:{line}: criteria.0.limits.0.{message}")]


def test_a_misspelt_measurement_comes_with_every_other_problem(tmp_path: Path) -> None:
    path = Path(limiting(tmp_path, measurement="train.los.relative"))
    path.write_text(path.read_text().replace("title: Mine", "titel: Mine").replace("title: Only", "unmet: PASS"))
    with pytest.raises(InputError) as refused:
        load_standard(str(path))
    message = str(refused.value)
    assert "(5 problems)" in message
    for problem in (
        ":3: titel: unknown key; did you mean 'title'?",
        "title: Field required",
        ":6: criteria.0.title: Field required",
        ":7: criteria.0.unmet: Input should be",
        ":13: criteria.0.limits.0.measurement: nothing measures",
    ):
        assert problem in message, problem


def test_a_recorded_standard_may_limit_what_is_not_measured_any_more() -> None:
    """A bundle says what it was judged by, and is judged the same again: what nothing measures is an ERROR there."""
    recorded = content()
    recorded["criteria"][0]["limits"][0]["measurement"] = "runs.nothing"
    assert parse_standard(recorded, "x").criteria[0].limits[0].measurement == "runs.nothing"


@pytest.mark.parametrize("text", ["", "[]", "a: [", "\0", "words"])
def test_a_file_that_is_no_standard_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(InputError):
        load_standard(str(path))


def test_an_unknown_standard_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"official, rule-liger.*strict-bf16, strict-fp32"):
        load_standard("strict")


def test_a_reference_that_is_far_from_exact_is_nothing_to_measure_with(tmp_path: Path) -> None:
    def both_off(run: str, step: Step) -> Step:
        exact = run.startswith("oracle")
        return step if exact else dataclasses.replace(step, loss=step.loss * (1 + 0.002 * (-1) ** step.step))

    standards = (load_standard("official"), load_standard("strict-bf16"))
    made = write_example(tmp_path, case=load_case("qwen3-tiny-bf16"), standards=standards, change=both_off)
    found = {finding.criterion: finding for finding in made.findings if finding.standard == "strict-bf16"}
    assert found["loss"].outcome is Outcome.PASS, "the two are as near as ever"
    assert found["reference-loss-error"].outcome is Outcome.INCONCLUSIVE
    assert found["reference-grad-norm-error"].outcome is Outcome.PASS
    (validated,) = [one for one in certified(made).missing if "reference-loss-error" in one.detail]
    assert validated.level is Level.VALIDATED
