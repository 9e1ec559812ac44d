"""Tasks: every table by task has every task, and no other place decides by a task's name."""

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from harness.base.errors import InputError
from harness.cases.case import load_case, parse_case
from harness.cases.task import TASKS, Task, TaskName
from harness.comparison.catalogue import names_of
from harness.runners.registry import RUNNERS
from harness.standards import load_standard
from tests.support.examples import ROOT, small_case

EVERY_TASK = pytest.mark.parametrize("task", TASKS.values(), ids=str)
# Where the name of a task decides something that is of that task's own data.
OWN_DATA = {
    "harness.standards",  # digests of standards that are older than tasks
    "harness.certify.case_options",  # the checkpoint in the section `inference`
}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / "harness").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), ast.parse(path.read_text(encoding="utf-8"))


def tables() -> list[str]:
    """`MODULE:NAME` of every table by task: a constant annotated `Mapping[TaskName, ...]`."""
    return [
        f"{module}:{node.target.id}"
        for module, tree in modules()
        for node in tree.body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and ast.unparse(node.annotation).startswith("Mapping[TaskName, ")
    ]


@pytest.mark.parametrize("table", tables())
def test_a_table_by_task_has_every_task(table: str) -> None:
    module, _, name = table.partition(":")
    assert set(getattr(importlib.import_module(module), name)) == set(TASKS)


def test_the_tables_are_found() -> None:
    found = {table.partition(":")[0].split(".")[1] for table in tables()}
    assert found >= {"cases", "evidence", "levels", "report", "runners", "corpus", "defects", "power", "studies"}


def test_every_name_of_a_task_has_its_record() -> None:
    assert tuple(TASKS) == get_args(TaskName)
    assert all(task.name == name for name, task in TASKS.items())


def by_name(tree: ast.Module) -> list[str]:
    """The comparisons of a module with a task's name, and those that ask whether the section of a task is there."""
    sections = {task.section for task in TASKS.values() if task.section}
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
        if (isinstance(side, ast.Constant) and side.value in TASKS)
        or (isinstance(side, ast.Attribute) and side.attr in sections)
    ]


def test_no_room_above_the_cases_decides_by_the_name_of_a_task() -> None:
    found = {module: where for module, tree in modules() if (where := by_name(tree))}
    assert {name for name in found if not name.startswith("harness.cases")} <= OWN_DATA, found


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ('if task == "inference": pass', 1),
        ("if case.inference is not None: pass", 1),
        ('if task in ("pretrain",): pass', 0),
        ("if case.task.judges_steps: pass", 0),
    ],
)
def test_a_decision_by_the_name_of_a_task_is_found(source: str, count: int) -> None:
    assert len(by_name(ast.parse(source))) == count


@EVERY_TASK
def test_the_official_standard_judges_the_task(task: Task) -> None:
    assert load_standard(task.official).task == task.judged_as


@EVERY_TASK
def test_a_task_is_judged_as_one_that_measures_the_same(task: Task) -> None:
    assert names_of(task.name) == names_of(task.judged_as)


@EVERY_TASK
def test_a_task_has_measurements_with_places(task: Task) -> None:
    assert names_of(task.name)


@EVERY_TASK
def test_the_usual_case_is_of_the_task(task: Task) -> None:
    assert load_case(task.usual_case).task is task


@EVERY_TASK
def test_the_shipped_runners_are_there_by_name_too(task: Task) -> None:
    shipped = {task.reference, task.oracle, task.subject}
    assert shipped <= {runner.entry for runner in RUNNERS[task.name].values()}
    for entry in shipped:
        module, _, name = entry.partition(":")
        spec = importlib.util.find_spec(module)
        assert spec is not None and spec.origin is not None
        assert f"class {name}" in Path(spec.origin).read_text(encoding="utf-8")


def test_a_case_holds_the_record_and_writes_the_name() -> None:
    case = small_case()
    assert case.task is TASKS["pretrain"] and case.record()["task"] == "pretrain"
    assert parse_case(case.model_dump(), "again").digest() == case.digest()


def test_an_unknown_task_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="task: unknown task 'distil'; known tasks: pretrain, finetune, inference"):
        parse_case({**small_case().model_dump(), "task": "distil"}, "mine.yaml")
