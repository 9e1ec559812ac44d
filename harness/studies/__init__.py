"""Recorded studies: many runs with planted defects or harmless variations, for detection power and for the floor."""

from harness.studies.power import run_study

__all__ = ["run_study"]
