"""`certify plan CASE --reference`: what recording a baseline takes."""

import dataclasses
import json

from rich.table import Table

from harness.cases.case import Case, check_trains, load_case
from harness.cli.terminal import MET, NOT_MET, out_console
from harness.planning.memory import GIB
from harness.planning.reference import SUSTAINED, ReferencePlan, plan_reference

COUNTS = (1, 2, 4, 8)
MB = 10**6
PARTS = ("state", "whole", "copies", "saved", "logits", "total")


def print_reference_plan(name: str, count: int | None, limit: int | None, tera: float | None, as_json: bool) -> int:
    """Prints the plans for a number of GPUs, or for several; whether one of them fits."""
    case = load_case(name)
    check_trains(case, "'certify plan --reference' computes what training steps of the reference take")
    plans = [plan_reference(case, each, tera) for each in ((count,) if count else COUNTS)]
    if as_json:
        print(json.dumps({"case": case.name, "limit": limit, "plans": [_record(one) for one in plans]}))
    else:
        _print(case, plans, limit, tera)
    fits = limit is None or any(one.memory.total <= limit for one in plans)
    return MET if fits else NOT_MET


def _record(one: ReferencePlan) -> dict[str, object]:
    return {**dataclasses.asdict(one), "total": one.memory.total}


def _print(case: Case, plans: list[ReferencePlan], limit: int | None, tera: float | None) -> None:
    dtype = case.precision.compute_dtype
    out_console.print(
        f"{case.name}: the reference in eager attention, {dtype}, and what its baseline takes", markup=False
    )
    columns = [*PARTS, *(["fits"] if limit else [])]
    table = Table("GPUs", "rows", *columns, "host", "hours", "baseline", box=None, pad_edge=False)
    for one in plans:
        amounts = [f"{getattr(one.memory, part) / GIB:.2f}" for part in PARTS]
        fits = ["yes" if one.memory.total <= limit else "NO"] if limit else []
        table.add_row(
            str(one.memory.processes),
            str(one.memory.rows),
            *amounts,
            *fits,
            f"{one.host / GIB:.1f}",
            f"{one.hours:.1f}",
            f"{one.bytes / MB:,.0f} MB",
        )
    out_console.print(table)
    speed = f"{tera or SUSTAINED[dtype]:g} x 10^12 operations per second and GPU"
    origin = "as given" if tera else "measured on an H200 for Qwen3-0.6B" if dtype == "float32" else "not measured"
    out_console.print(
        "GiB per GPU, and of main memory for all processes (host). State: parts of weights, gradients and moments. "
        "Whole: parameters that are gathered, with their gradients. Copies: weights rounded for products. Saved: for "
        "the backward pass. Kernels and collectives need additional memory; no run over several GPUs was measured. "
        f"Hours: all runs one after the other, at {speed} ({origin}); give --tflops.",
        soft_wrap=True,
    )
    needed = ", ".join(f"{one.oracle / GIB:.1f} GiB for {one.memory.processes}" for one in plans)
    exact = f"The oracle needs on each of so many GPUs, in float64: {needed}."
    if case.training.oracle != "probe":
        exact += " With 'oracle: probe' in the section training of the case it takes less."
    out_console.print(exact, markup=False, soft_wrap=True)
    if case.evidence != "sketches" and plans[0].bytes > 100 * MB:
        out_console.print(
            "Its baseline has whole tensors. With 'evidence: sketches' in the case it is small.",
            markup=False,
            soft_wrap=True,
        )
