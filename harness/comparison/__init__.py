"""Numbers from runs: how far two sides are apart, measured and never judged.

Takes traces and tensors; gives named measurements. Not-a-number on either side stays not-a-number.
"""

from harness.comparison.inference import measure_inference
from harness.comparison.measurement import Comparison, Measurement
from harness.comparison.training import measure

__all__ = ["Comparison", "Measurement", "measure", "measure_inference"]
