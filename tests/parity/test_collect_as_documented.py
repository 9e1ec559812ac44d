"""The lines of docs/collect.md, as they are printed, in each trainer."""

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mindspore as ms  # before torch: its protobuf files are older
import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from transformers import TrainingArguments

from harness.base.digest import digest_each, digest_tensors
from harness.cases.alignment import expected_alignment
from harness.corpus.draw import draw_inputs
from harness.runs.collected import FIRST_GRADIENT
from harness.runs.files import TRACE
from harness.runs.inputs import read_tensors
from harness.runs.trace import Trace, read_trace
from qwen3_model.modeling_qwen3_train import Qwen3Trainer
from qwen3_model.optimizer import AdamWConfig
from tests.support.collected import drawn
from tests.support.documents import SITE, code_blocks, code_spans, read
from tests.support.examples import ROOT
from tests.support.full import full
from tests.support.trainers import InOrder, Rows, hf_model, schedule_of

BLOCKS = code_blocks(read(SITE / "collect.md"))
STEPS = 3


def block(words: str) -> str:
    (found,) = (text for _, text in BLOCKS if words in text)
    return found


@contextlib.contextmanager
def inside(directory: Path) -> Iterator[None]:
    before, threads = Path.cwd(), torch.get_num_threads()
    os.chdir(directory)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.chdir(before)
        torch.set_num_threads(threads)


def batches() -> list[tuple[Any, Any]]:
    return list(zip(drawn().tokens[:STEPS], drawn().mask[:STEPS], strict=True))


def check(trace: Trace, trainer: str) -> None:
    """It is complete, it read the case's weights and batches, and it states the case's configuration."""
    assert trace.complete and trace.header.runner == f"collected:{trainer}"
    assert trace.header.initial == digest_each(drawn().weights)
    assert trace.header.alignment == expected_alignment(drawn().case)
    wanted = [digest_tensors({"tokens": tokens, "loss_mask": mask}) for tokens, mask in batches()]
    assert [step.batch for step in trace.steps] == wanted
    assert all(step.finite for step in trace.steps)


def loss_of(model: Any, tokens: Any, loss_mask: Any) -> torch.Tensor:
    ids = torch.from_numpy(tokens.astype(np.int64))
    labels = ids[:, 1:].masked_fill(torch.from_numpy(loss_mask == 0), -100)
    loss: torch.Tensor = model(input_ids=ids[:, :-1], labels=labels, shift_labels=labels).loss
    return loss


