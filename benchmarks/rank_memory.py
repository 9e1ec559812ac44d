"""Memory of a rank over the width of a model: `python benchmarks/rank_memory.py --layout 4`.

A model of each width takes two steps in one process, and over ranks that each hold a part of its layers and its
vocabulary. The largest resident size of each process is read while it works. What a rank has beside its share of the
model is a framework's own, about the same at every width; so the figure is what a parameter more costs: the difference
of two widths, in bytes a parameter of the whole model.
"""

import argparse
import contextlib
import dataclasses
import tempfile
import threading
from pathlib import Path

from harness.cases.case import Case, load_case
from harness.cases.runs_of_a_case import SUBJECT, SUBJECT_ALONE
from harness.certify.estimate import parameter_count
from harness.certify.flow import prepare
from harness.certify.jobs import Options, job
from harness.runners.launcher import Launcher

MIB, KIB = 2**20, 2**10
FEW = {"steps": 2, "lr_zero_steps": 1, "examined_steps": [], "resume_after": None}
POLLED_SECONDS = 0.2
WIDTHS = (256, 512, 1024, 1536)


def main() -> None:
    """Prints a row for each width, and then what a parameter more costs."""
    arguments = _parser().parse_args()
    ranks = arguments.layout
    print(f"{arguments.layers} layers, vocabulary {arguments.vocabulary}, {ranks} ranks by model parallel\n")
    print("| width | parameters | one process | each rank |")
    print("| --- | --- | --- | --- |")
    found = list[tuple[int, float, float]]()
    for width in arguments.widths:
        case = case_of(width, ranks, arguments.layers, arguments.vocabulary)
        parameters = parameter_count(case)
        alone, parts = _peaks(case, SUBJECT_ALONE, 1), _peaks(case, SUBJECT, ranks)
        found.append((parameters, alone[0], max(parts)))
        shown = " ".join(f"{part / MIB:,.0f}" for part in parts)
        print(f"| {width} | {parameters / 1e6:.0f} M | {alone[0] / MIB:,.0f} MiB | {shown} MiB |", flush=True)
    few, many = found[0], found[-1]
    more = many[0] - few[0]
    whole, part = (many[1] - few[1]) / more, (many[2] - few[2]) / more
    print(f"\nbytes a parameter more: {whole:.1f} alone, {part:.1f} of the largest rank: {part / whole:.2f} of it")


def case_of(width: int, ranks: int, layers: int, vocabulary: int) -> Case:
    """The case of a width, over so many ranks that each hold a part of every layer."""
    case = load_case("qwen3-tiny-tp4")
    model = dataclasses.replace(
        case.model,
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=max(ranks, width // 128),
        head_dim=64,
        vocab_size=vocabulary,
    )
    return case.with_changes(
        model=model.to_hf(),
        training={**case.training.model_dump(), **FEW},
        parallel={**dataclasses.asdict(case.parallel), "model_parallel": ranks},
        lr_schedule={"type": "constant", "learning_rate": 1e-4},
        evidence="sketches",
    )


def _peaks(case: Case, run: str, ranks: int) -> list[int]:
    """The largest resident size of each process that made a run, in bytes; those of the ranks are the largest."""
    with tempfile.TemporaryDirectory() as directory:
        options = Options(out=Path(directory) / "out", command=())
        case, _ = prepare(case, (), options)
        one = job(case, options, run)
        peaks, ended = dict[int, int](), threading.Event()
        watching = threading.Thread(target=_watch, args=(directory, peaks, ended))
        watching.start()
        try:
            (made,) = Launcher(workers=1).execute([one], case)
        finally:
            ended.set()
            watching.join()
    if made.outcome.status != "completed":
        raise SystemExit(f"{run} of width {case.model.hidden_size}: {made.outcome.detail}\n{made.outcome.log_tail}")
    return sorted(peaks.values())[-ranks:]


def _watch(directory: str, peaks: dict[int, int], ended: threading.Event) -> None:
    while not ended.wait(POLLED_SECONDS):
        for entry in Path("/proc").iterdir():
            # a process may end between any two of these lines
            with contextlib.suppress(OSError, StopIteration):
                if entry.name.isdigit() and directory.encode() in (entry / "cmdline").read_bytes():
                    lines = (entry / "status").read_text().splitlines()
                    peaks[int(entry.name)] = int(next(one for one in lines if one.startswith("VmHWM")).split()[1]) * KIB


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", type=int, default=4, help="ranks, each with its part of every layer")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    return parser


if __name__ == "__main__":
    main()
