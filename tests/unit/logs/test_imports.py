"""A log becomes the steps of one run, and nothing is omitted silently."""

import gzip
import json
import math
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.base.errors import CertifyError, InputError
from harness.base.records import encode, write_json
from harness.logs import ImportedRun, read_import
from harness.logs.imports import contradictions, detect, import_log
from tests.support.examples import small_case
from tests.support.logs import RATE, lines, losses, megatron, mindformers, mindformers_2
from tests.support.properties import examples

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def file(content: str | bytes, name: str = "worker_0.log") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return file


def imported(*paths: Path, rank: str | None = None) -> ImportedRun:
    return import_log(paths, None, rank)


def steps(run: ImportedRun) -> list[int]:
    return [step.step for step in run.steps]


def noted(run: ImportedRun, text: str) -> bool:
    return any(text in note for note in run.notes)


def test_a_line_of_mindformers_is_a_step_with_the_resolution_of_its_digits(write: Write) -> None:
    run = imported(write(lines([mindformers(n, loss) for n, loss in enumerate(losses(20), 1)])))
    first = run.steps[0]
    assert run.source == "mindformers" and run.total == 20 and steps(run) == list(range(1, 21)) and run.notes == ()
    assert first.loss and first.loss.value == 5.99 and first.loss.resolution == pytest.approx(5e-7)
    # the digits that NumPy printed identify a float32
    assert first.grad_norm and first.grad_norm.value == 1.31049 and 0 < first.grad_norm.resolution < 1e-7
    assert first.learning_rate and first.learning_rate.value == RATE


def test_a_number_that_numpy_truncated_has_the_resolution_of_its_digits(write: Write) -> None:
    run = imported(write(mindformers(1, 5.0, norm="0.12345678")))
    assert run.steps[0].grad_norm and run.steps[0].grad_norm.resolution == pytest.approx(5e-9)


def test_steps_are_counted_over_all_epochs(write: Write) -> None:
    printed = [mindformers(n, 5.0, of=3, epoch=epoch, epochs=2) for epoch in (1, 2) for n in (1, 2, 3)]
    run = imported(write(lines(printed)))
    assert steps(run) == [1, 2, 3, 4, 5, 6] and run.total == 6


def test_of_a_value_and_its_mean_the_value_is_used(write: Write) -> None:
    line = mindformers(2, 5.0).replace("loss: 5.000000", "loss:[5.539946/5.552871]")
    assert imported(write(line)).steps[0].loss.value == 5.539946


def test_a_line_of_mindformers_2_is_read(write: Write) -> None:
    run = imported(write(lines([mindformers_2(n, loss) for n, loss in enumerate(losses(20), 1)])))
    assert run.steps[0].grad_norm.value == 13.831877
    assert run.steps[0].grad_norm.resolution == pytest.approx(5e-7), "2.x prints a fixed count of digits"
    assert run.steps[0].learning_rate.resolution == pytest.approx(5e-10)


def test_the_rank_with_the_computed_loss_is_used_and_named(write: Write) -> None:
    zero = [write(lines([mindformers(n, 0.0) for n in range(1, 21)]), f"worker_{rank}.log") for rank in (0, 1, 2)]
    true = write(lines([mindformers(n, 5.5) for n in range(1, 21)]), "worker_10.log")
    run = imported(*zero, true)
    assert run.origin == "worker_10.log" and run.steps[0].loss.value == 5.5
    assert noted(run, "Used worker_10.log of 4 logs: only loss 0 in worker_0.log, worker_1.log, worker_2")
    with pytest.raises(InputError, match=r"worker_1\.log never shows a loss other than 0"):
        imported(*zero, true, rank="worker_1.log")


def test_a_stage_without_the_loss_is_an_error_and_not_a_loss_of_zero(write: Write) -> None:
    with pytest.raises(InputError, match="only ranks of the last stage show the loss"):
        imported(write(lines([mindformers_2(n, None) for n in range(1, 4)])))


def test_several_ranks_in_one_file_are_separated_by_their_labels(write: Write) -> None:
    mixed = [f"[rank{rank}]: {mindformers(n, 0.0 if rank < 3 else 5.5)}" for n in (1, 2, 3) for rank in range(4)]
    run = imported(write(lines(mixed)))
    assert run.origin == "rank 3" and steps(run) == [1, 2, 3] and run.steps[0].loss.value == 5.5


def test_lines_of_several_ranks_without_labels_are_merged_into_one_run(write: Write) -> None:
    mixed = [mindformers(n, loss) for n in (1, 2, 3) for loss in (0.0, 0.0, 5.5, 5.5)]
    run = imported(write(lines(mixed)))
    assert steps(run) == [1, 2, 3] and {s.loss.value for s in run.steps} == {5.5}
    assert noted(run, "3 lines repeat the previous step") and noted(run, "6 lines show a loss of 0")


