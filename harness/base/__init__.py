"""The ground floor: errors for people, digests, and the files that every record is written to.

Knows nothing of cases, runs or levels, and imports no framework.
"""

from harness.base.errors import AttestationError, CertifyError, EvidenceError, InputError, MissingPrerequisite

__all__ = ["AttestationError", "CertifyError", "EvidenceError", "InputError", "MissingPrerequisite"]
