"""What the harness adds: the whole of `certify run` against the bare training of the same steps, in one run.

    python benchmarks/overhead.py [--case NAME] [--rounds N]

Bare training uses one process per run. The process imports the framework, builds the runner from the same inputs, takes
the same steps and writes nothing; for a probe it takes only the step. Both make the same runs in the same order, with
the same number at a time, so the difference is the harness: drawing inputs, traces, checkpoints, probes, supervising,
judging, the page.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.cases.case import load_case
from harness.certify.jobs import Options, plan
from harness.corpus.draw import draw_inputs
from harness.runners import cores
from harness.runners.job import Job
from harness.runners.starting import variables

BARE = """
import json, sys
from pathlib import Path
from harness.runners.cores import hold
hold(json.loads(sys.argv[1])["cores"])  # before a framework is imported
from harness.cases import parse_case
from harness.runs.inputs import BATCHES, WEIGHTS, read_tensors
from harness.runners import Setting, load_runner

def main():
    # in a function, so that its objects are freed before the interpreter shuts down, as in a run
    job = json.loads(sys.argv[1])
    weights, batches = (read_tensors(Path(job["inputs"]) / name) for name in (WEIGHTS, BATCHES))
    setting = Setting(device="CPU", threads=job["threads"], learning_rate_zero=job["arm"] == "lr_zero")
    runner = load_runner(job["runner"])(parse_case(job["case"], "bare"), weights, setting)
    for step in range(job["steps"]):
        runner.train_step(batches["tokens"][step], batches["loss_mask"][step])

main()
"""


def main() -> None:
    """Prints the seconds of both, their ratio, and how they were measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", default="qwen3-tiny-fp32")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    whole, bare = [], []
    for number in range(1, arguments.rounds + 1):
        with tempfile.TemporaryDirectory() as directory:
            both = [(bare, bare_seconds, Path(directory) / "bare"), (whole, whole_seconds, Path(directory) / "bundle")]
            # the first one has colder caches
            for seconds, measure, out in both if number % 2 else both[::-1]:
                seconds.append(measure(arguments.case, out))
        print(f"round {number}: certify run {whole[-1]:.1f} s, bare training {bare[-1]:.1f} s")
    ratios = [a / b for a, b in zip(whole, bare, strict=True)]
    print(f"certify run / bare training of the same runs: {statistics.median(ratios):.3f} (median of {len(ratios)})")


def whole_seconds(case: str, out: Path) -> float:
    """Wall-clock seconds of `certify run`, as a user starts it."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "harness.cli", "run", case, "--out", str(out), "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begun


def bare_seconds(name: str, out: Path) -> float:
    """Wall-clock seconds of the same runs without the harness, two at a time; drawing the inputs is not counted."""
    case = load_case(name)
    draw_inputs(case, out / "inputs")
    options = Options(
        out=out,
        resume=False,
        device="CPU",
        threads=1,
        workers=2,
        subject="mindspore",
        reference="torch",
        oracle="oracle",
        command=(),
    )
    waiting = plan(case, options)
    running: list[tuple[subprocess.Popen[bytes], Job]] = []
    begun = time.perf_counter()
    while waiting or running:
        while waiting and len(running) < options.workers:
            job = waiting.pop(0)
            job = dataclasses.replace(job, cores=cores.reserve(job.threads))
            running.append((start(job), job))
        time.sleep(0.05)
        over = [(process, job) for process, job in running if ended(process)]
        for _, job in over:
            cores.release(job.cores)
        running = [one for one in running if one not in over]
    return time.perf_counter() - begun


def start(job: Job) -> "subprocess.Popen[bytes]":
    """A process that trains one job and writes nothing."""
    environment = {**os.environ, **variables(1)}
    command = [sys.executable, "-c", BARE, json.dumps(vars(job))]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ended(process: "subprocess.Popen[bytes]") -> bool:
    """Whether a process has ended.

    Raises:
        RuntimeError: it failed, so nothing was measured.
    """
    code = process.poll()
    if code:
        raise RuntimeError(f"a bare training process ended with exit code {code}")
    return code is not None


if __name__ == "__main__":
    main()
