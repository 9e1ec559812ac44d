"""The files in the directory of one run, and the names of what a probe leaves.

They are named here, below everything that judges them, so that the process of a run imports no judgement.
"""

TRACE, OUTCOME, LOG, TIMING = "trace.jsonl", "outcome.json", "log.txt", "timing.jsonl"
RANKS = "ranks"  # of a run of several processes: output of every rank except the reporting one, and the logs of all
GRADIENT, UPDATED = "gradient.", "updated."  # a probe's tensors begin with these
