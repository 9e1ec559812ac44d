"""The rows of the table of levels: what is stated and what is computed, side by side where both are of one cell.

A computed level stands in the row of a stated one only if it is of that cell: an NPU of the stated series, MindSpore
Transformers' own code, the whole model, the task and the layout. Everything else has a row of its own, above all what
was measured on a CPU.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from harness.cases.case import Case
from harness.cases.task import TASKS
from harness.levels.certificate import Level
from harness.levels.scope import MINDFORMERS, Scope
from harness.levels.stated import StatedLevel
from harness.site.cells import TONES, Built, SiteCell, slug
from qwen3_model.configuration_qwen3 import Qwen3Config, parameter_shapes
from qwen3_model.sizes import PUBLISHED, SMALL

ASCEND = "Ascend"
# The chips of a series of Atlas machines, as npu-smi names them. Source: CANN, "Atlas A2" and "Atlas A3" series.
CHIPS = {"A2": "910B", "A3": "910_93"}
TASK_ORDER = ("pretrain", "finetune", "lora", "inference")
TASK_WORDS = {
    "pretrain": "pretraining",
    "finetune": "supervised fine-tuning",
    "lora": "LoRA fine-tuning",
    "inference": "inference",
}
NO_EVIDENCE = "no evidence"
UNITS = ((10**9, "B"), (10**6, "M"), (10**3, "k"))


@dataclass(frozen=True, kw_only=True)
class StatedPart:
    """What is stated of a row's cell, with source and date."""

    level: Level
    tone: str
    source: str
    read_on: date
    devices: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row of the table; at least one of `stated` and `computed` is there. `lacks` is what the next level lacks.

    `device` is the kind for filters; `place` is the machine or chip in words.
    """

    id: str
    model: str
    size: str
    task: str
    architecture: str
    device: str
    place: str
    details: tuple[str, ...]
    page: str
    badge: str
    stated: StatedPart | None
    computed: SiteCell | None
    next_level: Level | None
    lacks: tuple[str, ...]

    @property
    def level(self) -> str:
        """The computed level, or that there is no evidence."""
        return NO_EVIDENCE if self.computed is None else self.computed.level


def build_rows(built: Sequence[Built], stated: Sequence[StatedLevel]) -> tuple[TableRow, ...]:
    """All rows, in the order of the guide's model list: by size, then task, NPUs first, layout and precision."""
    rows, left = list[tuple[tuple[object, ...], TableRow]](), list(built)
    for one in stated:
        own = [each for each in left if is_cell_of(one, each.cell.scope, each.submission.bundle.case)]
        left = [each for each in left if each not in own]
        key = (_stated_size(one.size), one.model, TASK_ORDER.index(one.task), False, one.layout_device)
        rows += [((*key, each.cell.id), _computed(each, one)) for each in own] or [((*key, ""), _without(one))]
    for each in left:
        rows.append((_order(each), _computed(each, None)))
    return tuple(row for _, row in sorted(rows, key=lambda pair: pair[0]))


def is_cell_of(stated: StatedLevel, scope: Scope, case: Case) -> bool:
    """Whether what was measured is of the cell that a level is stated for. What is not stated of a layout does not
    tell two cells apart; what no run recorded never matches."""
    model = (scope.size, scope.cut, scope.weights, scope.implementation, case.task.name)
    if scope.device != ASCEND or model != (stated.size, "", "", MINDFORMERS, stated.task):
        return False
    series = [chip for name, chip in CHIPS.items() if re.search(rf"\b{name}\b", stated.layout_device)]
    if not any(chip in (scope.soc or "") for chip in series):
        return False
    wanted, found = stated.layout, case.parallel
    same = {
        "data_parallel": True,
        "model_parallel": True,
        "pipeline_stage": stated.pipeline_stage is not None,
        "micro_batch_num": stated.micro_batch_num is not None,
        "use_seq_parallel": "use_seq_parallel" in stated.settings,
        "vocab_emb_dp": "vocab_emb_dp" in stated.settings,
    }
    if any(getattr(wanted, name) != getattr(found, name) for name, is_stated in same.items() if is_stated):
        return False
    return stated.recompute in (None, scope.recompute) and stated.sequence_length in (None, case.data.seq_length)