@pytest.mark.parametrize(
    "mixed",
    [
        [mindformers(n, loss) for n in (1, 2, 3) for loss in (5.5, 5.4)],
        [mindformers(n, 5.5) for n in (1, 2, 1, 3, 2, 4, 3, 5, 4)],
    ],
)
def test_two_runs_in_one_file_are_an_error(write: Write, mixed: Sequence[str]) -> None:
    with pytest.raises(InputError, match="wrote into this file"):
        imported(write(lines(mixed)))


def test_a_restart_supersedes_the_steps_that_it_repeats(write: Write) -> None:
    before = [mindformers(n, 5.0) for n in range(1, 15)]
    again = [mindformers(n, 4.0) for n in range(11, 21)]
    run = imported(write(lines(before, again)))
    assert steps(run) == list(range(1, 21))
    assert [s.loss.value for s in run.steps] == [5.0] * 10 + [4.0] * 10
    assert noted(run, "goes back from step 14 to step 11; 4 steps were repeated")


def test_a_new_run_in_the_same_file_replaces_the_earlier_one_with_a_note(write: Write) -> None:
    run = imported(write(lines([mindformers(n, 5.0) for n in range(1, 9)], [mindformers(n, 4.0) for n in (1, 2, 3)])))
    assert steps(run) == [1, 2, 3] and {s.loss.value for s in run.steps} == {4.0}
    assert noted(run, "the 8 steps before it in the file, 1 to 8, belong to an earlier run")


def test_steps_that_are_missing_are_named(write: Write) -> None:
    run = imported(write(lines([mindformers(n, 5.0) for n in (1, 2, 3, 7, 8, 10)])))
    assert noted(run, "Not in the log: steps 4 to 6, 9.")


def test_a_step_that_cannot_be_read_is_noted(write: Write) -> None:
    torn = mindformers(2, 5.0)[:120]
    run = imported(write(lines(mindformers(1, 5.0), torn, [mindformers(n, 5.0) for n in (3, 4, 5)])))
    assert steps(run) == [1, 3, 4, 5]
    assert noted(run, "1 line looks like a step but cannot be read: worker_0.log, line 3") and noted(run, "steps 2")


def test_rotated_and_compressed_files_are_one_log_in_order_of_age(write: Write, tmp_path: Path) -> None:
    parts = [lines([mindformers(n, 5.0) for n in range(first, first + 5)]) for first in (1, 6, 11)]
    write(gzip.compress(parts[0].encode()), "worker_0.log.2.gz")
    write(parts[1], "worker_0.log.1")
    write(parts[2], "worker_0.log")
    run = imported(tmp_path)
    assert steps(run) == list(range(1, 16)) and run.notes == () and len(run.files) == 3


def test_colours_and_progress_bars_are_removed(write: Write) -> None:
    coloured = f"\x1b[32m{mindformers(1, 5.0)}\x1b[0m".replace("loss:", "\x1b[1mloss:\x1b[0m")
    bar = "  3%|▎  | 1/20\r" + mindformers(2, 4.9)
    assert steps(imported(write(lines(coloured, bar)))) == [1, 2]


def test_a_number_that_is_not_finite_is_kept(write: Write) -> None:
    run = imported(write(lines(mindformers(1, 5.0), mindformers(2, "nan", norm="inf"))))
    assert math.isnan(run.steps[1].loss.value) and math.isinf(run.steps[1].grad_norm.value)


def test_a_loss_of_megatron_is_the_mean_since_the_previous_line(write: Write) -> None:
    text = lines([megatron(n, 5.0, skipped=int(n == 30)) for n in range(10, 60, 10)])
    run = imported(write(text + " validation loss at iteration 50 | lm loss value: 5.1E+00 |\n"))
    assert run.source == "megatron" and run.total == 100 and not run.ends
    assert [(s.step, s.over) for s in run.steps] == [(n, 10) for n in range(10, 60, 10)]
    assert run.steps[0].loss.resolution == pytest.approx(5e-7) and run.steps[0].grad_norm.resolution == 0.0005
    assert noted(run, "The log has one step in 10") and noted(run, "at 1 of 5 steps: 30")


def state(history: Sequence[object], max_steps: object = 30) -> str:
    return json.dumps({"log_history": history, "max_steps": max_steps, "global_step": 30})


def test_losses_that_the_trainer_rounded_have_the_resolution_of_four_decimals(write: Write) -> None:
    rows = [{"loss": 5.1, "grad_norm": 1.2345678806304932, "learning_rate": RATE, "step": n} for n in (10, 20, 30)]
    path = write(state([*rows, {"eval_loss": 5.0, "step": 30}, {"train_loss": 5.0, "step": 30}]), "trainer_state.json")
    run = imported(path)
    assert run.source == "hf-trainer" and run.total == 30 and run.ends
    assert [(s.step, s.over) for s in run.steps] == [(10, 10), (20, 10), (30, 10)]
    assert run.steps[0].loss.resolution == 5e-5 and run.steps[0].grad_norm.resolution == 0


