"""Logs as programs and people leave them: numbers do not vanish and are not invented, and what was read is said."""

import gzip
import io
import itertools
import json
import math
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import pytest

from harness.base.errors import InputError
from harness.base.records import write_json
from harness.logs import ImportedRun, read_import
from harness.logs.differences import differences
from harness.logs.imports import import_log
from harness.logs.text import LONGEST
from tests.support.logs import PREFIX, lines, megatron, mindformers, mindformers_2


def imported(*paths: Path, rank: str | None = None) -> ImportedRun:
    return import_log(paths, None, rank)


def of_text(directory: Path, text: str, name: str = "worker_0.log") -> ImportedRun:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return imported(path)


def numbers(run: ImportedRun, name: str = "loss") -> list[float | None]:
    found = [getattr(step, name) for step in run.steps]
    return [None if number is None else number.value for number in found]


def noted(run: ImportedRun, *texts: str) -> bool:
    return all(any(text in note for note in run.notes) for text in texts)


TRUE = [mindformers(n, 12.0 - n / 10, of=4) for n in (1, 2, 3, 4)]
ZERO = [mindformers(n, 0.0, of=4) for n in (1, 2, 3, 4)]
ABSENT = [mindformers_2(n, None, of=4) for n in (1, 2, 3, 4)]
TRUE_2 = [mindformers_2(n, 12.0 - n / 10, of=4) for n in (1, 2, 3, 4)]


def woven(*ranks: Sequence[str]) -> list[str]:
    return list(itertools.chain.from_iterable(zip(*ranks, strict=True)))


MIXED: dict[str, list[str]] = {
    "the last stage first": [*TRUE, *ZERO],
    "the last stage last": [*ZERO, *TRUE],
    "line by line, zero second": woven(TRUE, ZERO),
    "line by line, zero first": woven(ZERO, TRUE),
    "three stages": woven(ZERO, TRUE, ZERO),
    "four stages after one another": [*ZERO, *ZERO, *TRUE, *ZERO],
    "a stage that is ahead": [ZERO[0], ZERO[1], TRUE[0], ZERO[2], TRUE[1], ZERO[3], TRUE[2], TRUE[3]],
    "2.x, the last stage first": [*TRUE_2, *ABSENT],
    "2.x, line by line": woven(ABSENT, TRUE_2),
}


@pytest.mark.parametrize("mixture", MIXED)
def test_a_stage_without_a_loss_never_replaces_a_number(mixture: str, tmp_path: Path) -> None:
    run = of_text(tmp_path, lines(MIXED[mixture]))
    assert numbers(run) == [11.9, 11.8, 11.7, 11.6]
    said = [note for note in run.notes if "a pipeline stage without a loss" in note]
    assert len(said) == 1 and not noted(run, "goes back") and not noted(run, "A run begins")


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_in_whatever_order_files_of_ranks_are_given_the_loss_is_found(order: Sequence[int], tmp_path: Path) -> None:
    files = []
    for number, content in enumerate((ZERO, [*ZERO, *TRUE], ZERO)):
        path = tmp_path / f"worker_{number}.log"
        path.write_text(lines(content))
        files.append(path)
    run = imported(*(files[number] for number in order))
    assert run.origin == "worker_1.log" and numbers(run) == [11.9, 11.8, 11.7, 11.6]


NORMS: dict[str, tuple[str, float | None]] = {
    "global_norm: [12.25]": ("[1.31049]", 12.25),
    "global_norm [12.25]": ("[1.31049]", 12.25),
    "global_norm:[12.25]": ("[1.31049]", 12.25),
    "global_norm: [[12.25]]": ("[1.31049]", 12.25),
    "global_norm: [np.float32(12.25)]": ("[1.31049]", 12.25),
    "global_norm: [ 12.25]": ("[1.31049]", 12.25),
    "global_norm: [nan]": ("[1.31049]", math.nan),
    "global_norm: [1 22500]": ("[1.31049]", None),
    "global_norm: [12.25": ("[1.31049]", None),
    "global_norm=12.25": ("[1.31049]", None),
    "global_norm: [12.25 3.5]": ("[1.31049]", None),
    "global_norm: Tensor(shape=[1], value=[12.25])": ("[1.31049]", None),
    "global_norm: twelve": ("[1.31049]", None),
}


