"""The first place at which a subject differs: a module, a gradient, or a check after step 1.

Compares the tensors that three sides recorded in one step and names the place in one sentence. Runs nothing.
"""

from harness.diagnosis.diagnosis import Diagnosis, diagnose, first_difference

__all__ = ["Diagnosis", "diagnose", "first_difference"]
