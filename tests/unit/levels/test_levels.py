"""The levels: a pure function of a bundle that gives nothing its evidence does not support."""

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.attestation import Attestation, Role
from harness.cases.task import INFERENCE, PRETRAIN
from harness.evidence.bundle import Bundle
from harness.evidence.judge import Outcome
from harness.evidence.provenance import Baseline, Source, Start
from harness.levels.cells import cells
from harness.levels.certificate import Certificate, Level, Requirement
from harness.levels.rule import certify
from harness.levels.submission import NOTHING_SIGNED, Submission, claim_of
from harness.runs.trace import Step, TraceHeader
from harness.standards import load_standard, parse_standard
from tests.support.bundles import AT, certified, example_step, write_example
from tests.support.examples import inference_case, small_case

ORDER = list(Level)


def shipped(header: TraceHeader) -> TraceHeader:
    return dataclasses.replace(header, runner=PRETRAIN.measured_by.get(header.side, header.runner))


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_example(tmp_path_factory.mktemp("example") / "bundle", case=small_case(), header=shipped)


def requirement(bundle: Bundle, words: str) -> Requirement:
    (found,) = [r for r in certified(bundle).requirements if words in r.text]
    return found


def with_outcomes(bundle: Bundle, *outcomes: Outcome) -> Bundle:
    """The bundle with other outcomes, in the order of its findings."""
    findings = tuple(dataclasses.replace(f, outcome=o) for f, o in zip(bundle.findings, outcomes, strict=False))
    return dataclasses.replace(bundle, findings=(*findings, *bundle.findings[len(findings) :]))


def with_outcome(bundle: Bundle, criterion: str, outcome: Outcome) -> Bundle:
    changed = (dataclasses.replace(f, outcome=outcome) if f.criterion == criterion else f for f in bundle.findings)
    return dataclasses.replace(bundle, findings=tuple(changed))


def test_a_short_run_that_fits_is_preliminary(example: Bundle) -> None:
    certificate = certified(example)
    assert (certificate.level, certificate.next_level) == (Level.PRELIMINARY, Level.VALIDATED)
    assert str(certificate.scope) == "Qwen3 tiny, training on CPU, one process, float32"


@pytest.mark.parametrize(
    ("runner", "model"),
    [
        ("harness.runners.mindformers_subject:MindFormersSubject", "Qwen3 tiny by mindformers"),
        ("mine.py:Mine", "Qwen3 tiny by mine.py:Mine"),
    ],
)
def test_a_level_of_one_implementation_does_not_hold_for_another(tmp_path: Path, runner: str, model: str) -> None:
    def by(header: TraceHeader) -> TraceHeader:
        return dataclasses.replace(header, runner=runner) if header.side == "subject" else header

    assert certified(write_example(tmp_path / "b", case=small_case(), header=by)).scope.model == model


def test_the_layout_is_part_of_what_a_level_holds_for(tmp_path: Path) -> None:
    case = small_case().with_changes(parallel={"model_parallel": 2}, standards=("official", "layout-fp32"))
    standards = tuple(load_standard(name) for name in case.standards)
    bundle = write_example(tmp_path / "b", case=case, standards=standards)
    assert certified(bundle).scope.layout == "DP1 x TP2 x PP1"
    assert {"subject-alone", "subject-alone-probe"} <= set(bundle.runs)
    layout = [finding for finding in bundle.findings if finding.standard == "layout-fp32"]
    assert layout and {finding.outcome for finding in layout} == {Outcome.PASS}


def test_nothing_above_preliminary_is_shown_without_signatures(example: Bundle) -> None:
    everything = with_outcomes(example, *[Outcome.PASS] * len(example.findings))
    clean = dataclasses.replace(everything, source=Source(revision="a" * 40, dirty=False, sha256="c" * 64))
    assert certified(clean).level is Level.PRELIMINARY
    assert [r.text for r in certified(clean).missing] == [
        "Signed by the developer",
        "Signed by the development team, by a second person",
    ]


