"""The names of the files in a run's directory, and of the tensors of a probe.

They are defined here, below everything that judges them, so that the process of a run imports no judgement.
"""

TRACE, OUTCOME, LOG, TIMING = "trace.jsonl", "outcome.json", "log.txt", "timing.jsonl"
TRACE_FORMAT = "certify-trace/2"  # also written where only numpy is installed, and no trace is read
PLOG = "plog"  # what CANN logs, of every process of a run on Ascend
PROFILE = "profile"  # what the framework's profiler wrote
RANKS = "ranks"  # of a run of several processes: output of every rank except the reporting one, and the logs of all
GRADIENT, UPDATED = "gradient.", "updated."  # prefixes of a probe's tensors
