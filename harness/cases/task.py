"""The tasks of cases, each one record: what is run, by which shipped runners, and by which official standard.

What a task does in a higher room is one entry of a table there, keyed by the task's name: its runs
(`harness.cases.runs_of_a_case`), its measurements, its level criteria, its runners, the sections of its page. A test
finds every such table and requires an entry for each task, so a new task is a record here and the entries that this
test requires.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import PlainSerializer, PlainValidator

from harness.runs.trace import Side

TaskName = Literal["pretrain", "finetune", "inference"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task.

    Attributes:
        name: As a case's YAML has it.
        activity: The word for it in the scope of a level.
        section: The section that only a case of this task has, or None.
        official: The name of its official standard, without which no level is given.
        judged_as: The task of the standards that judge it: its own, or one that measures the same.
        usual_case: The shipped case that is used if no case is given.
        judges_steps: Whether steps of training are judged. If so, the first difference inside a step can be diagnosed,
            and perturbed repeats of the reference show the floor.
        reference: The shipped runner of the reference, as `MODULE:CLASS`.
        oracle: That of the oracle.
        subject: That of the subject.
    """

    name: TaskName
    activity: str
    section: str | None
    official: str
    judged_as: TaskName
    usual_case: str
    judges_steps: bool
    reference: str
    oracle: str
    subject: str

    def __str__(self) -> str:
        return self.name

    @property
    def measured_by(self) -> Mapping[Side, str]:
        """The shipped runners of the sides that a subject is compared with."""
        return {"reference": self.reference, "oracle": self.oracle}


PRETRAIN = Task(
    name="pretrain",
    activity="training",
    section=None,
    official="official",
    judged_as="pretrain",
    usual_case="qwen3-tiny-fp32",
    judges_steps=True,
    reference="harness.runners.torch_reference:TorchReference",
    oracle="harness.runners.oracle:Float64Oracle",
    subject="harness.runners.mindspore_subject:MindSporeSubject",
)
# Steps of training like any others, of conversations: the published rule and the limits are those of pretraining.
FINETUNE = Task(
    name="finetune",
    activity="fine-tuning",
    section=None,
    official="official",
    judged_as="pretrain",
    usual_case="qwen3-tiny-sft-fp32",
    judges_steps=True,
    reference=PRETRAIN.reference,
    oracle=PRETRAIN.oracle,
    subject=PRETRAIN.subject,
)
INFERENCE = Task(
    name="inference",
    activity="inference",
    section="inference",
    official="official-inference",
    judged_as="inference",
    usual_case="qwen3-tiny-inference",
    judges_steps=False,
    reference="harness.runners.torch_inference:TorchInference",
    oracle="harness.runners.oracle_inference:OracleInference",
    subject="harness.runners.mindspore_inference:MindSporeInference",
)
TASKS: Mapping[TaskName, Task] = {task.name: task for task in (PRETRAIN, FINETUNE, INFERENCE)}


def _task(value: Any) -> Task:
    if isinstance(value, Task):
        return value
    for name, task in TASKS.items():
        if value == name:
            return task
    raise ValueError(f"unknown task {value!r}; known tasks: {', '.join(TASKS)}")


# A field that holds a task: its name in YAML and JSON, the record in Python.
TaskField = Annotated[Task, PlainValidator(_task), PlainSerializer(str, return_type=str)]
