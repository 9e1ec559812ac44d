"""Numbers from runs: how far two sides are apart, measured and never judged.

Takes traces, tensors and answers; gives named measurements. Not-a-number on either side stays not-a-number.
"""

from harness.comparison.inference import measure_answers
from harness.comparison.measurement import Comparison, Measurement
from harness.comparison.training import measure

__all__ = ["Comparison", "Measurement", "measure", "measure_answers"]
