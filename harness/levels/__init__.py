"""The level of a bundle: a pure function of bundles, attestations and date."""

from harness.levels.certificate import Certificate, Level, Requirement
from harness.levels.rule import certify
from harness.levels.scope import Scope
from harness.levels.submission import Submission, read_submission

__all__ = ["Certificate", "Level", "Requirement", "Scope", "Submission", "certify", "read_submission"]
