"""The pytest plugin: a test marked `certify` certifies a case, and fails with what was found.

    @pytest.mark.certify(case="qwen3-tiny-fp32", level="Preliminary")
    def test_level(certificate): ...

Collecting imports no framework: what runs has processes of its own. Tests that name the same case share its runs, also
over the processes of pytest-xdist, and only one case is run at a time. Nothing of an earlier session is taken.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.evidence.bundle import Bundle
    from harness.levels.certificate import Certificate

MARKER, FIXTURE, CASE = "certify", "certificate", "certify_case"
NAMED = ("case", "level", "standard", "device", "subject", "reference", "oracle", "protection")
PROPERTY = "certify_"
LINE = f"{PROPERTY}line"
TESTRUN = "testrunuid"  # the same in all processes of a session of pytest-xdist
LOCK = ".pytest-lock"


@dataclass(frozen=True, kw_only=True)
class Certified:
    """A case that was certified for a test, and the level that the test requires."""

    bundle: "Bundle"
    certificate: "Certificate"
    required: str


CERTIFIED = pytest.StashKey[Certified]()
SHARED = pytest.StashKey[dict[str, Certified]]()
SESSION = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("certify", "certification of models (mindspore-certify)")
    add = group.addoption
    add("--certify-case", action="append", metavar="CASE", help="Case for marked tests that name none; repeatable.")
    add(
        "--certify-standard", action="append", metavar="S", help="Standard for marked tests that name none; repeatable."
    )
    add("--certify-level", metavar="LEVEL", help="Level for marked tests that name none. Default: Preliminary.")
    add("--certify-device", metavar="DEVICE", help="What subjects run on: CPU (default) or Ascend.")
    add(
        "--certify-protection",
        metavar="KIND",
        help="What keeps the subject's runs from the answers: auto (default), namespaces or order.",
    )
    add("--certify-out", metavar="DIR", help="Where the bundles go. Default: certify-runs in the root directory.")
    add(
        "--certify-baseline",
        metavar="DIR",
        help="Judge against the baselines recorded in DIR; reference and oracle do not run.",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}({', '.join(f'{name}=...' for name in NAMED)}): certify a case, and fail below a level. The fixture "
        f"'{FIXTURE}' gives the certificate.",
    )
    config.stash[SHARED] = {}
    # Not from the environment: by a number that someone chose, an earlier directory would be taken for one of now.
    config.stash[SESSION] = str(getattr(config, "workerinput", {}).get(TESTRUN, uuid.uuid4().hex))[:8]
    _check_options(config)


def _check_options(config: pytest.Config) -> None:
    """Refuses what no test could use, before anything is collected."""
    level, device = config.getoption("certify_level"), config.getoption("certify_device")
    if level is not None:
        _level(level)
    if device not in (None, "CPU", "Ascend"):
        raise pytest.UsageError(f"--certify-device {device}: choose CPU or Ascend.")
    if (protection := config.getoption("certify_protection")) is not None:  # what knows them is not light
        _protection(protection)


def _protection(name: str) -> Any:
    from harness.base.errors import InputError
    from harness.certify.jobs import protection_of

    try:
        return protection_of(name)
    except InputError as error:
        raise pytest.UsageError(str(error)) from None


def _level(text: str) -> Any:
    from harness.levels.certificate import Level

    try:
        level = Level(text)
    except ValueError:
        raise pytest.UsageError(f"There is no level {text!r}: choose {', '.join(list(Level)[:-1])}.") from None
    if level is Level.NONE:
        raise pytest.UsageError("The level 'none' requires nothing, so no test could fail. Choose another one.")
    return level


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A marked test that names no case is one test for each that the command line names."""
    marker = metafunc.definition.get_closest_marker(MARKER)
    cases = metafunc.config.getoption("certify_case")
    if marker is not None and cases and "case" not in marker.kwargs:
        if CASE not in metafunc.fixturenames:
            metafunc.fixturenames.append(CASE)
        names = list(dict.fromkeys(cases))
        metafunc.parametrize(CASE, names, indirect=True, ids=[Path(name).stem for name in names])


def pytest_itemcollected(item: pytest.Item) -> None:
    """A marked test certifies, whether it takes the certificate or not."""
    names = getattr(item, "fixturenames", None)
    if names is not None and FIXTURE not in names and item.get_closest_marker(MARKER):
        names.append(FIXTURE)


@pytest.fixture
def certify_case(request: pytest.FixtureRequest) -> str:
    """The case of this test: that of its marker, else each of `--certify-case`, else the default one."""
    from harness.cases.case import DEFAULT_CASE

    named: str = getattr(request, "param", None) or _marked(request.node).get("case", DEFAULT_CASE)
    return named


@pytest.fixture
def certificate(request: pytest.FixtureRequest, certify_case: str) -> "Certificate":
    """The certificate of this test's case: level, requirements, scope. See `harness.levels.Certificate`."""
    from harness.base.errors import CertifyError

    try:
        certified = _certified(request.config, certify_case, _marked(request.node))
    except CertifyError as error:
        pytest.fail(f"{certify_case} was not certified: {error}", pytrace=False)
    request.node.stash[CERTIFIED] = certified
    request.node.user_properties.extend(_properties(certified))
    return certified.certificate