def _order(each: Built) -> tuple[object, ...]:
    case, what = each.submission.bundle.case, each.cell.scope
    place = f"{what.layout} {what.precision} {case.name}"
    return (
        float(_parameters(case.model)),
        "Qwen3",
        TASK_ORDER.index(case.task.name),
        what.device != ASCEND,
        place,
        each.cell.id,
    )


def _stated_size(size: str) -> float:
    """Parameters of a size by its name, such as 0.6B or 30B-A3B."""
    if size in PUBLISHED:
        return float(_parameters(PUBLISHED[size]))
    found = re.match(r"(\d+(?:\.\d+)?)B", size)
    return float(found[1]) * 10**9 if found else float("inf")


def _computed(each: Built, stated: StatedLevel | None) -> TableRow:
    cell, case, what = each.cell, each.submission.bundle.case, each.cell.scope
    size = f"{what.size} ({_words(_parameters(case.model))})" if what.size in SMALL else what.size
    if what.size not in {**PUBLISHED, **SMALL}:
        size = _words(_parameters(case.model))
    return TableRow(
        id=cell.id,
        model="Qwen3",
        size=", ".join(filter(None, (size, what.cut, what.weights and f"{what.weights} weights"))),
        task=TASK_WORDS[case.task.name],
        architecture=what.implementation,
        device=what.device,
        place=f"{what.device} {what.soc}" if what.soc else what.device,
        details=_details(what),
        page=cell.page,
        badge=cell.badge,
        stated=_part(stated) if stated else None,
        computed=cell,
        next_level=cell.next_level,
        lacks=cell.why,
    )


def _details(what: Scope) -> tuple[str, ...]:
    recompute = ("recompute",) if what.recompute else ()
    versions = (f"MindSpore {what.mindspore}",) if what.mindspore else ()
    return (what.layout, *recompute, what.precision, f"mode {what.mode or 'not stated'}", *versions)


def _without(stated: StatedLevel) -> TableRow:
    id_ = slug(f"stated-{stated.model}-{stated.size}-{stated.task}-{stated.layout_device}")
    recompute = {True: ("recompute",), False: ("no recompute",), None: ()}[stated.recompute]
    length = (f"sequence length {stated.sequence_length}",) if stated.sequence_length else ()
    return TableRow(
        id=id_,
        model=stated.model,
        size=stated.size,
        task=TASK_WORDS[stated.task],
        architecture=stated.architecture,
        device=ASCEND,
        place=stated.layout_device,
        details=(str(stated.layout), *recompute, f"at most {stated.max_device_memory} of a device", *length),
        page=f"cells/{id_}.html",
        badge=f"badges/{id_}.svg",
        stated=_part(stated),
        computed=None,
        next_level=Level.UNTESTED,
        lacks=tuple(_lacks(stated)),
    )


def _part(stated: StatedLevel) -> StatedPart:
    plain = {
        "cards": stated.cards,
        "seq_length": stated.sequence_length,
        "data_parallel": stated.data_parallel,
        "model_parallel": stated.model_parallel,
        "pipeline_stage": stated.pipeline_stage,
        "micro_batch_num": stated.micro_batch_num,
        "recompute": stated.recompute,
        "max_device_memory": stated.max_device_memory,
    }
    return StatedPart(
        level=stated.stated_level,
        tone=TONES[stated.stated_level],
        source=stated.source,
        read_on=stated.read_on,
        devices=stated.stated_devices,
        settings=(
            *((name, "not stated" if value is None else str(value)) for name, value in plain.items()),
            *stated.settings.items(),
        ),
    )


def _lacks(stated: StatedLevel) -> Iterator[str]:
    """What a cell without evidence needs first."""
    if stated.size not in PUBLISHED:
        yield "A model of this kind: this project has no mixture of experts"
    if stated.task not in TASKS:
        yield "A case of this task: this project has none"
    yield f"A bundle of this cell, run on {stated.layout_device}: there is none"


def _parameters(model: Qwen3Config) -> int:
    return sum(math.prod(shape) for _, shape in parameter_shapes(model))


def _words(parameters: int) -> str:
    unit = next(((value, letter) for value, letter in UNITS if parameters >= value), (1, ""))
    return f"{parameters / unit[0]:.3g}{unit[1]}"
