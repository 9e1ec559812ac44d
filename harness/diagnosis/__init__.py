"""Where a subject differs first: a module, a gradient, or what comes after.

Takes what three sides computed inside one step; gives one sentence with a place. Runs nothing.
"""

from harness.diagnosis.diagnosis import Diagnosis, diagnose, first_difference

__all__ = ["Diagnosis", "diagnose", "first_difference"]
