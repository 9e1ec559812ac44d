"""The errors that a user can cause or fix; each states what, where, why and the next command."""


class CertifyError(Exception):
    """An error that is shown as a message without a traceback; the command line exits with `exit_code`."""

    exit_code = 2


class InputError(CertifyError):
    """A case, corpus, option or file that cannot be used."""


class MissingPrerequisite(CertifyError):
    """A package or device that a run needs is missing."""


class EvidenceError(CertifyError):
    """A trace or bundle that is incomplete, edited or of another format."""


class AttestationError(CertifyError):
    """A statement that cannot be verified, or cannot be signed."""
