"""What holds a log is known by its content: archives, compressed files, pipes, directories of other names."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.base.errors import InputError
from harness.logs import ImportedRun, sources
from harness.logs.imports import import_log
from harness.logs.text import LONGEST, lines_of
from tests.support.logs import lines, mindformers, mindformers_2

LOSSES = [11.9, 11.8, 11.7]
LOG = lines([mindformers(n, 12.0 - n / 10, of=3) for n in (1, 2, 3)]).encode()


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("logs/worker_0.log", content)
    return buffer.getvalue()


def tarred(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        info = tarfile.TarInfo("logs/worker_0.log")
        info.size = len(content)
        file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
    "tar.gz": tarred,
    "plain": bytes,
    "emptied while it was written": lambda content: bytes(100_000) + content,
    "emptied, a line over the end of what is read at once": lambda content: bytes(LONGEST - 9) + content,
}


def losses(run: ImportedRun) -> list[float]:
    return [step.loss.value for step in run.steps if step.loss]


def through_a_pipe(content: bytes, pipe: Path) -> ImportedRun:
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    try:
        return import_log([pipe], None, None)
    finally:
        writer.join()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["worker_0.log", "worker_0.log.gz", "worker_0"])
def test_a_log_is_read_in_whatever_form_and_under_whatever_name(form: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FORMS[form](LOG))
    assert losses(import_log([path], None, None)) == LOSSES


@pytest.mark.parametrize("form", FORMS)
def test_a_log_is_read_from_a_pipe_in_whatever_form(form: str, tmp_path: Path) -> None:
    assert losses(through_a_pipe(FORMS[form](LOG), tmp_path / "pipe")) == LOSSES


def test_a_log_of_2_x_from_a_pipe_is_no_state_of_a_trainer(tmp_path: Path) -> None:
    bare = [mindformers_2(n, 12.0 - n / 10) for n in (1, 2, 3)]
    text = "\n".join(line[line.index("{ step") :] for line in bare) + "\n"
    assert losses(through_a_pipe(text.encode(), tmp_path / "pipe")) == LOSSES


def test_an_error_names_the_file_that_the_user_gave(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        through_a_pipe(b"no step here\n", tmp_path / "pipe")
    assert str(tmp_path / "pipe") in str(refused.value) and "certify-import-" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (zipped(LOG)[:-40], "is a ZIP archive that is cut or damaged"),
        (b"\x28\xb5\x2f\xfd" + LOG, "compressed by zstd, which is not read. Decompress it: zstd -d"),
        (gzip.compress(LOG)[:-20], "cannot be read"),
        (lzma.compress(LOG)[:-20], "cannot be read"),
        (b"{'loss': 3.4, 'grad_norm': 1.5, 'learning_rate': 1e-05}\n", "give that file"),
        (b'{"current_steps": 1, "loss": 3.4, "lr": 1e-05}\n', "Its numbers are read from trainer_state.json"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_states_why(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "worker_0.log"
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        import_log([path], None, None)
    assert why in str(refused.value) and str(path) in str(refused.value)


@pytest.mark.parametrize("name", ["slurm-1234.out", "run_log-1-7.txt", "train.log.2026-11-25"])
def test_a_directory_of_logs_under_other_names_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(LOG)
    assert losses(import_log([tmp_path], None, None)) == LOSSES


def test_a_directory_without_a_log_is_an_error_that_names_no_program(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"1")
    with pytest.raises(InputError, match=r"holds no file \*\.log\* or \*\.out\* or \*\.txt\*\. Give the file"):
        import_log([tmp_path], None, None)


def test_a_rank_is_chosen_by_the_directory_that_torchrun_names_it_by(tmp_path: Path) -> None:
    for rank in (0, 7):
        (tmp_path / f"attempt_0/{rank}").mkdir(parents=True)
        (tmp_path / f"attempt_0/{rank}/stdout.log").write_bytes(LOG)
    assert import_log([tmp_path], None, "7").origin == "7/stdout.log"


def test_lines_that_grep_found_in_several_files_are_those_of_several_ranks(tmp_path: Path) -> None:
    path = tmp_path / "all.log"
    ranks = {0: [0.0, 0.0, 0.0], 1: LOSSES, 10: [1.0, 2.0, 3.0]}
    path.write_text(
        lines(
            [
                f"msrun_log/worker_{rank}.log:{mindformers(n, loss, of=3)}"
                for rank, values in ranks.items()
                for n, loss in enumerate(values, 1)
            ]
        )
    )
    run = import_log([path], None, None)
    assert losses(run) == LOSSES and run.origin == "msrun_log/worker_1.log"
    assert losses(import_log([path], None, "10")) == [1.0, 2.0, 3.0]
    assert not any("earlier run" in note for note in run.notes)


MEMBER: dict[str, Callable[[bytes], bytes]] = {"tar.gz": gzip.compress, "tar": bytes}


def headed(kind: bytes, size: int, name: str = "a.log", content: bytes = b"") -> bytes:
    """An archive of one header, which states what follows it."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512 + 1024)


