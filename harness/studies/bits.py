"""Whether a planted fault changes anything: what the runs of a subject computed, as digests to compare."""

import dataclasses
from collections.abc import Mapping, Sequence

from harness.base.digest import digest_json
from harness.base.records import encode
from harness.runs.trace import Run


def bits_of(runs: Sequence[Run]) -> Mapping[str, str]:
    """By run, the digest of everything that it computed and stated.

    That is loss, norm and rate of every step, or every score; the tensors that it left, by their digests; the initial
    weights and the configuration. The name of its runner is not in it, nor anything of time or host.
    """
    return {run.name: digest_json([run.outcome.status, *_computed(run)]) for run in runs}


def _computed(run: Run) -> Sequence[object]:
    if run.trace is None:
        return ()
    header, footer = run.trace.header, run.trace.footer
    left = None if footer is None else encode(dataclasses.replace(footer, lines=""))  # `lines` covers the runner's name
    return encode(header.initial), encode(header.alignment), encode(run.trace.lines), left
