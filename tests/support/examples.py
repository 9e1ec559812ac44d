"""A small case, a text and its inputs, for tests that run something without a framework."""

from pathlib import Path
from typing import Any

import yaml

from harness.cases.case import Case, load_case
from harness.certify.case_options import in_proportion, with_fields
from harness.certify.jobs import Options

ROOT = Path(__file__).resolve().parents[2]
FAKES = "tests.support.fake_runners"
TEXT = (
    " \n = Snow = \n \n It snows . \n\n = = Ice = = \n \n Ice melts . \n \n = Rain = \n \n It rains , and it rains . \n"
    * 40
)


def shorter(case: Case, steps: int, *, warmup_steps: int | None = None, **training: Any) -> Case:
    """A case of so many steps, which examines steps and resumes at the same part of it, and with other fields of its
    section `training`."""
    rate = {} if warmup_steps is None else {"lr_schedule": {"warmup_steps": warmup_steps}}
    return with_fields(case, in_proportion(case, steps), rate, {"training": {"steps": steps, **training}})


def small_case(**training: Any) -> Case:
    """`qwen3-tiny-fp32` in eight steps of text alone, none of them examined, with a checkpoint every third."""
    case = load_case("qwen3-tiny-fp32")
    plain = {"examined_steps": (), "resume_after": None}
    asked = {"steps": 8, "lr_zero_steps": 3, "checkpoint_every": 3, **plain, **training}
    return case.with_changes(
        data={**case.data.model_dump(), "seq_length": 16, "global_batch_size": 2, "sweep_vocabulary": False},
        lr_schedule={**case.lr_schedule.model_dump(), "warmup_steps": 2},
        training={**case.training.model_dump(), **asked},
    )


def inference_case(documents: int = 20, **asked: Any) -> Case:
    """`qwen3-tiny-inference`, trained for eight steps, with two short rows and prompts and few documents."""
    case = load_case("qwen3-tiny-inference")
    few = {"rows": 2, "prompts": [4, 7], "max_new_tokens": 256, "sampled_tokens": 6, "texts": 12}
    few |= {"borders": [4], "decoded_tokens": 2}
    return case.with_changes(
        data={**case.data.model_dump(), "seq_length": 8, "global_batch_size": 2},
        lr_schedule={**case.lr_schedule.model_dump(), "warmup_steps": 2},
        training={**case.training.model_dump(), "steps": 8, "lr_zero_steps": 3},
        inference={**few, "documents": documents, **asked},
    )


def text_case(directory: Path, **training: Any) -> Case:
    """The small case with `TEXT`, written into a directory, as its corpus."""
    path = directory / "corpus.txt"
    path.write_text(TEXT, encoding="utf-8")
    case = small_case(**training)
    return case.with_changes(data={**case.data.model_dump(), "corpus": {"kind": "text", "path": str(path)}})


def text_case_file(directory: Path) -> Path:
    """The file of that case."""
    path = directory / "case.yaml"
    path.write_text(yaml.safe_dump(text_case(directory).model_dump(mode="json")), encoding="utf-8")
    return path


def options(out: Path, *, subject: str = "Fake", reference: str = "Fake", resume: bool = False, **more: Any) -> Options:
    """Options of a run whose runners are fakes, by the names of their classes."""
    asked = {"device": "CPU", "threads": 1, "workers": 2, "command": ("certify", "run"), **more}
    return Options(
        out=out,
        resume=resume,
        subject=f"{FAKES}:{subject}",
        reference=f"{FAKES}:{reference}",
        oracle=f"{FAKES}:Fake",
        **asked,
    )
