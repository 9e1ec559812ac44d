"""The records of one run: its trace, the inputs it read, and the places inside one step.

A trace is appended step by step and survives a kill. Reading a trace checks the digest of its lines.
"""

from harness.runs.inputs import Inputs, read_inputs
from harness.runs.places import TapPoint
from harness.runs.trace import Run, Step, Trace, TraceFooter, TraceHeader, TraceWriter, read_trace

__all__ = [
    "Inputs",
    "Run",
    "Step",
    "TapPoint",
    "Trace",
    "TraceFooter",
    "TraceHeader",
    "TraceWriter",
    "read_inputs",
    "read_trace",
]
