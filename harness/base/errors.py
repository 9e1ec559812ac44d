"""The errors that a user can cause or mend; each says what, where, why and the next command."""


class CertifyError(Exception):
    """A message for a person, without a traceback; the command line exits with `exit_code`."""

    exit_code = 2


class InputError(CertifyError):
    """A case, corpus, option or file that cannot be used."""


class MissingPrerequisite(CertifyError):
    """A package or device that the asked run needs is not there."""


class EvidenceError(CertifyError):
    """A trace or bundle that is incomplete, edited or of another format."""


class AttestationError(CertifyError):
    """A signed statement that cannot be believed, or one that cannot be signed."""
