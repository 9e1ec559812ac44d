"""The trust file: which person has which public key, in which roles, and on which days."""

import re
import unicodedata
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    load_pem_public_key,
)
from pydantic import AfterValidator, PlainValidator, ValidationInfo, model_validator
from securesystemslib.signer import SSlibKey

from harness.attestation.statements import Line, Role, Sha256, not_empty
from harness.base.digest import digest_json
from harness.base.written import Problem
from harness.base.yaml_files import read_yaml
from harness.base.yaml_records import Problems, Record, validated


def _public_key(value: Any, info: ValidationInfo) -> SSlibKey:
    """A public key from its PEM, or from the path of its file relative to the trust file (`info.context`)."""
    if not isinstance(value, str):
        raise ValueError("expected a public key in PEM, or the path of its file")
    pem = value
    if "-----BEGIN" not in value:
        try:
            pem = (Path(info.context or "") / value).read_text(encoding="ascii")
        except (OSError, ValueError):
            raise ValueError("neither a public key in PEM nor a file that holds one can be read there") from None
    if "PRIVATE KEY-----" in pem:
        raise ValueError(
            "this is a private key. Whoever read it can sign in this name: make a new key, and put its .pub here"
        )
    try:
        public = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("this is no public key in PEM. 'certify keygen' writes one to NAME.pub") from None
    if not isinstance(public, Ed25519PublicKey):
        raise ValueError("this key is of another algorithm than ed25519. Make one with 'certify keygen'")
    return SSlibKey.from_crypto(public)


def _calendar_day(value: Any) -> date:
    if type(value) is date:
        return value
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("expected a day such as 2026-01-31") from None


Day = Annotated[date, PlainValidator(_calendar_day)]


# Letters and marks that a reader takes for a Latin letter, and those that show nothing and are no control characters.
# Source: Unicode Technical Standard 39, confusables, those of Latin names.
LOOKS = str.maketrans(
    "авекмнорстухіјѕԁһӏԛԝьгпαβεζηικνορτυχγωϲϳıɡɩʟᴏ01|",
    "abekmhopctyxijsdhlqwbrnabezhikvoptuxywcjigilooll",
)
UNSEEN = re.compile(
    "[\u0300-\u036f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def _as_read(person: str) -> str:
    """A name as a reader sees it: without accents and what shows nothing, in Latin letters where they look alike."""
    words = UNSEEN.sub("", unicodedata.normalize("NFKD", person)).split()
    # a capital I inside a word is read as an l, and an l that begins one as a capital I
    read = (word[0].replace("l", "I") + word[1:].replace("I", "l") for word in words)
    return " ".join(word.casefold().translate(LOOKS) for word in read)


class TrustedKey(Record):
    """A person's key: the roles it may speak in, and the days on which a statement may be made with it (both full)."""

    person: Line
    public_key: Annotated[SSlibKey, PlainValidator(_public_key)]
    roles: Annotated[tuple[Role, ...], AfterValidator(not_empty)]
    valid_from: Day
    valid_until: Day

    @model_validator(mode="after")
    def _days_in_order(self) -> Self:
        if self.valid_until < self.valid_from:
            raise ValueError(f"valid_until {self.valid_until} is before valid_from {self.valid_from}")
        return self


class WithdrawnKey(Record):
    """A key that others may have: from `date` on nothing that it signed counts, whatever day it states."""

    key: Sha256
    date: Day
    reason: Line


class Trust(Record):
    """Whose signatures count. Build one with `load_trust`.

    A person may have several keys, at the same time too: keys rotate, and people have several machines. A key is listed
    once, so it has one person, one set of roles and one validity. A withdrawn key stays in the list, so that a
    misspelt key id is noticed.
    """

    keys: Annotated[tuple[TrustedKey, ...], AfterValidator(not_empty)]
    withdrawn: tuple[WithdrawnKey, ...] = ()

    @model_validator(mode="after")
    def _each_key_once(self) -> Self:
        if problems := [*self._keys_twice(), *self._wrong_withdrawals(), *self._names_alike()]:
            raise Problems(problems)
        return self

    def _keys_twice(self) -> Iterator[Problem]:
        people: dict[str, str] = {}
        for index, key in enumerate(self.keys):
            key_id = key.public_key.keyid
            if key_id in people:
                message = f"key {key_id} is given twice: {people[key_id]}, {key.person}"
                yield Problem(keys=("keys", index), message=message)
            people.setdefault(key_id, key.person)

    def _wrong_withdrawals(self) -> Iterator[Problem]:
        seen = set[str]()
        for index, entry in enumerate(self.withdrawn):
            if entry.key in seen:
                yield Problem(keys=("withdrawn", index), message=f"key {entry.key} is withdrawn twice")
            elif self.find(entry.key) is None:
                yield Problem(keys=("withdrawn", index), message=f"key {entry.key} is none of the keys")
            seen.add(entry.key)

    def _names_alike(self) -> Iterator[Problem]:
        """Names that a reader takes for one: people are distinguished by name, and no one accepts their own work."""
        spelt: dict[str, str] = {}
        for index, person in enumerate(key.person for key in self.keys):
            letters = " ".join(unicodedata.normalize("NFKC", person).casefold().split())
            before = {spelt.setdefault(key, person) for key in (f"spelt {letters}", f"seen {_as_read(person)}")}
            for other in sorted(before - {person})[:1]:
                message = f"{other!r} and {person!r} are one name, written differently: write it one way"
                yield Problem(keys=("keys", index, "person"), message=message)

    def digest(self) -> str:
        """The digest of all that it states."""
        keys = [
            [key.public_key.keyid, key.person, *key.roles, key.valid_from.isoformat(), key.valid_until.isoformat()]
            for key in self.keys
        ]
        return digest_json([keys, [[one.key, one.date.isoformat(), one.reason] for one in self.withdrawn]])

    def find(self, key_id: str) -> TrustedKey | None:
        """The entry of a key, withdrawn or not."""
        return next((key for key in self.keys if key.public_key.keyid == key_id), None)

    def withdrawal_of(self, key_id: str) -> WithdrawnKey | None:
        """The entry that withdraws a key."""
        return next((entry for entry in self.withdrawn if entry.key == key_id), None)


def load_trust(path: Path) -> Trust:
    """The trust file of a team.

        keys:
          - person: Li Wei
            public_key: li-wei.pub          # or the PEM itself; a path is relative to this file
            roles: [dev-team]
            valid_from: 2026-01-01
            valid_until: 2026-12-31
        withdrawn:                          # optional
          - {key: KEY ID, date: 2026-06-01, reason: laptop stolen}

    Raises:
        InputError: not readable as YAML, or every problem of its content, one a line.
    """
    return validated(Trust, read_yaml(path), "trust file", context=path.parent)
