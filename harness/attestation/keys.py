"""Signing keys: a new pair in two files, and the signer behind a private key file."""

import os
import shlex
import stat
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from securesystemslib.signer import CryptoSigner

from harness.base.errors import InputError


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        raise InputError(f"{path} exists, and a key is never overwritten. Choose another name.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}. Name a directory that can be written.") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    except OSError as error:
        path.unlink()
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None


def keygen(name: Path) -> str:
    """Makes an ed25519 key pair and returns its key id.

    Writes NAME.key (PKCS #8 PEM, unencrypted, readable only by the owner) and NAME.pub (PEM). The id is the SHA-256
    that securesystemslib computes for the public key.

    Raises:
        InputError: one of the files exists, or cannot be written. In that case no file is new or changed.
    """
    private = Ed25519PrivateKey.generate()
    signer = CryptoSigner(private)
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    key_file, public_file = Path(f"{name}.key"), Path(f"{name}.pub")
    _write_new(key_file, signer.private_bytes, 0o600)
    try:
        _write_new(public_file, public, 0o644)
    except InputError:
        key_file.unlink()
        raise
    return signer.public_key.keyid


def _read_key(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise InputError(f"{path} is not a file. Name the NAME.key that 'certify keygen' wrote.")
        if mode & 0o077:
            raise InputError(
                f"{path} can be read or written by others (permissions {stat.S_IMODE(mode):03o}), so a signature with "
                f"it identifies no one. If no one else read it: chmod 600 {shlex.quote(str(path))}. Otherwise make a "
                "new key with 'certify keygen'."
            )
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"The key file {path} cannot be read: {error.strerror}. Make a key with 'certify keygen'."
        ) from None


def signer_of(path: Path) -> CryptoSigner:
    """The signer of a private key's file.

    Raises:
        InputError: no such file, not an unencrypted ed25519 key, or others may read it.
    """
    pem = _read_key(path)
    if b"PUBLIC KEY-----" in pem:
        raise InputError(f"{path} holds a public key, which cannot sign. Name its private key, NAME.key.")
    try:
        private = load_pem_private_key(pem, password=None)
    except TypeError:
        raise InputError(
            f"{path} is encrypted. Decrypt it: openssl pkey -in {shlex.quote(str(path))} -out NAME.key"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise InputError(f"{path} does not hold a private key in PEM. Make one with 'certify keygen'.") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise InputError(f"{path} holds a key that is not ed25519. Make one with 'certify keygen'.")
    return CryptoSigner(private)
