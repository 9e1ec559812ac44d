"""A page of 100,000 steps: how long it takes to compute and to open, how large it is, and whether one spike is seen.

    python benchmarks/long_page.py [--steps 100000]

The bundle is synthetic, in the real file formats: both sides' curves, their repeats and the oracle's. One step of the
subject is 2 % off. Needs Debian's Chromium: apt-get install chromium
"""

import argparse
import dataclasses
import shutil
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from harness.cases.case import load_case
from harness.levels.submission import Submission
from harness.runs.trace import Step
from tests.support.bundles import certified, write_example, write_page_of

HIGHEST = "Math.max(...document.getElementById('chart-loss').data.flatMap(one => one.yaxis === 'y2' ? one.y : []))"
POINTS = "Math.max(...document.getElementById('chart-loss').data.map(one => one.x.length))"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100_000)
    steps = parser.parse_args().steps
    at = steps * 2 // 3
    case = load_case("qwen3-tiny-fp32")
    case = case.with_changes(training={**case.training.model_dump(), "steps": steps})

    def spike(run: str, step: Step) -> Step:
        return dataclasses.replace(step, loss=step.loss * 1.02) if run == "subject-1" and step.step == at else step

    with tempfile.TemporaryDirectory() as directory:
        begun = time.perf_counter()
        bundle = write_example(Path(directory) / "bundle", case=case, change=spike)
        print(
            f"{steps} steps, loss 2 % off at step {at}; written, read and judged in {time.perf_counter() - begun:.1f} s"
        )
        begun = time.perf_counter()
        certified(Submission(bundle=bundle).bundle)
        page = write_page_of(bundle)
        print(f"page: {page.stat().st_size / 2**20:.1f} MiB, rendered in {time.perf_counter() - begun:.1f} s")
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            tab = chromium.new_page()
            begun = time.perf_counter()
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-charts=drawn]", timeout=120_000)
            opened = time.perf_counter() - begun
            print(f"opened and drawn in {opened:.1f} s, at most {tab.evaluate(POINTS)} points a curve")
            print(f"largest relative difference that is drawn: {tab.evaluate(HIGHEST):.4g}")
            chromium.close()


if __name__ == "__main__":
    main()
