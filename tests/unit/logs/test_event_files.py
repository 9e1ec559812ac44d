"""TensorBoard's event files, written by its own writer."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from tensorboard.summary import Writer

from harness.base.errors import InputError
from harness.logs import ImportedRun
from harness.logs.imports import import_log

MINDFORMERS = {"loss": "loss", "grad_norm": "grad-norm", "learning_rate": "learning-rate"}
MEGATRON = {**MINDFORMERS, "loss": "lm loss"}
TRAINER = {name: f"train/{name}" for name in MINDFORMERS}


def write(directory: Path, tags: Mapping[str, str], steps: Iterable[int], loss: float = 5.0) -> Path:
    writer = Writer(str(directory))
    for step in steps:
        values = {"loss": loss - step / 128, "grad_norm": 1.5 + step / 3, "learning_rate": 1e-3}
        for name, tag in tags.items():
            writer.add_scalar(tag, np.float32(values[name]), step)
            writer.add_scalar(f"{tag} vs samples", np.float32(values[name]), step * 8)
    writer.close()
    return directory


def imported(directory: Path) -> ImportedRun:
    return import_log([directory], None, None)


@pytest.mark.parametrize("tags", [MINDFORMERS, MEGATRON])
def test_scalars_are_steps_with_the_resolution_of_float32(tmp_path: Path, tags: Mapping[str, str]) -> None:
    run = imported(write(tmp_path / "run", tags, range(1, 11)))
    assert run.source == "tensorboard" and [(s.step, s.over) for s in run.steps] == [(n, 1) for n in range(1, 11)]
    third = run.steps[2]
    assert third.loss.value == 5.0 - 3 / 128
    assert third.grad_norm.value == float(np.float32(1.5 + 1)) and third.learning_rate.value == float(np.float32(1e-3))
    assert third.loss.resolution == third.loss.value * 2.0**-24
    assert run.notes == ()


def test_means_of_the_trainer_have_the_resolution_of_its_decimals(tmp_path: Path) -> None:
    writer = Writer(str(tmp_path))
    for step, loss in ((10, 5.1234), (20, 5.0321)):
        writer.add_scalar("train/loss", np.float32(loss), step)
    writer.close()
    run = imported(tmp_path)
    assert [(s.step, s.over) for s in run.steps] == [(10, 10), (20, 10)] and run.steps[0].loss.resolution == 5e-5


def test_several_files_of_one_directory_are_a_resumed_run(tmp_path: Path) -> None:
    write(tmp_path, MINDFORMERS, range(1, 8))
    (first,) = tmp_path.iterdir()
    first.rename(tmp_path / "events.out.tfevents.0")
    write(tmp_path, MINDFORMERS, range(5, 11), loss=4.0)
    run = imported(tmp_path)
    assert [s.step for s in run.steps] == list(range(1, 11))
    assert run.steps[4].loss.value == 4.0 - 5 / 128 and any("goes back from step 7 to step 5" in n for n in run.notes)


def test_steps_from_0_are_counted_from_1_with_a_note(tmp_path: Path) -> None:
    run = imported(write(tmp_path, MINDFORMERS, range(5)))
    assert [s.step for s in run.steps] == [1, 2, 3, 4, 5] and any("counts steps from 0" in note for note in run.notes)


def test_an_unknown_name_is_an_error_that_lists_the_known_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no loss under a known name, but my_loss.*train/loss"):
        imported(write(tmp_path, {"loss": "my_loss"}, range(1, 3)))


def test_a_truncated_file_keeps_only_the_steps_before_the_cut(tmp_path: Path) -> None:
    (path,) = write(tmp_path, MINDFORMERS, range(1, 11)).iterdir()
    whole = path.read_bytes()
    for cut in range(0, len(whole), len(whole) // 37):
        path.write_bytes(whole[:cut])
        try:
            run = imported(tmp_path)
        except InputError as error:
            assert str(error)
            continue
        assert [s.step for s in run.steps] == list(range(1, len(run.steps) + 1)) and len(run.steps) <= 10


def test_an_edited_file_is_an_error_or_is_read_up_to_the_edit(tmp_path: Path) -> None:
    (path,) = write(tmp_path, MINDFORMERS, range(1, 11)).iterdir()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    try:
        run = imported(tmp_path)
    except InputError:
        return
    assert len(run.steps) < 10


def test_another_writers_parameters_in_the_same_tree_are_no_run(tmp_path: Path) -> None:
    write(tmp_path / "run", MINDFORMERS, range(1, 6))
    write(tmp_path / "run" / "1764.1", {"loss": "hparam/loss"}, [1])
    run = imported(tmp_path)
    assert run.origin == "run" and len(run.steps) == 5
    with pytest.raises(InputError, match=r"has no loss under a known name, but hparam/loss"):
        imported(tmp_path / "run" / "1764.1")


def test_directories_of_one_name_are_told_apart_by_their_paths_and_the_fullest_is_used(tmp_path: Path) -> None:
    write(tmp_path / "rank_0" / "events", MINDFORMERS, range(1, 4))
    write(tmp_path / "rank_1" / "events", MINDFORMERS, range(1, 6))
    run = imported(tmp_path)
    assert run.origin == "rank_1/events" and any("Used rank_1/events of 2 logs" in note for note in run.notes)


def test_a_resumed_run_goes_on_counting_from_0(tmp_path: Path) -> None:
    write(tmp_path, MINDFORMERS, range(3))
    (first,) = tmp_path.iterdir()
    first.rename(tmp_path / "events.out.tfevents.0")
    write(tmp_path, MINDFORMERS, range(3, 6))
    run = imported(tmp_path)
    assert [(s.step, s.loss.value) for s in run.steps] == [(n + 1, 5.0 - n / 128) for n in range(6)]


def test_a_step_below_0_is_named(tmp_path: Path) -> None:
    run = imported(write(tmp_path / "some", MINDFORMERS, range(-1, 3)))
    assert [s.step for s in run.steps] == [1, 2, 3]
    assert any("1 line looks like a step but cannot be read" in note and "step -1" in note for note in run.notes)
    with pytest.raises(InputError, match=r"3 lines look like one but cannot be read, the first at .*, step -5"):
        imported(write(tmp_path / "all", MINDFORMERS, range(-5, -2)))


def test_numbers_of_a_file_without_a_loss_are_named(tmp_path: Path) -> None:
    write(tmp_path, MINDFORMERS, range(1, 4))
    (first,) = tmp_path.iterdir()
    first.rename(tmp_path / "events.out.tfevents.0")
    write(tmp_path, {"grad_norm": "grad-norm"}, range(1, 4))
    run = imported(tmp_path)
    assert len(run.steps) == 3
    assert any("has no loss, so its grad-norm were not used" in note for note in run.notes)
