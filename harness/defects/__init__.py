"""The catalogue of defects: faults planted on purpose in the real subject, to measure whether the gate detects them.

A defect is a runner with the decorator `@defect(...)`: a subclass of `MindSporeSubject`, or of `MindSporeInference` in
the area `inference`. Its docstring starts with what is wrong. A user's defect is one short file of the same form. The
description of a defect is read from its source, so a catalogue is listed without a framework and without running it.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import Field, TypeAdapter, ValidationError

from harness.base.errors import InputError
from harness.base.near_names import did_you_mean
from harness.base.records import LATER
from harness.cases.task import PRETRAIN, TASKS, Task, TaskName

Area = Literal[
    "model",
    "loss",
    "gradients",
    "optimizer",
    "clipping",
    "schedule",
    "data",
    "weights",
    "precision",
    "resume",
    "parallel",
    "finetune",
    "inference",
]
Pass = Literal["forward", "backward"]
Day = Annotated[str, Field(pattern=r"^20\d\d-[01]\d-[0-3]\d$")]  # days compare as text
AREAS: tuple[Area, ...] = get_args(Area)
PARALLEL: Area = "parallel"  # the area whose defects need several ranks
FINETUNE: Area = "finetune"  # the area whose defects are planted in fine-tuning
INFERENCE: Area = "inference"  # the area whose defects are planted in inference
# The areas whose defects are planted in a task: in its usual case, unless the defect or the command names another.
AREAS_OF_TASK: Mapping[TaskName, tuple[Area, ...]] = {
    "pretrain": tuple(area for area in AREAS if area not in (FINETUNE, INFERENCE)),
    "finetune": (FINETUNE,),
    "inference": (INFERENCE,),
}
DIRECTORY = Path(__file__).parent
# In the order of the catalogue. The area `model` has four modules, `inference` three, every other area one.
MODULES = ("rotary", "norms", "attention", "layers", *AREAS[1:-1], "decoding", "prompt_lengths", "generation")
Subject = TypeVar("Subject", bound=type)


@dataclass(frozen=True, kw_only=True)
class Defect:
    """One planted fault.

    Attributes:
        id: The class's name in kebab-case, unique among the shipped defects.
        area: The part of training that is wrong, or inference.
        runner: Runs it: `certify run --subject RUNNER`.
        what: What is wrong, in one sentence.
        note: Further facts, such as where the defect has no effect; may be empty.
        imitates: The real mistake that it imitates.
        source: A public address where that mistake was made, or where the right behaviour is specified.
        place: The module or parameter, by Hugging Face's name, whose own arithmetic is the first to be wrong in
            `direction`; modules inside it compute rightly from their inputs. None if no part of the model is wrong.
        direction: The pass in which `place` is first wrong; None if there is no place.
        size: The relative error of a graded defect.
        case: The shipped case on which it makes a difference; by default the usual case of its task.
        since: The day on which it came into the catalogue. A criterion of that day or a later one was set by someone
            who could know the fault.
        reported: The day on which `source` reported it, for a bug of a public training framework that the defect
            rebuilds by its effect; None for other faults.
    """

    id: str
    area: Area
    runner: str
    what: str
    note: str
    imitates: str
    source: str
    place: str | None = None
    direction: Pass | None = None
    size: float | None = None
    case: str = PRETRAIN.usual_case
    since: Day | None = field(default=None, metadata=LATER)
    reported: Day | None = field(default=None, metadata=LATER)

    @property
    def task(self) -> Task:
        """The task of the cases in which it can be planted."""
        return task_of(self.area)


def task_of(area: str) -> Task:
    """The task in which an area's defects can be planted; for an unknown area, the default task."""
    return next((TASKS[name] for name, areas in AREAS_OF_TASK.items() if area in areas), PRETRAIN)


def defect(
    *,
    area: Area,
    imitates: str,
    source: str,
    place: str | None = None,
    direction: Pass | None = None,
    size: float | None = None,
    case: str | None = None,
    since: str | None = None,
    reported: str | None = None,
) -> Callable[[Subject], Subject]:
    """Marks a runner as a defect; see `Defect`. Every argument is a literal, because it is read from the source."""
    return lambda subject: subject