@given(st.data())
def test_a_worse_outcome_never_raises_a_level(example: Bundle, data: st.DataObject) -> None:
    outcomes = [data.draw(st.sampled_from(list(Outcome))) for _ in example.findings]
    index = data.draw(st.integers(0, len(outcomes) - 1))
    better, worse = outcomes.copy(), outcomes.copy()
    better[index] = Outcome.PASS
    levels = [ORDER.index(certified(with_outcomes(example, *o)).level) for o in (better, worse)]
    assert levels[0] <= levels[1]


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.ERROR])
def test_any_broken_criterion_is_not_preliminary(example: Bundle, outcome: Outcome) -> None:
    for finding in example.findings:
        certificate = certified(with_outcome(example, finding.criterion, outcome))
        assert certificate.level in (Level.UNTESTED, Level.NONE), finding.criterion


@pytest.mark.parametrize("outcome", [Outcome.FAIL, Outcome.ERROR, Outcome.INCONCLUSIVE])
@pytest.mark.parametrize("criterion", ["runs-complete", "runs-finite"])
def test_what_does_not_run_has_no_level(example: Bundle, criterion: str, outcome: Outcome) -> None:
    assert certified(with_outcome(example, criterion, outcome)).level is Level.NONE


@pytest.mark.parametrize("criterion", ["inputs-same", "batches-same", "converges"])
def test_what_is_not_shown_to_train_is_untested(example: Bundle, criterion: str) -> None:
    assert certified(with_outcome(example, criterion, Outcome.INCONCLUSIVE)).level is Level.UNTESTED


def test_no_findings_are_no_level(example: Bundle) -> None:
    assert certified(dataclasses.replace(example, findings=())).level is Level.NONE


def test_a_standard_without_a_criterion_gives_no_level(tmp_path: Path) -> None:
    standards = (load_standard("strict-fp32"),)
    certificate = certified(write_example(tmp_path / "b", case=small_case(), standards=standards))
    assert certificate.level is Level.NONE
    assert "no standard in this bundle requires it" in {r.detail for r in certificate.missing}


def test_an_official_standard_that_was_loosened_gives_no_level(tmp_path: Path) -> None:
    content = load_standard("official").model_dump(mode="json")
    for criterion in content["criteria"]:
        if criterion["id"] == "official-grad-norm":
            criterion["limits"][0]["value"] = 0.9
    bundle = write_example(tmp_path / "b", case=small_case(), standards=(parse_standard(content, "edited"),))
    certificate = certified(bundle)
    assert certificate.level is Level.NONE
    assert any("official standard" in r.text for r in certificate.missing)
    assert certificate.standards == (f"official (changed, {bundle.standards[0].digest()[:12]})",)


def test_a_flat_curve_does_not_converge(tmp_path: Path) -> None:
    def flat(run: str, step: Step) -> Step:
        return dataclasses.replace(step, loss=5.0, learning_rate=0.0)

    certificate = certified(write_example(tmp_path / "b", case=small_case(), change=flat))
    assert certificate.level is Level.UNTESTED
    assert any("loss falls" in r.text for r in certificate.missing)


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        (Source(revision=None, dirty=False, sha256="c" * 64), "no checkout"),
        (Source(revision="b" * 40, dirty=True, sha256="c" * 64), "bbbbbbbbbbbb, with uncommitted changes"),
    ],
)
def test_uncommitted_sources_are_named(example: Bundle, source: Source, detail: str) -> None:
    found = requirement(dataclasses.replace(example, source=source), "revision")
    assert (found.met, found.detail) == (False, detail)


def test_a_baseline_has_to_come_from_a_committed_revision_too(example: Bundle) -> None:
    source = Source(revision="b" * 40, dirty=True, sha256="c" * 64)
    found = requirement(dataclasses.replace(example, baseline=baseline_of(example, source)), "revision")
    assert (found.met, found.detail) == (False, "1234567890ab; baseline: bbbbbbbbbbbb, with uncommitted changes")


def baseline_of(bundle: Bundle, source: Source) -> Baseline:
    case = bundle.case
    return Baseline(format="certify-baseline/1", case=case.name, case_digest=case.digest(), author="A", reason="first",
                    recorded="2026-01-30T00:00:00+00:00", command=("certify",), inputs=bundle.inputs,
                    environment=bundle.environment, source=source, files={}, seal="0" * 64)  # fmt: skip


