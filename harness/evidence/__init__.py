"""The evidence bundle: its files, the findings that follow from them, and where they come from.

Reading a bundle checks every byte and recomputes every finding. A bundle that states other findings is an error.
"""

from harness.evidence.bundle import Bundle, finish_bundle, read_bundle
from harness.evidence.judge import Finding, Outcome
from harness.evidence.provenance import Baseline, Environment, Occasion, Source

__all__ = [
    "Baseline",
    "Bundle",
    "Environment",
    "Finding",
    "Occasion",
    "Outcome",
    "Source",
    "finish_bundle",
    "read_bundle",
]