def test_losses_that_were_not_rounded_are_exact(write: Write) -> None:
    rows = [{"loss": loss, "step": n} for n, loss in ((1, 5.123456789), (2, 5.1))]
    run = imported(write(state(rows), "trainer_state.json"))
    assert [s.loss.resolution for s in run.steps] == [0, 0]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"log_history": 3}', '{"log_history": [], "max_steps": "x"}', "[" * 99999]
)
def test_a_file_that_is_not_a_trainer_state_is_an_error(write: Write, content: str) -> None:
    with pytest.raises(InputError, match=r"not a trainer_state\.json|no step"):
        imported(write(content, "trainer_state.json"))


def test_a_log_without_steps_is_an_error_that_names_the_formats(write: Write, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="looks like a training step of mindformers or Megatron-LM"):
        imported(write("nothing here\n"))
    with pytest.raises(InputError, match="no step of megatron"):
        import_log([write("nothing here\n")], "megatron", None)
    with pytest.raises(InputError, match="no file"):
        imported(tmp_path / "none.log")


def test_contradictions_to_the_case_are_reported(write: Write) -> None:
    case = small_case()
    fitting = case.lr_schedule.over(case.training.steps).learning_rate
    rows = [{"loss": 5.123456, "learning_rate": fitting(n), "step": n} for n in range(1, case.training.steps + 1)]
    run = imported(write(state(rows, case.training.steps), "trainer_state.json"))
    assert contradictions(run, case) == []
    rows[3]["learning_rate"] *= 1.001
    run = imported(write(state(rows, case.training.steps + 1), "trainer_state.json"))
    total, rate = contradictions(run, case)
    assert f"to a run of {case.training.steps + 1} steps" in total and "at 1 steps" in rate and "at step 4" in rate


def test_an_imported_run_reads_back_unchanged_and_an_edited_one_is_an_error(write: Write, tmp_path: Path) -> None:
    run = imported(write(lines(mindformers(1, 5.0), mindformers(2, "nan"))))
    path = tmp_path / "run.import.json"
    write_json(path, run)
    read = read_import(path)
    assert encode(read) == encode(run) and read.files == run.files
    for old, new in (
        ('"step":2', '"step":1'),
        ('"total":20', '"total":"20"'),
        ('"origin"', '"begin"'),
        ("5.0", "5.00"),
    ):
        path.write_text(path.read_text().replace(old, new, 1))
        with pytest.raises(CertifyError):
            read_import(path)
        write_json(path, run)


PIECES = st.sampled_from(
    [
        mindformers(1, 5.0), mindformers(2, 4.9), mindformers(3, 0.0), mindformers(2, "nan"), mindformers_2(3, None),
        mindformers_2(4, 4.8), megatron(10, 5.0), megatron(20, 4.0), "noise", "\x1b[31m", "step:[",
        "{ step:[ 9/ 9], loss:", " iteration 5/ 10 |", "| lm loss: x |", "[rank1]: ", "\r", "\0",
    ]
)  # fmt: skip


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=30)), max_size=12).map("\n".join), st.integers(0, 3), st.data())
def test_any_text_gives_steps_in_order_or_an_error_with_a_message(text: str, cut: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.log"
        path.write_text(text[cut:], encoding="utf-8", errors="surrogateescape" if cut else "replace")
        try:
            run = import_log([path], data.draw(st.sampled_from([None, "mindformers", "megatron"])), None)
        except CertifyError as error:
            assert str(error)
            return
    assert steps(run) == sorted(set(steps(run)))
    written = {int(n) for n in re.findall(r"(?:step:\[ *|iteration +)(\d+)/", text)}
    assert set(steps(run)) <= written


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(4, 30), st.lists(st.integers(1, 29), max_size=2))
def test_after_any_restarts_each_step_has_its_last_value(end: int, back: list[int]) -> None:
    printed, expected = list[str](), dict[int, float]()
    for attempt, begin in enumerate([1, *[min(one, end - 1) for one in back]], 1):
        for n in range(begin, end + 1):
            printed.append(mindformers(n, attempt + n / 100, of=end))
            expected[n] = attempt + n / 100
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "a.log"
        path.write_text(lines(printed))
        run = import_log([path], None, None)
    assert {s.step: s.loss.value for s in run.steps} == pytest.approx(expected)
    assert len(run.notes) == len(back)


def test_the_format_is_detected_from_the_file(write: Write) -> None:
    assert detect([write(lines(megatron(1, 5.0)))]) == "megatron"
    assert detect([write(lines(mindformers(1, 5.0)))]) == "mindformers"
    assert detect([write("{}", "trainer_state.json")]) == "hf-trainer"