@pytest.mark.parametrize("side", ["reference", "oracle"])
def test_a_side_that_measures_has_to_be_the_shipped_one(tmp_path: Path, side: str) -> None:
    def foreign(header: TraceHeader) -> TraceHeader:
        return dataclasses.replace(header, runner="elsewhere:Torch") if header.side == side else shipped(header)

    found = requirement(write_example(tmp_path / "b", case=small_case(), header=foreign), "shipped reference")
    assert (found.level, found.met, found.detail) == (Level.VALIDATED, False, f"the {side} is elsewhere:Torch")


@pytest.mark.parametrize("side", ["reference", "subject"])
def test_an_oracle_that_repeats_a_side_in_every_step_measures_nothing(tmp_path: Path, side: str) -> None:
    def copied(run: str, step: Step) -> Step:
        return example_step(f"{side}-1", step.step, 8) if run == "oracle-1" else step

    bundle = write_example(tmp_path / "b", case=small_case(), header=shipped, change=copied)
    found = requirement(bundle, "shipped reference")
    assert (found.met, found.detail) == (False, f"the oracle repeats the {side}'s losses")


@pytest.mark.parametrize("level", ORDER)
def test_a_level_reaches_itself_and_what_is_below(example: Bundle, level: Level) -> None:
    certificate = dataclasses.replace(certified(example), level=level)
    assert [certificate.reaches(required) for required in ORDER] == [
        ORDER.index(level) <= ORDER.index(a) for a in ORDER
    ]


def signed(bundle: Bundle, *roles: Role) -> Certificate:
    """The level of a bundle that is signed in each of these roles."""
    attestations = tuple(
        Attestation(statement=claim_of(bundle, role, AT), person=f"a {role}", key_id="", digest="") for role in roles
    )
    return certify(
        Submission(bundle=bundle, statements=dataclasses.replace(NOTHING_SIGNED, attestations=attestations)), AT
    )


def test_what_the_community_alone_signs_is_community(example: Bundle) -> None:
    certificate = signed(example, Role.COMMUNITY)
    assert (certificate.level, certificate.next_level) == (Level.COMMUNITY, Level.UNTESTED)
    assert certificate.ladder == tuple(reversed(ORDER[:-1]))
    (missing,) = certificate.missing
    assert missing.detail == "a community signed for the community, and no team signed"


@pytest.mark.parametrize("team", [Role.DEVELOPER, Role.DEV_TEAM, Role.TEST_TEAM])
def test_what_a_team_signs_too_is_no_community_model(example: Bundle, team: Role) -> None:
    assert signed(example, Role.COMMUNITY, team) == signed(example, team)
    assert signed(example, team).level is Level.PRELIMINARY


@given(st.data())
def test_a_community_signature_never_raises_a_level_above_community(example: Bundle, data: st.DataObject) -> None:
    bundle = with_outcomes(example, *[data.draw(st.sampled_from(list(Outcome))) for _ in example.findings])
    unsigned, kept = certified(bundle).level, signed(bundle, Role.COMMUNITY).level
    assert kept is (Level.NONE if unsigned is Level.NONE else Level.COMMUNITY)


def test_a_community_statement_about_another_bundle_counts_for_nothing(example: Bundle) -> None:
    foreign = dataclasses.replace(claim_of(example, Role.COMMUNITY, AT), record_digest="f" * 64)
    attested = Attestation(statement=foreign, person="Kim", key_id="", digest="")
    statements = dataclasses.replace(NOTHING_SIGNED, attestations=(attested,))
    assert certify(Submission(bundle=example, statements=statements), AT) == certified(example)


def by_inference_runners(header: TraceHeader) -> TraceHeader:
    """The shipped runners for inference measure, and those for training train."""
    task = INFERENCE if header.arm == "infer" else PRETRAIN
    return dataclasses.replace(header, runner=task.measured_by.get(header.side, header.runner))


