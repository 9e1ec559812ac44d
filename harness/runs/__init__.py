"""The records of one run: its trace, the inputs it read, and the places inside one step.

A trace is appended step by step and survives a kill. Reading a trace checks the digest of its lines.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
MODULES = {"Inputs": "inputs", "read_inputs": "inputs", "TapPoint": "places"}


def __getattr__(name: str) -> Any:
    """Imported when it is used: `harness.collect` uses modules of this package where only numpy is installed."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{MODULES.get(name, 'trace')}"), name)