@pytest.mark.parametrize("accelerated", [False, True])
def test_the_lines_for_a_torch_loop(tmp_path: Path, accelerated: bool) -> None:
    model, asked = hf_model(drawn().case, drawn().weights), drawn().case.optimizer
    groups = [
        {"params": [one for one in model.parameters() if one.ndim > 1], "weight_decay": asked.weight_decay},
        {"params": [one for one in model.parameters() if one.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer: Any = torch.optim.AdamW(groups, lr=1e-4, betas=asked.betas, eps=asked.eps)
    if accelerated:
        model, optimizer = Accelerator(cpu=True).prepare(model, optimizer)
    names = {"torch": torch, "model": model, "optimizer": optimizer, "batches": batches(), "loss_of": loss_of}
    lines = block('trainer="torch-loop"').replace("import arrays,", "import arrays, gradients,", 1)
    backward = "    loss.backward()\n"
    given = f"{backward}    if tokens is batches[0][0]:\n        {block('collector.first_gradient')}"
    assert backward in lines
    with inside(tmp_path):
        exec(lines.replace(backward, given), names)
    left = read_tensors(tmp_path / "collected/loop" / FIRST_GRADIENT)
    assert {f"gradient.{name}#{part}" for name in drawn().weights for part in ("sketch", "along")} <= set(left)
    check(read_trace(tmp_path / "collected/loop" / TRACE), "torch-loop")


def test_the_lines_for_hugging_faces_trainer(tmp_path: Path) -> None:
    case, inputs = drawn().case, drawn()
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "output"), max_steps=STEPS, per_device_train_batch_size=case.data.global_batch_size,
        learning_rate=1e-4, **schedule_of(case), adam_beta1=case.optimizer.betas[0],
        adam_beta2=case.optimizer.betas[1], adam_epsilon=case.optimizer.eps, weight_decay=case.optimizer.weight_decay,
        max_grad_norm=2.0, logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    rows = Rows(inputs.tokens, inputs.mask)
    model = hf_model(case, inputs.weights)
    names: dict[str, Any] = {"Trainer": InOrder, "model": model, "arguments": arguments, "rows": rows}
    lines, plain = block('CertifyCallback("collected/trainer")'), 'CertifyCallback("collected/trainer")'
    (given,) = (span for span in code_spans(read(SITE / "collect.md")) if "first_gradient=True" in span)
    with inside(tmp_path):
        exec(lines.replace(plain, given.strip("`")), names)
        names["trainer"].train()
    left = read_tensors(tmp_path / "collected/trainer" / FIRST_GRADIENT)
    norm = math.sqrt(sum(float(one[0]) for name, one in left.items() if name.endswith("#sketch")))
    first = read_trace(tmp_path / "collected/trainer" / TRACE).steps[0]
    assert norm == pytest.approx(first.grad_norm, rel=1e-6)  # before clipping
    check(read_trace(tmp_path / "collected/trainer" / TRACE), "hugging-face")


def test_the_lines_for_a_mindspore_loop(tmp_path: Path) -> None:
    case, asked = drawn().case, drawn().case.optimizer
    ms.set_context(mode=ms.GRAPH_MODE)
    config = AdamWConfig(beta1=asked.betas[0], beta2=asked.betas[1], eps=asked.eps, weight_decay=asked.weight_decay)
    schedule = case.lr_schedule.over(case.training.steps)
    trainer = Qwen3Trainer(case.model, case.precision, config, schedule, clip_grad=2.0)
    trainer.load_weights(drawn().weights)

    def train_step(tokens: Any, loss_mask: Any) -> tuple[float, float, float]:
        taken = trainer.train_step(tokens, loss_mask)
        return taken.loss, taken.grad_norm, taken.learning_rate

    names = {
        "cell": trainer.model, "stated": expected_alignment(case), "batches": batches(), "train_step": train_step,
    }  # fmt: skip
    with inside(tmp_path):
        exec(block('trainer="mindspore-loop"'), names)
    check(read_trace(tmp_path / "collected/mindspore" / TRACE), "mindspore-loop")


def test_the_lines_of_yaml_are_the_rows_of_a_case_in_mindformers(tmp_path: Path) -> None:
    from mindformers.dataset.dataloader import build_dataset_loader

    import harness.collect.mindformers  # noqa: F401  (registers the data loader)

    draw_inputs(drawn().case, tmp_path)
    asked = yaml.safe_load(block("type: CertifyRows"))["data_loader"]
    columns = ["input_ids", "labels", "loss_mask", "position_ids"]
    with inside(tmp_path):
        rows = build_dataset_loader(asked, default_args={"column_names": columns, "num_shards": None, "batch_size": 4})
        found = [[one.copy() for one in each] for each in rows.create_tuple_iterator(num_epochs=1, output_numpy=True)]
    tokens, mask = (one.reshape(-1, one.shape[-1]) for one in (drawn().tokens, drawn().mask))
    assert len(found) == len(tokens)
    for (ids, labels, counts, positions), row, counted in zip(found, tokens, mask, strict=True):
        assert np.array_equal(ids, row[:-1]) and np.array_equal(labels, row[1:]) and np.array_equal(counts, counted)
        assert positions.tolist() == list(range(len(counted)))


def test_the_lines_of_yaml_are_a_schedule_of_mindformers() -> None:
    from mindformers.core.lr import build_lr

    import harness.collect.mindformers  # noqa: F401  (registers the schedule)

    asked = yaml.safe_load(block("type: CertifyCosine"))["lr_schedule"]
    built = build_lr({**asked, "total_steps": 100})  # as the Trainer adds it
    assert built(ms.Tensor([0], ms.int32)).asnumpy().item() == 0.0
    assert built(ms.Tensor([10], ms.int32)).asnumpy().item() == np.float32(asked["learning_rate"])
    assert built(ms.Tensor([100], ms.int32)).asnumpy().item() == np.float32(asked["lr_end"])


def test_the_lines_of_yaml_are_a_callback_of_mindformers() -> None:
    from mindformers.core.callback import build_callback

    from harness.collect.mindformers import CertifyCollector

    (callback,) = build_callback(yaml.safe_load(block("type: CertifyCollector"))["callbacks"])
    assert isinstance(callback, CertifyCollector)
    assert callback.directory == Path("collected/mindformers")


@full(held_by="tests/parity/test_collect_as_documented.py::test_the_lines_for_a_torch_loop")
def test_the_lines_for_megatron_collect_a_loop_of_megatron_core_and_change_no_bit(tmp_path: Path) -> None:
    """Its parameters have names of its own, so weights and alignment are stated as not collected."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.megatron_core_loop"]
    about: Any = {"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(ROOT)}, "capture_output": True, "text": True}
    printed = [
        subprocess.run([*command, *more], **about, check=True).stdout.splitlines()[-1]
        for more in ([block('trainer="megatron"')], [])
    ]
    assert printed[0] == printed[1] and printed[0].startswith("weights ")
    trace = read_trace(tmp_path / "collected/megatron" / TRACE)
    assert trace.header.runner == "collected:megatron" and all(step.tokens == 64 for step in trace.steps)
    assert trace.complete and all(step.finite for step in trace.steps)
    assert set(trace.header.provenance["collected"]["omitted"]) == {"alignment", "weights"}
