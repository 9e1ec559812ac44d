"""The page of a bundle is rendered again and compared, and unsigned evidence is called so."""

import base64
import gzip
import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from harness.base.digest import digest_bytes
from harness.cli import level as level_command
from harness.evidence.bundle_files import PAGE_SEAL
from tests.support.bundles import write_example, write_page_of
from tests.support.command_line import Call, caller
from tests.support.examples import ROOT, small_case

STARTED = datetime.now(UTC).replace(microsecond=0) - timedelta(days=2)
UNSIGNED = "Unsigned evidence: no signature that was verified"


@pytest.fixture
def certify_(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    return caller(capsys, monkeypatch)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    bundle = write_example(root / "bundle", case=small_case(), occasion={"started": STARTED.isoformat()})
    write_page_of(bundle)
    level_command.make_key(root / "dana")
    days = {"valid_from": (STARTED - timedelta(days=9)).date(), "valid_until": (STARTED + timedelta(days=99)).date()}
    key = {"person": "Dana", "public_key": "dana.pub", "roles": ["developer"], **days}
    (root / "trust.yaml").write_text(yaml.safe_dump({"keys": [key]}))
    return root


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    where = Path(shutil.copytree(made, tmp_path / "here"))
    monkeypatch.chdir(where)
    return where


def edited(change: Callable[[bytes], bytes]) -> None:
    """A page with other content and a last line that fits it."""
    path = Path("bundle/report.html")
    content = path.read_bytes()
    body = content[: content.rfind(b"<!-- sha256 ")]
    new = change(body)
    assert new != body
    path.write_bytes(new + PAGE_SEAL.format(digest_bytes(new)).encode())


def test_an_honest_page_is_verified_also_after_it_was_signed(certify_: Call, here: Path) -> None:
    assert "report.html was rendered again, and is the same" in certify_("verify", "bundle").out
    assert certify_("attest", "bundle", "--role", "developer", "--key", "dana.key").code == 0
    assert json.loads(certify_("verify", "bundle", "--json").out)["page"] == "verified"
    shutil.move("bundle", "elsewhere")
    assert json.loads(certify_("verify", "elsewhere", "--json").out)["page"] == "verified"


def in_data(content: bytes) -> bytes:
    """A loss in the data of the figures, a tenth larger."""
    found = re.search(rb"(\d\.\d{10,})", content)
    assert found
    return content.replace(found[1], b"%r" % (float(found[1]) * 1.1), 1)


def in_packed_script(content: bytes) -> bytes:
    """Another script in the place of plotly.js."""
    packed = max(re.findall(rb"[A-Za-z0-9+/]{1000,}={0,2}", content), key=len)
    return content.replace(packed, base64.b64encode(gzip.compress(b"alert(1)" * 10_000, 0)))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.replace(b"Preliminary", b"Released").replace(b"Untested", b"Released"),
        lambda c: c.replace(UNSIGNED.encode(), b"Signed by everyone, and"),
        lambda c: c.replace(b"</main>", b"<script>document.title = 'Released'</script></main>"),
        lambda c: c.replace(b"criteria pass", b"criteria  pass"),
        in_data,
        in_packed_script,
    ],
)
def test_an_edited_page_with_a_last_line_that_fits_is_refused(
    certify_: Call, here: Path, change: Callable[[bytes], bytes]
) -> None:
    edited(change)
    result = certify_("verify", "bundle")
    assert result.code == 2 and "does not show what its bundle gives" in result.err


def test_last_digits_of_another_processor_do_no_harm(certify_: Call, here: Path) -> None:
    def last_digit(content: bytes) -> bytes:
        found = re.search(rb"\d\.\d{15}", content)
        assert found
        return content.replace(found[0], found[0][:-1] + (b"1" if found[0][-1:] != b"1" else b"2"), 1)

    edited(last_digit)
    assert json.loads(certify_("verify", "bundle", "--json").out)["page"] == "verified"


def test_a_page_of_another_version_is_unverified_with_that_version(certify_: Call, here: Path) -> None:
    edited(lambda content: re.sub(rb'"program":"[^"]*"', b'"program":"0.9 (abc)"', content))
    result = certify_("verify", "bundle")
    assert result.code == 0 and "report.html is unverified: rendered by version 0.9 (abc), and this is" in result.out
    (command,) = re.findall(r"Write it again: certify (.*)", result.out)
    assert certify_(*command.split()).code == 0
    assert "report.html was rendered again, and is the same" in certify_("verify", "bundle").out


def test_a_page_that_states_nothing_is_unverified(certify_: Call, here: Path) -> None:
    edited(lambda content: re.sub(rb"<!-- rendered [^\n]*\n", b"", content))
    result = certify_("verify", "bundle")
    assert result.code == 0 and "is unverified: rendered by an older version" in result.out
    published = json.loads(certify_("verify", ROOT / "reports" / "qwen3-tiny-fp32-cpu", "--json").out)
    assert published["page"] in ("unverified", "verified")


@pytest.mark.parametrize("at", ["x", "2026-01-31", "2026-01-31T00:00:00+01:00", "9999-12-31T23:59:59+00:00"])
def test_a_page_of_no_moment_is_refused(certify_: Call, here: Path, at: str) -> None:
    edited(lambda content: re.sub(rb'"at":"[^"]*"', b'"at":"' + at.encode() + b'"', content))
    assert certify_("verify", "bundle").code == 2


@pytest.mark.parametrize("stated", [b"{}", b'{"at":3}', b"{" * 10_000 + b"}", b'{"program":NaN}'])
def test_a_page_that_states_nonsense_is_refused(certify_: Call, here: Path, stated: bytes) -> None:
    edited(lambda content: re.sub(rb"<!-- rendered [^\n]*\n", b"<!-- rendered " + stated + b" -->\n", content))
    assert certify_("verify", "bundle").code == 2


def test_a_page_with_signatures_is_verified_with_the_same_trust_file_alone(certify_: Call, here: Path) -> None:
    trust = ("--trust", "trust.yaml")
    assert certify_("attest", "bundle", "--role", "developer", "--key", "dana.key").code == 0
    assert certify_("report", "bundle", *trust).code == 0
    page = Path("bundle/report.html").read_text()
    assert UNSIGNED not in page
    result = certify_("verify", "bundle", *trust)
    assert "was rendered again, and is the same" in result.out and "unsigned" not in result.out
    assert "rendered with the trust file" in certify_("verify", "bundle").out
    (statement,) = Path("bundle/attestations").iterdir()
    statement.unlink()
    assert "1 signed statements that lie there no more" in certify_("verify", "bundle", *trust).out


def test_unsigned_evidence_is_called_so_on_the_first_screen_and_by_verify(certify_: Call, here: Path) -> None:
    page = Path("bundle/report.html").read_text()
    first_screen = page[page.index('<section id="verdict"') : page.index('<section id="level"')]
    assert UNSIGNED in first_screen
    result = certify_("verify", "bundle")
    assert result.code == 0 and "unsigned: no signature that was verified states who is responsible" in result.out
    assert json.loads(certify_("verify", "bundle", "--json").out)["signed"] is False
