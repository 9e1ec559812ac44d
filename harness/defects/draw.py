"""Faults that nobody chose: kind, place, size and step of each are drawn at random by its number.

The criteria were built while the catalogue grew, so its rate flatters them. Of drawn faults the size is spread evenly
over two decades, from a part in a thousand to a tenth, and the step over the whole run. Nothing here imports a
framework; `harness.defects.drawn` plants them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.base.errors import InputError
from harness.cases.case import Case
from harness.cases.task import PRETRAIN
from harness.defects import Area, Defect, Pass
from harness.runs.inputs import seeded
from qwen3_model.configuration_qwen3 import parameter_shapes

SMALLEST, LARGEST = 1e-3, 1e-1
SINCE = "2026-11-29"  # the day of the kinds; their places, sizes and steps are drawn
SOURCE = "https://arxiv.org/abs/2506.09280"  # silent errors of training, among them those that begin late
Kind = Literal[
    "output", "gradient", "gradient-once", "gradient-row", "all-gradients-once", "rate", "rate-of-tensor", "decay",
    "decay-of-tensor", "beta1", "beta2", "clipping", "loss", "mask", "weight", "moment", "restored-moment",
]  # fmt: skip
MODULES = (
    "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.q_norm",
    "self_attn.k_norm", "self_attn.o_proj", "self_attn", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj",
    "mlp.down_proj", "mlp",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One drawn fault.

    Attributes:
        number: By which it is drawn.
        kind: What is wrong.
        place: The module or the parameter that it is in; None if it is in no part of the model.
        row: Of a fault in one row, which.
        size: Relative: the right number is multiplied by 1 + size. Either sign.
        first: The first step that is wrong, from 1.
        last: The last step that is wrong; None: all from `first` on.
    """

    number: int
    kind: Kind
    place: str | None
    row: int
    size: float
    first: int
    last: int | None

    def holds(self, step: int) -> bool:
        """Whether a step is wrong."""
        return self.first <= step and (self.last is None or step <= self.last)

    @property
    def when(self) -> str:
        """The steps that are wrong, in words."""
        if self.last == self.first:
            return f"in step {self.first}"
        return f"from step {self.first} on"


def draw(number: int, case: Case) -> Fault:
    """The fault of a number in a case of training."""
    random = seeded(f"fault {number}")
    kind = KINDS[int(random.randint(len(KINDS)))]
    size = float(np.exp(random.uniform(np.log(SMALLEST), np.log(LARGEST)))) * (1 if random.randint(2) else -1)
    step = 1 + int(random.randint(case.training.steps - 1))
    shapes, layers = dict(parameter_shapes(case.model)), case.model.num_hidden_layers
    tensors = sorted(shapes)
    tensor = tensors[int(random.randint(len(tensors)))]
    module = f"model.layers.{int(random.randint(layers))}.{MODULES[int(random.randint(len(MODULES)))]}"
    matrices = [name for name in tensors if len(shapes[name]) > 1]
    matrix = matrices[int(random.randint(len(matrices)))]
    row = int(random.randint(shapes[matrix][0]))
    place = {"output": module, "gradient-row": matrix, "decay-of-tensor": matrix}.get(kind, tensor)
    once = kind in ("gradient-once", "all-gradients-once", "weight", "moment")
    return Fault(
        number=number,
        kind=kind,
        place=place if kind in PLACED else None,
        row=row,
        size=size,
        first=1 if kind in ("decay", "decay-of-tensor", "beta1", "beta2", "clipping") else step,
        last=step if once else None,
    )


@dataclass(frozen=True)
class _Meaning:
    """A kind's area, its sentence with the fields of a fault, and the pass in which its place is first wrong."""

    area: Area
    sentence: str
    direction: Pass | None = None

    def of(self, fault: Fault) -> str:
        """The sentence of a fault."""
        large = "large" if fault.size > 0 else "small"
        return self.sentence.format(
            place=fault.place,
            row=fault.row,
            first=fault.first,
            when=fault.when,
            share=f"{abs(100 * fault.size):.2g} %",
            wrong=f"{abs(100 * fault.size):.2g} % too {large}",
        )


GRADIENT = _Meaning("gradients", "The gradient of {place} is {wrong} {when}.", "backward")
MEANINGS: Mapping[Kind, _Meaning] = {
    "output": _Meaning("model", "The output of {place} is {wrong} {when}.", "forward"),
    "gradient": GRADIENT,
    "gradient-once": GRADIENT,
    "gradient-row": _Meaning("gradients", "Row {row} of the gradient of {place} is {wrong} {when}.", "backward"),
    "all-gradients-once": _Meaning("gradients", "Every gradient is {wrong} {when}."),
    "rate": _Meaning("schedule", "The learning rate that is used is {wrong} {when}."),
    "rate-of-tensor": _Meaning("optimizer", "The update of {place} is {wrong} {when}."),
    "decay": _Meaning("optimizer", "Weight decay is {wrong}."),
    "decay-of-tensor": _Meaning("optimizer", "Weight decay of {place} is {wrong}."),
    "beta1": _Meaning("optimizer", "The weight of a new gradient in the first moment is {wrong}."),
    "beta2": _Meaning("optimizer", "The weight of a new square in the second moment is {wrong}."),
    "clipping": _Meaning("clipping", "The norm to which gradients are clipped is {wrong}."),
    "loss": _Meaning("loss", "The number of tokens that the loss is divided by is {wrong} {when}."),
    "mask": _Meaning("data", "{share} of the targets are left out of the loss {when}."),
    "weight": _Meaning("weights", "After step {first}, the weights of {place} are {wrong}."),
    "moment": _Meaning("optimizer", "After step {first}, the second moments of {place} are {wrong}."),
    "restored-moment": _Meaning("resume", "The first moments of {place} are restored {wrong}."),
}
KINDS: tuple[Kind, ...] = tuple(MEANINGS)
PLACED = frozenset(kind for kind, meaning in MEANINGS.items() if "{place}" in meaning.sentence)


def drawn_defects(count: int, case: Case, *, first: int = 1, of: str | None = None) -> Iterator[Defect]:
    """The defects of so many numbers; `of` is the name of the case that `case` was made from, None: it is that itself.

    Raises:
        InputError: the case is not of training in one process.
    """
    if count and not (case.task == PRETRAIN and case.parallel.world_size == 1):
        raise InputError(
            f"Drawn faults are planted in training in one process; {case.name} is another case. Name one: --case CASE."
        )
    for number in range(first, first + count):
        fault = draw(number, case)
        meaning = MEANINGS[fault.kind]
        yield Defect(
            id=f"drawn-{number}",
            area=meaning.area,
            runner=f"harness.defects.drawn:Drawn{number}",
            what=meaning.of(fault),
            note="",
            imitates="drawn at random",
            source=SOURCE,
            place=fault.place if meaning.direction else None,
            direction=meaning.direction,
            size=abs(fault.size),
            case=of or case.name,
            since=SINCE,
        )
