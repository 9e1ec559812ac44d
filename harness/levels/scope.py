"""What a level holds for, as one record that levels, waivers and pages share.

A scope is read from a bundle. Nothing in it is guessed: what no run recorded is None, and reads `not stated`.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from harness.cases.runs_of_a_case import SUBJECT
from harness.evidence.bundle import Bundle
from harness.runs.collected import PREFIX as COLLECTED
from qwen3_model.configuration_qwen3 import Qwen3Config
from qwen3_model.sizes import PUBLISHED, SMALL

NOT_STATED = "not stated"
OWN, MINDFORMERS = "qwen3_model", "mindformers"
OTHERS = {
    "harness.runners.mindformers_subject:MindFormersSubject": MINDFORMERS,
    f"{COLLECTED}{MINDFORMERS}": MINDFORMERS,
}


@dataclass(frozen=True, kw_only=True)
class Scope:
    """What a level holds for; it holds for nothing else.

    Attributes:
        task: `training` or `inference`.
        size: The name of a size, or the sizes of a model that has no name.
        cut: What a cut model has of the whole one; empty for a whole model.
        weights: `drawn` for inference with weights that were never trained, else empty.
        implementation: The code that computes the subject.
        device: The device of the subject: `CPU` or `Ascend`.
        soc: The chip of an NPU as its driver names it, and the server or board: 800T A2 and 800I A2 are two devices.
        layout: The parallel layout.
        recompute: Whether the forward pass is recomputed in the backward pass.
        precision: The dtype of the matrix products; and that operators are plain where a device has fused ones.
        mode: `GRAPH` or `PYNATIVE`.
        mindspore_transformers: Version; None also where the implementation is not of it.
        mindspore: Version.
        cann: Version.
        hdk: Version of the driver package.
    """

    task: str
    size: str
    cut: str
    weights: str
    implementation: str
    device: str
    soc: str | None
    layout: str
    recompute: bool
    precision: str
    mode: str | None
    mindspore_transformers: str | None
    mindspore: str | None
    cann: str | None
    hdk: str | None

    @property
    def model(self) -> str:
        """The model in words: its size, what is cut, weights that were never trained, and another implementation."""
        drawn = f" with {self.weights} weights" if self.weights else ""
        by = "" if self.implementation == OWN else f" by {self.implementation}"
        return f"Qwen3 {', '.join(filter(None, (self.size, self.cut)))}{drawn}{by}"

    @property
    def versions(self) -> tuple[str | None, str | None, str | None, str | None]:
        """MindSpore Transformers, MindSpore, CANN and HDK, as in the version table of the model guide."""
        return (self.mindspore_transformers, self.mindspore, self.cann, self.hdk)

    def __str__(self) -> str:
        """The line that statements about a bundle sign; its manifest's digest covers the rest."""
        return f"{self.model}, {self.task} on {self.device}, {self.layout}, {self.precision}"

    @property
    def line(self) -> str:
        """Everything in one line, also what is not stated."""
        recompute = "recompute" if self.recompute else "no recompute"
        parts = (
            ("chip", self.soc),
            ("mode", self.mode),
            ("MindSpore Transformers", self.mindspore_transformers),
            ("MindSpore", self.mindspore),
            ("CANN", self.cann),
            ("HDK", self.hdk),
        )
        return ", ".join((str(self), recompute, *(f"{name} {value or NOT_STATED}" for name, value in parts)))

    def record(self) -> dict[str, Any]:
        """As JSON values, with the model in words."""
        return {"model": self.model, **{one.name: getattr(self, one.name) for one in fields(self)}}


def scope(bundle: Bundle) -> Scope:
    """What a bundle's level holds for."""
    case, run = bundle.case, bundle.runs.get(SUBJECT)
    header = run.trace.header if run and run.trace else None
    runner = header.runner if header else case.task.subject
    implementation = OWN if runner == case.task.subject else OTHERS.get(runner, runner)
    size, cut = size_and_cut(case.model)
    packages, ascend = bundle.environment.packages, bundle.environment.machine.get("ascend")
    chip = ascend if isinstance(ascend, Mapping) else {}
    return Scope(
        task=case.task.activity,
        size=size,
        cut=cut,
        weights="" if case.has_learned else "drawn",
        implementation=implementation,
        device=bundle.environment.device,
        soc=_soc(chip),
        layout=str(case.parallel),
        recompute=case.training.recompute,
        precision=str(case.precision),
        mode=_text(header.provenance.get("mode")) if header else None,
        mindspore_transformers=packages.get(MINDFORMERS) if implementation == MINDFORMERS else None,
        mindspore=packages.get("mindspore"),
        cann=_text(chip.get("cann")),
        hdk=_text(chip.get("driver")),
    )


def _text(value: Any) -> str | None:
    """What a machine or a trace states as a text; None for anything else that a foreign file has there."""
    return value if isinstance(value, str) else None


def _soc(chip: Mapping[str, Any]) -> str | None:
    """The chip and the server that it is in; of a server that has no name, its board."""
    soc, board = _text(chip.get("soc")), _text(chip.get("board"))
    if soc is None:
        return None
    return ", ".join(filter(None, (soc, _text(chip.get("product")) or (f"board {board}" if board else None))))


def _named(model: Qwen3Config) -> Mapping[str, Qwen3Config]:
    """The published and small sizes; a small one has as many positions as a case gives it, so as many as the model."""
    positions = model.max_position_embeddings
    small = {name: dataclasses.replace(whole, max_position_embeddings=positions) for name, whole in SMALL.items()}
    return {**PUBLISHED, **small}


def size_and_cut(model: Qwen3Config) -> tuple[str, str]:
    """The name of a published or small size, or the sizes of a model without one; and what is cut of the whole."""
    named = _named(model)
    for name, whole in named.items():
        if whole.to_hf() == model.to_hf():
            return name, ""
    for name, whole in named.items():
        cut = {"num_hidden_layers": model.num_hidden_layers, "vocab_size": model.vocab_size}
        if {**whole.to_hf(), **cut} == model.to_hf() and all(
            getattr(whole, key) >= value for key, value in cut.items()
        ):
            of = [f"{model.num_hidden_layers} of {whole.num_hidden_layers} layers"]
            if model.vocab_size < whole.vocab_size:
                of.append(f"vocabulary {model.vocab_size:,} of {whole.vocab_size:,}")
            return name, ", ".join(of)
    return f"of {model.num_hidden_layers} layers of width {model.hidden_size}", ""
