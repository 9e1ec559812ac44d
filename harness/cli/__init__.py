"""The command line `certify`.

Exit codes: 0 the required level is reached, 1 it is not, 2 bad input or a missing prerequisite, 3 a run failed,
130 interrupted.
"""

from harness.cli.main import main

__all__ = ["main"]
