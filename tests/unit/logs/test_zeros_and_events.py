"""What a step shows is kept with it: a loss of 0, a skipped update, numbers without a loss, what damage lost."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from tensorboard.summary import Writer

from harness.base.errors import InputError
from harness.logs import ImportedRun
from harness.logs.imports import import_log
from tests.support.logs import lines, megatron, mindformers


def of_text(directory: Path, text: str) -> ImportedRun:
    path = directory / "worker_0.log"
    path.write_text(text)
    return import_log([path], None, None)


def numbers(run: ImportedRun, name: str = "loss") -> list[float | None]:
    found = [getattr(step, name) for step in run.steps]
    return [None if number is None else number.value for number in found]


def noted(run: ImportedRun, text: str) -> bool:
    return any(text in note for note in run.notes)


def trainer_state(directory: Path, losses: Sequence[float], **state: object) -> Path:
    rows = [{"loss": loss, "grad_norm": math.nan, "step": n} for n, loss in enumerate(losses, 1)]
    path = directory / "trainer_state.json"
    path.write_text(json.dumps({"log_history": rows, "max_steps": 3} | state))
    return path


def event_file(directory: Path, scalars: Sequence[tuple[str, int, float]]) -> Path:
    writer = Writer(str(directory))
    for tag, step, value in scalars:
        writer.add_scalar(tag, value, step)
    writer.close()
    return next(directory.glob("*tfevents*"))


@pytest.mark.parametrize("losses", [[3.5, 0.0, 0.0], [0.0, 0.0, 0.0]])
def test_a_loss_of_0_that_the_trainer_prints_is_a_number(losses: Sequence[float], tmp_path: Path) -> None:
    run = import_log([trainer_state(tmp_path, losses)], None, None)
    assert numbers(run) == losses and not noted(run, "pipeline stage")
    assert noted(run, "grad_norm: not finite at 3 of 3 steps")
    events = tmp_path / "events"
    event_file(events, [("train/loss", n, loss) for n, loss in enumerate(losses, 1)])
    assert numbers(import_log([events], None, None)) == losses


def test_a_loss_of_0_of_megatron_keeps_its_step_and_the_next_is_no_mean_over_it(tmp_path: Path) -> None:
    run = of_text(tmp_path, lines(*(megatron(n, loss) for n, loss in ((1, 6.5), (2, 0.0), (3, 6.25)))))
    assert numbers(run) == [6.5, 0.0, 6.25] and [step.over for step in run.steps] == [1, 1, 1]


def test_a_step_whose_only_line_has_no_loss_is_said_with_what_happened_to_it(tmp_path: Path) -> None:
    skip = "INFO - opt_global_step: 1, skip_data_grad_norm_threshold: 3.0, is_skip: [ True]"
    run = of_text(tmp_path, lines(mindformers(1, 5.0), mindformers(2, 0.0, norm="44.3"), skip, mindformers(3, 4.9)))
    assert [step.step for step in run.steps] == [1, 3]
    assert noted(run, "1 step has no other line, so its numbers are not used: 2.")
    assert noted(run, "The update was skipped for its grad norm at 1 of 3 steps: 2.")
    assert not noted(run, "The log has one step in 2") and not noted(run, "Not in the log")


def test_a_skipped_update_is_said_also_where_the_stage_without_a_loss_prints_last(tmp_path: Path) -> None:
    skip = "INFO - opt_global_step: 1, skip_data_grad_norm_threshold: 3.0, is_skip: [ True]"
    overflow = mindformers(3, 0.0).replace("overflow cond: False", "overflow cond: True")
    run = of_text(
        tmp_path,
        lines(mindformers(1, 5.0), mindformers(2, 4.9), mindformers(2, 0.0), skip, mindformers(3, 4.8), overflow),
    )
    assert numbers(run) == [5.0, 4.9, 4.8]
    assert noted(run, "The update was skipped for its grad norm at 1 of 3 steps: 2.")
    assert noted(run, "An overflow was reported at 1 of 3 steps: 3.")


@pytest.mark.parametrize("stated", ["3", 3.0, 3])
@pytest.mark.parametrize("kind", [str, float, int])
def test_steps_of_a_trainers_state_are_whole_numbers_in_whatever_form(
    stated: object, kind: type, tmp_path: Path
) -> None:
    rows = [{"loss": 3.5, "step": kind(n)} for n in (1, 2, 3)]
    rows = [row | {"step": str(n)} if kind is str else row for n, row in enumerate(rows, 1)]
    run = import_log([trainer_state(tmp_path, [], log_history=rows, max_steps=stated)], None, None)
    assert [step.step for step in run.steps] == [1, 2, 3] and run.total == 3


@pytest.mark.parametrize("stated", [0, -1, None])
def test_a_trainers_state_without_a_planned_number_of_steps_is_read(stated: int | None, tmp_path: Path) -> None:
    assert import_log([trainer_state(tmp_path, [3.5], max_steps=stated)], None, None).total is None


def test_the_loss_of_a_program_built_on_megatron_is_read_and_another_loss_is_named(tmp_path: Path) -> None:
    printed = [megatron(n, 6.5 - n / 4) for n in (1, 2)]
    run = of_text(tmp_path, lines([line.replace("lm loss:", "loss:") for line in printed]))
    assert numbers(run) == [6.25, 6.0]
    with pytest.raises(InputError, match=r"'sop loss' at worker_0\.log, line 2 is another loss"):
        of_text(tmp_path, lines([line.replace("lm loss:", "sop loss:") for line in printed]))


def test_a_line_of_megatron_that_was_wrapped_before_its_counts_is_said(tmp_path: Path) -> None:
    printed = [megatron(n, 6.0, skipped=1).replace("number of skipped ", "number of skipped\n") for n in (1, 2)]
    assert noted(of_text(tmp_path, lines(printed)), "so skipped iterations are not known, at 2 of 2 steps: 1, 2.")


MEGATRON = [(tag, n, value) for n in range(1, 20) for tag, value in (("lm loss", 6 - n / 8), ("grad-norm", n / 4))]


def test_numbers_of_event_files_belong_to_their_step_in_whatever_order_they_were_written(tmp_path: Path) -> None:
    by_tag = sorted(MEGATRON, key=lambda one: one[0], reverse=True)
    event_file(tmp_path / "by-step", MEGATRON)
    event_file(tmp_path / "by-tag", by_tag)
    steps = import_log([tmp_path / "by-tag"], None, None).steps
    assert steps == import_log([tmp_path / "by-step"], None, None).steps
    assert all(step.loss and step.grad_norm and step.grad_norm.value == step.step / 4 for step in steps)


def test_a_resumed_run_in_one_event_file_replaces_what_it_repeats(tmp_path: Path) -> None:
    again = [("lm loss", 18, 1.5), ("grad-norm", 18, 0.5), ("lm loss", 19, 1.25), ("grad-norm", 19, 0.25)]
    event_file(tmp_path, [*MEGATRON, *again])
    run = import_log([tmp_path], None, None)
    assert numbers(run)[-2:] == [1.5, 1.25] and numbers(run, "grad_norm")[-2:] == [0.5, 0.25]
    assert noted(run, "the run goes back from step 19 to step 18")


def test_a_step_of_an_event_file_without_a_loss_is_kept_and_said(tmp_path: Path) -> None:
    event_file(tmp_path, [one for one in MEGATRON if one[:2] != ("lm loss", 2)])
    run = import_log([tmp_path], None, None)
    assert numbers(run)[:3] == [5.875, None, 5.625] and numbers(run, "grad_norm")[1] == 0.5
    assert noted(run, "loss: not printed at 1 of 19 steps: 2.")


@pytest.mark.parametrize("damage", ["a byte", "cut"])
def test_what_a_damaged_event_file_lost_is_said(damage: str, tmp_path: Path) -> None:
    path = event_file(tmp_path, MEGATRON)
    whole = bytearray(path.read_bytes())
    half = len(whole) // 2
    whole[half] ^= 0xFF
    path.write_bytes(whole[:half] if damage == "cut" else whole)
    run = import_log([tmp_path], None, None)
    assert 0 < len(run.steps) < 19 and noted(run, "is damaged or cut after") and noted(run, "bytes were not read")
    path.write_bytes(b"this is no event file, whatever its name")
    with pytest.raises(InputError, match="is not an event file, or is damaged from its beginning on"):
        import_log([tmp_path], None, None)