@pytest.mark.parametrize("form", NORMS)
def test_a_norm_is_read_right_or_named_with_file_line_and_text(form: str, tmp_path: Path) -> None:
    expected = NORMS[form][1]
    line = mindformers(2, 5.0).replace("global_norm: [1.31049]", form)
    run = of_text(tmp_path, lines(mindformers(1, 5.1), line, mindformers(3, 4.9)))
    assert numbers(run) == [5.1, 5.0, 4.9] and numbers(run, "learning_rate") == [0.001] * 3
    found = numbers(run, "grad_norm")
    if expected is None:
        assert found == [1.31049, None, 1.31049]
        assert noted(run, "grad_norm: ", "at worker_0.log, line 3 cannot be read")
        assert form.replace("global_norm: ", "")[:8].strip("'") in " ".join(run.notes)
    else:
        assert found[1] == pytest.approx(expected, nan_ok=True)
        assert noted(run, "grad_norm: not finite at 1 of 3 steps: 2.") == math.isnan(expected)


def test_a_norm_that_2_x_did_not_compute_is_no_norm_and_is_said_once(tmp_path: Path) -> None:
    absent = [mindformers_2(n, 5.0 - n).replace("grad_norm:  13.831877", "grad_norm:  NaN") for n in (1, 2, 3)]
    run = of_text(tmp_path, lines(absent))
    assert numbers(run, "grad_norm") == [None] * 3
    assert [note for note in run.notes if "grad_norm" in note] == [
        "grad_norm: not computed, NaN is printed for it at 3 of 3 steps: 1, 2, 3."
    ]
    (difference,) = (one for one in differences(run, run) if one.number == "grad_norm")
    assert difference.result == "INCONCLUSIVE"
    # and where it was computed, and is not a number, it is one
    computed = absent[1].replace("grad_norm:  NaN", "grad_norm:        nan")
    found = numbers(of_text(tmp_path, lines(absent[0], computed, absent[2])), "grad_norm")
    assert found[0] is None and math.isnan(found[1] or 0) and found[2] is None


def test_a_loss_that_megatron_leaves_out_leaves_its_step_and_is_said(tmp_path: Path) -> None:
    printed = [megatron(n, 6.5 - n / 4, of=4) for n in (1, 2, 3, 4)]
    gone = megatron(3, 5.0, of=4, norm="nan", skipped=1)
    printed[2] = " | ".join(part for part in gone.split(" | ") if not part.startswith("lm loss"))
    run = of_text(tmp_path, lines(printed))
    assert numbers(run) == [6.25, 6.0, None, 5.5] and len(run.steps) == 4
    assert noted(run, "loss: not printed at 1 of 4 steps: 3.", "Skipped iterations", "grad_norm: not finite at 1")


def test_a_log_of_megatron_that_never_has_a_loss_is_not_explained_by_pipeline_stages(tmp_path: Path) -> None:
    printed = [" | ".join(p for p in megatron(n, 5.0).split(" | ") if "lm loss" not in p) for n in (1, 2)]
    with pytest.raises(InputError) as refused:
        of_text(tmp_path, lines(printed))
    assert "never shows a loss: its steps have other numbers only, first at worker_0.log, line 2" in str(refused.value)
    assert "pipeline" not in str(refused.value)


@pytest.mark.parametrize("program", [mindformers, mindformers_2, megatron])
def test_of_a_file_that_is_cut_anywhere_in_its_last_line_no_number_is_invented(
    program: Callable[..., str], tmp_path: Path
) -> None:
    whole = lines(program(1, 11.8), program(2, 11.7))
    last = program(3, 11.612345)
    complete = of_text(tmp_path, whole + last + "\n").steps
    for cut in range(len(last) + 1):
        run = of_text(tmp_path, whole + last[:cut])
        assert numbers(run)[:2] == [11.8, 11.7]
        if len(run.steps) == 3:  # then it has every number
            assert run.steps == complete, last[:cut]
        else:
            assert noted(run, "(cut: the file ends there)") or "loss: " not in last[:cut]
    assert len(run.steps) == 3


@pytest.mark.parametrize("end", ["loss: 1", "loss:  11.6", "loss: 11.612345, per_step_time: 103ms, lr: 0.0"])
def test_a_cut_line_within_a_file_gives_no_loss(end: str, tmp_path: Path) -> None:
    line = mindformers(2, 11.6)
    run = of_text(
        tmp_path, lines(mindformers(1, 11.8), line[: line.index("loss:")] + end.split(",")[0], mindformers(3, 11.5))
    )
    assert [step.step for step in run.steps] == [1, 3] and noted(run, "cannot be read: worker_0.log, line 3")


