"""The command line `certify`.

Exit codes: 0 the asked level is met, 1 it is not, 2 bad input or a missing prerequisite, 3 a run broke,
130 interrupted.
"""

from harness.cli.main import main

__all__ = ["main"]