def _marked(node: pytest.Item) -> Mapping[str, Any]:
    marker = node.get_closest_marker(MARKER)
    marked = dict(marker.kwargs) if marker else {}
    if (marker and marker.args) or (unknown := sorted(set(marked) - set(NAMED))):
        what = f"{', '.join(unknown)} is not known" if not (marker and marker.args) else "it takes no positions"
        pytest.fail(f"@pytest.mark.{MARKER}: {what}; name any of {', '.join(NAMED)}.", pytrace=False)
    return marked


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    """Below the required level the test fails with the findings, before its body runs."""
    if item.get_closest_marker(MARKER) is None:
        return
    certified = item.stash.get(CERTIFIED, None)
    if certified is None:
        pytest.fail(f"{item.nodeid} is marked and was not certified: it takes no fixtures.", pytrace=False)
    if not certified.certificate.reaches(_level(certified.required)):
        pytest.fail(failure(certified), pytrace=False)


def failure(certified: Certified) -> str:
    """What was found and why it is not enough: each finding with its numbers and limit, and where to look next."""
    from harness.evidence.bundle_files import PAGE
    from harness.levels.verdict_words import conclude

    conclusion = conclude(certified.bundle, certified.certificate)
    lines = [
        f"{conclusion.headline}; {certified.required} is required. {conclusion.sentence}",
        *(f"{name}: {text}" for name, text in conclusion.broken.items()),
        *(f"{outcome:<12} {text}" for outcome, text in conclusion.findings),
        *conclusion.remarks,
        conclusion.first,
        conclusion.missing_line,
        conclusion.closest_line,
        f"Page: {certified.bundle.path / PAGE}",
        conclusion.next_line,
    ]
    return "\n".join(filter(None, lines))


def _certified(config: pytest.Config, name: str, marked: Mapping[str, Any]) -> Certified:
    """The case of a test, certified once a session.

    Raises:
        CertifyError: it cannot be run.
    """
    from harness.base.digest import digest_json
    from harness.base.locks import locked
    from harness.cases.case import load_case
    from harness.certify import case_options, flow
    from harness.certify.jobs import Options

    wanted = str(marked.get("level") or config.getoption("certify_level") or "Preliminary")
    _level(wanted)
    standards = marked.get("standard") or config.getoption("certify_standard") or ()
    case, judged = case_options.judged_by(load_case(name), [standards] if isinstance(standards, str) else standards)
    baselines = config.getoption("certify_baseline")
    runners = {side: marked[side] for side in ("subject", "reference", "oracle") if side in marked}
    device = marked.get("device") or config.getoption("certify_device") or "CPU"
    protection = _protection(str(marked.get("protection") or config.getoption("certify_protection") or "auto"))
    identity = [case.record(), [one.digest() for one in judged], device, runners, baselines, protection]
    key = digest_json(identity)[:8]
    base = Path(config.getoption("certify_out") or config.rootpath / "certify-runs")
    shared = config.stash[SHARED]
    if key not in shared:
        out = base / f"{case.name}-{config.stash[SESSION]}-{key}"
        options = Options(
            out=out,
            device=device,
            command=("pytest", *config.invocation_params.args),
            baselines=Path(baselines) if baselines else None,
            protection=protection,
            **runners,
        )
        # Two cases at a time would only disturb each other: their steps have time limits.
        with locked(base / LOCK, user="session", option="--certify-out", wait=True):
            bundle, certificate = _found(out) or flow.run(case, judged, options, lambda run, trace: None)
        shared[key] = Certified(bundle=bundle, certificate=certificate, required=wanted)
    first = shared[key]
    return Certified(bundle=first.bundle, certificate=first.certificate, required=wanted)


def _found(out: Path) -> "tuple[Bundle, Certificate] | None":
    """What another process of this session has certified in the meantime, read from its files and judged anew."""
    from datetime import UTC, datetime

    from harness.evidence.bundle_files import MANIFEST
    from harness.levels.rule import certify
    from harness.levels.submission import read_submission

    if not (out / MANIFEST).is_file():
        return None
    submission = read_submission(out, None, now := datetime.now(UTC))
    return submission.bundle, certify(submission, now)


def _properties(certified: Certified) -> Iterator[tuple[str, object]]:
    """For JUnit's file, and from the processes of pytest-xdist to the one that prints."""
    from harness.evidence.protection_of_runs import protection_of
    from harness.levels.verdict_words import conclude

    bundle, conclusion = certified.bundle, conclude(certified.bundle, certified.certificate)
    closest = conclusion.closest
    yield f"{PROPERTY}case", bundle.case.name
    yield f"{PROPERTY}level", str(certified.certificate.level)
    yield f"{PROPERTY}required", certified.required
    yield f"{PROPERTY}protection", protection_of(bundle) or "not recorded"
    yield f"{PROPERTY}bundle", str(bundle.path)
    yield f"{PROPERTY}bundle_digest", bundle.digest
    yield f"{PROPERTY}worst_ratio", f"{closest.used:.4g}" if closest else ""
    yield f"{PROPERTY}worst_criterion", closest.criterion if closest else ""
    protection = f"Protection: {protection_of(bundle) or 'not recorded'}."
    parts = (f"{conclusion.headline}:", conclusion.sentence, conclusion.closest_line, protection, f"({bundle.path})")
    yield LINE, " ".join(filter(None, parts))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A line a case, whichever process certified it."""
    reports: Sequence[Any] = [one for every in terminalreporter.stats.values() for one in every]
    lines = dict.fromkeys(
        value for one in reports for name, value in getattr(one, "user_properties", ()) if name == LINE
    )
    if lines:
        terminalreporter.section("certified")
        for line in lines:
            terminalreporter.write_line(line)
