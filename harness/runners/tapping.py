"""What is inside one step: the places that a tapped runner records, whether tapping changed the step, and its cost."""

import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.base.digest import digest_array
from harness.base.records import write_json
from harness.runners.job import Job
from harness.runners.protocol import Runner, Tapped
from harness.runs.files import GRADIENT
from harness.runs.places import HEAD, LOSS, TABLES
from harness.runs.taps import TAPS, TapRecord, exact_loss

TIMED_CALLS = 3
ALWAYS_WHOLE = (f"forward.{LOSS}", f"backward.{LOSS}", f"forward.{TABLES}")
OVER_RANKS = "a step is tapped in one process only, not over ranks"


def tap(
    job: Job,
    plain: Runner | None,
    build: Callable[[], Runner],
    tokens: npt.NDArray[np.int32],
    loss_mask: npt.NDArray[np.uint8],
    gradients: Mapping[str, str],
) -> dict[str, npt.NDArray[Any]]:
    """The places of the step that gave gradients of these digests, as `forward.PLACE` and `backward.PLACE`; writes
    whether tapping changed it, and what it costs beside a plain runner."""
    record, places = TapRecord(missing=OVER_RANKS), dict[str, npt.NDArray[Any]]()
    if job.ranks == 1:
        record, places = _tapped(plain, build(), tokens, loss_mask, gradients)
    write_json(Path(job.directory) / TAPS, record)
    return places


def _tapped(
    plain: Runner | None,
    tapped: Runner,
    tokens: npt.NDArray[np.int32],
    loss_mask: npt.NDArray[np.uint8],
    gradients: Mapping[str, str],
) -> tuple[TapRecord, dict[str, npt.NDArray[Any]]]:
    if not isinstance(tapped, Tapped):
        return TapRecord(missing=f"{type(tapped).__name__} has no method taps"), {}
    try:
        taps = tapped.taps(tokens, loss_mask)
    # Any error: a variant's own cells are wrapped and compiled here and may raise anything. The run itself succeeded
    # and is recorded; the missing taps are stated, and never count as agreement.
    except Exception as error:
        traceback.print_exc()
        reason = (str(error).strip().splitlines() or ["without a message"])[0]
        return TapRecord(missing=f"the tapped step failed: {type(error).__name__}: {reason}"), {}
    given = {f"{GRADIENT}{name}": digest_array(np.asarray(tensor)) for name, tensor in taps.gradients.items()}
    record = TapRecord(
        missing=None,
        differing=tuple(
            name.removeprefix(GRADIENT)
            for name in sorted({*gradients, *given})
            if gradients.get(name) != given.get(name)
        ),
        plain_seconds=_best(lambda: plain.gradients(tokens, loss_mask)) if plain is not None else None,
        tapped_seconds=_best(lambda: tapped.taps(tokens, loss_mask)) if plain is not None else None,
        loss_of_logits=_loss_of_logits(taps.forward.get(HEAD), tokens, loss_mask),
    )
    found = {"forward": taps.forward, "backward": taps.backward}
    return record, {f"{way}.{name}": np.asarray(value) for way, at in found.items() for name, value in at.items()}


def _loss_of_logits(
    logits: npt.NDArray[Any] | None, tokens: npt.NDArray[np.int32], loss_mask: npt.NDArray[np.uint8]
) -> float | None:
    if logits is None or logits.shape[:2] != loss_mask.shape:
        return None
    return exact_loss(logits, tokens[:, 1:], loss_mask, float(loss_mask.sum()))


def _best(call: Callable[[], object]) -> float:
    """Seconds of the quickest of a few calls."""
    seconds = []
    for _ in range(TIMED_CALLS):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return round(min(seconds), 6)
