"""Keys and the trust file: no one signs by accident, and all errors are reported at once."""

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from harness.attestation import keygen, load_trust, sign, verify
from harness.base.errors import InputError
from tests.support.signing import CLAIM, NOON, entry, key_id, signer, trusted


def test_a_private_key_is_its_owners_only_and_a_key_id_is_the_librarys(tmp_path: Path) -> None:
    made = keygen(tmp_path / "li")
    assert stat.S_IMODE((tmp_path / "li.key").stat().st_mode) == 0o600
    assert made == signer(tmp_path, "li").public_key.keyid
    assert (tmp_path / "li.pub").read_text().startswith("-----BEGIN PUBLIC KEY-----")
    assert (tmp_path / "li.key").read_text().startswith("-----BEGIN PRIVATE KEY-----")


@pytest.mark.parametrize("there", ["li.key", "li.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, there: str) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(InputError, match="never overwritten"):
        keygen(tmp_path / "li")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(there, "mine")]


def test_a_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "li.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="never overwritten"):
        keygen(tmp_path / "li")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("name", ["nowhere/li", "file/li"])
def test_a_directory_that_cannot_hold_keys_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"li\.key cannot be written"):
        keygen(tmp_path / name)


def pem(key: Any, encryption: Any = None) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def unusable(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(InputError) as error:
        sign(CLAIM, path)
    return str(error.value)


def test_a_key_file_that_cannot_sign_is_reported_with_the_reason(
    office: Path, tmp_path: Path, rsa_key: rsa.RSAPrivateKey
) -> None:
    key = tmp_path / "li.key"
    good = load_pem_private_key((office / "li.key").read_bytes(), None)
    assert "does not hold a private key" in unusable(key, b"")
    assert "does not hold a private key" in unusable(key, os.urandom(200))
    assert "does not hold a private key" in unusable(key, (office / "li.key").read_bytes()[:60])
    assert "holds a public key" in unusable(key, (office / "li.pub").read_bytes())
    assert "a key that is not ed25519" in unusable(key, pem(rsa_key))
    assert "is encrypted" in unusable(key, pem(good, BestAvailableEncryption(b"secret")))


def test_a_file_that_is_not_a_key_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"li\.key cannot be read: No such file"):
        sign(CLAIM, tmp_path / "li.key")
    with pytest.raises(InputError, match="is not a file"):
        sign(CLAIM, tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_key_that_others_can_touch_does_not_sign(tmp_path: Path, mode: int) -> None:
    keygen(tmp_path / "li")
    (tmp_path / "li.key").chmod(mode)
    with pytest.raises(InputError, match=rf"permissions {mode:o}\).*chmod 600"):
        sign(CLAIM, tmp_path / "li.key")


def untrusted(office: Path, keys: Any, **more: Any) -> str:
    with pytest.raises(InputError) as error:
        trusted(office, keys, **more)
    return str(error.value)


def test_a_public_key_is_in_the_trust_file_or_next_to_it(office: Path, envelope: bytes) -> None:
    inline = (office / "li.pub").read_text()
    for value in ("li.pub", str(office / "li.pub"), inline):
        assert verify(envelope, trusted(office, [entry("li", public_key=value)]), NOON).person == "li"


def test_all_errors_of_a_trust_file_come_at_once(office: Path) -> None:
    message = untrusted(
        office,
        [
            entry("li", roles=["boss"], valid_until="soon"),
            entry("chen", valid_from=20260101, vaild_until="2027-01-01"),
            entry("wu", valid_from="2027-01-01"),
            {"person": ""},
        ],
        withdrawn=[{"key": "x", "date": "2026-01-01"}],
        revoked=[],
    )
    for place in (
        "keys.0.roles.0", "keys.0.valid_until: expected a day such as", "keys.1.valid_from: expected a day",
        "keys.1.vaild_until", "keys.2: valid_until 2026-12-31 is before valid_from 2027-01-01", "keys.3.person",
        "keys.3.public_key", "keys.3.roles", "withdrawn.0.key", "withdrawn.0.reason", "revoked",
    ):  # fmt: skip
        assert place in message, place
    assert len(message.splitlines()) == 1 + 13


def test_keys_and_their_withdrawals_are_listed_once(office: Path) -> None:
    li = key_id(office, "li")
    gone = {"key": li, "date": "2026-06-01", "reason": "lost"}
    message = untrusted(
        office, [entry("li"), entry("wu", public_key="li.pub")], withdrawn=[gone, gone, {**gone, "key": "f" * 64}]
    )
    assert f"keys.1: key {li} is given twice: li, wu" in message
    assert f"withdrawn.1: key {li} is withdrawn twice" in message
    assert f"withdrawn.2: key {'f' * 64} is none of the keys" in message


@pytest.mark.parametrize("other", ["LI", "Li", "\uff4c\uff49"])
def test_one_name_in_two_spellings_is_not_two_people(office: Path, other: str) -> None:
    message = untrusted(office, [entry("li"), entry("wu", person=other)])
    assert "are one name, written differently" in message


ALIKE = {
    "a Cyrillic letter": "D\u0430na",
    "a Greek letter": "Dan\u03b1",
    "a variation selector": "Dana\ufe0f",
    "a joiner that shows nothing": "Da\u034fna",
    "a Hangul filler": "Da\u3164na",
    "an accent": "Dan\u00e1",
    "an accent of its own": "Dana\u0301",
}


@pytest.mark.parametrize("other", ALIKE.values(), ids=ALIKE)
def test_a_name_that_a_reader_takes_for_another_one_is_not_a_second_person(office: Path, other: str) -> None:
    message = untrusted(office, [entry("li", person="Dana"), entry("wu", person=other)])
    assert "are one name, written differently" in message


@pytest.mark.parametrize("pair", [("Daniel", "DanieI"), ("Iris", "lris"), ("Olga", "0lga")])
def test_letters_and_digits_that_look_alike_are_one(office: Path, pair: tuple[str, str]) -> None:
    message = untrusted(office, [entry("li", person=pair[0]), entry("wu", person=pair[1])])
    assert "are one name, written differently" in message


@pytest.mark.parametrize("pair", ["Kai Kal", "\u738b\u4f1f \u738b\u4f26", "\u0930\u093e\u092e \u0930\u092e"])
def test_names_that_differ_to_a_reader_are_two_people(office: Path, pair: str) -> None:
    one, other = pair.split()
    assert len(trusted(office, [entry("li", person=one), entry("wu", person=other)]).keys) == 2


def test_a_name_may_have_several_keys(office: Path) -> None:
    assert len(trusted(office, [entry("li"), entry("wu", person="li")]).keys) == 2


def test_an_invalid_public_key_is_reported_with_the_reason(
    office: Path, tmp_path: Path, rsa_key: rsa.RSAPrivateKey
) -> None:
    other = rsa_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    private = (office / "li.key").read_text()
    for value, why in (
        (private, "this is a private key"),
        ("li.key", "this is a private key"),
        (other, "this key is of another algorithm than ed25519"),
        ("nobody.pub", "neither a public key in PEM nor a file"),
        ("a\0b", "neither a public key in PEM nor a file"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "this is no public key in PEM"),
        (7, "expected a public key in PEM"),
    ):
        message = untrusted(office, [entry("li", public_key=value)])
        assert f"keys.0.public_key: {why}" in message
        assert private.splitlines()[1] not in message, "a private key must not get into a message"


def test_a_second_list_of_withdrawn_keys_does_not_undo_the_first(office: Path) -> None:
    path = office / "twice.yaml"
    gone = [{"key": key_id(office, "li"), "date": "2026-06-01", "reason": "lost"}]
    path.write_text(yaml.safe_dump({"keys": [entry("li")], "withdrawn": gone}) + "withdrawn: []\n")
    with pytest.raises(InputError, match="the key 'withdrawn' is given twice"):
        load_trust(path)


@pytest.mark.parametrize(
    "content", [b"[" * 5000, b"? [a]\n: b", b"", b"[]", b"keys: []", b"keys: 3", b"\xff", b"a: [", b"- \x00"]
)
def test_a_file_that_is_no_trust_file_is_refused_in_words(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "trust.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"trust\.yaml"):
        load_trust(tmp_path / "trust.yaml")


def test_a_missing_trust_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_trust(tmp_path / "trust.yaml")


OFFLINE = """
import sys
from datetime import datetime
from pathlib import Path

def no_network(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn")):
        raise SystemExit(f"{event} {arguments}")

sys.addaudithook(no_network)
from harness.attestation import load_trust, verify

directory = Path(sys.argv[1])
at = datetime.fromisoformat("2026-06-15T12:00:00+00:00")
print(verify((directory / "envelope").read_bytes(), load_trust(directory / "trust.yaml"), at).person)
"""


def test_verifying_needs_no_network_and_no_other_program(office: Path, envelope: bytes) -> None:
    (office / "envelope").write_bytes(envelope)
    trusted(office)
    done = subprocess.run([sys.executable, "-c", OFFLINE, str(office)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "li\n", "")
