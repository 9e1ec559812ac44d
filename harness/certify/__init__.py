"""The flow of a certification: case, inputs, runs, bundle, level, page.

`flow` shows it on one screen; the other modules are its stages.
"""

from harness.certify.flow import record, run, take_part
from harness.certify.jobs import Options

__all__ = ["Options", "record", "run", "take_part"]
