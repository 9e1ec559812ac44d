"""How long the runs of a large case take on this machine, stated before they start.

A run is mostly matrix products. How many this machine makes in a second is measured for a moment, and how many a run
needs follows from its case. Sketches, digests and drawing take time for each parameter besides. It is a guess within a
factor of two or so.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.cases.case import Case
from harness.cases.sections import Inference
from harness.certify.estimate import parameter_count
from harness.planning.reference import PROBE_SECONDS, RUN_SECONDS, START_SECONDS, operations_of_a_step
from harness.runners.job import Job

WORTH_STATING = 300.0  # seconds
MEASURED_SECONDS, SIDE = 0.3, 1024
# Of the products that NumPy makes, what a training step reaches; of float64, half as many again are made in a second.
EFFICIENCY, FLOAT64 = 0.6, 0.5
UPDATE_SECONDS = 15e-9  # measured at 0.6B, for each parameter
SLOW = 1e10  # operations per second; nothing is measured where even a slow machine is soon done
# A token that a cache is asked for reads every weight, which takes as long as the products of so many tokens.
TOKENS_OF_A_STEP = 30
ENDINGS = 4  # of a question
PROMPTED = 5  # times that each prompt is read: alone, in the batch, continued with and without a stop, sampled from


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Seconds by run, how many are made at once, and the GiB of memory of one and of disk for all."""

    seconds: Mapping[str, float]
    at_once: int
    memory: float
    disk: float

    @property
    def total(self) -> float:
        """Seconds until the last run ends."""
        if not self.seconds:
            return 0.0
        return max(max(self.seconds.values()), sum(self.seconds.values()) / self.at_once)

    def stated(self, case: str) -> str | None:
        """In words; None for what is over soon."""
        if self.total < WORTH_STATING:
            return None
        by_run = ", ".join(f"{run} {_words(seconds)}" for run, seconds in self.seconds.items())
        return (
            f"{case} takes about {_words(self.total)} here, {self.at_once} run{'s' * (self.at_once > 1)} at a time, "
            f"each with up to {self.memory:.0f} GiB of memory; {self.disk:.0f} GiB of disk while it works. "
            f"By run: {by_run}"
        )


def forecast(
    case: Case, jobs: Sequence[Job], *, at_once: int, memory: float, disk: float, rate: float | None = None
) -> Forecast | None:
    """Of the jobs that are to be carried out; None where one of them works on a device, whose speed is not known.
    `rate` is in operations per second and core; None: it is measured for a large case."""
    if any(job.device != "CPU" for job in jobs):
        return None
    parameters = parameter_count(case)
    if rate is None:
        rate = _products_per_second() if parameters > SIDE**2 else SLOW
    seconds = {job.run: _seconds(case, job, parameters, rate) for job in jobs}
    return Forecast(seconds=seconds, at_once=at_once, memory=memory, disk=disk)


def _seconds(case: Case, job: Job, parameters: int, rate: float) -> float:
    speed = rate * EFFICIENCY * (FLOAT64 if job.side == "oracle" else 1.0) * job.threads
    if job.arm == "infer":
        answered = _tokens_asked(case.inference_section, case.data.seq_length, exact=job.side == "oracle")
        return START_SECONDS + answered * 2 * parameters / speed + parameters * RUN_SECONDS
    step = operations_of_a_step(case)
    probes = job.arm in ("probe", "alone_probe")
    gradients = 1 if probes and job.side != "oracle" else 0
    of_a_parameter = (PROBE_SECONDS if probes else RUN_SECONDS) + job.steps * UPDATE_SECONDS
    return START_SECONDS + (job.steps + gradients) * step / speed + parameters * of_a_parameter


def _tokens_asked(asked: Inference, length: int, *, exact: bool) -> int:
    """Tokens that pass through the model, as if a document had the length of a row. `exact`: by the oracle, which
    computes each continuation from its beginning, and answers no questions."""
    rows, texts = asked.rows * length, asked.texts * length
    if exact:
        new = asked.max_new_tokens
        given = sum(length + asked.decoded_tokens for length in asked.given_lengths)
        return rows + texts + given + sum(new * prompt + new * new // 2 for prompt in asked.prompts)
    one_by_one = 2 * asked.max_new_tokens + asked.sampled_tokens + length  # stops, none, drawn; the rows by a cache
    one_by_one += (len(asked.given_lengths) + 1) * asked.decoded_tokens  # each alone, and all together
    questions = asked.documents * (1 + ENDINGS) * length
    prompts = PROMPTED * sum(asked.prompts) + 2 * sum(asked.given_lengths)
    return rows + texts + questions + prompts + one_by_one * TOKENS_OF_A_STEP


def _products_per_second() -> float:
    """Operations of float32 matrix products that one core of this process makes in a second."""
    one = np.ones((SIDE, SIDE), np.float32)
    one @ one
    began, made = time.perf_counter(), 0
    while time.perf_counter() - began < MEASURED_SECONDS:
        one @ one
        made += 2 * SIDE**3
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return made / (time.perf_counter() - began) / cores


def _words(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{max(1, round(seconds / 60))} min"