@pytest.mark.parametrize("flag", ["[ True]", "[True]", "True", " [True ]"])
def test_a_skipped_update_is_said_with_its_step(flag: str, tmp_path: Path) -> None:
    skip = f"INFO - opt_global_step: 1, skip_data_grad_norm_threshold: 3.0, is_skip: {flag}"
    other = skip.replace(flag, "[False]")
    run = of_text(tmp_path, lines(mindformers(1, 5.0), other, mindformers(2, 4.9), skip, mindformers(3, 4.8), other))
    assert noted(run, "The update was skipped for its grad norm at 1 of 3 steps: 2.")


@pytest.mark.parametrize("flag", ["True", "[ True]", "[True]"])
def test_an_overflow_is_said_in_whatever_form_it_is_printed(flag: str, tmp_path: Path) -> None:
    line = mindformers(2, 4.9).replace("overflow cond: False", f"overflow cond: {flag}")
    assert noted(of_text(tmp_path, lines(mindformers(1, 5.0), line)), "An overflow was reported at 1 of 2 steps: 2.")


def state(directory: Path, rows: Sequence[dict[str, object]]) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "trainer_state.json"
    path.write_text(json.dumps({"log_history": rows, "max_steps": 30, "global_step": 30}))
    return path


def test_numbers_that_are_text_in_a_trainers_state_are_read_with_the_resolution_of_their_digits(tmp_path: Path) -> None:
    rows = [{"loss": "3.375", "grad_norm": "2.5", "learning_rate": "1e-05", "step": n} for n in (1, "2")]
    run = imported(state(tmp_path, rows))
    assert numbers(run) == [3.375] * 2 and numbers(run, "grad_norm") == [2.5] * 2
    assert run.steps[0].loss is not None and run.steps[0].loss.resolution == 5e-4
    assert noted(run, "Numbers are text in the file")


@pytest.mark.parametrize("bad", ["two", None, [2.5], {"value": 2.5}, True, "2,5"])
def test_a_number_of_a_trainers_state_that_cannot_be_read_is_named(bad: object, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"loss": 3.0, "grad_norm": 2.0, "step": 1},
        {"loss": 2.9, "grad_norm": bad, "step": 2},
    ]
    run = imported(state(tmp_path, rows))
    assert numbers(run, "grad_norm") == [2.0, None]
    assert noted(run, "grad_norm: ", "trainer_state.json, log_history[1] cannot be read")


@pytest.mark.parametrize(
    "layout", ["output/log/rank_{}/info.log", "log/rank{}/a.log", "n0/worker-{}.log", "w/device_{}/x.log"]
)
def test_files_of_one_name_are_told_apart_by_their_directories_and_chosen_by_rank(layout: str, tmp_path: Path) -> None:
    for number in range(12):
        path = tmp_path / layout.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(lines(TRUE if number in (1, 11) else ZERO))
    run = imported(tmp_path)
    name = layout.format(1).split("/")
    assert run.origin == "/".join(name[-1:] if "worker" in layout else name[-2:])
    assert run.origin in run.notes[0] and "of 12 logs" in run.notes[0]
    assert "11" in imported(tmp_path, rank="11").origin and imported(tmp_path, rank="1").origin == run.origin
    with pytest.raises(InputError, match="never shows a loss other than 0"):
        imported(tmp_path, rank="2")
    with pytest.raises(InputError, match="There is no rank or file '12'"):
        imported(tmp_path, rank="12")


