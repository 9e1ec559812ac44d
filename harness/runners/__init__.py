"""Runners: what trains a model or runs inference for a case, each run in a process of its own.

A runner reports numbers and never judges. `launcher` starts the processes, `worker` carries one out. Write a runner of
your own against `Runner` or `Answerer` in `protocol`.
"""

from harness.runners.job import Job, Nodes
from harness.runners.protocol import Answerer, Likelihoods, Numbers, Runner, Setting, Tapped, Taps, Tensors
from harness.runners.registry import find_runner, load_runner

__all__ = [
    "Answerer",
    "Job",
    "Likelihoods",
    "Nodes",
    "Numbers",
    "Runner",
    "Setting",
    "Tapped",
    "Taps",
    "Tensors",
    "find_runner",
    "load_runner",
]
