"""The tokens that reached each side's model, compared with each other and with those of the evaluation.

Each side makes the tokens of a conversation by itself and records what its model read, so nothing that was added,
dropped or reordered on the way is left unseen. A place that differs names the first token that does.
"""

from collections.abc import Iterator, Mapping, Sequence

from harness.cases.runs_of_a_case import REFERENCE, SUBJECT
from harness.comparison.measurement import Measurement, Tensors
from harness.comparison.outputs import Array, first_difference, numbered
from harness.comparison.scores import measured
from harness.runs.evaluation import FED
from harness.runs.trace import Run

SIDES = (("reference", REFERENCE), ("subject", SUBJECT))


def measure_fed_prompts(
    runs: Mapping[str, Run], tensors: Mapping[str, Tensors], expected: Mapping[str, Array]
) -> Iterator[Measurement]:
    """`prompt.tokens.differs`, between the sides; `prompt.tokens.SIDE.differs`, against those `expected` by prompt.

    1 for each prompt whose tokens differ or are missing, named `PROMPT at token N` by the first that differs, from 0.
    """
    every = {side: numbered(tensors.get(name, {}), FED) for side, name in SIDES}
    reference, subject = ([found.get(n) for n in range(len(expected))] for found in every.values())
    made = {side: runs.get(name) for side, name in SIDES}
    yield _compared("prompt.tokens.differs", [*expected], reference, subject, *made.values())
    for side, found in (("reference", reference), ("subject", subject)):
        yield _compared(f"prompt.tokens.{side}.differs", [*expected], [*expected.values()], found, made[side])


def _compared(
    name: str,
    prompts: Sequence[str],
    wanted: Sequence[Array | None],
    found: Sequence[Array | None],
    *made: Run | None,
) -> Measurement:
    places, values = [], []
    for prompt, one, other in zip(prompts, wanted, found, strict=True):
        missing = one is None or other is None
        at = None if one is None or other is None else first_difference(one, other)
        places.append(prompt if at is None else f"{prompt} at token {at}")
        values.append(float(missing or at is not None))
    return measured(name, places, values, *made)
