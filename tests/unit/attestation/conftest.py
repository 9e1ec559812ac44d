"""Keys and what is signed with them, made once."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from harness.attestation import Trust, keygen, sign
from tests.support.signing import CLAIM, PEOPLE, trusted


@pytest.fixture(scope="session")
def office(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a key pair for each of the people, and one for a stranger."""
    directory = tmp_path_factory.mktemp("office")
    for name in (*PEOPLE, "stranger"):
        keygen(directory / name)
    return directory


@pytest.fixture(scope="session")
def trust(office: Path) -> Trust:
    return trusted(office)


@pytest.fixture(scope="session")
def envelope(office: Path) -> bytes:
    return sign(CLAIM, office / "li.key")


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)