def test_a_rank_that_names_several_files_is_an_error_with_their_names(tmp_path: Path) -> None:
    for name in ("rank_0/info.log", "rank_0/warning.log", "rank_1/info.log"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(lines(TRUE))
    with pytest.raises(InputError, match=r"'0' may be rank_0/info\.log, rank_0/warning\.log: give one of these names"):
        imported(tmp_path, rank="0")
    assert imported(tmp_path, rank="rank_0/info.log").origin == "rank_0/info.log"


def test_of_several_states_of_one_run_the_fullest_is_used(tmp_path: Path) -> None:
    rows = [{"loss": 3.0 - n / 10, "step": n} for n in range(1, 16)]
    for last in (10, 15, 5):
        state(tmp_path / f"checkpoint-{last}", rows[:last])
    run = imported(tmp_path)
    assert run.origin == "checkpoint-15/trainer_state.json" and len(run.steps) == 15
    assert noted(run, "Used checkpoint-15/trainer_state.json of 3 logs; 2 others show a loss too.")


def test_a_log_is_read_from_standard_input(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "harness.cli", "import", "-", "--out", str(tmp_path / "out.json")]
    done = subprocess.run(words, input=lines(TRUE).encode(), capture_output=True, check=False)
    assert done.returncode == 0 and b"mindformers, stdin: 4 steps" in done.stdout, done.stderr


def test_a_log_is_read_from_a_pipe_as_a_shell_gives_it(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(lines(TRUE),))
    writer.start()
    run = imported(pipe)
    writer.join()
    assert numbers(run) == [11.9, 11.8, 11.7, 11.6]


def archive(path: Path, members: dict[str, bytes], mode: Literal["w:gz", "w"] = "w:gz") -> Path:
    with tarfile.open(path, mode) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize(("name", "mode"), [("logs.tar.gz", "w:gz"), ("logs.tgz", "w:gz"), ("logs.tar", "w")])
def test_an_archive_is_read_like_the_directory_in_it(name: str, mode: Literal["w:gz", "w"], tmp_path: Path) -> None:
    members = {f"output/log/rank_{n}/info.log": lines(TRUE if n == 3 else ZERO).encode() for n in range(4)}
    run = imported(archive(tmp_path / name, members, mode))
    assert run.origin == "rank_3/info.log" and numbers(run) == [11.9, 11.8, 11.7, 11.6]
    assert str(tmp_path / name / "output/log/rank_3/info.log") in run.files


def test_an_archive_writes_nothing_outside_and_a_broken_one_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has a file outside of itself"):
        imported(archive(tmp_path / "evil.tar.gz", {"../../evil.log": lines(TRUE).encode()}))
    whole = archive(tmp_path / "logs.tar.gz", {"a.log": lines(TRUE).encode() * 50}).read_bytes()
    (tmp_path / "logs.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"logs\.tar\.gz cannot be unpacked"):
        imported(tmp_path / "logs.tar.gz")
    (tmp_path / "a.log.gz").write_bytes(gzip.compress(lines(TRUE).encode())[:40])
    with pytest.raises(InputError, match=r"a\.log\.gz cannot be read"):
        imported(tmp_path / "a.log.gz")


MEGATRON = [megatron(n, 12.0 - n / 10, of=4) for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("form", [TRUE, TRUE_2, MEGATRON], ids=["1.x", "2.x", "megatron"])
def test_steps_that_share_a_line_keep_their_own_numbers(form: Sequence[str], tmp_path: Path) -> None:
    run = of_text(tmp_path, lines(form[0] + form[1] + form[2], form[3]))
    assert numbers(run) == [11.9, 11.8, 11.7, 11.6] and not noted(run, "cannot be read")


@pytest.mark.parametrize("form", [TRUE, TRUE_2, MEGATRON], ids=["1.x", "2.x", "megatron"])
@pytest.mark.parametrize("left", [0.75, 0.85, 0.93])
def test_a_step_that_another_process_cuts_off_gives_no_number(form: Sequence[str], left: float, tmp_path: Path) -> None:
    run = of_text(tmp_path, lines(form[0], form[1][: int(len(form[1]) * left)] + form[2], form[3]))
    assert [step.step for step in run.steps] == [1, 3, 4] and numbers(run) == [11.9, 11.7, 11.6]
    assert noted(run, "1 line looks like a step but cannot be read: worker_0.log, line 3.")


def test_a_comma_within_a_number_does_not_end_it(tmp_path: Path) -> None:
    run = of_text(tmp_path, lines(mindformers(1, "11,800000", of=4), TRUE[1:]))
    assert numbers(run) == [11.8, 11.7, 11.6] and noted(run, "worker_0.log, line 2")


@pytest.mark.parametrize(
    "line", [mindformers(2, 11.8, of=4, norm="-1.0"), megatron(2, 11.8, of=4, norm="-1.000")], ids=["1.x", "megatron"]
)
def test_a_norm_below_zero_is_none(line: str, tmp_path: Path) -> None:
    first = megatron(1, 11.9, of=4) if "iteration" in line else TRUE[0]
    run = of_text(tmp_path, lines(first, line))
    assert numbers(run) == [11.9, 11.8] and numbers(run, "grad_norm")[1] is None
    assert noted(run, "grad_norm: negative at 1 of 2 steps, so no norm: 2.")


def test_a_log_in_utf_16_is_named_so(tmp_path: Path) -> None:
    path = tmp_path / "console.log"
    path.write_bytes(lines(TRUE).encode("utf-16"))
    with pytest.raises(InputError, match=r"UTF-16. Convert it: iconv"):
        imported(path)


BAR = "".join(f"\r{n // 30:3d}%|####      | {n}/3000 [00:01<00:02, 1.2it/s]" for n in range(3000))
MANY = [mindformers_2(n, 20.0 - n / 64, of=1000) for n in range(1, 1001)]
LONG: dict[str, str] = {
    "a progress bar before a step": lines(MANY[0]) + BAR + "\r" + lines(MANY[1:]),
    "a progress bar without carriage returns": lines(MANY[0]) + BAR.replace("\r", " ") + lines(MANY[1:]),
    "carriage returns in place of line ends": "\r".join(MANY) + "\r",
    "no line ends": "".join(MANY) + "\n",
}


@pytest.mark.parametrize("form", LONG)
def test_a_step_in_a_line_of_any_length_is_read(form: str, tmp_path: Path) -> None:
    assert len(LONG[form]) > 2 * LONGEST
    run = of_text(tmp_path, LONG[form])
    read, unread = numbers(run), [note for note in run.notes if "cannot be read" in note]
    # only a step that lies over the end of what is held at once may be missing, and it is named
    assert read == [20.0 - n / 64 for n in range(1, 1001)] or (len(read) > 990 and unread)
    assert not unread or form == "no line ends"


NINES = "9" * 5000
DIGITS: dict[str, str] = {
    "a step": lines(mindformers_2(1, 5.0), mindformers_2(2, 4.0).replace("    2/", NINES + "/")),
    "a planned number of steps": lines(mindformers_2(1, 5.0), mindformers_2(2, 4.0).replace("   20]", NINES + "]")),
    "an iteration": lines(megatron(1, 5.0), megatron(2, 4.0).replace("       2/", NINES + "/")),
    "planned iterations": lines(megatron(1, 5.0), megatron(2, 4.0).replace("     100 ", NINES + " ")),
}


@pytest.mark.parametrize("what", DIGITS)
def test_a_number_of_thousands_of_digits_is_no_step(what: str, tmp_path: Path) -> None:
    run = of_text(tmp_path, DIGITS[what])
    assert numbers(run) == [5.0] and noted(run, "1 line looks like a step but cannot be read")


def test_nor_is_it_a_rank(tmp_path: Path) -> None:
    text = lines(megatron(1, 5.0), f"[default{NINES}]:" + megatron(2, 4.0))
    assert numbers(of_text(tmp_path, text)) == [5.0, 4.0]


@pytest.mark.parametrize("key", ["step", "max_steps"])
def test_nor_is_one_in_the_state_of_the_trainer(key: str, tmp_path: Path) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text(json.dumps({"max_steps": 2, "log_history": [{"loss": 5.0, "step": 1, key: NINES}], key: NINES}))
    with pytest.raises(InputError, match=r"cannot be read|not a number"):
        imported(path)


def test_no_planned_number_of_steps_is_none(tmp_path: Path) -> None:
    for text in (lines(megatron(1, 5.0, of=0)), lines(mindformers_2(1, 5.0, of=0))):
        run = of_text(tmp_path, text)
        assert run.total is None and numbers(run) == [5.0]
        write_json(tmp_path / "import.json", run)
        assert read_import(tmp_path / "import.json") == run


def test_a_name_may_have_digits_of_any_kind(tmp_path: Path) -> None:
    assert numbers(of_text(tmp_path, lines(TRUE), name="1²")) == [11.9, 11.8, 11.7, 11.6]


@pytest.mark.parametrize(
    "text", ["a" * 60_000, "a " * 30_000, "a:[" * 20_000, "(" * 60_000, " " * 60_000 + "{ step:[1/2],"]
)
def test_what_no_program_prints_is_not_parsed_for_minutes(text: str, tmp_path: Path) -> None:
    started = time.process_time()
    run = of_text(tmp_path, lines(TRUE, "{ step:[    5/    4], " + text, f"{PREFIX}is_skip: {text}"))
    assert numbers(run) == [11.9, 11.8, 11.7, 11.6] and noted(run, "like a step but cannot be read")
    assert time.process_time() - started < 10


def test_a_state_of_the_trainer_that_states_a_number_twice_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text('{"log_history": [{"step": 1, "loss": 5.0, "loss": 4.0}]}')
    with pytest.raises(InputError, match="'loss' is stated twice"):
        imported(tmp_path / "trainer_state.json")