@pytest.fixture(scope="module")
def inference(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_example(
        tmp_path_factory.mktemp("inference") / "bundle", case=inference_case(748), header=by_inference_runners
    )


def test_inference_is_preliminary_without_signatures(inference: Bundle) -> None:
    certificate = certified(inference)
    assert (certificate.level, certificate.next_level) == (Level.PRELIMINARY, Level.VALIDATED)
    assert str(certificate.scope) == "Qwen3 tiny, inference on CPU, one process, float32"
    assert {r.level for r in certificate.missing} == {Level.VALIDATED}
    assert all(r.text.startswith("Signed by") for r in certificate.missing)


def test_inference_signed_by_the_development_team_is_validated(inference: Bundle) -> None:
    assert signed(inference, Role.DEVELOPER).level is Level.PRELIMINARY
    assert signed(inference, Role.DEVELOPER, Role.DEV_TEAM).level is Level.VALIDATED
    assert signed(inference, Role.DEVELOPER, Role.DEV_TEAM, Role.TEST_TEAM).level is Level.VALIDATED


def test_a_small_evaluation_is_preliminary_with_any_signature(tmp_path: Path) -> None:
    small = write_example(tmp_path / "b", case=inference_case(20), header=by_inference_runners)
    certificate = signed(small, Role.DEVELOPER, Role.DEV_TEAM)
    assert certificate.level is Level.PRELIMINARY
    assert [r.detail for r in certificate.missing] == ["INCONCLUSIVE: score-shown"]


@pytest.mark.parametrize(
    ("criterion", "level"),
    [
        ("runs-complete", Level.NONE), ("runs-finite", Level.NONE), ("inputs-same", Level.UNTESTED),
        ("batches-same", Level.UNTESTED), ("makes-sense", Level.UNTESTED), ("score-ceiling", Level.PRELIMINARY),
    ],
)  # fmt: skip
def test_what_is_not_shown_for_inference_limits_the_level(inference: Bundle, criterion: str, level: Level) -> None:
    spoiled = with_outcome(inference, criterion, Outcome.INCONCLUSIVE)
    assert signed(spoiled, Role.DEVELOPER, Role.DEV_TEAM).level is level


def test_convergence_is_required_for_training_only_and_sensible_outputs_for_inference_only(
    inference: Bundle, example: Bundle
) -> None:
    assert not {"converges"} & {finding.criterion for finding in inference.findings}
    assert not {"makes-sense"} & {finding.criterion for finding in example.findings}


def test_a_bundle_of_one_task_gives_no_level_of_the_other(inference: Bundle, example: Bundle) -> None:
    found = cells([Submission(bundle=one) for one in (inference, example)])
    assert [cell.current(AT)[1].scope.task for cell in found] == ["inference", "training"]


def test_a_training_run_is_no_second_run_of_inference(inference: Bundle, example: Bundle) -> None:
    elsewhere = dataclasses.replace(example.occasion, host="elsewhere")
    start = Start(nonce="2" * 64, committed=None)
    other = dataclasses.replace(example, occasion=elsewhere, start=start, timings={})
    found = certify(Submission(bundle=inference), AT, [Submission(bundle=other)])
    (second,) = [r for r in found.requirements if "independent run" in r.text]
    assert (second.met, second.detail) == (False, f"{example.path.name} is a run of another case")


def test_a_cpu_is_never_shown_as_an_npu(inference: Bundle) -> None:
    certificate = signed(inference, Role.DEVELOPER, Role.DEV_TEAM)
    assert certificate.scope.device == "CPU" and "Ascend" not in str(certificate.scope)
    claim = claim_of(inference, Role.DEVELOPER, AT)
    elsewhere = dataclasses.replace(inference, environment=dataclasses.replace(inference.environment, device="Ascend"))
    attested = Attestation(statement=claim, person="Dana", key_id="", digest="")
    statements = dataclasses.replace(NOTHING_SIGNED, attestations=(attested,))
    found = certify(Submission(bundle=elsewhere, statements=statements), AT)
    assert any("does not match what the bundle shows" in r.detail for r in found.requirements)