def shipped_defects() -> dict[str, Defect]:
    """Every shipped defect by its id: area by area, and within an area in the order of its files."""
    return {found.id: found for name in MODULES for found in _read(DIRECTORY / f"{name}.py", f"{__name__}.{name}")}


def defects_of_file(path: Path) -> tuple[Defect, ...]:
    """The defects of a file, in its order; their runner is `PATH:CLASS`.

    Raises:
        InputError: there is no such file, it is not Python, it has no defect, or a defect's description is invalid.
    """
    return tuple(_read(path, str(path)))


def load_defect(name: str) -> Defect:
    """A shipped defect by its id, or one of a file: `FILE.py`, or `FILE.py:CLASS` where the file holds several.

    Raises:
        InputError: there is no such defect, or its file cannot be used.
    """
    shipped = shipped_defects()
    if name in shipped:
        return shipped[name]
    path, _, wanted = name.partition(":")
    if not path.endswith(".py"):
        raise InputError(
            f"There is no defect {name!r}: neither one of the {len(shipped)} shipped ones nor an area "
            f"({', '.join(AREAS)}) nor a file (my_defect.py).{did_you_mean(name, (*AREAS, *shipped))}"
        )
    found = {one.runner.rpartition(":")[2]: one for one in defects_of_file(Path(path))}
    if wanted in found:
        return found[wanted]
    if wanted or len(found) > 1:
        what = f"no defect {wanted!r}" if wanted else "several defects"
        raise InputError(f"{path} holds {what}. Name one of them: {', '.join(f'{path}:{key}' for key in found)}.")
    return next(iter(found.values()))


def _read(path: Path, module: str) -> Iterator[Defect]:
    marked = list(_marked(path))
    if not marked:
        raise InputError(f"{path} holds no defect: it has no class with @defect(...) of harness.defects.")
    for node, call in marked:
        yield _described(path, node, call, f"{module}:{node.name}")


def _marked(path: Path) -> Iterator[tuple[ast.ClassDef, ast.Call]]:
    """The classes of a file with `@defect(...)`, each with that call."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise InputError(f"The defect's file {path} cannot be read: {error.strerror}.") from None
    except (SyntaxError, ValueError) as error:
        raise InputError(f"The defect's file {path} is not Python: {error}.") from None
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            calls = [mark for mark in node.decorator_list if isinstance(mark, ast.Call)]
            yield from ((node, call) for call in calls if ast.unparse(call.func).split(".")[-1] == defect.__name__)


def _described(path: Path, node: ast.ClassDef, call: ast.Call, runner: str) -> Defect:
    what, _, note = inspect.cleandoc(ast.get_docstring(node) or "").partition("\n\n")
    described = {
        "id": re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", node.name).lower(),
        "runner": runner,
        "what": " ".join(what.split()),
        "note": " ".join(note.split()),
        **_arguments(path, node, call),
    }
    described.setdefault("case", task_of(described.get("area", "")).usual_case)
    problems = list(_problems(described))
    try:
        found: Defect = TypeAdapter(Defect).validate_python(described)
    except ValidationError as error:
        problems += [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    if problems:
        raise InputError(
            f"{path}:{node.lineno}: the description of the defect {node.name} is invalid: {'; '.join(problems)}."
        )
    return found


def _arguments(path: Path, node: ast.ClassDef, call: ast.Call) -> dict[str, Any]:
    try:
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError
        return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except ValueError:
        raise InputError(
            f"{path}:{node.lineno}: the defect {node.name} is not described by literals. "
            "Write each argument of @defect(...) as name=value with the value itself."
        ) from None


def _problems(described: Mapping[str, Any]) -> Iterator[str]:
    known = set(inspect.signature(defect).parameters)
    yield from (f"{name}: unknown" for name in described if name not in known | {"id", "runner", "what", "note"})
    yield from (f"{name}: empty" for name in ("what", "imitates", "source") if described.get(name) == "")
    if (described.get("place") is None) != (described.get("direction") is None):
        yield "place and direction: give both or neither"
