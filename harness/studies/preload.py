"""What a process has done from which others are forked: MindSpore is imported, as if by the worker's own script."""

import importlib
import sys

from harness.runners import worker

# MindSpore keeps this name when it is imported, and reads from the script what its compiled graphs depend on.
sys.argv[0] = worker.__file__
importlib.import_module("harness.runners.mindspore_subject")