def pax(record: bytes) -> bytes:
    line = b" path=" + record + b"\n"
    length = len(line) + 2
    content = str(length).encode() + line
    assert len(content) == length
    return headed(tarfile.XHDTYPE, length, content=content)[:1024] + headed(tarfile.REGTYPE, 4, content=b"loss")


# What a small archive or compressed file can hold, and why it is refused.
BOMBS: dict[str, tuple[bytes, str]] = {
    "a name of 80 MiB": (headed(tarfile.GNUTYPE_LONGNAME, 80 << 20, content=bytes(80 << 20)), "a header in it would"),
    "a link of 80 MiB": (headed(tarfile.GNUTYPE_LONGLINK, 80 << 20, content=bytes(80 << 20)), "a header in it would"),
    "attributes of 80 MiB": (headed(tarfile.XHDTYPE, 80 << 20, content=bytes(80 << 20)), "a header in it would"),
    "attributes of all of 80 MiB": (headed(tarfile.XGLTYPE, 80 << 20, content=bytes(80 << 20)), "a header in it would"),
    "a file of 9 GiB": (headed(tarfile.REGTYPE, 9 << 30), "holds more than 8 GiB"),
    "a file of minus one byte": (headed(tarfile.REGTYPE, 0).replace(b"00000000000\0", b"-0000000001\0", 1), ""),
    "a name with a zero byte": (pax(b"logs/a\0b.log"), "a file whose name holds a zero byte"),
    "a name that leads elsewhere": (headed(tarfile.REGTYPE, 4, "../../a.log", b"loss"), "a file outside of itself"),
    "a name from the root": (headed(tarfile.REGTYPE, 4, "/tmp/a.log", b"loss"), "a file outside of itself"),
}


@pytest.mark.parametrize("form", MEMBER)
@pytest.mark.parametrize("name", BOMBS)
def test_an_archive_that_harms_who_unpacks_it_is_refused(form: str, name: str, tmp_path: Path) -> None:
    content, why = BOMBS[name]
    (tmp_path / f"logs.{form}").write_bytes(MEMBER[form](content))
    with pytest.raises(InputError) as error:
        import_log([tmp_path / f"logs.{form}"], None, None)
    assert why in str(error.value)


def test_an_archive_of_too_many_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_FILES", 3)
    with tarfile.open(tmp_path / "logs.tar.gz", "w:gz") as tar, zipfile.ZipFile(tmp_path / "logs.zip", "w") as file:
        for number in range(4):
            tar.addfile(tarfile.TarInfo(f"worker_{number}.log"))
            file.writestr(f"worker_{number}.log", b"")
    for name in ("logs.tar.gz", "logs.zip"):
        with pytest.raises(InputError, match="holds more than 3 files"):
            import_log([tmp_path / name], None, None)


@pytest.mark.parametrize("compress", [gzip.compress, bytes], ids=["gzip", "plain"])
def test_a_line_without_an_end_is_never_held_whole(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    (tmp_path / "a.log").write_bytes(compress(b"x" * (24 << 20)))
    tracemalloc.start()
    try:
        longest = max(map(len, lines_of(tmp_path / "a.log")))
        assert longest == LONGEST and tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
