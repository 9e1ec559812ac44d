"""Faults that nobody chose: kind, place, size and step of each are drawn at random by its number.

The criteria were built while the catalogue grew, so its rate flatters them. Of drawn faults the size is spread evenly
over two decades, from a part in a thousand to a tenth, and the step over the whole run. Nothing here imports a
framework; `harness.defects.drawn` plants them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from harness.cases.case import Case
from harness.defects import Area, Defect, Pass
from harness.runs.inputs import seeded
from qwen3_model.configuration_qwen3 import parameter_shapes

SMALLEST, LARGEST = 1e-3, 1e-1
SOURCE = "https://arxiv.org/abs/2506.09280"  # silent errors of training, among them those that begin late
ALWAYS = "from step 1 on"
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


@dataclass(frozen=True, kw_only=True)
class _Meaning:
    """What a kind is: its area, the pass in which its place is first wrong, and a sentence of a fault."""

    area: Area
    direction: Pass | None
    sentence: Callable[[Fault], str]


def _percent(fault: Fault) -> str:
    return f"{abs(100 * fault.size):.2g} % too {'large' if fault.size > 0 else 'small'}"


MEANINGS: Mapping[Kind, _Meaning] = {
    "output": _Meaning(
        area="model", direction="forward", sentence=lambda f: f"The output of {f.place} is {_percent(f)} {f.when}."
    ),
    "gradient": _Meaning(
        area="gradients",
        direction="backward",
        sentence=lambda f: f"The gradient of {f.place} is {_percent(f)} {f.when}.",
    ),
    "gradient-once": _Meaning(
        area="gradients",
        direction="backward",
        sentence=lambda f: f"The gradient of {f.place} is {_percent(f)} {f.when}.",
    ),
    "gradient-row": _Meaning(
        area="gradients",
        direction="backward",
        sentence=lambda f: f"Row {f.row} of the gradient of {f.place} is {_percent(f)} {f.when}.",
    ),
    "all-gradients-once": _Meaning(
        area="gradients", direction=None, sentence=lambda f: f"Every gradient is {_percent(f)} {f.when}."
    ),
    "rate": _Meaning(
        area="schedule", direction=None, sentence=lambda f: f"The learning rate that is used is {_percent(f)} {f.when}."
    ),
    "rate-of-tensor": _Meaning(
        area="optimizer", direction=None, sentence=lambda f: f"The update of {f.place} is {_percent(f)} {f.when}."
    ),
    "decay": _Meaning(area="optimizer", direction=None, sentence=lambda f: f"Weight decay is {_percent(f)}."),
    "decay-of-tensor": _Meaning(
        area="optimizer", direction=None, sentence=lambda f: f"Weight decay of {f.place} is {_percent(f)}."
    ),
    "beta1": _Meaning(
        area="optimizer",
        direction=None,
        sentence=lambda f: f"The weight of a new gradient in the first moment is {_percent(f)}.",
    ),
    "beta2": _Meaning(
        area="optimizer",
        direction=None,
        sentence=lambda f: f"The weight of a new square in the second moment is {_percent(f)}.",
    ),
    "clipping": _Meaning(
        area="clipping", direction=None, sentence=lambda f: f"The norm to which gradients are clipped is {_percent(f)}."
    ),
    "loss": _Meaning(
        area="loss",
        direction=None,
        sentence=lambda f: f"The number of tokens that the loss is divided by is {_percent(f)} {f.when}.",
    ),
    "mask": _Meaning(
        area="data",
        direction=None,
        sentence=lambda f: f"{abs(100 * f.size):.2g} % of the targets are left out of the loss {f.when}.",
    ),
    "weight": _Meaning(
        area="weights",
        direction=None,
        sentence=lambda f: f"After step {f.first}, the weights of {f.place} are {_percent(f)}.",
    ),
    "moment": _Meaning(
        area="optimizer",
        direction=None,
        sentence=lambda f: f"After step {f.first}, the second moments of {f.place} are {_percent(f)}.",
    ),
    "restored-moment": _Meaning(
        area="resume", direction=None, sentence=lambda f: f"The first moments of {f.place} are restored {_percent(f)}."
    ),
}
KINDS: tuple[Kind, ...] = tuple(MEANINGS)
PLACED = frozenset(
    (
        "output",
        "gradient",
        "gradient-once",
        "gradient-row",
        "rate-of-tensor",
        "decay-of-tensor",
        "weight",
        "moment",
        "restored-moment",
    )
)


def drawn_defects(count: int, case: Case, *, first: int = 1) -> Iterator[Defect]:
    """The defects of so many numbers."""
    for number in range(first, first + count):
        fault = draw(number, case)
        meaning = MEANINGS[fault.kind]
        yield Defect(
            id=f"drawn-{number}",
            area=meaning.area,
            runner=f"harness.defects.drawn:Drawn{number}",
            what=meaning.sentence(fault),
            note="",
            imitates="drawn at random",
            source=SOURCE,
            place=fault.place if meaning.direction else None,
            direction=meaning.direction,
            size=abs(fault.size),
            case=case.name,
        )
